"""Reads the image files that a command line names."""

import os
import sys
from pathlib import Path

from allconv_resnet.errors import BadInput
from allconv_resnet.serving.encoded import inspect as inspect  # for whoever decodes what is read here

SUFFIXES = {".jpg", ".jpeg", ".png"}
MAX_BYTES = 2**28  # larger files are not read


def image_files(paths):
    """Yields the name and the content of each image file. One bad file does not hide the others.

    Args:
        paths: Sequence of paths of files or of directories, which are searched for JPEG and PNG files, or `-` for
            standard input. Files of a directory whose names begin with a dot are not images, such as the `._` files of
            macOS.

    Yields:
        Pairs of a string, and bytes, or a `BadInput` that says why there are none.
    """
    for name, problem in _found(paths):
        yield name, problem or (_standard_input() if name == "-" else _content(Path(name)))


def count_images(paths):
    """Returns how many pairs `image_files` yields for the same paths, without reading the files."""
    return sum(1 for _ in _found(paths))


def _found(paths):
    """Yields the names of the files, each with the `BadInput` that says why it cannot be read, or None."""
    for path in map(str, paths):
        if not path:
            yield path, BadInput("The path of an image must not be empty. Received: ''")
        elif path != "-" and os.path.isdir(path):
            yield from _files_of(Path(path))
        else:
            yield path, None


def _files_of(directory):
    problems, found = [], []
    for folder, _, names in os.walk(directory, onerror=problems.append):
        found += [Path(folder, name) for name in names if _is_image_name(name)]
    for problem in problems:
        yield problem.filename, BadInput(f"The directory {problem.filename} cannot be read: {problem.strerror}")
    if not found and not problems:
        yield str(directory), BadInput(f"The directory {directory} has no JPEG or PNG file")
    yield from ((str(file), None) for file in sorted(found))


def _standard_input():
    content = sys.stdin.buffer.read(MAX_BYTES + 1) if sys.stdin else b""  # None if the shell has closed it
    if not content:
        return BadInput("Standard input has no image. Received: nothing")
    return content if len(content) <= MAX_BYTES else _too_large("on standard input")


def _is_image_name(name):
    return Path(name).suffix.lower() in SUFFIXES and not name.startswith(".")


def _content(path):
    try:
        with open(path, "rb") as file:
            content = file.read(MAX_BYTES + 1)
    except FileNotFoundError:
        link = path.is_symlink()
        return BadInput(f"The image {path} is a link to nothing" if link else f"There is no image {path}")
    except (OSError, ValueError) as error:  # the latter is raised for names that no file can have
        return BadInput(f"The image {path} cannot be read: {getattr(error, 'strerror', None) or error}")
    if len(content) > MAX_BYTES:
        return _too_large(path)
    return content


def _too_large(where):
    return BadInput(f"An image must have at most {MAX_BYTES:,} bytes. Received: more in the image {where}")
