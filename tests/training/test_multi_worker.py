"""Machines that train in step: what two processes on the loopback do together, and what they refuse."""

import json
import os
import signal
import socket

import numpy as np
import pytest
import tensorflow as tf
from data.image_folders import random_images, write_folder
from training.jobs import configurations, free_ports
from training.runs import state, wait_for_lines

from allconv_resnet import recipes
from allconv_resnet.errors import BadInput
from allconv_resnet.training.engines import create_engine, distribution, keeps_run_directory, tf_config

TWO = ["127.0.0.1:2222", "127.0.0.1:2223"]


def configured(workers=TWO, job="worker", index=0, **jobs):
    return {"TF_CONFIG": json.dumps({"cluster": {"worker": workers, **jobs}, "task": {"type": job, "index": index}})}


@pytest.fixture
def recipe(tiny):
    # Without a ReLU, which may turn differences of rounding into larger ones.
    return tiny.replace(activation="tanh", batch_size=64, steps=30, evaluate_every=15)


@pytest.fixture
def start_two(start):
    """Starts a job of two workers that share a run directory; more options may differ."""

    def begin(recipes, run_dirs, *more):
        return [
            start(recipe, run_dir, "--strategy", "multi-worker", "--peer-timeout", "100", *more, TF_CONFIG=config)
            for recipe, run_dir, config in zip(recipes, run_dirs, configurations(worker=2).values(), strict=True)
        ]

    return begin


def lines(run_dir):
    return [json.loads(line) for line in (run_dir / "metrics.jsonl").read_text().splitlines()]


def assert_equal_runs(one, two, steps):
    one_lines, two_lines = lines(one), lines(two)
    assert [(line["step"], line["split"]) for line in two_lines] == [
        (line["step"], line["split"]) for line in one_lines
    ]
    assert [line["step"] for line in two_lines if line["split"] == "train"] == list(range(1, steps + 1))
    np.testing.assert_allclose([line["loss"] for line in two_lines], [line["loss"] for line in one_lines], rtol=1e-5)
    weights, others = state(one, steps), state(two, steps)
    assert weights.keys() == others.keys()
    for name, value in weights.items():
        scale = np.abs(value).max()
        np.testing.assert_allclose(others[name], value, rtol=1e-5, atol=1e-5 * scale, err_msg=name)


def test_two_workers_equal_one_process(start, start_two, recipe, tmp_path):
    assert start(recipe, tmp_path / "one").wait() == 0
    runs = start_two([recipe] * 2, [tmp_path / "two"] * 2)
    assert [run.wait() for run in runs] == [0, 0]
    assert_equal_runs(tmp_path / "one", tmp_path / "two", recipe.run.steps)
    environment = json.loads((tmp_path / "two" / "environment.json").read_text())["sessions"]
    assert [session["replicas"] for session in environment] == [2]  # the first worker alone keeps the run directory


@pytest.mark.slow
def test_two_workers_on_a_folder_of_photos_equal_one_process(start, start_two, recipe, tmp_path):
    names, labels = ("cat", "dog", "frog"), np.arange(30) % 3
    for seed, split in enumerate(("train", "test")):
        write_folder(tmp_path / "photos" / split, random_images(30, (None, None, 3), seed), labels, names)
    recipe = recipe.with_kind("data", "records").replace(
        dataset=str(tmp_path / "photos"), num_classes=3, image_size=(16, 16, 3), test_split="test", holdout=6,
        batch_size=8, steps=6, evaluate_every=3,
    )  # fmt: skip
    assert start(recipe, tmp_path / "one").wait() == 0
    runs = start_two([recipe] * 2, [tmp_path / "two"] * 2)
    assert [run.wait() for run in runs] == [0, 0]
    assert_equal_runs(tmp_path / "one", tmp_path / "two", recipe.run.steps)


@pytest.mark.slow
def test_batch_normalization_is_over_the_images_of_both_workers(start, start_two, recipe, tmp_path):
    recipe = recipe.replace(normalization="batch", steps=6, evaluate_every=3)
    assert start(recipe, tmp_path / "one").wait() == 0
    runs = start_two([recipe] * 2, [tmp_path / "two"] * 2)
    assert [run.wait() for run in runs] == [0, 0]
    one, two = (np.array([line["loss"] for line in lines(tmp_path / name)]) for name in ("one", "two"))
    assert len(one) == 6 + 2
    np.testing.assert_allclose(two, one, rtol=1e-3)


@pytest.mark.slow
def test_dropout_on_two_workers_goes_on_where_it_was(start_two, tmp_path):
    recipe = recipes.DIGITS.replace(network="all_cnn_c", precision="float32")
    recipe = recipe.replace(batch_size=8, log_every=1, evaluate_every=4, checkpoint_every=2, steps=4)
    for name, parts in {"straight": [4], "resumed": [2, 4]}.items():
        for steps in parts:
            runs = start_two([recipe.replace(steps=steps)] * 2, [tmp_path / name] * 2)
            assert [run.wait() for run in runs] == [0, 0]
    straight, resumed = (
        [line["loss"] for line in lines(tmp_path / name) if line["split"] == "train"]
        for name in ("straight", "resumed")
    )
    assert len(straight) == 4
    np.testing.assert_allclose(resumed, straight, rtol=1e-5)


