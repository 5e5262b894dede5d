"""A run that was killed, stopped, or has lost its newest checkpoint ends as one that was never interrupted."""

import json
import os
import random
import signal
import time

import numpy as np
import pytest
import tensorflow as tf
from training.runs import TINY, Run

from allconv_resnet import recipes
from allconv_resnet.errors import RunFailed
from allconv_resnet.training import run_directory
from allconv_resnet.training.checkpoints import Checkpoints

TIMES = ("images_per_second", "input_wait", "cpu_seconds")


def state(run_dir, step):
    """All numbers of a checkpoint: weights, momentum, totals."""
    reader = tf.train.load_checkpoint(str(run_dir / "checkpoints" / f"step-{step}"))
    names = [name for name in reader.get_variable_to_shape_map() if not name.startswith(("save_counter", "_CHECK"))]
    return {name: reader.get_tensor(name) for name in names}


def metrics(run_dir):
    lines = [json.loads(line) for line in (run_dir / "metrics.jsonl").read_text().splitlines()]
    return [{key: value for key, value in line.items() if key not in TIMES} for line in lines]


def assert_same(one, other, step):
    first, second = state(one, step), state(other, step)
    assert first.keys() == second.keys()
    assert any("velocity" in name or "optimizer" in name for name in first)
    for name, value in first.items():
        np.testing.assert_array_equal(value, second[name], err_msg=name)
    assert metrics(one) == metrics(other)


def wait_for(run, condition):
    deadline = time.monotonic() + 120
    while not condition():
        assert run.process.is_alive() and time.monotonic() < deadline, run.output()
        time.sleep(0.001)


def wait_for_lines(run, path, lines):
    wait_for(run, lambda: path.exists() and path.read_bytes().count(b"\n") >= lines)


@pytest.fixture(scope="module")
def reference(tmp_path_factory):
    """A run that was never interrupted."""
    run_dir = tmp_path_factory.mktemp("reference") / "run"
    assert Run(TINY, run_dir).wait() == 0
    return run_dir


def test_five_sigkills_at_random_steps_change_no_bit(start, tiny, tmp_path, reference):
    seed = random.randrange(10**6)
    print("random seed", seed)
    draw, run_dir = random.Random(seed), tmp_path / "run"
    for kill in sorted(draw.sample(range(1, tiny.steps), 5)):
        run = start(tiny, run_dir)
        wait_for_lines(run, run_dir / "metrics.jsonl", kill)
        os.kill(run.process.pid, signal.SIGKILL)
        assert run.wait() == -signal.SIGKILL
    assert start(tiny, run_dir).wait() == 0
    assert_same(run_dir, reference, tiny.steps)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_stop_signal_saves_and_the_same_command_goes_on(start, tiny, tmp_path, reference, number):
    run_dir = tmp_path / "run"
    run = start(tiny, run_dir)
    wait_for_lines(run, run_dir / "metrics.jsonl", 10)
    os.kill(run.process.pid, number)
    assert run.wait() == 128 + number
    assert "the same command goes on" in run.output() and "Traceback" not in run.output()
    stopped_at = metrics(run_dir)[-1]["step"]
    assert (run_dir / "checkpoints" / f"step-{stopped_at}.index").exists()
    run = start(tiny, run_dir)
    assert run.wait() == 0
    assert f"from step {stopped_at}" in run.output()
    assert_same(run_dir, reference, tiny.steps)


def test_means_over_an_interrupted_interval_are_those_of_the_whole(start, tiny, tmp_path):
    recipe = tiny.replace(log_every=60)
    assert start(recipe, tmp_path / "whole").wait() == 0
    run = start(recipe, tmp_path / "parts")
    wait_for(run, (tmp_path / "parts" / "checkpoints" / "step-14.index").exists)
    os.kill(run.process.pid, signal.SIGTERM)
    assert run.wait() == 128 + signal.SIGTERM
    assert start(recipe, tmp_path / "parts").wait() == 0
    assert_same(tmp_path / "parts", tmp_path / "whole", 60)


def test_a_finished_run_says_so(start, tiny, reference):
    before = {path: path.read_bytes() for path in reference.rglob("*") if path.is_file() and path.name != ".lock"}
    run = start(tiny, reference)
    assert run.wait() == 0
    assert "has already finished" in run.output()
    after = {path: path.read_bytes() for path in before}
    assert {p for p in before if "tensorboard" not in str(p) and before[p] != after[p]} == set()


