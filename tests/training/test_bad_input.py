"""Bad input ends in one clear sentence and exit status 2 before anything is written; nothing is lost."""

import errno
import fcntl
import json
import os
import tempfile
from pathlib import Path

import numpy as np
import pytest
from privileges import without_privileges
from training.runs import SMALL, TINY, command_line

from allconv_resnet import cli
from allconv_resnet.data import prepared
from allconv_resnet.data.source import load_data
from allconv_resnet.errors import BadInput
from allconv_resnet.training import predict, run_directory, run_state
from allconv_resnet.training.engines import distribution
from allconv_resnet.training.loop import train

NAMES = ("cifar10", "cifar100", "cifar10-small", "digits")


def refuse(arguments, capsys, status=2):
    """Runs a training command that must fail; returns what it says."""
    with pytest.raises(SystemExit) as stop:
        cli.train_command(NAMES, [str(argument) for argument in arguments])
    assert stop.value.code == status
    said = capsys.readouterr()
    return said.out + said.err


@pytest.fixture
def run_dir(tmp_path):
    return tmp_path / "run"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--steps", "-5"], "steps must be greater than or equal to 1. Received: steps=-5"),
        (["--steps", "0"], "steps must be greater than or equal to 1"),
        (["--batch-size", "0"], "batch_size must be greater than or equal to 1"),
        (["--learning-rate", "nan"], "learning_rate must be a finite number"),
        (["--momentum", "1"], "momentum must be less than 1"),
        (["--seed", "-1"], "seed must be greater than or equal to 0"),
        (["--boundaries", "20", "10"], "boundaries must increase"),
        (
            ["--kernel-sizes", "3", "0"],
            "kernel_sizes (entry 2) must be greater than or equal to 1. Received",
        ),
        (["--clip-norm", "0"], "clip_norm must be greater than 0"),
        (["--label-smoothing", "1"], "label_smoothing must be less than 1"),
        (["--cutout", "-1"], "cutout must be greater than or equal to 0"),
        (["--cutout", "33"], "cutout must be at most the height and width"),
        (["--schedule", "linear", "--boundaries", "3"], "--boundaries is an option of --schedule steps"),
        (["--smallest-crop", "0.5"], "--smallest-crop is an option of --data records. This recipe has --data arrays"),
        (["--depth", "20"], "--depth is an option of --network resnet or densenet_bc"),
        (["--warmup-steps", "-1"], "warmup_steps must be greater than or equal to 0"),
        (["--optimizer", "adam"], "optimizer must be one of"),
        (["--whitened-stem", "--stem", "13", "2", "2", "1"], "The network cannot be built: filters must be at most"),
        (["--shortcut", "dense"], "shortcut must be"),
        (["--precision", "float8"], "invalid choice"),
        (["--normalization", "layer"], "normalization must be"),
        (
            ["--initialization", "tiny"],
            "The network cannot be built: Could not interpret initializer identifier: tiny",
        ),
        (["--activation", "rulu"], "The network cannot be built: "),
        (["--stages", "1", "16", "1", "1", "8", "1"], "filters=8"),
        (["--strategy", "mirrored", "--replicas", "3"], "batch_size must be a multiple of the replicas, 3"),
        (
            ["--schedule", "epochs", "--decay-epochs", "0.1", "--epoch-images", "9"],
            "decay_epochs is shorter than one step",
        ),
        (["--schedule", "epochs", "--decay-epochs", "inf"], "decay_epochs must be a finite number"),
        (["--name", ""], "name must not be empty"),
        (["--learning-rate", "1e300"], "learning_rate must be less than 2000000"),
        (["--boundaries", "9" * 20], "boundaries (entry 1) must be less than 2147483648"),
        (["--decay-factor", "inf"], "decay_factor must be a finite number"),
        (["--schedule", "epochs", "--decay-epochs", "nan"], "decay_epochs must be a finite number"),
        (["--stages", "-1", "16", "1"], "stages (entry 1.1) must be greater than or equal to 1"),
        (["--stem", "4", "3", "4", "0"], "stem (entry 4) must be greater than or equal to 1"),
        (["--clip-norm", "inf"], "clip_norm must be a finite number"),
        (["--weight-decay", "inf"], "weight_decay must be a finite number"),
        (["--image-size", "-1", "32", "3"], "image_size (entry 1) must be greater than or equal to 1"),
        (["--dataset", ""], "dataset must not be empty"),
        (["--peer-timeout", "nan"], "peer_timeout must be a finite number"),
        (["--minutes", "-1"], "minutes must be greater than or equal to 0"),
        (["--replicas", "0"], "replicas must be greater than or equal to 1"),
        (["--smallest-crop", "2", "--data", "records"], "smallest_crop must be less than or equal to 1"),
        (["--padding", "100000"], "padding must be less than 65536"),
        (["--padding", "60000"], "of memory is needed (images"),
        (["--kernel-sizes", "99999999", "3"], "kernel_sizes (entry 1) must be less than 65536"),
        (["--kernel-sizes", "65000", "3"], "of memory is needed (images"),
        (["--batch-size", "100000000"], "of memory is needed (images 389 GB"),
        (["--stages"], "stages must not be empty"),
        (["--strategy", "one", "--replicas", "2"], "strategy one has one replica"),
        (["--num-classes", "7"], "num_classes=7, but digits has 10 classes"),
        (["--image-size", "28", "28", "1"], "expects uint8 images of shape (28, 28, 1)"),
        (["--dataset", "cifra10"], "no dataset 'cifra10'"),
    ],
    ids=lambda value: "-".join(value)[2:] if isinstance(value, list) else "",
)
def test_values_that_cannot_be_used(options, message, run_dir, capsys, tmp_path):
    said = refuse(["--recipe", "digits", "--run-dir", run_dir, "--data-dir", tmp_path / "data", *options], capsys)
    assert message in " ".join(said.split()) and "Traceback" not in said
    assert not run_dir.exists()