@pytest.mark.slow
def test_a_sigterm_to_one_worker_stops_all_at_one_step_and_they_go_on(start, start_two, recipe, tmp_path):
    recipe = recipe.replace(steps=60)
    assert start(recipe, tmp_path / "one").wait() == 0
    run_dir = tmp_path / "two"
    runs = start_two([recipe] * 2, [run_dir] * 2)
    wait_for_lines(runs[0], run_dir / "metrics.jsonl", 10)
    runs[1].send(signal.SIGTERM)
    assert [run.wait() for run in runs] == [128 + signal.SIGTERM] * 2
    stopped_at = lines(run_dir)[-1]["step"]
    assert stopped_at < recipe.run.steps
    for run in runs:
        assert f"saved at step {stopped_at}: the same command continues the run" in run.output()
    runs = start_two([recipe] * 2, [run_dir] * 2)
    assert [run.wait() for run in runs] == [0, 0]
    assert all(f"from step {stopped_at} to 60" in run.output() for run in runs)
    assert_equal_runs(tmp_path / "one", run_dir, recipe.run.steps)


@pytest.mark.slow
@pytest.mark.parametrize("killed", [0, 1])
def test_after_a_sigkill_the_others_end_and_the_job_goes_on(start, start_two, recipe, tmp_path, killed):
    assert start(recipe, tmp_path / "one").wait() == 0
    run_dir = tmp_path / "two"
    runs = start_two([recipe] * 2, [run_dir] * 2)
    wait_for_lines(runs[0], run_dir / "metrics.jsonl", 18)
    os.kill(runs[killed].process.pid, signal.SIGKILL)
    assert runs[killed].wait() == -signal.SIGKILL
    assert runs[1 - killed].wait() == 1
    said = runs[1 - killed].output()
    assert (
        "failed: A worker of worker 0 (" in said
        and "has ended or cannot be reached" in said
        and "Traceback" not in said
    )
    runs = start_two([recipe] * 2, [run_dir] * 2)
    assert [run.wait() for run in runs] == [0, 0]
    assert all("from step 14 to 30" in run.output() or "from step 21 to 30" in run.output() for run in runs)
    assert_equal_runs(tmp_path / "one", run_dir, recipe.run.steps)


def test_workers_with_different_recipes_are_refused(start_two, recipe, tmp_path):
    other = recipe.replace(learning_rate=0.1, seed=1)
    runs = start_two([recipe, other], [tmp_path / "run"] * 2)
    assert [run.wait() for run in runs] == [2, 2]
    for run in runs:
        assert "seed is 0 and 1" in run.output() and "learning_rate is 0.05 and 0.1" in run.output()
        assert "Traceback" not in run.output()
    assert not (tmp_path / "run").exists()


def test_a_run_directory_that_is_not_shared_is_refused(start_two, recipe, tmp_path):
    runs = start_two([recipe] * 2, [tmp_path / "here", tmp_path / "there"])
    assert [run.wait() for run in runs] == [2, 2]
    for run in runs:
        assert "must be shared by all workers" in run.output() and "but worker 1 (" in run.output()
    assert [path.name for path in (tmp_path / "here").iterdir()] == [".lock"]
    assert not (tmp_path / "there").exists()


@pytest.mark.parametrize(
    ("environment", "message"),
    [
        ({"TF_CONFIG": "{worker"}, "TF_CONFIG must be JSON such as"),
        ({"TF_CONFIG": "[1]"}, "TF_CONFIG must be an object such as"),
        ({"TF_CONFIG": '{"cluster": ["a:1"]}'}, "must be lists of addresses by job"),
        ({"TF_CONFIG": '{"cluster": {"worker": "a:1"}}'}, "must be lists of addresses by job"),
        ({"TF_CONFIG": '{"cluster": {"worker": ["a:1"]}}'}, "must say which task this is"),
        (configured(master=["a:1"]), "must be among chief, worker, ps, evaluator. Received: master"),
        (configured(["a:1", "b"]), "must be host:port. Received: 'b' for worker 1"),
        (configured(["a:1", "b:99999"]), "must be host:port. Received: 'b:99999' for worker 1"),
        (configured(["a:1", 7]), "must be host:port. Received: 7 for worker 1"),
        (configured(["a:1", "a:1"]), "Received: a:1 for worker 0 and worker 1"),
        (configured(chief=["127.0.0.1:2223"]), "Received: 127.0.0.1:2223 for chief 0 and worker 1"),
        (configured(index=2), "must be one of its cluster: worker 0 (127.0.0.1:2222), worker 1 (127.0.0.1:2223)"),
        (configured(job="ps"), "Received: ps 0"),
    ],
)
def test_a_malformed_tf_config(environment, message):
    with pytest.raises(BadInput) as refusal:
        tf_config.read_cluster(environment)
    assert message in str(refusal.value)