@pytest.mark.parametrize("damage", ["truncated", "emptied", "flipped", "index emptied", "index gone"])
def test_a_damaged_newest_checkpoint_gives_way_to_the_one_before(start, tiny, tmp_path, reference, damage):
    run_dir = tmp_path / "run"
    assert start(tiny.replace(steps=28), run_dir).wait() == 0
    (run_dir / "model.keras").unlink()
    newest = run_dir / "checkpoints" / "step-28"
    data, index = newest.with_suffix(".data-00000-of-00001"), newest.with_suffix(".index")
    content = data.read_bytes()
    if damage == "truncated":
        data.write_bytes(content[: len(content) // 2])
    elif damage == "emptied":
        data.write_bytes(b"")
    elif damage == "flipped":
        data.write_bytes(content[:1000] + bytes([content[1000] ^ 1]) + content[1001:])
    elif damage == "index emptied":
        index.write_bytes(b"")
    else:
        index.unlink()
    run = start(tiny, run_dir)
    assert run.wait() == 0
    if damage != "index gone":
        assert "checkpoint of step 28 is damaged: going back to step 21" in run.output()
    assert "from step 21" in run.output()
    np.testing.assert_equal(state(run_dir, tiny.steps), state(reference, tiny.steps))


def test_a_run_whose_checkpoints_are_all_damaged_is_left_alone(start, tiny, tmp_path):
    run_dir = tmp_path / "run"
    assert start(tiny.replace(steps=8), run_dir).wait() == 0
    for data in (run_dir / "checkpoints").glob("*.data*"):
        data.write_bytes(b"")
    before = (run_dir / "metrics.jsonl").read_bytes()
    run = start(tiny, run_dir)
    assert run.wait() == 2
    assert "No checkpoint in" in run.output() and "Traceback" not in run.output()
    assert (run_dir / "metrics.jsonl").read_bytes() == before


def test_a_full_disk_leaves_the_last_good_checkpoint(start, tmp_path, reference, tiny):
    recipe = tiny.replace(stages=((1, 64, 2), (1, 64, 2)), steps=10)
    run_dir = tmp_path / "run"
    assert start(recipe, run_dir).wait() == 0
    longer = recipe.replace(steps=20)
    # No file may now grow beyond 100 kB: writing a checkpoint fails in the kernel, as on a full disk.
    run = start(longer, run_dir, file_size_limit=100_000)
    assert run.wait() == 1
    assert "could not be written" in run.output() and "that of step 10 is kept" in run.output()
    assert "Traceback" not in run.output()
    assert sorted(path.name for path in (run_dir / "checkpoints").glob("step-14*")) == []
    run = start(longer, run_dir)
    assert run.wait() == 0 and "from step 10" in run.output()


def test_a_network_that_could_not_be_written_whole_is_written_by_the_same_command(start, tmp_path, reference, tiny):
    recipe, run_dir = tiny.replace(steps=10), tmp_path / "run"
    assert start(recipe, run_dir).wait() == 0
    model = run_dir / "model.keras"
    whole = model.stat().st_size
    model.unlink()
    run = start(recipe, run_dir, file_size_limit=whole // 2)
    assert run.wait() == 1 and "can no longer be written to" in run.output()
    assert not model.exists()
    run = start(recipe, run_dir)
    assert run.wait() == 0 and "has finished" in run.output()
    assert model.stat().st_size == whole


def test_a_prolonged_run_is_not_finished_by_the_network_of_the_shorter_one(start, tmp_path, tiny):
    run_dir = tmp_path / "run"
    assert start(tiny.replace(steps=10), run_dir).wait() == 0
    first = (run_dir / "model.keras").read_bytes()
    assert start(tiny.replace(steps=20), run_dir).wait() == 0
    last = (run_dir / "model.keras").read_bytes()
    (run_dir / "model.keras").write_bytes(first)  # as if a kill had come before the second one was written
    os.utime(run_dir / "model.keras", (0, 0))
    run = start(tiny.replace(steps=20), run_dir)
    assert run.wait() == 0 and "already" not in run.output()
    assert len((run_dir / "model.keras").read_bytes()) == len(last)
    again = start(tiny.replace(steps=20), run_dir)
    assert again.wait() == 0 and "has already finished" in again.output()


def test_a_second_save_of_a_step_cannot_lose_the_first(tmp_path, monkeypatch):
    variable = tf.Variable(1.0)
    checkpoints = Checkpoints(tmp_path, variable=variable)
    checkpoints.save(5)

    def full(*_, **__):
        raise tf.errors.ResourceExhaustedError(None, None, "No space left on device")

    monkeypatch.setattr(checkpoints.manager, "save", full)
    checkpoints.save(5)
    with pytest.raises(RunFailed, match="that of step 5 is kept"):
        checkpoints.save(6)
    again = Checkpoints(tmp_path, variable=variable)
    assert again.restore() == (5, [])
    monkeypatch.setattr(again.manager, "save", full)
    again.save(5)
    assert run_directory.steps_on_disk(tmp_path) == [5]


def test_a_rate_that_falls_to_the_last_step_fixes_the_steps(start, tmp_path, tiny):
    recipe = tiny.replace(steps=4, boundaries=())
    assert start(recipe, tmp_path / "run", "--linear-decay").wait() == 0
    run = start(recipe.replace(steps=8), tmp_path / "run", "--linear-decay")
    assert run.wait() == 2 and "belongs to another recipe" in run.output() and "steps is 4 there" in run.output()


@pytest.mark.parametrize("network", ["all_cnn_c", "resnet20"])
def test_dropout_and_moving_averages_go_on_where_they_were(start, tmp_path, network):
    recipe = recipes.DIGITS.replace(
        network=network, stages=recipes.CIFAR10.stages, stem=recipes.CIFAR10.stem, batch_size=8, precision="float32"
    )
    recipe = recipe.replace(log_every=1, evaluate_every=4, checkpoint_every=4)
    assert start(recipe.replace(steps=2), tmp_path / "resumed").wait() == 0
    assert start(recipe.replace(steps=4), tmp_path / "resumed").wait() == 0
    assert start(recipe.replace(steps=4), tmp_path / "straight").wait() == 0
    first, second = state(tmp_path / "resumed", 4), state(tmp_path / "straight", 4)
    assert first.keys() == second.keys()
    for name, value in first.items():
        np.testing.assert_array_equal(value, second[name], err_msg=name)
