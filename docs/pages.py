"""Runs the blocks of code of a Markdown page from top to bottom, and writes what they print into the page.

    python docs/pages.py docs/tutorials/*.md    # `make tutorials`: writes the outputs and the figures of these pages

Blocks of `sh` share one shell, and blocks of `python` share their names. They run in an empty directory in which the
files of the checkout can be read. Comments, which no reader sees, say what is special:

    <!-- not run: REASON -->    The next block is not run.
    <!-- unseen: COMMANDS -->   These commands of the shell run here, in place of blocks that are not run.
    <!-- output -->             The next block, of `text`, is what has been printed since the last such comment.
    <!-- figure: PATH -->       The image on the next line is a copy of the file PATH.
"""

import contextlib
import io
import os
import re
import shlex
import signal
import socket
import subprocess
import sys
import tempfile
from pathlib import Path
from threading import Timer
from typing import NamedTuple

ROOT = Path(__file__).resolve().parent.parent
PART = re.compile(
    r"^<!-- (?P<comment>not run|unseen|output|figure)(?:: (?P<text>.*?))? -->\n"
    r"|^(?P<fence>```+)(?P<language>\w*).*?\n(?P<code>.*?)^(?P=fence)$"
    r"|^!\[[^]]*\]\((?P<image>[^)]+)\)",
    re.DOTALL | re.MULTILINE,
)
PORT = "8501"  # of the pages; a free one takes its place
END = "the end of a block"
PROGRESS = re.compile(r".*  (\d+ h|\d+ min|\d+ s).* left\n")  # how many of these lines there are depends on the machine
BETWEEN_RUNS = re.compile(r"bfloat16|float32|(?<!\w)-?[\d,]*\d\.?\d*(e[+-]?\d+)?|\s+")


class Block(NamedTuple):
    """A part of a page: a block of code, a comment or an image."""

    kind: str  # "sh", "python", "text", ..., "unseen", "output" or "figure"; "" for a block without a language
    code: str
    line: int
    not_run: str | None  # the reason, for a block that is not run
    span: tuple  # where the code, or the path of the image, stands in the text


def blocks(text):
    """Returns the list of `Block` of a page, from top to bottom."""
    found, comment = [], None
    for match in PART.finditer(text):
        line = text.count("\n", 0, match.start()) + 1
        if match["comment"] == "unseen":
            found.append(Block("unseen", match["text"], line, None, match.span("text")))
        elif match["comment"]:
            comment = match
        elif match["fence"]:
            kind = "output" if comment and comment["comment"] == "output" else match["language"]
            reason = comment["text"] if comment and comment["comment"] == "not run" else None
            found.append(Block(kind, match["code"], line, reason, match.span("code")))
            comment = None
        elif comment and comment["comment"] == "figure":
            found.append(Block("figure", comment["text"], line, None, match.span("image")))
            comment = None
    return found


def run(path, directory, timeout=600):
    """Runs the blocks of a page in an empty directory.

    Args:
        path: Path of the page.
        directory: Path of the empty directory.
        timeout: Number, seconds after which the shell of the page is killed.

    Returns:
        The text of the page with the outputs of this run, and a dictionary from the paths of its figures to the
        contents of the files.
    """
    text = path.read_text(encoding="utf-8")
    for entry in ROOT.iterdir():
        if entry.name not in {"runs", "results", "site", ".git", ".venv", "dist"}:
            (directory / entry.name).symlink_to(entry)
    names, printed, replaced, figures = {"__name__": "__main__"}, "", [], {}
    with Shell(directory, timeout) as shell, contextlib.chdir(directory):
        for block in blocks(text):
            if block.not_run is not None:
                continue
            if block.kind in ("sh", "unseen"):
                printed += shell.run(block.code)
            elif block.kind == "python":
                printed += _run_python(block, path, names)
            elif block.kind == "output":
                replaced.append((block.span, f"{printed.rstrip()}\n"))
                printed = ""
            elif block.kind == "figure":
                figures[path.parent / text[slice(*block.span)]] = (directory / block.code).read_bytes()
    for (start, end), output in reversed(replaced):
        text = text[:start] + output + text[end:]
    return text, figures


def _run_python(block, path, names):
    from matplotlib import pyplot

    printed = io.StringIO()
    program = compile("\n" * block.line + block.code, str(path), "exec")  # so that errors name the line of the page
    with contextlib.redirect_stdout(printed):
        exec(program, names)
    pyplot.close("all")
    return printed.getvalue()


class Shell:
    """One shell in which the blocks of a page run one after the other. A command that fails ends it."""

    def __init__(self, directory, timeout):
        self.files = tempfile.TemporaryDirectory()
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = str(free.getsockname()[1])
        # The commands are those of this checkout, even if another one is installed.
        command = Path(self.files.name, "allconv-resnet")
        command.write_text(f'#!/bin/sh\nexec {sys.executable} {ROOT}/allconv_resnet_command.py "$@"\n')
        command.chmod(0o755)
        path = os.pathsep.join([self.files.name, os.path.dirname(sys.executable), os.environ["PATH"]])
        environment = {name: value for name, value in os.environ.items() if name != "TF_CPP_MIN_LOG_LEVEL"}
        self.process = subprocess.Popen(
            ["bash", "-eu"],
            cwd=directory,
            env={**environment, "PATH": path, "PYTHONPATH": str(ROOT), "HOME": str(directory), "COLUMNS": "100"},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,  # with all that it starts
        )
        self.process.stdin.write("trap 'status=$?; trap \"\" TERM; kill 0; exit $status' EXIT\n")
        self.timer = Timer(timeout, os.killpg, (self.process.pid, signal.SIGKILL))
        self.timer.start()

    def run(self, code):
        """Runs commands and returns what they print."""
        block = Path(self.files.name, "block")
        block.write_text(code.replace(PORT, self.port))
        self.process.stdin.write(f"source {shlex.quote(str(block))} < /dev/null; echo; echo {shlex.quote(END)}\n")
        self.process.stdin.flush()
        printed = []
        for line in self.process.stdout:
            if line == f"{END}\n":
                return "".join(printed)[:-1].replace(self.port, PORT)  # without the newline of `echo`
            if not PROGRESS.fullmatch(line):
                printed.append(line)
        raise RuntimeError(f"A command ended with status {self.process.wait()}:\n{code}\n{''.join(printed)}")

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.stdin.close()
        self.process.stdout.read()
        self.process.wait()
        self.timer.cancel()
        self.files.cleanup()


def same_words(one, other):
    """Returns whether two outputs differ in numbers, spaces and the precision alone, which depend on the machine."""
    return BETWEEN_RUNS.sub(" ", one).split() == BETWEEN_RUNS.sub(" ", other).split()


def main(paths):
    """Runs pages and writes their outputs and figures."""
    os.environ["MPLBACKEND"] = "Agg"
    sys.path.insert(0, str(ROOT))
    for path in map(Path, paths):
        with tempfile.TemporaryDirectory() as directory:
            text, figures = run(path.resolve(), Path(directory))
            path.write_text(text, encoding="utf-8")
            for place, figure in figures.items():
                place.parent.mkdir(exist_ok=True)
                place.write_bytes(figure)
        print(path)


if __name__ == "__main__":
    main(sys.argv[1:])
