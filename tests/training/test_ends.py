"""How runs end: early, late, twice, or with numbers that are not finite."""

import math

import numpy as np
import pytest
from training.runs import SMALL, lines

from allconv_resnet import cli
from allconv_resnet.data.holdout import HOLDOUT
from allconv_resnet.errors import BadInput, RunFailed
from allconv_resnet.training import run_directory, run_state
from allconv_resnet.training.checkpoints import Checkpoints, steps_on_disk
from allconv_resnet.training.engines.synchronous import SynchronousEngine
from allconv_resnet.training.loop import train

# No test is better than the first one, so that patience ends the run after the second one.
STILL = SMALL.replace(steps=8, boundaries=(), holdout=100, evaluate_every=2, patience=1, learning_rate=1e-9)


def test_what_the_last_update_breaks_is_not_a_trained_network(tmp_path):
    recipe = SMALL.replace(steps=2, boundaries=(), learning_rate=1e6, clip_norm=None, evaluate_every=2)
    with pytest.raises(RunFailed, match=r"The test loss is not finite after step 2.*in another run directory"):
        train(recipe, tmp_path / "run", strategy="one")
    assert run_directory.read_sessions(tmp_path / "run")[-1]["not_finite_at"] == 2
    assert not (tmp_path / "run" / "model.keras").exists()
    assert all(math.isfinite(line["loss"]) for line in lines(tmp_path / "run"))


def test_weights_that_are_not_finite_are_not_saved(tmp_path, monkeypatch):
    before = SynchronousEngine.state

    def broken(self):
        arrays = before(self)
        return arrays | ({"model/0000": arrays["model/0000"] * math.nan} if self.optimizer.iterations == 4 else {})

    monkeypatch.setattr(SynchronousEngine, "state", broken)
    with pytest.raises(RunFailed, match="The weights are not finite after step 4"):
        train(SMALL, tmp_path / "run", strategy="one")
    assert steps_on_disk(tmp_path / "run" / "checkpoints") == [2]


def test_a_run_cannot_end_before_the_steps_that_it_has_made(tmp_path):
    train(SMALL, tmp_path / "run", strategy="one")
    config = (tmp_path / "run" / "config.json").read_text()
    with pytest.raises(BadInput, match="has already made 6 steps, so it cannot end at step 5"):
        train(SMALL.replace(steps=5), tmp_path / "run", strategy="one")
    assert (tmp_path / "run" / "config.json").read_text() == config


@pytest.mark.parametrize("killed", [False, True], ids=["ended", "killed before the network was written"])
def test_a_run_that_patience_ended_goes_on_with_more_of_it(tmp_path, killed):
    run_dir = tmp_path / "run"
    train(STILL, run_dir, strategy="one")
    assert [(line["step"], line["planned"]) for line in lines(run_dir, "test")] == [(4, 8)]
    assert run_state.finished(run_dir, STILL.run)
    if killed:
        (run_dir / "model.keras").unlink()
    longer = STILL.replace(patience=None)
    assert not run_state.finished(run_dir, longer.run)
    train(longer, run_dir, strategy="one")
    assert [line["step"] for line in lines(run_dir, "test")] == [4, 8]
    assert [line["step"] for line in lines(run_dir, HOLDOUT)] == [2, 4, 6, 8]
    assert run_directory.read_recipe(run_dir).run.patience is None and run_state.finished(run_dir, longer.run)


def test_the_best_checkpoint_before_the_last_one_is_kept(tmp_path):
    """The bests since the last checkpoint are of steps that are made again, so the one before them must be there."""
    best, state = Checkpoints(tmp_path, keep=None), lambda: {"model/0000": np.zeros(2)}
    for step in (200, 400):
        best.save(step, state)
    best.keep_for([500])
    for step in (600, 800):
        best.save(step, state)
    assert steps_on_disk(tmp_path) == [400, 600, 800]
    best.remove_later(500)
    assert steps_on_disk(tmp_path) == [400]


def test_the_best_checkpoint_before_each_of_the_kept_ones_is_kept(tmp_path):
    """If the newest checkpoints are damaged, the run continues from an older one."""
    best, state = Checkpoints(tmp_path, keep=None), lambda: {"model/0000": np.zeros(2)}
    for step in (50, 150, 160, 250, 260, 350):
        best.save(step, state)
    best.keep_for([100, 200, 300])
    assert steps_on_disk(tmp_path) == [50, 160, 260, 350]
    best.remove_later(200)
    assert steps_on_disk(tmp_path) == [50, 160]
    best.keep_for([20])
    assert steps_on_disk(tmp_path) == [50, 160]


