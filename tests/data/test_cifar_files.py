"""The original files of CIFAR, and pickles that are more than they should be."""

import os
import pickle
import tarfile

import numpy as np
import pytest

import allconv_resnet as acr
from allconv_resnet import cli
from allconv_resnet.errors import BadInput

RNG = np.random.default_rng(0)


def as_python_2(content):
    """Returns a pickle as Python 2 wrote the original files: bytes are its strings, and NumPy has its old name."""
    written = pickle.dumps(content, protocol=2, fix_imports=True)
    return written.replace(b"numpy._core.multiarray", b"numpy.core.multiarray")


class Old(pickle._Pickler):
    """Pickles bytes as Python 2 pickled its strings."""

    dispatch = pickle._Pickler.dispatch.copy()

    def save_bytes(self, text):
        self.write(pickle.BINSTRING + len(text).to_bytes(4, "little") + text)
        self.memoize(text)

    dispatch[bytes] = save_bytes


def write_pickle(path, content):
    with open(path, "wb") as file:
        Old(file, protocol=2).dump(content)
    path.write_bytes(path.read_bytes().replace(b"numpy._core.multiarray", b"numpy.core.multiarray"))


def write_cifar10(directory, n=6):
    """Writes files as the originals are; returns the images `[n, 32, 32, 3]` and labels of both splits."""
    directory.mkdir(parents=True)
    images, labels = RNG.integers(0, 256, (6, n, 32, 32, 3), dtype=np.uint8), RNG.integers(0, 10, (6, n))
    for number, name in enumerate([*(f"data_batch_{i}" for i in range(1, 6)), "test_batch"]):
        planes = images[number].transpose(0, 3, 1, 2).reshape(n, 3072)
        write_pickle(directory / name, {b"data": planes, b"labels": labels[number].tolist(), b"batch_label": b"x"})
    names = [f"class {number}".encode() for number in range(10)]
    write_pickle(directory / "batches.meta", {b"label_names": names, b"num_vis": 3072})
    (directory / "readme.html").write_text("")
    return {
        "train": (images[:5].reshape(-1, 32, 32, 3), labels[:5].ravel()),
        "test": (images[5], labels[5]),
    }


def write_cifar100(directory, n=6):
    directory.mkdir(parents=True)
    arrays = {}
    for split in ("train", "test"):
        images, labels = RNG.integers(0, 256, (n, 32, 32, 3), dtype=np.uint8), RNG.integers(0, 100, n)
        planes = images.transpose(0, 3, 1, 2).reshape(n, 3072)
        content = {b"data": planes, b"fine_labels": labels.tolist(), b"coarse_labels": [0] * n}
        write_pickle(directory / split, content)
        arrays[split] = images, labels
    write_pickle(directory / "meta", {b"fine_label_names": [b"%d" % n for n in range(100)], b"coarse_label_names": []})
    return arrays


@pytest.mark.parametrize("form", ["directory", "archive"])
@pytest.mark.parametrize(
    ("name", "write", "classes"),
    [("cifar-10-batches-py", write_cifar10, 10), ("cifar-100-python", write_cifar100, 100)],
)
def test_the_original_files_are_read(tmp_path, name, write, classes, form):
    written = write(tmp_path / name)
    path = tmp_path / name
    if form == "archive":
        path = tmp_path / f"{name}.tar.gz"
        with tarfile.open(path, "w:gz") as archive:
            archive.add(tmp_path / name, arcname=name)
    source = acr.load_data(str(path))
    assert (source.kind, source.image_size, len(source.label_names)) == ("arrays", (32, 32, 3), classes)
    assert source.label_names[3] == ("class 3" if classes == 10 else "3")
    for split, (images, labels) in written.items():
        np.testing.assert_array_equal(source.arrays(split)[0], images)
        np.testing.assert_array_equal(source.arrays(split)[1], labels)
    assert source.arrays("train")[0].dtype == np.uint8


