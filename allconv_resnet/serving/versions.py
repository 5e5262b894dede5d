"""The versions of an export on disk."""

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
    """
    found = []
    for path in sorted(Path(directory).rglob("*")):
        try:
            stat = path.stat()
        except OSError:  # removed in the meantime
            continue
        found.append((str(path), stat.st_ino, stat.st_size, stat.st_mtime_ns))
    return tuple(found)
