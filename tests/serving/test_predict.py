"""`allconv-resnet predict` on whatever stands on a command line or lies in a directory, and on damaged exports."""

import io
import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image
from privileges import without_privileges
from serving.hostile import png_header
from training.runs import TINY

from allconv_resnet import cli
from allconv_resnet.errors import BadInput
from allconv_resnet.progress import Progress
from allconv_resnet.serving.export import export_savedmodel
from allconv_resnet.serving.predict import predict_export
from allconv_resnet.training.loop import train
from allconv_resnet.training.predict import decode_with_pillow

LABELS = [f"Größe {number}" for number in range(10)]


def png(seed=0):
    file = io.BytesIO()
    Image.fromarray(np.random.default_rng(seed).integers(0, 256, (32, 32, 3), dtype=np.uint8)).save(file, "PNG")
    return file.getvalue()


@pytest.fixture(scope="module")
def export(tmp_path_factory):
    directory = tmp_path_factory.mktemp("export")
    export_savedmodel(TINY.build_model(), LABELS, directory, version=7)
    return directory


@pytest.fixture(scope="module")
def run_dir(tmp_path_factory):
    directory = tmp_path_factory.mktemp("run") / "run"
    train(TINY.replace(steps=2), directory)
    return directory


@pytest.fixture
def pictures(tmp_path):
    """A directory with two good images and all that is found beside them."""
    folder = tmp_path / "pictures"
    (folder / "folder.png").mkdir(parents=True)
    (folder / "good.png").write_bytes(png())
    (folder / "folder.png" / "inner.png").write_bytes(png(1))
    (folder / "._good.png").write_bytes(b"what macOS writes")
    (folder / "link.png").symlink_to(tmp_path / "nowhere")
    (folder / "cut.png").write_bytes(png()[:200])
    (folder / "text.jpg").write_bytes(b"no image")
    (folder / "empty.jpeg").write_bytes(b"")
    return folder


def command(*arguments):
    with pytest.raises(SystemExit) as stop:
        cli.main([str(argument) for argument in arguments])
    return stop.value.code


@pytest.mark.parametrize("network", ["export", "run_dir"])
def test_one_bad_file_does_not_hide_the_others(network, request, pictures, capsys):
    network = request.getfixturevalue(network)
    assert command("predict", network, pictures, "", pictures / "absent.png", pictures / "good.png") == 1
    said = capsys.readouterr()
    names = [line.partition(": ")[0].removeprefix(f"{pictures}/") for line in said.out.splitlines()]
    assert names == ["folder.png/inner.png", "good.png", "good.png"]
    for bad in ("cut.png", "text.jpg", "empty.jpeg"):
        assert f"error: {pictures / bad} is not an image that can be read: " in said.err
    assert f"The image {pictures / 'link.png'} is a link to nothing" in said.err
    assert f"There is no image {pictures / 'absent.png'}" in said.err
    assert "The path of an image must not be empty" in said.err
    assert "6 of 9 images could not be read. All others were predicted" in said.err
    assert "._good" not in said.err and "Traceback" not in said.err and "function_node" not in said.err


def test_files_and_directories_without_permission(export, pictures, capsys):
    with tempfile.TemporaryDirectory() as place:  # pytest's own directories are closed to others
        os.chmod(place, 0o755)
        shutil.copytree(export, f"{place}/export")
        os.chmod(f"{place}/export", 0)
        with without_privileges():
            assert command("predict", f"{place}/export", f"{place}/pictures") == 2
        assert f"The export in {place}/export cannot be read: Permission denied" in capsys.readouterr().err
        os.chmod(f"{place}/export", 0o755)
        shutil.copytree(pictures, f"{place}/pictures", symlinks=True)
        for name in ("closed.png", "closed"):
            path = Path(place, "pictures", name)
            path.write_bytes(png()) if path.suffix else path.mkdir()
            path.chmod(0)
        with without_privileges():
            assert command("predict", f"{place}/export", f"{place}/pictures") == 1
        said = capsys.readouterr()
        for what, name in (("image", "closed.png"), ("directory", "closed")):
            assert f"The {what} {place}/pictures/{name} cannot be read: Permission denied" in said.err
        assert len(said.out.splitlines()) == 2 and "6 of 8 images could not be read" in said.err


def test_what_predicts_is_said_and_a_top_that_is_too_large(export, run_dir, pictures, capsys):
    for network, said in ((export, f"Predictions of {export / '7'}"), (run_dir, f"Predictions of {run_dir} at step 2")):
        assert command("predict", network, pictures / "good.png", "--top", "12") == 0
        out, err = capsys.readouterr()
        assert said in err and "The network has 10 classes. Received: top=12" in err
        assert out.count("%") == 10


