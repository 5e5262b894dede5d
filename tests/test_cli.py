"""The commands on a finished run."""

import json
import shlex

import numpy as np
import pytest
import tensorflow as tf
from training.runs import TINY

from allconv_resnet import cli, recipes
from allconv_resnet.training import reports, run_directory
from allconv_resnet.training.loop import train


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    run_dir = tmp_path_factory.mktemp("finished") / "run"
    assert train(TINY, run_dir) is None
    return run_dir


def command(*arguments):
    with pytest.raises(SystemExit) as stop:
        cli.main([str(argument) for argument in arguments])
    return stop.value.code


def lines(run_dir, split):
    return [line for line in run_directory.read_metrics(run_dir) if line["split"] == split]


def test_the_run_directory_holds_the_evidence(finished):
    assert recipes.Recipe.from_dict(json.loads((finished / "config.json").read_text())) == TINY
    (session,) = json.loads((finished / "environment.json").read_text())["sessions"]
    assert session["versions"]["tensorflow"] == tf.__version__
    assert session["first_step"] == 0 and session["precision"] == "float32" and session["cpu"]
    assert [line["step"] for line in lines(finished, "train")] == list(range(1, 61))
    assert [line["step"] for line in lines(finished, "test")] == [20, 40, 60]
    rates = {line["step"]: line["learning_rate"] for line in lines(finished, "train")}
    assert (rates[1], rates[40], rates[41], rates[60]) == (0.05, 0.05, 0.005, 0.005)
    for line in lines(finished, "train"):
        assert line["images_per_second"] > 0 and 0 <= line["input_wait"] <= 1 and 0 <= line["error"] <= 1
    assert lines(finished, "test")[-1]["loss"] < 0.7 * lines(finished, "train")[0]["loss"]


def test_tensorboard_has_the_same_numbers(finished):
    for split in ("train", "test"):
        (events,) = (finished / "tensorboard" / split).iterdir()
        logged = {}
        for event in tf.compat.v1.train.summary_iterator(str(events)):
            for value in event.summary.value:
                logged.setdefault(value.tag, []).append((event.step, float(tf.make_ndarray(value.tensor))))
        for name in ("loss", "error"):
            expected = [(line["step"], line[name]) for line in lines(finished, split)]
            assert [step for step, _ in logged[name]] == [step for step, _ in expected]
            assert [v for _, v in logged[name]] == pytest.approx([v for _, v in expected])


@pytest.mark.parametrize("checkpoint", ["latest", "best"])
def test_evaluate_repeats_what_training_measured(finished, capsys, checkpoint):
    assert command("evaluate", finished, "--checkpoint", checkpoint) == 0
    tests = lines(finished, "test")
    line = tests[-1] if checkpoint == "latest" else reports.best_line(tests)
    expected = f"step {line['step']}: test loss {line['loss']:.4f}, test error {line['error']:.2%}, "
    expected += f"top-5 {line['top5_error']:.2%} (360 images)"
    assert expected in capsys.readouterr().out


def test_evaluate_on_the_training_images(finished, capsys):
    assert command("evaluate", finished, "--split", "train") == 0
    assert "(1,437 images)" in capsys.readouterr().out


def test_the_saved_model_is_the_trained_one(finished):
    import keras
    import numpy as np

    from allconv_resnet.data.source import load_data
    from allconv_resnet.layers import standardize

    images, labels = load_data("digits").arrays("test")
    logits = keras.saving.load_model(finished / "model.keras").predict(standardize(images), verbose=0)
    assert np.mean(logits.argmax(1) != labels) == pytest.approx(lines(finished, "test")[-1]["error"])


def test_the_network_experiment_refuses_more_than_an_epoch(monkeypatch, tmp_path, capsys):
    from allconv_resnet.theory.commands import network_spectra

    monkeypatch.setattr(network_spectra, "load_images", lambda *_: (np.zeros((64, 32, 32, 3), "uint8"), np.zeros(64)))
    for steps in ("3", "-1"):
        options = ("--experiment", "network", "--train-steps", steps, "--output-dir", tmp_path / "out")
        assert command("theory", "isometry", *options) == 2
        assert (
            f"train_steps must lie in [0, 2], at most one epoch. Received: train_steps={steps}"
            in capsys.readouterr().err
        )


def test_the_network_experiment_refuses_runs_of_another_shape(finished, monkeypatch, tmp_path, capsys):
    from allconv_resnet.theory.commands import network_spectra

    monkeypatch.setattr(network_spectra, "load_images", lambda *_: (np.zeros((64, 32, 32, 3), "uint8"), np.zeros(64)))
    options = ("--experiment", "network", "--run-dirs", finished, "--output-dir", tmp_path / "out")
    assert command("theory", "isometry", *options) == 2
    assert (
        "The network must be an AllConvResNet of three stages, each of at least two blocks" in capsys.readouterr().err
    )
    assert not (tmp_path / "out").exists()


def test_plot_draws_the_curves(finished, capsys):
    (finished / "curves.png").unlink()
    assert command("plot", finished) == 0
    picture = (finished / "curves.png").read_bytes()
    assert picture.startswith(b"\x89PNG") and len(picture) > 10_000
    assert str(finished / "curves.png") in capsys.readouterr().out


@pytest.mark.parametrize("name", [*cli.THEORY])
def test_every_theory_command_has_a_help(name, capsys):
    assert command("theory", name, "--help") == 0
    assert "--output-dir" in capsys.readouterr().out


def test_recipes_are_what_the_command_line_starts_from():
    job = cli.parse_job(("cifar10", "digits"), ["--recipe", "digits", "--steps", "7", "--stages", "1", "8", "1"])
    assert job.recipe == recipes.DIGITS.replace(steps=7, stages=((1, 8, 1),))
    assert cli.parse_job(("cifar10", "digits"), []).recipe == recipes.CIFAR10


@pytest.mark.parametrize("recipe", recipes.RECIPES.values(), ids=lambda recipe: recipe.name)
def test_recipes_survive_json(recipe):
    assert recipes.Recipe.from_dict(json.loads(json.dumps(recipe.to_dict()))) == recipe


def test_cifar_100_trains_from_a_prepared_directory(tmp_path, write_tfds, capsys):
    write_tfds(tmp_path / "data", name="cifar100", classes=100)
    options = shlex.split("--recipe cifar100 --steps 2 --batch-size 8 --stem 4 3 2 1 --stages 1 8 2")
    with pytest.raises(SystemExit) as stop:
        cli.train_command(
            ("cifar100",), [*options, "--data-dir", str(tmp_path / "data"), "--run-dir", str(tmp_path / "run")]
        )
    assert stop.value.code == 0
    assert command("evaluate", tmp_path / "run", "--data-dir", tmp_path / "data") == 0
    assert "step 2: test loss" in capsys.readouterr().out


@pytest.mark.slow
def test_the_digits_recipe_reaches_97_percent(tmp_path):
    assert train(recipes.DIGITS, tmp_path / "run") is None
    assert lines(tmp_path / "run", "test")[-1]["error"] <= 0.03
