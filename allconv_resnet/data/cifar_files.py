"""The original files of CIFAR-10 and CIFAR-100: a directory of pickled batches, or the archive with it.

torchvision, Keras and the page of the authors (https://www.cs.toronto.edu/~kriz/cifar.html) leave them on disk. Pickles
can run any program when they are read, so these are read with an unpickler that knows NumPy arrays alone.
"""

import contextlib
import io
import itertools
import pickle
import tarfile
import zlib
from importlib import import_module
from pathlib import Path

import numpy as np

from allconv_resnet.data.arrays import ArraySource
from allconv_resnet.errors import BadInput

SIZE = (32, 32, 3)
MAX_BYTES = 2**28  # larger files are not read; that of CIFAR-100 has 155 MB
ARCHIVES = (".tar.gz", ".tgz", ".tar")
LAYOUTS = {  # the file with the names of the classes: their key, the key of the labels, and the files of each split
    "batches.meta": (
        b"label_names",
        b"labels",
        {"train": [f"data_batch_{number}" for number in range(1, 6)], "test": ["test_batch"]},
    ),
    "meta": (b"fine_label_names", b"fine_labels", {"train": ["train"], "test": ["test"]}),
}
ADMITTED = {
    (module, name)
    for package in ("numpy.core", "numpy._core")
    for module, name in ((f"{package}.multiarray", "_reconstruct"), ("numpy", "ndarray"), ("numpy", "dtype"))
}


class ArrayUnpickler(pickle.Unpickler):
    """An unpickler that knows the functions of NumPy arrays and no others."""

    def find_class(self, module, name):
        if (module, name) not in ADMITTED:
            raise pickle.UnpicklingError(f"it asks for {module}.{name}, which is not a part of NumPy arrays")
        return getattr(import_module(module.replace("numpy.core", "numpy._core")), name)


def is_cifar(path):
    """Returns whether a path is that of the original files: a directory that has them, or an archive.

    Args:
        path: Path.
    """
    if path.name.endswith(ARCHIVES):
        return True
    if not any((path / meta).is_file() for meta in LAYOUTS):
        return False
    # A folder of images may have a file of such a name too, but its classes are folders.
    return not any(each.is_dir() and not each.name.startswith(".") for each in path.iterdir())


def from_cifar(path):
    """Returns the source of the original files of CIFAR-10 or CIFAR-100 (with its 100 fine labels).

    Args:
        path: Path of the directory `cifar-10-batches-py` or `cifar-100-python`, or of an archive that contains it.

    Returns:
        `ArraySource` with the splits `train` and `test`.

    Raises:
        BadInput: if a file is missing or damaged, or has anything else than images and labels.
    """
    contents = _archived(path) if path.name.endswith(ARCHIVES) else _Directory(path)
    meta = next((meta for meta in LAYOUTS if meta in contents), None)
    if meta is None:
        raise BadInput(f"{path} must have the original files of CIFAR-10 or CIFAR-100, such as {' or '.join(LAYOUTS)}")
    names, labels, files = LAYOUTS[meta]
    if missing := [name for split in files.values() for name in split if name not in contents]:
        raise BadInput(f"{path} has no file {missing[0]}")

    def read(split):
        batches = [_batch(path, name, contents[name], labels) for name in files[split]]
        return tuple(np.concatenate(parts) for parts in zip(*batches, strict=True))

    with _readable(path, meta):
        label_names = [name.decode() for name in _unpickle(contents[meta])[names]]
    return ArraySource(str(path), label_names, {split: lambda split=split: read(split) for split in files}, SIZE)


def _batch(path, name, content, labels):
    with _readable(path, name):
        batch = _unpickle(content)
        images = batch[b"data"].reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1)  # rows of red, green and blue planes
        return images, np.array(batch[labels])


def _unpickle(content):
    return ArrayUnpickler(io.BytesIO(content), encoding="bytes").load()


@contextlib.contextmanager
def _readable(path, name):
    try:
        yield
    except Exception as error:  # a damaged pickle can raise any type of error
        raise BadInput(f"The file {name} of {path} cannot be read: {str(error) or type(error).__name__}") from error


class _Directory(dict):
    """The contents of the files of a directory by name, which are read when they are needed."""

    def __init__(self, path):
        self._path = path

    def __contains__(self, name):
        return (self._path / name).is_file()

    def __missing__(self, name):
        try:
            with open(self._path / name, "rb") as file:
                return file.read(MAX_BYTES)
        except OSError as error:
            raise BadInput(f"{self._path / name} cannot be read: {error.strerror}") from error


def _archived(path):
    """Returns the contents of the files of an archive that belong to CIFAR, by their names without a directory."""
    wanted = {name for meta, (*_, files) in LAYOUTS.items() for name in (meta, *itertools.chain(*files.values()))}
    contents = {}
    try:
        with tarfile.open(path) as archive:
            for member in archive:
                if member.isfile() and (name := Path(member.name).name) in wanted and member.size <= MAX_BYTES:
                    contents[name] = archive.extractfile(member).read()
    except (OSError, EOFError, tarfile.TarError, zlib.error) as error:
        raise BadInput(f"{path} cannot be read as an archive: {error}") from error
    return contents
