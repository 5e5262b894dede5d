"""Atomic writes: the old content or the new one, never a part, and nothing left beside it."""

import os

import pytest

from allconv_resnet import files


@pytest.mark.parametrize("kind", ["file", "directory"])
@pytest.mark.parametrize("failure", [None, "in the block", "in the rename"])
def test_old_or_new(tmp_path, monkeypatch, kind, failure):
    path = tmp_path / "x.txt"
    write(path, kind, "old")
    real = os.replace

    def replace(source, target):
        if failure == "in the rename":
            raise OSError(28, "No space left on device")
        real(source, target)

    monkeypatch.setattr(os, "replace", replace)
    try:
        with files.replacing(path) as temporary:
            assert temporary.suffix == ".txt"
            write(temporary, kind, "new")
            if failure == "in the block":
                raise OSError("no")
    except OSError:
        assert failure
    assert read(path, kind) == ("old" if failure else "new")
    assert list(tmp_path.iterdir()) == [path]


def write(path, kind, text):
    if kind == "directory":
        path.mkdir()
        path = path / "inside"
    path.write_text(text)


def read(path, kind):
    return (path / "inside" if kind == "directory" else path).read_text()
