"""Machines that train without waiting for each other: a chief, a parameter server and two workers on the loopback."""

import json
import os
import signal
import time
from types import SimpleNamespace

import keras
import numpy as np
import pytest
import tensorflow as tf
from training.jobs import configurations
from training.runs import SPAWN, lines, state, wait_for, wait_for_lines

from allconv_resnet.optimizers import Momentum
from allconv_resnet.training.engines.asynchronous import AsynchronousEngine
from allconv_resnet.training.engines.parameter_server import Servers, make_worker_step
from allconv_resnet.training.engines.steps import Totals

STEPS = 400


@pytest.fixture
def recipe(tiny):
    return tiny.replace(steps=STEPS, boundaries=(200, 300), learning_rate=0.02, log_every=50, evaluate_every=100,
                        checkpoint_every=50, clip_norm=1.0)  # fmt: skip


@pytest.fixture
def start_task(start, tmp_path):
    """Starts one task of an asynchronous job."""

    def begin(recipe, config, peer_timeout=100):
        return start(
            recipe, tmp_path / "run", "--strategy", "parameter-server", "--peer-timeout", str(peer_timeout),
            "--no-export", TF_CONFIG=config, TF_CPP_MIN_LOG_LEVEL="2",
        )  # fmt: skip

    return begin


@pytest.fixture
def start_job(start_task):
    """Starts all tasks. Each has one core, on which TensorFlow by itself would have too few threads."""

    def begin(recipe, configs, **options):
        job = {task: start_task(recipe, config, **options) for task, config in configs.items()}
        cores = sorted(os.sched_getaffinity(0))
        for number, run in enumerate(job.values()):
            os.sched_setaffinity(run.process.pid, {cores[number % len(cores)]})
        return job

    return begin


def counted(run_dir, step):
    """The updates that a checkpoint has counted."""
    return int(state(run_dir, step)["optimizer/0000"])


def _serve(config):
    spec = json.loads(config)
    server = tf.distribute.Server(spec["cluster"], spec["task"]["type"], spec["task"]["index"], protocol="grpc")
    server.join()


def _apply_from_two_workers(config, answer):
    """Applies gradients of ones, and sends how often the servers have counted one, and the weights."""
    os.environ["TF_CONFIG"] = config
    from allconv_resnet.model import AllConvResNet

    strategy = tf.distribute.ParameterServerStrategy(tf.distribute.cluster_resolver.TFConfigClusterResolver())
    coordinator = tf.distribute.coordinator.ClusterCoordinator(strategy)
    model, optimizer = AllConvResNet((8, 8, 3), 4, stem=(4, 3, 1, 1), stages=[(1, 8, 2)]), Momentum(0.5, momentum=0.9)
    optimizer.build(model.trainable_variables)
    before = [variable.numpy() for variable in model.trainable_variables]
    servers = Servers(strategy, model, optimizer, Totals())

    @tf.function
    def step():
        read_at = servers.step.read_value()
        servers.apply([tf.ones_like(weight) for weight in servers.weights], 0.5, read_at, tf.ones(5))

    for _ in range(STEPS):
        coordinator.schedule(step)
    coordinator.join()
    servers.pull()
    moved = [variable.numpy() - start for variable, start in zip(model.trainable_variables, before, strict=True)]
    velocities = [velocity.numpy() for velocity in optimizer.velocities]
    answer.send((int(optimizer.iterations.numpy()), servers.totals.sums.numpy(), moved, velocities))


def test_no_update_is_lost():
    configs = configurations(chief=1, worker=2, ps=1)
    servers = [SPAWN.Process(target=_serve, args=(config,)) for (job, _), config in configs.items() if job != "chief"]
    receiver, sender = SPAWN.Pipe(duplex=False)
    chief = SPAWN.Process(target=_apply_from_two_workers, args=(configs["chief", 0], sender))
    try:
        for process in (*servers, chief):
            process.start()
        assert receiver.poll(120)
        counted, sums, moved, velocities = receiver.recv()
    finally:
        for process in (*servers, chief):
            process.kill()
    assert counted == STEPS
    np.testing.assert_array_equal(sums, np.full(5, STEPS))
    # What 400 updates of one process give, in float32 as on the servers; one update more or less moves it by 5.
    velocity, distance = np.float32(0), np.float32(0)
    for _ in range(STEPS):
        velocity = np.float32(0.9) * velocity + np.float32(1)
        distance -= np.float32(0.5) * velocity
    for value in velocities:
        np.testing.assert_allclose(value, velocity, rtol=1e-5)
    for value in moved:
        np.testing.assert_allclose(value, distance, rtol=1e-4)


