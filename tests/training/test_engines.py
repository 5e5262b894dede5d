"""Three engines, one behaviour: a run that was killed, stopped, or has lost its newest checkpoint goes on.

On one device in float32 it ends as one that was never interrupted, bit for bit.
"""

import json
import os
import random
import re
import shutil
import signal

import numpy as np
import pytest
from training.runs import ENGINES, TINY, assert_same, lines, metrics, state, wait_for, wait_for_lines

from allconv_resnet import recipes
from allconv_resnet.errors import BadInput, RunFailed
from allconv_resnet.training.checkpoints import Checkpoints, steps_on_disk
from allconv_resnet.training.run_directory import read_sessions

# JAX compiles each run anew, and a job of three processes takes seconds to start: `make test` has the first engine
# alone here, and the other two in test_jax.py and test_parameter_server.py; .ci/run has all three.
PARAMETERS = [pytest.param(name, marks=() if name == "synchronous" else pytest.mark.slow) for name in ENGINES]


@pytest.fixture(params=PARAMETERS, scope="module")
def engine(request):
    """The name of an engine."""
    return request.param


@pytest.fixture
def start(engine):
    """Starts a training command on the engine; those still at work at the end of the test are killed."""
    runs = []

    def begin(*arguments, **options):
        runs.append(ENGINES[engine](*arguments, **options))
        return runs[-1]

    yield begin
    for run in runs:
        run.kill()


@pytest.fixture(scope="module")
def reference(tmp_path_factory, engine):
    """A run that was never interrupted."""
    run_dir = tmp_path_factory.mktemp("reference") / "run"
    assert ENGINES[engine](TINY, run_dir).wait() == 0
    return run_dir


def assert_as_uninterrupted(engine, run_dir, reference):
    """What the workers of an asynchronous job do is not repeatable: there every step is counted once."""
    if engine != "asynchronous":
        assert_same(run_dir, reference, TINY.run.steps)
        return
    assert state(run_dir, TINY.run.steps).keys() == state(reference, TINY.run.steps).keys()
    assert [line["step"] for line in lines(run_dir, "train")] == list(range(1, TINY.run.steps + 1))
    assert int(state(run_dir, TINY.run.steps)["optimizer/0000"]) == TINY.run.steps


def require_synchronous(engine):
    if engine != "synchronous":
        pytest.skip("the run directory is the loop's: one engine shows it")


@pytest.mark.parametrize("kills", [3, pytest.param(8, marks=pytest.mark.slow)])
def test_sigkills_at_random_steps_change_no_bit(engine, start, tmp_path, reference, kills):
    if engine != "synchronous" and kills == 3:
        pytest.skip("the test with more kills shows it")
    seed = random.randrange(10**6)
    print("random seed", seed)
    draw, run_dir = random.Random(seed), tmp_path / "run"
    for kill in sorted(draw.sample(range(1, TINY.run.steps - 10), kills)):  # the run must not end before the kill
        run = start(TINY, run_dir)
        wait_for_lines(run, run_dir / "metrics.jsonl", kill)
        run.send(signal.SIGKILL)
        assert run.wait() == -signal.SIGKILL
    assert start(TINY, run_dir).wait() == 0
    assert_as_uninterrupted(engine, run_dir, reference)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP], ids=lambda number: number.name)
def test_a_stop_signal_saves_and_the_same_command_goes_on(engine, start, tmp_path, reference, number):
    if engine != "synchronous" and number != signal.SIGTERM:
        pytest.skip("the signals are the loop's: one engine shows them all")
    run_dir = tmp_path / "run"
    run = start(TINY, run_dir)
    wait_for_lines(run, run_dir / "metrics.jsonl", 10)
    run.send(number)
    assert run.wait() == 128 + number
    assert "the same command continues the run" in run.output() and "Traceback" not in run.output()
    stopped_at = metrics(run_dir)[-1]["step"]
    assert stopped_at in steps_on_disk(run_dir / "checkpoints")
    run = start(TINY, run_dir)
    assert run.wait() == 0
    assert f"from step {stopped_at}" in run.output()
    assert_as_uninterrupted(engine, run_dir, reference)


