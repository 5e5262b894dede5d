"""Keras on JAX: the same command, the same numbers, on all devices of a machine, and without TensorFlow."""

import json
import shutil

import numpy as np
import pytest
from training.runs import TINY, JaxRun, Run, lines

from allconv_resnet import cli, recipes
from allconv_resnet.data.arrays import save_npz
from allconv_resnet.data.source import load_data

WITHOUT_TENSORFLOW = """
import itertools, sys
sys.modules["tensorflow"] = None  # now `import tensorflow` fails
from allconv_resnet import cli
for end, words in itertools.groupby(sys.argv[1:], "&&".__eq__):
    command = [] if end else [*words]
    try:
        if command[:1] == ["train"]:
            cli.train_command(("digits",), command[1:])
        elif command:
            cli.main(command)
    except SystemExit as stop:
        if stop.code:
            raise
"""  # it runs the commands between && one after the other
SMALLER = ("--stem", "4", "3", "4", "1", "--stages", "1", "8", "1", "--batch-size", "16")


def losses(run_dir):
    return np.array([line["loss"] for line in lines(run_dir, "train")])


@pytest.mark.parametrize(("initialization", "steps"), [("near_identity", 51), ("he", 15)])
@pytest.mark.slow
def test_losses_agree_with_those_of_tensorflow(tmp_path, initialization, steps):
    """From the same weights and on the same batches: both runs begin with one step that TensorFlow made.

    He et al.'s initialization learns at once, and rounding grows tenfold every few steps.
    """
    recipe = recipes.DIGITS.replace(
        precision="float32", log_every=1, cutout=5, flip=True, initialization=initialization
    )
    assert Run(recipe.replace(steps=1), tmp_path / "tensorflow").wait() == 0
    shutil.copytree(tmp_path / "tensorflow", tmp_path / "jax")
    longer = recipe.replace(steps=steps)
    assert Run(longer, tmp_path / "tensorflow").wait() == 0
    assert JaxRun(longer, tmp_path / "jax").wait() == 0
    ours, theirs = losses(tmp_path / "jax"), losses(tmp_path / "tensorflow")
    assert len(ours) == steps and ours.std() > 1e-4
    np.testing.assert_allclose(ours, theirs, rtol=1e-4)


@pytest.mark.parametrize(
    ("change", "rtol"),
    [({}, 1e-3), ({"normalization": "batch", "steps": 6}, 1e-2)],  # halves alone would differ by more
    ids=["plain", "batch norm"],
)
@pytest.mark.slow
def test_two_devices_equal_one(tmp_path, change, rtol):
    recipe = TINY.replace(**{"clip_norm": 1.0, "steps": 20, **change})
    assert JaxRun(recipe, tmp_path / "one").wait() == 0
    two = JaxRun(recipe, tmp_path / "two", "--replicas", "2")
    assert two.wait() == 0 and "2 device(s)" in two.output()
    environment = json.loads((tmp_path / "two" / "environment.json").read_text())["sessions"][0]
    assert (environment["backend"], environment["strategy"], environment["replicas"]) == ("jax", "mirrored", 2)
    np.testing.assert_allclose(losses(tmp_path / "two"), losses(tmp_path / "one"), rtol=rtol)


@pytest.mark.parametrize(
    ("options", "environment", "message"),
    [
        (("--strategy", "multi-worker"), {}, "Keras on JAX trains on one machine"),
        ((), {"TF_CONFIG": '{"cluster": {"worker": ["a:1"]}}'}, "Keras on JAX trains on one machine"),
        (("--strategy", "one", "--replicas", "2"), {}, "strategy one has one replica"),
        (("--replicas", "3"), {}, "batch_size must be a multiple of the replicas, 3"),
    ],
    ids=["multi-worker", "TF_CONFIG", "one", "uneven"],
)
def test_what_it_cannot_do_is_said(tmp_path, options, environment, message):
    run = JaxRun(TINY, tmp_path / "run", *options, **environment)
    assert run.wait() == 2 and message in run.output() and "Traceback" not in run.output()
    assert not (tmp_path / "run").exists()


