"""The versions of an export on disk."""

import contextlib
import os
from pathlib import Path

FILE = "saved_model.pb"


def versions_of(export):
    """Returns a dictionary from the number of each version of an export to its path.

    Versions are directories with a SavedModel whose name is a number. What is being written has another name.

    Args:
        export: Path of an export, or of one version of it.

    Raises:
        OSError: if the directory cannot be read.
    """
    export = Path(export)
    if (export / FILE).is_file():
        return {int(export.name) if is_version(export.name) else 1: export}
    try:
        return {int(path.name): path for path in export.iterdir() if is_version(path.name) and (path / FILE).is_file()}
    except (FileNotFoundError, NotADirectoryError):
        return {}


def is_version(name):
    """Returns whether a name is that of a version: at most 18 of the digits from 0 to 9."""
    return name.isascii() and name.isdigit() and len(name) <= 18


def fingerprint(directory):
    """Returns what changes when a version is replaced, or when more of it has been copied.

    Args:
        directory: Path of the version.

    Raises:
        OSError: if the directory cannot be read.
    """
    found = []
    for folder, _, names in os.walk(directory, onerror=_fail):
        for name in names:
            with contextlib.suppress(FileNotFoundError):  # removed in the meantime
                stat = os.stat(os.path.join(folder, name))
                found.append((folder, name, stat.st_ino, stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns))
    return tuple(sorted(found))


def _fail(error):
    if not isinstance(error, FileNotFoundError):
        raise error