def test_means_over_an_interrupted_interval_are_those_of_the_whole(engine, start, tmp_path):
    if engine == "asynchronous":
        pytest.skip("its steps are not repeatable")
    recipe = TINY.replace(log_every=60)
    assert start(recipe, tmp_path / "whole").wait() == 0
    run = start(recipe, tmp_path / "parts")
    wait_for(run, (tmp_path / "parts" / "checkpoints" / "step-14.npz").exists)
    run.send(signal.SIGTERM)
    assert run.wait() == 128 + signal.SIGTERM
    assert start(recipe, tmp_path / "parts").wait() == 0
    assert_same(tmp_path / "parts", tmp_path / "whole", 60)


def test_a_finished_run_says_so(start, reference):
    before = {path: path.read_bytes() for path in reference.rglob("*") if path.is_file() and path.name != ".lock"}
    run = start(TINY, reference)
    assert run.wait() == 0
    assert "has already finished" in run.output()
    assert {path for path in before if before[path] != path.read_bytes()} == set()


@pytest.mark.parametrize("damage", ["truncated", "emptied", "flipped", "gone"])
def test_a_damaged_newest_checkpoint_gives_way_to_the_one_before(engine, start, tmp_path, reference, damage):
    if engine != "synchronous" and damage not in ("truncated", "flipped"):
        pytest.skip("the files are the same on every engine: one engine shows every damage")
    run_dir = shutil.copytree(reference, tmp_path / "run")
    (run_dir / "model.keras").unlink()
    newest = run_dir / "checkpoints" / "step-60.npz"
    content = newest.read_bytes()
    if damage == "gone":
        newest.unlink()
    else:
        flipped = content[:1000] + bytes([content[1000] ^ 1]) + content[1001:]
        newest.write_bytes({"truncated": content[: len(content) // 2], "emptied": b"", "flipped": flipped}[damage])
    run = start(TINY, run_dir)
    assert run.wait() == 0
    if damage != "gone":
        assert "checkpoint of step 60 is damaged: going back to step 56" in run.output()
    assert "from step 56" in run.output()
    if engine != "asynchronous":
        np.testing.assert_equal(state(run_dir, TINY.run.steps), state(reference, TINY.run.steps))


def test_a_run_whose_checkpoints_are_all_damaged_is_left_alone(engine, start, tmp_path):
    require_synchronous(engine)
    run_dir = tmp_path / "run"
    assert start(TINY.replace(steps=8), run_dir).wait() == 0
    for path in (run_dir / "checkpoints").glob("*.npz"):
        path.write_bytes(b"")
    before = (run_dir / "metrics.jsonl").read_bytes()
    run = start(TINY, run_dir)
    assert run.wait() == 2
    assert "No checkpoint in" in run.output() and "Traceback" not in run.output()
    assert (run_dir / "metrics.jsonl").read_bytes() == before


def test_a_full_disk_leaves_the_last_good_checkpoint(start, tmp_path):
    recipe = TINY.replace(stages=((1, 64, 2), (1, 64, 2)), steps=10)
    run_dir = tmp_path / "run"
    assert start(recipe, run_dir).wait() == 0
    longer = recipe.replace(steps=20)
    # No file may now grow beyond 100 kB: writing a checkpoint fails in the kernel, as on a full disk.
    run = start(longer, run_dir, file_size_limit=100_000)
    assert run.wait() == 1
    assert "could not be written" in run.output() and "that of step 10 is kept" in run.output()
    assert "Traceback" not in run.output()
    assert not [*(run_dir / "checkpoints").glob("*step-14*")]
    run = start(longer, run_dir)
    assert run.wait() == 0 and "from step 10" in run.output()


def test_a_network_that_could_not_be_written_whole_is_written_by_the_same_command(engine, start, tmp_path):
    require_synchronous(engine)
    recipe, run_dir = TINY.replace(steps=10), tmp_path / "run"
    assert start(recipe, run_dir).wait() == 0
    model = run_dir / "model.keras"
    whole = model.stat().st_size
    model.unlink()
    run = start(recipe, run_dir, file_size_limit=whole // 2)
    assert run.wait() == 1 and "can no longer be written to" in run.output()
    assert not model.exists() and not [*run_dir.glob(".*keras")]
    run = start(recipe, run_dir)
    assert run.wait() == 0 and "has finished" in run.output()
    assert model.stat().st_size == whole


def test_a_prolonged_run_is_not_finished_by_the_network_of_the_shorter_one(start, tmp_path):
    run_dir = tmp_path / "run"
    assert start(TINY.replace(steps=10), run_dir).wait() == 0
    first = (run_dir / "model.keras").read_bytes()
    assert start(TINY.replace(steps=20), run_dir).wait() == 0
    last = (run_dir / "model.keras").read_bytes()
    (run_dir / "model.keras").write_bytes(first)  # as if a kill had come before the second one was written
    os.utime(run_dir / "model.keras", (0, 0))
    environment = json.loads((run_dir / "environment.json").read_text())
    assert environment["sessions"][-1].pop("finished") == 20
    (run_dir / "environment.json").write_text(json.dumps(environment))
    run = start(TINY.replace(steps=20), run_dir)
    assert run.wait() == 0 and "already" not in run.output()
    assert len((run_dir / "model.keras").read_bytes()) == len(last)
    again = start(TINY.replace(steps=20), run_dir)
    assert again.wait() == 0 and "has already finished" in again.output()


def test_a_loss_that_is_not_finite(start, tmp_path):
    wild, run_dir = TINY.replace(learning_rate=1e5, checkpoint_every=1), tmp_path / "run"
    run = start(wild, run_dir)
    assert run.wait() == 1
    said = run.output()
    # What a step breaks shows in the weights that it leaves, or in the loss of the next one.
    found = re.search(r"failed: The (?:loss is not finite at|weights are not finite after) step (\d+), with", said)
    assert found and "with learning rate 100000" in said
    bad = int(found[1])
    assert steps_on_disk(run_dir / "checkpoints") == list(range(max(1, bad - 3), bad))
    assert not (run_dir / "model.keras").exists()
    assert read_sessions(run_dir)[-1]["not_finite_at"] == bad


@pytest.mark.parametrize("network", ["all_cnn_c", "resnet20"])
def test_dropout_and_moving_averages_go_on_where_they_were(engine, start, tmp_path, network):
    if engine == "asynchronous":
        pytest.skip("its steps are not repeatable")
    recipe = recipes.DIGITS.replace(network=network, batch_size=8, precision="float32")
    recipe = recipe.replace(steps=4, log_every=1, evaluate_every=4, checkpoint_every=2)
    assert start(recipe, tmp_path / "straight").wait() == 0
    shutil.copytree(tmp_path / "straight", tmp_path / "resumed")
    for file in ("model.keras", "checkpoints/step-4.npz"):
        (tmp_path / "resumed" / file).unlink()
    run = start(recipe, tmp_path / "resumed")
    assert run.wait() == 0 and "from step 2" in run.output()
    first, second = state(tmp_path / "resumed", 4), state(tmp_path / "straight", 4)
    assert first.keys() == second.keys()
    for name, value in first.items():
        np.testing.assert_array_equal(value, second[name], err_msg=name)


def test_a_rate_that_falls_to_the_last_step_fixes_the_steps(engine, start, tmp_path):
    require_synchronous(engine)
    recipe = TINY.replace(steps=4, schedule="linear")
    assert start(recipe, tmp_path / "run").wait() == 0
    run = start(recipe.replace(steps=8), tmp_path / "run")
    assert run.wait() == 2 and "belongs to another recipe" in run.output() and "steps is 4 there" in run.output()


def test_a_second_save_of_a_step_cannot_lose_the_first(tmp_path, monkeypatch):
    checkpoints, content = Checkpoints(tmp_path), {"model/0000": np.ones(3)}
    checkpoints.save(5, lambda: content)

    def full(*_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(np, "savez", full)
    checkpoints.save(5, lambda: content)
    with pytest.raises(RunFailed, match="that of step 5 is kept"):
        checkpoints.save(6, lambda: content)
    again = Checkpoints(tmp_path)
    assert again.restore(lambda state: None) == (5, [])
    again.save(5, lambda: content)
    assert steps_on_disk(tmp_path) == [5]


def test_checkpoints_of_the_old_format_are_not_begun_anew(tmp_path):
    (tmp_path / "step-7.index").write_bytes(b"")
    with pytest.raises(BadInput, match=r"has checkpoints of version 0\.1"):
        Checkpoints(tmp_path).restore(lambda state: None)