def test_changes_of_moving_averages_are_added_to_those_of_others():
    model = keras.Sequential([keras.Input((4,)), keras.layers.BatchNormalization(), keras.layers.Dense(2)])
    optimizer = Momentum(0.1)
    optimizer.build(model.trainable_variables)
    strategy = tf.distribute.get_strategy()
    servers = Servers(strategy, model, optimizer, Totals())
    mean = servers.fixed[0]

    class Batches:
        def __next__(self):  # another worker changes the mean after this one has read it
            mean.assign_add(tf.fill([4], 100.0))
            return tf.fill([8, 4], 10.0), tf.zeros([8], tf.int64)

    make_worker_step(strategy, servers, lambda step: 0.1, batch_size=8)(Batches())
    np.testing.assert_allclose(mean, np.full(4, 100 + 0.01 * 10), rtol=1e-6)


def test_an_asynchronous_run_learns_as_a_synchronous_one(start, start_job, recipe, tmp_path):
    assert start(recipe, tmp_path / "one", "--no-export").wait() == 0
    job = start_job(recipe, configurations(chief=1, worker=2, ps=1))
    assert {task: run.wait() for task, run in job.items()} == dict.fromkeys(job, 0)
    run_dir = tmp_path / "run"
    assert [line["step"] for line in lines(run_dir) if line["split"] == "train"] == list(range(50, STEPS + 1, 50))
    assert counted(run_dir, STEPS) == STEPS
    assert any(line.get("staleness", 0) > 0 for line in lines(run_dir))  # the workers did not wait for each other
    falls = []
    for path in (tmp_path / "one", run_dir):
        losses = [line["loss"] for line in lines(path) if line["split"] == "test"]
        falls.append(np.log(10) - losses[-1])  # from the loss of guessing
    assert falls[0] > 1
    assert falls[1] > 0.9 * falls[0], falls


def test_a_job_that_has_finished_says_so_and_ends_at_every_machine(start_job, recipe, tmp_path):
    recipe = recipe.replace(steps=40, boundaries=(20,), log_every=40, evaluate_every=40, checkpoint_every=40)
    for said in ("has finished", "has already finished"):
        job = start_job(recipe, configurations(chief=1, worker=1, ps=1))
        assert {task: run.wait() for task, run in job.items()} == dict.fromkeys(job, 0)
        assert said in job["chief", 0].output()


@pytest.mark.parametrize(
    "options, message",
    [
        (("--replicas", "2"), "strategy parameter-server uses all GPUs of every worker"),
        (("--optimizer", "muon"), "Asynchronous training needs optimizer momentum"),
    ],
    ids=lambda value: value[0] if isinstance(value, tuple) else "",
)
def test_options_that_are_not_for_asynchronous_jobs(start, recipe, tmp_path, options, message):
    config = configurations(chief=1, worker=1, ps=1)["chief", 0]
    run = start(recipe, tmp_path / "run", "--strategy", "parameter-server", *options, TF_CONFIG=config)
    assert run.wait() == 2 and message in run.output()
    assert not (tmp_path / "run").exists()


def test_a_worker_whose_chief_never_answers_ends(start, recipe, tmp_path):
    configs = configurations(chief=1, worker=1, ps=1)
    chief = json.loads(configs["chief", 0])["cluster"]["chief"][0]
    run = start(recipe, tmp_path / "run", "--peer-timeout", "1", TF_CONFIG=configs["worker", 0])
    assert run.wait() == 2
    assert f"could not reach chief 0 ({chief}) for 1 s" in run.output() and "Traceback" not in run.output()
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
def test_a_worker_that_is_killed_and_comes_back_loses_no_step(start_task, start_job, recipe, tmp_path):
    recipe = recipe.replace(steps=10**6, boundaries=(), evaluate_every=10**6, checkpoint_every=10**6)
    run_dir = tmp_path / "run"
    configs = configurations(chief=1, worker=2, ps=1)
    job = start_job(recipe, configs)
    wait_for_lines(job["chief", 0], run_dir / "metrics.jsonl", 4)
    os.kill(job["worker", 1].process.pid, signal.SIGKILL)
    killed_at = lines(run_dir)[-1]["step"]
    time.sleep(5)
    back_at = lines(run_dir)[-1]["step"]
    job["worker", 1] = start_task(recipe, configs["worker", 1])
    assert killed_at < back_at  # the other worker went on

    def two_of_them():
        return any(line["step"] > back_at and line.get("staleness", 0) > 0 for line in lines(run_dir, "train"))

    wait_for(job["chief", 0], two_of_them)
    job["chief", 0].send(signal.SIGTERM)
    assert job["chief", 0].wait() == 128 + signal.SIGTERM
    stopped_at = lines(run_dir)[-1]["step"]
    assert counted(run_dir, stopped_at) == stopped_at


