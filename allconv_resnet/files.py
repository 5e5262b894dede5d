"""Atomic writes: after a kill or on a full disk a file is either the old one or the new one, and never incomplete."""

import contextlib
import errno
import json
import os
import re
import shutil
import stat
from pathlib import Path

from allconv_resnet.errors import BadInput

# The names that `replacing` gives. No one else's file has such a name.
TEMPORARY = re.compile(r"\.allconv_resnet-(?P<process>\d+)\.(?P<old>old\.)?(?P<name>.+)")


@contextlib.contextmanager
def replacing(path):
    """Yields a temporary path beside `path`. What is written there replaces `path` when the block ends.

    The temporary path has the suffix of `path`, since some writers choose a format by it. If the block raises, the
    temporary file or directory is removed and `path` stays as it was.

    Args:
        path: Path of a file or directory. Its parent directory must exist.

    Raises:
        IsADirectoryError: if a file was written, but `path` is a directory, whose files would be lost.
    """
    path = Path(path)
    path = path.resolve() if path.is_symlink() else path  # what a link names is replaced, and not the link
    temporary = path.with_name(f".allconv_resnet-{os.getpid()}.{path.name}")
    old = path.with_name(f".allconv_resnet-{os.getpid()}.old.{path.name}")
    try:
        yield temporary
        if path.is_dir():  # a directory cannot be replaced in one step
            if not temporary.is_dir():
                raise IsADirectoryError(errno.EISDIR, f"{path} is a directory, where a file must be written")
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


def expand(path, name, bucket=False):
    """Returns a path without a leading `~` or `~user`, or None if the path is None.

    Shells expand `~` in `--run-dir ~/x`, but not in `--run-dir=~/x`.

    Args:
        path: Path or string, or None.
        name: String, name of the argument for messages.
        bucket: Boolean, whether the path may be that of a bucket, such as `gs://BUCKET/DIR`, which is returned as a
            string.

    Raises:
        BadInput: if the path is empty, there is no such user, or it is in a bucket and must not be.
    """
    if path is None:
        return None
    if not os.fspath(path):
        raise BadInput(f"{name} must be the path of a directory. Received: {name}={path!r}")
    if in_bucket(path):
        path = re.sub(":/+", "://", os.fspath(path), count=1)  # Path makes one slash of the two
        if bucket:
            return path
        raise BadInput(
            f"{name} must be on a file system of this machine, where a bucket can be mounted. Received: {name}={path!r}"
        )
    try:
        return Path(path).expanduser()
    except RuntimeError as error:
        raise BadInput(f"{name} must name a home directory that exists. Received: {name}={str(path)!r}") from error


def output_directory(path, name):
    """Returns the path of a directory that a long computation will write to, or None if the path is None.

    Nothing is created.

    Args:
        path: Path or string, or None.
        name: String, name of the argument for messages.

    Raises:
        BadInput: as in `expand`, and if the directory does not exist and cannot be created, or cannot be written to.
    """
    path = expand(path, name)
    if path is not None and (problem := _problem(path)):
        raise BadInput(f"{name} must be a directory that can be written to. Received: {str(path)!r}, and {problem}")
    return path


def output_file(path, name):
    """Returns the path of a file that a long computation will write.

    Nothing is created.

    Args:
        path: Path or string.
        name: String, name of the argument for messages.

    Raises:
        BadInput: as in `expand`, and if it is a directory, or its directory does not exist and cannot be created, or
            cannot be written to.
    """
    path = expand(path, name)
    if problem := f"{path} is a directory" if os.path.isdir(path) else _problem(path.parent):
        raise BadInput(f"{name} must be a file that can be written. Received: {str(path)!r}, and {problem}")
    return path


def _problem(directory):
    """Returns why a directory cannot be written to or created, or None if it can."""
    for there in (directory.absolute(), *directory.absolute().parents):
        try:
            mode = os.stat(there).st_mode
        except (FileNotFoundError, NotADirectoryError):
            if there.is_symlink():
                return f"{there} is a link to nothing"
            continue  # the directory above will have it
        except OSError as error:
            return f"{there} cannot be read: {error.strerror}"
        if not stat.S_ISDIR(mode):
            return f"{there} is a file"
        return None if os.access(there, os.W_OK | os.X_OK, effective_ids=True) else f"{there} may not be written to"


def in_bucket(path):
    """Returns whether a path is that of a bucket, such as `gs://BUCKET/DIR`."""
    return bool(re.match("[A-Za-z][A-Za-z0-9+.-]+:/", os.fspath(path)))


def absolute(path):
    """Returns a path as a string that is valid in every working directory. A bucket stays as it is."""
    return os.fspath(path) if in_bucket(path) else str(Path(path).resolve())


def copy_damaged(path):
    """Copies a damaged file to `NAME.damaged-1` beside it, or to the first such name that is free.

    Args:
        path: Path of the file.

    Returns:
        Path of the copy.
    """
    path, number = Path(path), 1
    while (copy := path.with_name(f"{path.name}.damaged-{number}")).exists():
        number += 1
    shutil.copy(path, copy)
    return copy


def remove_leftovers(directory):
    """Removes what killed processes left of `replacing` in a directory.

    If a process was killed between its two renames of a directory, the old directory gets its name back. What belongs
    to another process of this machine that is alive is left alone.

    Args:
        directory: Path. Its subdirectories are left alone.
    """
    directory = Path(directory)
    for path in sorted(directory.iterdir()) if directory.is_dir() else []:
        parts = TEMPORARY.fullmatch(path.name)
        if not parts or _is_another(int(parts["process"])):
            continue
        if parts["old"] and not (directory / parts["name"]).exists():
            os.rename(path, directory / parts["name"])
        elif path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink()


def _is_another(process):
    """Returns whether a process number is that of another process that is alive."""
    try:
        os.kill(process, 0)
    except PermissionError:
        return True
    except (ProcessLookupError, OverflowError):
        return False
    return process != os.getpid()