def test_a_run_keeps_a_best_checkpoint_for_each_checkpoint(tmp_path, monkeypatch):
    run_dir, errors = tmp_path / "run", iter(np.linspace(0.9, 0.1, 8))
    monkeypatch.setattr(SynchronousEngine, "test", lambda self, split: np.array([1.0, next(errors), 0, 1, 0]))
    train(SMALL.replace(steps=8, evaluate_every=1), run_dir, strategy="one")
    assert steps_on_disk(run_dir / "checkpoints") == steps_on_disk(run_dir / "checkpoints" / "best") == [4, 6, 8]


def test_a_worker_that_has_saved_nothing_itself_can_end_the_run(tmp_path, monkeypatch):
    """It writes to a directory of its own, which has no checkpoint if patience is exhausted when the run continues."""
    train(STILL, tmp_path / "run", strategy="one")
    (tmp_path / "run" / "model.keras").unlink()
    monkeypatch.setattr(SynchronousEngine, "chief", property(lambda self: False, lambda self, value: None))
    assert train(STILL, tmp_path / "run", strategy="one") is None


@pytest.mark.parametrize("holdout", [0, 100])
def test_a_run_that_ends_at_its_newest_checkpoint_is_tested_there(tmp_path, capsys, holdout):
    run_dir, recipe = tmp_path / "run", SMALL.replace(steps=8, evaluate_every=4, holdout=holdout)
    train(recipe, run_dir, strategy="one")
    for path in (run_dir / "model.keras", run_dir / "checkpoints" / "step-8.npz"):
        path.unlink()  # as if it had been stopped after step 6
    shorter = recipe.replace(steps=6)
    assert train(shorter, run_dir, strategy="one") is None
    assert [line["step"] for line in lines(run_dir, "test")] == ([6] if holdout else [4, 6])
    assert run_state.finished(run_dir, shorter.run)
    before = (run_dir / "metrics.jsonl").read_bytes()
    assert train(shorter, run_dir, strategy="one") is None
    assert "has already finished" in capsys.readouterr().err
    assert (run_dir / "metrics.jsonl").read_bytes() == before


def test_a_finished_run_without_its_log_is_tested_again(tmp_path, capsys):
    run_dir = tmp_path / "run"
    train(SMALL, run_dir, strategy="one")
    expected = lines(run_dir, "test")[-1]
    (run_dir / "metrics.jsonl").unlink()
    for said in ("has finished", "has already finished"):
        assert train(SMALL, run_dir, strategy="one") is None
        assert said in capsys.readouterr().err
        assert lines(run_dir) == [expected]
    assert steps_on_disk(run_dir / "checkpoints" / "best")[-1] == 6


def test_a_session_is_marked_although_its_environment_has_vanished(tmp_path):
    with run_directory.RunDirectory(tmp_path) as run:
        run.mark_session(finished=6)
    assert run_directory.read_sessions(tmp_path) == [{"finished": 6}]


def test_a_run_that_is_killed_keeps_its_best_checkpoint(tmp_path, monkeypatch):
    recipe, errors = SMALL.replace(evaluate_every=1, checkpoint_every=3), iter([0.9, 0.8, 0.7, 0.6, 0.5])

    def test(self, split):
        if (error := next(errors, None)) is None:
            raise RunFailed("killed")
        return np.array([1.0, error, 0, 1, 0])

    monkeypatch.setattr(SynchronousEngine, "test", test)
    with pytest.raises(RunFailed, match="killed"):
        train(recipe, tmp_path / "run", strategy="one")
    assert steps_on_disk(tmp_path / "run" / "checkpoints" / "best") == [3, 4, 5]
    with pytest.raises(RunFailed, match="killed"):
        train(recipe, tmp_path / "run", strategy="one")
    assert steps_on_disk(tmp_path / "run" / "checkpoints" / "best") == [3]


def test_a_run_that_is_refused_is_not_overwritten(tmp_path, monkeypatch):
    def refuse(self, run_dir):
        raise BadInput("must be shared")

    train(SMALL, tmp_path / "run", strategy="one")
    before = sorted(path.name for path in (tmp_path / "run").iterdir())
    monkeypatch.setattr(SynchronousEngine, "require_shared", refuse)
    with pytest.raises(BadInput, match="must be shared"):
        train(SMALL, tmp_path / "run", strategy="one", overwrite=True)
    assert sorted(path.name for path in (tmp_path / "run").iterdir()) == before


@pytest.mark.parametrize(("options", "images"), [((), 1437), (("--holdout", "0.1"), 1293)])
def test_a_schedule_of_epochs_has_those_of_the_data(tmp_path, options, images):
    words = ["--recipe", "digits", "--schedule", "epochs", "--steps", "1", "--run-dir", str(tmp_path / "run")]
    with pytest.raises(SystemExit) as end:
        cli.train_command(("digits",), [*words, "--no-export", *options])
    assert end.value.code == 0
    assert run_directory.read_recipe(tmp_path / "run").schedule.epoch_images == images