@pytest.mark.parametrize(
    ("strategy", "environment", "message"),
    [
        ("multi-worker", {}, "strategy multi-worker needs the environment variable TF_CONFIG"),
        ("multi-worker", configured(ps=["a:1"]), "must have no parameter servers"),
        ("parameter-server", configured(), "Received: 0 chief, 2 worker and 0 ps"),
        ("auto", configured(ps=["a:1"]), "Received: 0 chief, 2 worker and 1 ps"),
        ("many", {}, "strategy must be one of auto, one"),
    ],
)
def test_a_tf_config_for_another_strategy(strategy, environment, message, monkeypatch):
    monkeypatch.delenv("TF_CONFIG", raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(BadInput) as refusal:
        create_engine(strategy)
    assert message in str(refusal.value)


def test_auto_takes_the_strategy_that_tf_config_is_for(monkeypatch):
    monkeypatch.setenv("TF_CONFIG", configured(chief=["a:1"])["TF_CONFIG"])
    assert [task.job for task in distribution.find_cluster("auto").workers()] == ["chief", "worker", "worker"]
    assert distribution.find_cluster("one") is None
    monkeypatch.setenv("TF_CONFIG", configured(["a:1"])["TF_CONFIG"])
    assert distribution.find_cluster("auto") is None  # one process needs no cluster
    assert len(distribution.find_cluster("multi-worker").workers()) == 1


def test_one_machine_of_a_job_keeps_the_run_directory(monkeypatch):
    monkeypatch.delenv("TF_CONFIG", raising=False)
    assert keeps_run_directory()
    for jobs in ({"worker": 2}, {"chief": 1, "worker": 2, "ps": 1}):
        kept = []
        for task, config in configurations(**jobs).items():
            monkeypatch.setenv("TF_CONFIG", config)
            kept += [task] if keeps_run_directory() else []
        assert kept == [("chief" if "chief" in jobs else "worker", 0)]


def test_a_batch_that_the_replicas_do_not_divide():
    found = tf_config.read_cluster(configured(["a:1", "a:2", "a:3"]))
    replicas = 3 * max(1, len(tf.config.list_physical_devices("GPU")))
    with pytest.raises(BadInput, match=f"multiple of the replicas, {replicas}. Received: batch_size=64"):
        distribution.create_strategy("multi-worker", None, 64, found, peer_timeout=0)
    with pytest.raises(BadInput, match=r"uses all GPUs of every machine\. Received: replicas=2"):
        distribution.create_strategy("multi-worker", 2, 64, found, peer_timeout=0)


def test_a_worker_that_does_not_answer_is_named():
    here, there, absent = free_ports(3)
    found = tf_config.read_cluster(configured([f"127.0.0.1:{port}" for port in (here, there, absent)]))
    with socket.create_server(("127.0.0.1", there)), pytest.raises(BadInput) as refusal:
        tf_config.wait_for(found.workers(), found.this, seconds=0.3)
    assert str(refusal.value) == (
        f"worker 0 (127.0.0.1:{here}) waited 0.3 s for machines of TF_CONFIG that do not answer: "
        f"worker 2 (127.0.0.1:{absent}): Connection refused"
    )


def test_a_port_that_another_process_has_is_refused():
    (port,) = free_ports(1)
    found = tf_config.read_cluster(configured([f"127.0.0.1:{port}"]))
    with (
        socket.create_server(("127.0.0.1", port)),
        pytest.raises(BadInput, match="cannot be used on this machine: Address already in use"),
    ):
        tf_config.wait_for(found.workers(), found.this, seconds=0.3)


@pytest.mark.slow
def test_an_evaluator_beside_two_workers(recipe, start, tmp_path):
    jobs = configurations(worker=2, evaluator=1)
    runs = [start(recipe, tmp_path / "run", "--peer-timeout", "100", TF_CONFIG=config) for config in jobs.values()]
    assert [run.wait() for run in runs] == [0, 0, 0]
    assert "step 30: test loss" in runs[-1].output() and "from step" not in runs[-1].output()


@pytest.mark.slow
def test_two_workers_and_two_devices_begin_with_the_weights_of_another_run(recipe, start, start_two, tmp_path):
    assert start(recipe.replace(seed=5, steps=2), tmp_path / "first").wait() == 0
    recipe = recipe.replace(initialize_from=str(tmp_path / "first"), freeze=("stem",), steps=4, evaluate_every=4)
    assert start(recipe, tmp_path / "one").wait() == 0
    assert start(recipe, tmp_path / "mirrored", "--strategy", "mirrored", "--replicas", "2").wait() == 0
    assert [run.wait() for run in start_two([recipe] * 2, [tmp_path / "workers"] * 2)] == [0, 0]
    for other in ("mirrored", "workers"):
        assert_equal_runs(tmp_path / "one", tmp_path / other, 4)
    np.testing.assert_array_equal(
        *(state(tmp_path / run, step)["model/0000"] for run, step in (("first", 2), ("one", 4)))
    )
