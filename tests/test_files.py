"""Atomic writes: the old content or the new one, never a part, and nothing left beside it."""

import os
import tempfile

import pytest
from privileges import without_privileges

from allconv_resnet import files
from allconv_resnet.errors import BadInput


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


def test_leftovers_of_killed_processes_alone_are_removed(tmp_path):
    alive, killed = f".allconv_resnet-{os.getppid()}.5", ".allconv_resnet-99999999.5"
    for name in (alive, killed, f".allconv_resnet-{os.getpid()}.6", ".2024.notes", ".digits"):
        (tmp_path / name).mkdir()
    files.remove_leftovers(tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {alive, ".2024.notes", ".digits"}


@pytest.mark.parametrize("kind", ["file", "directory"])
def test_what_a_link_names_is_replaced(tmp_path, kind):
    (tmp_path / "disk").mkdir()
    write(tmp_path / "disk" / "x", kind, "old")
    (tmp_path / "x").symlink_to(tmp_path / "disk" / "x")
    with files.replacing(tmp_path / "x") as temporary:
        write(temporary, kind, "new")
    assert (tmp_path / "x").is_symlink() and read(tmp_path / "disk" / "x", kind) == "new"
    assert [path.name for path in (tmp_path / "disk").iterdir()] == ["x"]


def test_an_output_directory_is_checked_before_there_is_an_output(tmp_path):
    assert files.output_directory(None, "details") is None
    assert files.output_directory(tmp_path / "a" / "b", "details") == tmp_path / "a" / "b"
    assert not list(tmp_path.iterdir())
    (tmp_path / "file").write_text("")
    (tmp_path / "link").symlink_to(tmp_path / "nothing")
    for path, problem in (
        (tmp_path / "file", "file is a file"),
        (tmp_path / "file" / "a", "file is a file"),
        (tmp_path / "link", "link is a link to nothing"),
        (tmp_path / ("a" * 300), "cannot be read: File name too long"),
    ):
        with pytest.raises(BadInput, match=f"details must be a directory that can be written to.*{problem}"):
            files.output_directory(path, "details")
        with pytest.raises(BadInput, match=f"output must be a file that can be written.*{problem}"):
            files.output_file(path / "figure.png", "output")
    with pytest.raises(BadInput, match=r"details must be the path of a directory\. Received: details=''"):
        files.output_directory("", "details")


def test_a_directory_that_is_not_ours_is_no_output_directory():
    with tempfile.TemporaryDirectory() as folder:  # pytest's own directories are closed to others
        os.chmod(folder, 0o555)
        with without_privileges():
            with pytest.raises(BadInput, match=f"directory that can be written to.* {folder} may not be written to"):
                files.output_directory(f"{folder}/a", "details")
            with pytest.raises(BadInput, match=f"file that can be written.* {folder} may not be written to"):
                files.output_file(f"{folder}/a.png", "output")


def test_an_output_file_is_no_directory(tmp_path):
    with pytest.raises(BadInput, match=r"output must be a file that can be written\. .* is a directory"):
        files.output_file(tmp_path, "output")
    assert files.output_file(tmp_path / "a" / "b.png", "output") == tmp_path / "a" / "b.png"
    assert not list(tmp_path.iterdir())
