"""Adds to the site what stands elsewhere in the repository: results/ with figures and logs, and the notes on speed.

The links of the pages are those of the repository, so that they can be followed there too. In the site, the folder
docs/ is the root.
"""

import os
import re
from pathlib import Path

from mkdocs.structure.files import File

ROOT = Path(__file__).resolve().parent.parent
DOCS = ROOT / "docs"
KINDS = (".json", ".jsonl", ".md", ".png")
LINK = re.compile(r"\]\((?!https?://|#)([^)#\s]+)")


def on_files(files, config):
    """Returns the files of the site with those that are added."""
    results = [path for path in sorted((ROOT / "results").rglob("*")) if path.suffix in KINDS]
    for path in (*results, ROOT / "benchmarks" / "NOTES.md"):
        files.append(File.generated(config, str(path.relative_to(ROOT)), abs_src_path=str(path)))
    return files


def on_page_markdown(markdown, page, config, files):
    """Returns the text of a page with the links of the site. Links to the directory of a run lead to its log."""
    source = Path(page.file.abs_src_path)

    def in_site(link):
        target = Path(os.path.normpath(source.parent / link[1]))
        if (target / "metrics.jsonl").is_file():
            target /= "metrics.jsonl"
        return f"]({os.path.relpath(_place(target), _place(source).parent)}"

    return LINK.sub(in_site, markdown)


def _place(path):
    """Returns where a file of the repository stands in the site."""
    return path.relative_to(DOCS if path.is_relative_to(DOCS) else ROOT)
