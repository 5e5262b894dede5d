"""Reads the image files that a command line names."""

import sys
from pathlib import Path

from allconv_resnet.errors import BadInput

SUFFIXES = {".jpg", ".jpeg", ".png"}


def image_files(paths):
    """Yields the name and the content of each image file.

    Args:
        paths: Sequence of paths of files or of directories, which are searched for JPEG and PNG files, or `-` for
            standard input.

    Yields:
        Pairs of a string and bytes.

    Raises:
        BadInput: if a path does not exist, or a directory has no JPEG or PNG file.
    """
    for path in map(Path, paths):
        if str(path) == "-":
            yield "-", sys.stdin.buffer.read()
        elif path.is_dir():
            files = sorted(file for file in path.rglob("*") if file.suffix.lower() in SUFFIXES)
            if not files:
                raise BadInput(f"The directory {path} has no JPEG or PNG file")
            yield from ((str(file), _content(file)) for file in files)
        elif path.exists():
            yield str(path), _content(path)
        else:
            raise BadInput(f"There is no image {path}")


def _content(path):
    try:
        return path.read_bytes()
    except OSError as error:
        raise BadInput(f"The image {path} cannot be read: {error.strerror}") from error
