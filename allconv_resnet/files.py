"""Atomic writes: after a kill or on a full disk a file is either the old one or the new one, and never incomplete."""

import contextlib
import json
import os
import shutil
from pathlib import Path


@contextlib.contextmanager
def replacing(path):
    """Yields a temporary path beside `path`. What is written there replaces `path` when the block ends.

    The temporary path has the suffix of `path`, since some writers choose a format by it. If the block raises, the
    temporary file or directory is removed and `path` stays as it was.

    Args:
        path: Path of a file or directory. Its parent directory must exist.
    """
    path = Path(path)
    temporary = path.with_name(f".{os.getpid()}.{path.name}")
    old = path.with_name(f".{os.getpid()}.old.{path.name}")
    try:
        yield temporary
        if path.is_dir():  # a directory cannot be replaced in one step
            os.rename(path, old)
        try:
            os.replace(temporary, path)
        except OSError:
            if old.exists():
                os.rename(old, path)
            raise
    finally:
        for rest in (temporary, old):
            shutil.rmtree(rest) if rest.is_dir() else rest.unlink(missing_ok=True)


def write_text(path, text):
    """Writes a text file atomically, in UTF-8.

    Args:
        path: Path.
        text: String.
    """
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json(path, content):
    """Writes a JSON file atomically.

    Args:
        path: Path.
        content: What `json.dumps` takes. Numbers must be finite.
    """
    write_text(path, json.dumps(content, indent=2, allow_nan=False) + "\n")