@pytest.mark.parametrize("options", [["--stepz", "5"], ["--steps", "many"], ["--recipe", "digitz"]], ids="-".join)
def test_options_that_the_command_line_does_not_have(options, run_dir, capsys):
    said = refuse(["--recipe", "digits", *options, "--run-dir", run_dir], capsys)
    assert options[-1] in said or options[0] in said
    assert not run_dir.exists()


def test_a_recipe_has_no_such_field():
    with pytest.raises(BadInput, match="no field stepz"):
        TINY.replace(stepz=3)


def test_a_data_directory_without_the_set(run_dir, tmp_path, capsys, monkeypatch):
    monkeypatch.setitem(prepared.ORIGINS, "cifar10", "http://127.0.0.1:9/")
    said = refuse(["--recipe", "cifar10", "--data-dir", tmp_path / "data", "--run-dir", run_dir], capsys)
    assert str(tmp_path / "data" / "cifar10") in said and "tfds build" in said and "--recipe digits" in said
    assert not run_dir.exists()


@pytest.mark.parametrize("place", ["a-file/run", "/proc/run"])
def test_a_directory_that_cannot_be_written_to(place, tmp_path, capsys):
    (tmp_path / "a-file").write_text("")
    said = refuse(command_line(TINY, tmp_path / place), capsys)
    assert "cannot be written to" in said and place.split("/")[-2] in said


def test_a_run_directory_of_another_recipe(run_dir, capsys):
    train(TINY.replace(steps=2), run_dir)
    before = {path: path.read_bytes() for path in run_dir.rglob("*") if path.is_file()}
    said = refuse(command_line(TINY.replace(learning_rate=0.5, seed=3, steps=2), run_dir), capsys)
    assert "learning_rate is 0.05 there and 0.5 here; seed is 0 there and 3 here" in " ".join(said.split())
    assert before == {path: path.read_bytes() for path in run_dir.rglob("*") if path.is_file()}


def test_a_run_may_be_prolonged(run_dir):
    train(TINY.replace(steps=2), run_dir)
    train(TINY.replace(steps=4), run_dir)
    steps = [json.loads(line)["step"] for line in (run_dir / "metrics.jsonl").read_text().splitlines()]
    assert max(steps) == 4
    assert run_directory.read_recipe(run_dir).run.steps == 4


def test_a_directory_that_is_no_run(tmp_path, capsys):
    with pytest.raises(SystemExit) as stop:
        cli.main(["evaluate", str(tmp_path)])
    assert stop.value.code == 2
    assert "has no config.json" in capsys.readouterr().err
    (tmp_path / "config.json").write_text('{"name": "x"')
    with pytest.raises(BadInput, match="cannot be read as a recipe"):
        run_directory.read_recipe(tmp_path)


def test_two_processes_cannot_train_in_one_directory(run_dir, capsys):
    with run_directory.RunDirectory(run_dir):
        said = refuse(command_line(TINY, run_dir), capsys)
    assert "Another process is training" in said


def test_precision_auto_follows_the_hardware():
    resolve = distribution.resolve_precision
    assert resolve("float32", {"amx_bf16"}, []) == "float32"
    assert resolve("bfloat16", set(), []) == "bfloat16"
    assert resolve("auto", {"avx512f", "amx_bf16"}, []) == "bfloat16"
    assert resolve("auto", {"avx512_bf16"}, []) == "bfloat16"
    assert resolve("auto", {"avx512f", "avx512_vnni"}, []) == "float32"
    assert resolve("auto", {"amx_bf16"}, [(7, 0)]) == "float32"
    assert resolve("auto", set(), [(8, 0), (9, 0)]) == "bfloat16"
    assert resolve("auto", set(), [(9, 0), (7, 5)]) == "float32"


