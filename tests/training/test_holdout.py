"""Held-out training images: never trained on, watched during the run; the test set is read once, at the end."""

import shutil

import numpy as np
import pytest
from training.runs import TINY, lines

from allconv_resnet import cli
from allconv_resnet.data.holdout import HOLDOUT, stratified
from allconv_resnet.data.source import load_data, load_for_recipe
from allconv_resnet.errors import BadInput
from allconv_resnet.training import reports, run_state
from allconv_resnet.training.evaluate import evaluate_run
from allconv_resnet.training.loop import train

HELD = TINY.replace(holdout=200, steps=40, evaluate_every=10)


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    run_dir = tmp_path_factory.mktemp("finished") / "run"
    assert train(HELD, run_dir) is None
    return run_dir


def test_the_held_out_part_is_stratified_and_fixed_by_the_seed():
    labels = np.random.default_rng(0).permutation(np.repeat([0, 1, 2], [500, 300, 30]))
    held = stratified(labels, 83, seed=1)
    assert held.sum() == 83
    np.testing.assert_allclose(np.bincount(labels[held]), [50, 30, 3], atol=1)
    np.testing.assert_array_equal(held, stratified(labels, 83, seed=1))
    assert (held != stratified(labels, 83, seed=2)).any()


@pytest.mark.parametrize("amount", [200, 0.25])
def test_no_image_is_in_both_parts(amount):
    data = HELD.replace(holdout=amount).data
    source = load_for_recipe(data, ("train", HOLDOUT, "test"))
    digits = load_data("digits")
    parts = [{image.tobytes() for image in source.arrays(split)[0]} for split in ("train", HOLDOUT)]
    assert not parts[0] & parts[1]
    assert source.examples(HOLDOUT) == (200 if amount == 200 else round(0.25 * 1437))
    assert source.examples("train") + source.examples(HOLDOUT) == digits.examples("train")
    assert source.examples("test") == digits.examples("test")


def test_the_test_set_is_read_once_at_the_end(finished):
    assert [(line["step"], line["images"]) for line in lines(finished, HOLDOUT)] == [(s, 200) for s in (10, 20, 30, 40)]
    (test,) = lines(finished, "test")
    assert (test["step"], test["images"]) == (40, 360)
    assert reports.best_line(lines(finished))["split"] == HOLDOUT
    assert "held-out accuracy" in reports.summary(lines(finished))
    assert (finished / "tensorboard" / HOLDOUT).is_dir()
    assert run_state.finished(finished, HELD.run) and not run_state.finished(finished, HELD.replace(steps=41).run)


def test_the_test_set_is_not_read_again_after_a_kill_before_the_network_was_written(finished, tmp_path):
    run_dir = tmp_path / "run"
    shutil.copytree(finished, run_dir)
    (run_dir / "model.keras").unlink()
    assert train(HELD, run_dir) is None
    assert len(lines(run_dir, "test")) == 1 and (run_dir / "model.keras").exists()


@pytest.mark.parametrize("split", [HOLDOUT, "test"])
def test_evaluate_repeats_what_training_measured(finished, split, capsys):
    expected = lines(finished, split)[-1]
    with pytest.raises(SystemExit) as stop:
        cli.main(["evaluate", str(finished), "--split", split])
    assert stop.value.code == 0
    assert f"{split} error {expected['error']:.2%}" in capsys.readouterr().out


def test_a_run_without_a_holdout_has_none_to_evaluate(tmp_path):
    train(TINY.replace(steps=2), tmp_path / "run")
    with pytest.raises(BadInput, match="was trained without a holdout"):
        evaluate_run(tmp_path / "run", split=HOLDOUT)


def test_patience_ends_the_run_early_and_for_good(tmp_path, capsys):
    hopeless = HELD.replace(learning_rate=1e-9, patience=2, steps=60, evaluate_every=5)
    assert train(hopeless, tmp_path / "run") is None
    said = capsys.readouterr().err
    assert "No lower holdout error in 2 tests: the run ends at step" in said
    (test,) = lines(tmp_path / "run", "test")
    assert test["step"] < 60 and test["planned"] == 60
    last = max(line["step"] for line in lines(tmp_path / "run"))
    assert train(hopeless, tmp_path / "run") is None
    assert "has already finished" in capsys.readouterr().err
    # A run that was stopped between its last test on the held-out images and its end makes no further step.
    (tmp_path / "run" / "model.keras").unlink()
    kept = [line for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines() if '"test"' not in line]
    (tmp_path / "run" / "metrics.jsonl").write_text("".join(f"{line}\n" for line in kept))
    assert train(hopeless, tmp_path / "run") is None
    assert max(line["step"] for line in lines(tmp_path / "run")) == last


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--holdout", "1437"], "holdout must be at least 1 and below 1,437 images. Received: holdout=1437"),
        (["--holdout", "1.5"], "holdout must be a whole number of images, or a fraction below 1. Received: holdo"),
        (["--holdout", "-1"], "holdout must be greater than or equal to 0"),
        (["--patience", "3"], "patience needs --holdout"),
    ],
    ids=lambda value: "-".join(value) if isinstance(value, list) else "",
)
def test_bad_input(options, message, tmp_path, capsys):
    with pytest.raises(SystemExit) as stop:
        cli.train_command(("digits",), [*options, "--run-dir", str(tmp_path / "run")])
    assert stop.value.code == 2 and message in " ".join(capsys.readouterr().err.split())
    assert not (tmp_path / "run").exists()
