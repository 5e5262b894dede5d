"""Adds to the site what stands elsewhere in the repository: results/ with figures and logs, and the notes on speed."""

import re
from pathlib import Path

from mkdocs.structure.files import File

ROOT = Path(__file__).parent.parent
KINDS = (".json", ".jsonl", ".md", ".png")


def on_files(files, config):
    """Returns the files of the site with those that are added."""
    results = [path for path in sorted((ROOT / "results").rglob("*")) if path.suffix in KINDS]
    for path in (*results, ROOT / "benchmarks" / "NOTES.md"):
        files.append(File.generated(config, str(path.relative_to(ROOT)), abs_src_path=str(path)))
    return files


def on_page_markdown(markdown, page, config, files):
    """Returns the text of a page in which links to the directory of a run lead to its log."""

    def to_log(link):
        directory = ROOT / Path(page.file.src_uri).parent / link[1]
        return f"]({link[1]}/metrics.jsonl)" if (directory / "metrics.jsonl").is_file() else link[0]

    return re.sub(r"\]\(([\w./-]+)\)", to_log, markdown)