def test_a_run_keeps_the_precision_that_it_began_with(run_dir):
    train(TINY.replace(precision="bfloat16", steps=2), run_dir)
    assert run_state.resolve_recipe(run_dir, TINY.replace(precision="auto"), "float32").precision == "bfloat16"


def test_a_file_system_without_locks(run_dir, monkeypatch, capsys):
    def flock(*_):
        raise OSError(errno.ENOSYS, "Function not implemented")

    monkeypatch.setattr(fcntl, "flock", flock)
    said = refuse(command_line(TINY, run_dir), capsys)
    assert "must be on a file system that has locks, but flock failed: Function not implemented" in said
    assert "Another process" not in said


def test_directories_that_may_not_be_entered_and_names_that_no_file_can_have(tmp_path):
    with pytest.raises(BadInput, match="cannot be written to: File name too long"):
        train(SMALL, tmp_path / ("a" * 300), given=set())
    with tempfile.TemporaryDirectory() as place:  # pytest's own directories are closed to others
        os.chmod(place, 0o755)
        closed = Path(place, "closed")
        (closed / "photos" / "train").mkdir(parents=True)
        os.chmod(closed, 0)
        for given in (set(), None):
            with without_privileges(), pytest.raises(BadInput, match="cannot be written to: Permission denied"):
                train(SMALL, closed / "run", given=given)
        for path in (closed / "photos", closed / "photos.npz", closed / "photos.tar.gz", closed):
            with without_privileges(), pytest.raises(BadInput, match="cannot be read: Permission denied"):
                load_data(str(path))
        os.chmod(closed, 0o755)


def write_arrays(path, channels=3, names=("ant", "bee", "cat")):
    """Writes random images of three classes to a file of arrays, and returns a recipe that trains on them."""
    draw = np.random.default_rng(0)
    images, labels = draw.integers(0, 256, (48, 8, 8, channels), dtype=np.uint8), np.arange(48) % 3
    arrays = {"x_train": images, "y_train": labels, "x_test": images[:16], "y_test": labels[:16]}
    np.savez(path, **arrays, names=np.array(names))
    return SMALL.replace(dataset=str(path), num_classes=3, image_size=(8, 8, channels), steps=2, boundaries=())


def test_a_run_of_other_classes_is_not_continued(run_dir, tmp_path, capsys):
    recipe = write_arrays(tmp_path / "some.npz")
    train(recipe, run_dir)
    longer = write_arrays(tmp_path / "some.npz", names=("aardvark", "ant", "cat")).replace(steps=4)
    before = {path: path.read_bytes() for path in run_dir.rglob("*") if path.is_file()}
    said = " ".join(refuse(command_line(longer, run_dir), capsys).split())
    assert "was trained on other classes than" in said and "'ant' there and 'aardvark' here; 'bee' there and" in said
    assert "or begin anew with --overwrite" in said and "'cat'" not in said
    assert before == {path: path.read_bytes() for path in run_dir.rglob("*") if path.is_file()}
    assert "If the same classes have new names, delete labels.txt" in said
    (run_dir / "labels.txt").unlink()
    assert train(longer, run_dir) is None
    assert run_directory.read_labels(run_dir) == ["aardvark", "ant", "cat"]


@pytest.mark.parametrize("channels", [2, 4, 5])
def test_images_of_other_channels_than_files_have(run_dir, tmp_path, channels):
    from PIL import Image

    train(write_arrays(tmp_path / "some.npz", channels), run_dir)
    for name, mode in (("colours.png", "RGB"), ("transparent.png", "RGBA"), ("grey.png", "L")):
        Image.new(mode, (8, 8)).save(tmp_path / name)
    names = [str(path) for path in sorted(tmp_path.glob("*.png"))]
    if channels == 4:
        answers = list(predict.predict_run(run_dir, names))
        assert [answer["image"] for answer in answers] == names
        assert all(len(answer["predictions"]) == 3 for answer in answers)
    else:
        with pytest.raises(BadInput, match=rf"1, 3 or 4 channels.* Received: image_size=\(8, 8, {channels}\)"):
            list(predict.predict_run(run_dir, names))


def test_the_fourth_channel_of_a_file_is_read(tmp_path):
    from PIL import Image

    pixels = np.random.default_rng(0).integers(0, 256, (8, 8, 4), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "some.png")
    read = predict.decode_with_pillow("some.png", (tmp_path / "some.png").read_bytes(), (8, 8, 4), 1.0)
    np.testing.assert_array_equal(read, pixels)
