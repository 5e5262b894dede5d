"""Bad input ends in one clear sentence and exit status 2 before anything is written; nothing is lost."""

import json

import numpy as np
import pytest
from training.runs import TINY, command_line

from allconv_resnet import cli
from allconv_resnet.data import sources
from allconv_resnet.errors import BadInput
from allconv_resnet.training import run_directory, strategy
from allconv_resnet.training.loop import train

NAMES = ("cifar10", "cifar100", "cifar10-small", "digits")


def refuse(arguments, capsys, status=2):
    """Runs a training command that must fail; returns what it says."""
    with pytest.raises(SystemExit) as stop:
        cli.train(NAMES, [str(argument) for argument in arguments])
    assert stop.value.code == status
    said = capsys.readouterr()
    return said.out + said.err


@pytest.fixture
def run_dir(tmp_path):
    return tmp_path / "run"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--steps", "-5"], "steps must be positive. Received: steps=-5"),
        (["--steps", "0"], "steps must be positive"),
        (["--batch-size", "0"], "batch_size must be positive"),
        (["--learning-rate", "nan"], "learning_rate must be positive"),
        (["--momentum", "1"], "momentum must be at least 0 and below 1"),
        (["--seed", "-1"], "seed must not be negative"),
        (["--boundaries", "20", "10"], "boundaries must be positive and increase"),
        (["--kernel-sizes", "3", "0"], "kernel_sizes must be positive. Received: kernel_sizes=(3, 0)"),
        (["--clip-norm", "0"], "clip_norm must be positive"),
        (["--label-smoothing", "1"], "label_smoothing must be at least 0 and below 1"),
        (["--cutout", "-1"], "cutout must not be negative"),
        (["--cutout", "33"], "cutout must be at most the height and width"),
        (["--linear-decay"], "linear_decay takes the place of boundaries"),
        (["--warmup-steps", "-1"], "warmup_steps must not be negative"),
        (["--optimizer", "adam"], "optimizer must be one of"),
        (["--whitened-stem", "--stem", "13", "2", "2", "1"], "There can be no such network: filters must be at most"),
        (["--shortcut", "dense"], "shortcut must be one of"),
        (["--precision", "float8"], "precision must be one of"),
        (["--normalization", "layer"], "normalization must be one of"),
        (
            ["--initialization", "tiny"],
            "There can be no such network: Could not interpret initializer identifier: tiny",
        ),
        (["--activation", "rulu"], "There can be no such network: "),
        (["--stages", "1", "16", "1", "1", "8", "1"], "filters=8"),
        (["--strategy", "mirrored", "--replicas", "3"], "batch_size must be a multiple of the replicas, 3"),
        (["--decay-epochs", "0", "--epoch-images", "9", "--boundaries"], "decay_epochs must be at least a step"),
        (["--strategy", "one", "--replicas", "2"], "strategy one has one replica"),
        (["--num-classes", "7"], "num_classes=7, but digits has 10 classes"),
        (["--image-size", "28", "28", "1"], "expects uint8 images of shape (28, 28, 1)"),
        (["--dataset", "cifra10"], "no data set 'cifra10'"),
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
    monkeypatch.setitem(sources.ORIGINS, "cifar10", "http://127.0.0.1:9/")
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
    assert run_directory.read_recipe(run_dir).steps == 4


def test_a_directory_that_is_no_run(tmp_path, capsys):
    with pytest.raises(SystemExit) as stop:
        cli.main(["evaluate", str(tmp_path)])
    assert stop.value.code == 2
    assert "has no config.json" in capsys.readouterr().err
    (tmp_path / "config.json").write_text('{"name": "x"')
    with pytest.raises(BadInput, match="not a recipe"):
        run_directory.read_recipe(tmp_path)


def test_two_processes_cannot_train_in_one_directory(run_dir, capsys):
    with run_directory.RunDirectory(run_dir):
        said = refuse(command_line(TINY, run_dir), capsys)
    assert "Another process is training" in said


def test_a_loss_that_is_not_finite(run_dir, capsys):
    wild = TINY.replace(learning_rate=1e6, initialization="he", checkpoint_every=1)
    said = refuse(command_line(wild, run_dir), capsys, status=1)
    assert "The loss is not finite at step" in said and "with learning rate 1e+06" in said
    bad = int(said.split("not finite at step ")[1].split(",")[0])
    kept = {path.name for path in (run_dir / "checkpoints").glob("step-*.index")}
    assert kept == {f"step-{step}.index" for step in range(max(1, bad - 3), bad)}
    assert not (run_dir / "model.keras").exists()


def test_images_of_a_wrong_shape_or_dtype():
    data = sources.load("digits")
    with pytest.raises(BadInput, match=r"uint8 images of shape \(32, 32, 1\)"):
        data.check((32, 32, 1), 10)
    floats = sources.ImageData(
        "floats", 10, data.train_images.astype(np.float32), data.train_labels, data.test_images, data.test_labels, ()
    )
    with pytest.raises(BadInput, match="has float32 images"):
        floats.check((32, 32, 3), 10)


def test_precision_auto_follows_the_hardware():
    resolve = strategy.resolve_precision
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
    assert run_directory.resolve(run_dir, TINY.replace(precision="auto"), "float32").precision == "bfloat16"