@pytest.mark.slow
def test_after_the_chief_was_killed_a_new_one_goes_on_with_the_same_servers(start_task, start_job, recipe, tmp_path):
    run_dir = tmp_path / "run"
    configs = configurations(chief=1, worker=2, ps=1)
    job = start_job(recipe, configs)
    wait_for(job["chief", 0], (run_dir / "checkpoints" / "step-150.npz").exists)
    os.kill(job["chief", 0].process.pid, signal.SIGKILL)
    assert job["chief", 0].wait() == -signal.SIGKILL
    job["chief", 0] = start_task(recipe, configs["chief", 0])
    assert {task: run.wait() for task, run in job.items()} == dict.fromkeys(job, 0)
    assert "from step 0 to" not in job["chief", 0].output()
    assert counted(run_dir, STEPS) == STEPS
    assert [line["step"] for line in lines(run_dir) if line["split"] == "train"] == list(range(50, STEPS + 1, 50))


@pytest.mark.slow
def test_after_the_parameter_server_was_killed_the_job_goes_on(start_job, recipe, tmp_path):
    run_dir = tmp_path / "run"
    job = start_job(recipe, configurations(chief=1, worker=2, ps=1))
    wait_for(job["chief", 0], (run_dir / "checkpoints" / "step-150.npz").exists)
    os.kill(job["ps", 0].process.pid, signal.SIGKILL)
    assert job["chief", 0].wait() == 1
    said = job["chief", 0].output()
    assert "failed: A parameter server of ps 0 (" in said and "Traceback" not in said
    for run in job.values():
        run.kill()
    job = start_job(recipe, configurations(chief=1, worker=2, ps=1))
    assert {task: run.wait() for task, run in job.items()} == dict.fromkeys(job, 0)
    assert "from step 0 to" not in job["chief", 0].output()
    assert counted(run_dir, STEPS) == STEPS


@pytest.mark.slow
def test_a_chief_whose_workers_have_all_gone_ends(start_job, recipe, tmp_path):
    job = start_job(recipe, configurations(chief=1, worker=1, ps=1), peer_timeout=30)
    wait_for(job["chief", 0], (tmp_path / "run" / "checkpoints" / "step-150.npz").exists)
    os.kill(job["worker", 0].process.pid, signal.SIGKILL)
    assert job["chief", 0].wait() == 1
    said = job["chief", 0].output()
    assert "failed: No step was made for 30 s, and none of the workers can be reached (worker 0 (" in said
    assert "Traceback" not in said
    assert (tmp_path / "run" / "checkpoints" / "step-150.npz").exists()


def test_an_evaluator_tests_the_checkpoints_and_is_not_waited_for(recipe, start_task, tmp_path):
    """TensorFlow's estimators had such a task: it is in the TF_CONFIG of all, and does not train."""
    recipe = recipe.replace(steps=40, boundaries=(30,), checkpoint_every=20, evaluate_every=20)
    configs = configurations(chief=1, worker=1, ps=1, evaluator=1)
    job = {task: start_task(recipe, config) for task, config in configs.items() if task[0] != "evaluator"}
    assert job["chief", 0].wait() == 0
    evaluator = start_task(recipe, configs["evaluator", 0])
    assert evaluator.wait() == 0
    results = [json.loads(line) for line in (tmp_path / "run" / "evaluations.jsonl").read_text().splitlines()]
    last = lines(tmp_path / "run", "test")[-1]
    assert results[-1]["step"] == last["step"] >= 40
    assert results[-1]["loss"] == pytest.approx(last["loss"], rel=1e-4)
    assert f"step {last['step']}: test loss {last['loss']:.4f}" in evaluator.output()


def test_an_evaluator_without_a_run_ends_with_a_sentence(recipe, start_task):
    evaluator = start_task(recipe, configurations(chief=1, worker=1, ps=1, evaluator=1)["evaluator", 0], peer_timeout=1)
    assert evaluator.wait() == 2
    assert "The evaluator waited 1 s for the run in" in evaluator.output() and "has not begun" in evaluator.output()


@pytest.mark.parametrize(("planned", "made"), [(20, 13), (13, 13), (12, 12), (10, 10)])
def test_no_more_steps_are_counted_than_were_planned(tiny, planned, made):
    """A step whose worker fails before it answers is made again, so that the servers may have counted it twice."""
    engine = AsynchronousEngine.__new__(AsynchronousEngine)
    engine.recipe, engine.totals = tiny.replace(steps=planned, boundaries=()), Totals()
    engine.servers = SimpleNamespace(step=tf.Variable(13), pull=lambda: None)
    engine._stop, engine._schedule = SimpleNamespace(signal=None), lambda count: None
    engine._first_bad = engine._updates = 0
    assert engine.advance(8, 10) == made and engine.stopped is None