@pytest.fixture(scope="module")
def on_jax(tmp_path_factory):
    """A run on JAX that has finished."""
    run_dir = tmp_path_factory.mktemp("jax") / "run"
    assert JaxRun(TINY, run_dir).wait() == 0
    return run_dir


def test_tensorflow_evaluates_exports_plots_and_predicts_a_run_of_jax(on_jax, capsys, pytestconfig):
    expected = lines(on_jax, "test")[-1]

    def command(*arguments):
        with pytest.raises(SystemExit) as stop:
            cli.main([str(argument) for argument in arguments])
        assert stop.value.code == 0
        return capsys.readouterr().out

    assert f"step 60: test loss {expected['loss']:.4f}, test error {expected['error']:.2%}" in command(
        "evaluate", on_jax
    )
    assert "curves.png" in command("plot", on_jax)
    exported = command("export", on_jax).strip()
    image = pytestconfig.rootpath / "examples" / "seven.png"
    answers = [json.loads(command("predict", network, image, "--json-lines")) for network in (exported, on_jax)]
    for one, other in zip(*(answer["predictions"] for answer in answers), strict=True):
        assert one["label"] == other["label"] and one["probability"] == pytest.approx(other["probability"], abs=0.02)


@pytest.mark.slow
def test_digits_without_tensorflow(run_python, tmp_path, pytestconfig):
    """They train to 97 %, in two sessions, and are evaluated, drawn, reported and predicted."""
    run_dir = tmp_path / "results" / "digits"

    def command(*arguments):
        done = run_python("-c", WITHOUT_TENSORFLOW, *arguments, KERAS_BACKEND="jax")
        assert done.returncode == 0, done.stderr
        return done.stdout + done.stderr

    said = command("train", "--run-dir", run_dir, "--steps", "300")
    assert "a SavedModel needs TensorFlow" in said
    assert "from step 300" in command("train", "--run-dir", run_dir)
    assert lines(run_dir, "test")[-1]["error"] <= 0.03
    image = pytestconfig.rootpath / "examples" / "seven.png"
    look = ("evaluate", run_dir, "&&", "plot", run_dir, "&&", "report", run_dir.parent)
    said = command(*look, "&&", "predict", run_dir, image)
    for shown in (f"test error {lines(run_dir, 'test')[-1]['error']:.2%}", "curves.png", "README.md", "7"):
        assert shown in said
    assert (run_dir / "tensorboard" / "train").is_dir()


@pytest.mark.slow
def test_arrays_in_a_file_train_without_tensorflow(run_python, tmp_path):
    save_npz(load_data("digits"), tmp_path / "digits.npz")
    options = ("train", "--dataset", tmp_path / "digits.npz", "--run-dir", tmp_path / "run", "--steps", "20")
    done = run_python("-c", WITHOUT_TENSORFLOW, *options, KERAS_BACKEND="jax")
    assert done.returncode == 0, done.stderr
    assert "has finished" in done.stderr


@pytest.mark.slow
def test_a_run_of_jax_is_exported_at_its_end_by_tensorflow(run_python, tmp_path):
    options = ("train_cifar.py", "--recipe", "digits", "--steps", "3", "--run-dir", tmp_path / "run")
    done = run_python(*options, *SMALLER, KERAS_BACKEND="jax")
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "run" / "export" / "3" / "MODEL_CARD.md").exists()


def test_a_time_limit_stops_and_saves(tmp_path):
    recipe = TINY.replace(steps=10**6, log_every=100, evaluate_every=10**6, checkpoint_every=10**6)
    run = Run(recipe, tmp_path / "run", "--minutes", "0.05")
    assert run.wait() == 128 + 14
    assert "Stopped by SIGALRM and saved" in run.output()