class Harmful:
    def __init__(self, path, function=os.system):
        self.path, self.function = path, function

    def __reduce__(self):
        return self.function, (f"touch {self.path}",)


@pytest.mark.parametrize("function", [os.system, eval, exec, open, np.load, np.ctypeslib.load_library])
def test_a_crafted_pickle_is_refused_and_runs_nothing(tmp_path, function):
    write_cifar10(tmp_path / "cifar")
    (tmp_path / "cifar" / "data_batch_3").write_bytes(
        pickle.dumps({b"data": Harmful(tmp_path / "harm", function), b"labels": []})
    )
    with pytest.raises(BadInput, match=r"The file data_batch_3 of .* asks for .*, which is not a part of NumPy arrays"):
        acr.load_data(str(tmp_path / "cifar")).arrays("train")
    (tmp_path / "cifar" / "batches.meta").write_bytes(pickle.dumps(Harmful(tmp_path / "harm", function)))
    with pytest.raises(BadInput, match=r"The file batches\.meta of .* is not a part of NumPy arrays"):
        acr.load_data(str(tmp_path / "cifar"))
    assert not (tmp_path / "harm").exists()
    pickle.loads(pickle.dumps(Harmful(tmp_path / "harm")))  # an ordinary unpickler would have run it
    assert (tmp_path / "harm").exists()


CASES = {
    "a batch is missing": (lambda f: (f / "data_batch_4").unlink(), "has no file data_batch_4"),
    "a batch is cut": (
        lambda f: (f / "test_batch").write_bytes((f / "test_batch").read_bytes()[:900]),
        "The file test_batch of .* cannot be read",
    ),
    "a batch is text": (lambda f: (f / "test_batch").write_text("text"), "The file test_batch of .* cannot be read"),
    "no images": (
        lambda f: write_pickle(f / "test_batch", {b"labels": []}),
        "The file test_batch of .* cannot be read",
    ),
    "huge images": (
        lambda f: (f / "test_batch").write_bytes(as_python_2({b"data": Huge(), b"labels": []})),
        "The file test_batch of .* cannot be read",
    ),
}


class Huge:
    """An array of 2^60 bytes in a few bytes of pickle."""

    def __reduce__(self):
        return np._core.multiarray._reconstruct, (np.ndarray, (2**60,), b"b")


@pytest.mark.parametrize("case", CASES)
def test_damage_is_said_in_a_sentence(tmp_path, case):
    write_cifar10(tmp_path / "cifar")
    change, message = CASES[case]
    change(tmp_path / "cifar")
    with pytest.raises(BadInput, match=message):
        acr.load_data(str(tmp_path / "cifar")).arrays("test")


@pytest.mark.parametrize("content", [b"", b"text", b"\x1f\x8b\x08\x00damaged"])
def test_an_archive_that_is_none(tmp_path, content):
    (tmp_path / "some.tar.gz").write_bytes(content)
    with pytest.raises(BadInput, match=r"some\.tar\.gz cannot be read as an archive"):
        acr.load_data(str(tmp_path / "some.tar.gz"))
    with tarfile.open(tmp_path / "some.tar.gz", "w:gz"):
        pass
    with pytest.raises(BadInput, match="must have the original files of CIFAR-10 or CIFAR-100"):
        acr.load_data(str(tmp_path / "some.tar.gz"))


def test_training_on_them_is_one_option(tmp_path, capsys):
    write_cifar100(tmp_path / "cifar-100-python", n=32)
    options = ["--stem", "4", "3", "4", "1", "--stages", "1", "8", "1", "--steps", "2", "--batch-size", "16"]
    options += ["--dataset", str(tmp_path / "cifar-100-python"), "--no-export", "--run-dir", str(tmp_path / "run")]
    with pytest.raises(SystemExit) as stop:
        cli.train_command(arguments=options)
    assert stop.value.code == 0
    assert "num_classes=100" in capsys.readouterr().err
    assert len((tmp_path / "run" / "labels.txt").read_text().splitlines()) == 100