def test_more_classes_than_the_export_answers_with(export, pictures, tmp_path, capsys):
    answers = {}
    for top in (3, 5, 6, 10):
        assert command("predict", export, pictures / "good.png", "--top", top, "--json-lines") == 0
        (answers[top],) = (json.loads(line)["predictions"] for line in capsys.readouterr().out.splitlines())
    assert [len(answer) for answer in answers.values()] == [3, 5, 6, 10]
    for answer in answers.values():
        for got, want in zip(answer, answers[10], strict=False):
            assert (got["class"], got["label"]) == (
                want["class"],
                want["label"] == LABELS[want["class"]] and want["label"],
            )
            assert got["probability"] == pytest.approx(want["probability"], rel=1e-5)
    assert sum(each["probability"] for each in answers[10]) == pytest.approx(1)
    shutil.copytree(export, tmp_path / "old")
    (tmp_path / "old" / "7" / "labels.txt").unlink()  # as exports were before
    assert command("predict", tmp_path / "old", pictures / "good.png", "--top", "5") == 0
    assert command("predict", tmp_path / "old", pictures / "good.png", "--top", "6") == 2
    assert "More than 5 classes need" in capsys.readouterr().err


@pytest.mark.parametrize("stream", ["empty", "closed"])
def test_standard_input_without_an_image(export, stream, monkeypatch, capsys):
    monkeypatch.setattr(sys, "stdin", None if stream == "closed" else io.TextIOWrapper(io.BytesIO()))
    assert command("predict", export, "-") == 1
    said = capsys.readouterr().err
    assert "Standard input has no image" in said and "1 of 1 images could not be read" in said


def test_progress_on_many_images(export, pictures, monkeypatch, capsys):
    monkeypatch.setattr(Progress, "due", lambda progress: True)  # it is due every 30 s
    assert command("predict", export, *[pictures / "good.png"] * 70, pictures / "text.jpg") == 1
    said = capsys.readouterr()
    assert len(said.out.splitlines()) == 70
    shown = [line for line in said.err.splitlines() if " images  " in line]
    assert len(shown) == 71 and shown[0].startswith("1 of 71 images  ") and shown[-1].startswith("71 of 71 images  ")


def test_without_images_there_is_a_sentence(export, tmp_path, capsys):
    assert command("predict", export) == 2
    assert "predict needs the paths of images" in capsys.readouterr().err
    assert command("predict", export, tmp_path) == 1
    assert f"The directory {tmp_path} has no JPEG or PNG file" in capsys.readouterr().err


PREDICT = "import sys; from allconv_resnet import cli; cli.main(sys.argv[1:])"


@pytest.mark.slow
def test_head_ends_it_in_silence_and_an_ascii_terminal_gets_escapes(export, pictures):
    images = [str(pictures / "good.png")] * 200
    environment = {**os.environ, "PYTHONUTF8": "0", "PYTHONIOENCODING": "ascii", "PYTHONUNBUFFERED": "1"}
    predict = subprocess.Popen(
        [sys.executable, "-c", PREDICT, "predict", str(export), *images],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=environment,
    )
    first = predict.stdout.readline().decode("ascii")
    predict.stdout.close()
    said = predict.stderr.read().decode("ascii")
    assert predict.wait(120) == 128 + 13
    assert "Traceback" not in said and "BrokenPipe" not in said
    assert first.count("Gr\\xf6\\xdfe") == 5


FILES = ("saved_model.pb", "variables/variables.index", "variables/variables.data-00000-of-00001")


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("damage", ["empty", "cut", "binary", "gone", "directory"])
def test_a_damaged_export_is_one_sentence(export, name, damage, tmp_path, capsys):
    shutil.copytree(export, tmp_path / "copy")
    path = tmp_path / "copy" / "7" / name
    content = path.read_bytes()
    path.unlink()
    if damage == "directory":
        path.mkdir()
    elif damage != "gone":
        parts = {"empty": b"", "cut": content[: len(content) // 2], "binary": os.urandom(len(content))}
        path.write_bytes(parts[damage])
    (tmp_path / "good.png").write_bytes(png())
    assert command("predict", tmp_path / "copy", tmp_path / "good.png") == 2
    said = capsys.readouterr().err
    sentence = said[said.index("error: ") :].strip()
    assert len(sentence.splitlines()) == 1 and "function_node" not in sentence, said
    assert "cannot be loaded" in sentence or "has no exported model" in sentence


def test_other_callers_get_the_errors_as_answers(export, pictures):
    answers = list(predict_export(export, [pictures / "good.png", pictures / "text.jpg"]))
    assert [sorted(answer) for answer in answers] == [["image", "predictions"], ["error", "image"]]


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"no image", "The image must be a JPEG or a PNG file. Received: 8 bytes"),
        (png()[:29] + b"damage" + png()[35:], "the PNG file is damaged"),
        (png_header(30_000, 30_000), "The image must have from 1 to 33,554,432 pixels"),
    ],
    ids=["text", "damaged", "large"],
)
def test_a_run_refuses_what_its_export_refuses(content, reason, monkeypatch):
    monkeypatch.delitem(Image.OPEN, "MPO", raising=False)  # as in a process that has read no such file
    with pytest.raises(BadInput, match=f"x is not an image that can be read: {reason}"):
        decode_with_pillow("x", content, (8, 8, 3), 1.0)


def test_pictures_of_16_bits_are_decoded_as_in_training(tmp_path):
    values = np.linspace(0, 65_535, 64, dtype=np.uint16).reshape(8, 8)
    Image.fromarray(values).save(tmp_path / "deep.png")
    content = (tmp_path / "deep.png").read_bytes()
    ours = decode_with_pillow("deep.png", content, (8, 8, 1), 1.0)
    np.testing.assert_array_equal(ours, tf.io.decode_png(content, channels=1).numpy())
