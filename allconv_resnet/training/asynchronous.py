"""Asynchronous training, as on the paper's six machines (section 4.2): a chief that schedules steps, workers that make
them without waiting for each other, and parameter servers that keep the weights.
"""

import math
import os
import signal
import time

import tensorflow as tf

from allconv_resnet.data import pipeline, sources
from allconv_resnet.errors import BadInput, RunFailed
from allconv_resnet.training import cluster as clusters
from allconv_resnet.training import environment, run_directory
from allconv_resnet.training import strategy as strategies
from allconv_resnet.training.checkpoints import Checkpoints
from allconv_resnet.training.loop import StopSignal
from allconv_resnet.training.parameter_server import Servers, make_worker_step
from allconv_resnet.training.reports import Metrics, Progress, best, describe, duration, plot, summary
from allconv_resnet.training.steps import Totals, evaluate, make_evaluate_step

AHEAD = 4  # steps that are scheduled for each worker before the first of them is counted


def train(recipe, run_dir, data_dir, cluster, peer_timeout):
    """Plays the part of this process in an asynchronous run, until the run has finished or is stopped.

    Args:
        recipe: `Recipe`; its batch is that of one worker.
        run_dir: Path of the run directory.
        data_dir: Path of tensorflow-datasets, see `sources.load`.
        cluster: `Cluster` with parameter servers.
        peer_timeout: Number, seconds to wait for the other machines.

    Returns:
        The number of the signal that stopped the run early, or None if it has finished.

    Raises:
        BadInput: before anything is written, if something does not fit or a machine does not answer.
        RunFailed: if the loss is not finite, the run directory can no longer be written to, or a machine is gone.
    """
    os.environ.setdefault("GRPC_FAIL_FAST", "use_caller")  # a call to a process that is gone fails at once
    if recipe.optimizer != "momentum":
        raise BadInput(f"asynchronous updates are those of momentum. Received: optimizer={recipe.optimizer!r}")
    if cluster.this.job != "chief":
        return serve(cluster, recipe.steps, run_dir, peer_timeout)
    if run_directory.finished(run_dir, recipe.steps):  # the others, which see the same, need not be there
        print(f"{run_dir} has already finished. {summary(run_directory.read_metrics(run_dir))}", flush=True)
        return None
    tf.config.threading.set_inter_op_parallelism_threads(_threads(cluster))
    clusters.wait_for(cluster.tasks, cluster.this, peer_timeout)
    strategy = tf.distribute.ParameterServerStrategy(tf.distribute.cluster_resolver.TFConfigClusterResolver())
    strategies.require_even(recipe.batch_size, strategy.num_replicas_in_sync)
    data = sources.load(recipe.dataset, data_dir)
    data.check(recipe.image_size, recipe.num_classes)
    model = recipe.build_model(data.train_images if recipe.whitened_stem else None)
    with run_directory.RunDirectory(run_dir) as run, StopSignal() as stop:
        try:
            return _lead(recipe, run, data, model, cluster, strategy, stop, peer_timeout)
        except OSError as error:
            raise RunFailed(f"{run_dir} can no longer be written to ({error}): the last checkpoint is kept") from error
        except (*pipeline.UNREADABLE, tf.errors.FailedPreconditionError) as error:
            raise pipeline.unreadable(error) from error
        except (tf.errors.UnavailableError, tf.errors.AbortedError, tf.errors.CancelledError) as error:
            raise RunFailed(
                f"A parameter server of {', '.join(map(str, cluster.of('ps')))} has gone or cannot be reached any more "
                f"({error.message.splitlines()[0]}): the last checkpoint in {run_dir} is kept, and the same commands "
                f"on all machines go on from it"
            ) from error


def serve(cluster, steps, run_dir, peer_timeout):
    """Serves a chief as a worker or a parameter server until its run of so many steps has finished.

    A chief that goes may come back within the time limit, and goes on from its last checkpoint.

    Raises:
        BadInput: if the chief never answers, or the port of this process is taken.
        RunFailed: if the chief has gone for longer than the time limit and the run has not finished.
    """
    clusters.wait_for([], cluster.this, 0)  # the port
    seen, met = time.time(), False
    spec = {job: [task.address for task in cluster.of(job)] for job in ("chief", "worker", "ps")}
    # On few cores TensorFlow has few threads, and a step that waits for a server on each of them waits for ever.
    config = tf.compat.v1.ConfigProto(inter_op_parallelism_threads=_threads(cluster))
    server = tf.distribute.Server(spec, cluster.this.job, cluster.this.index, protocol="grpc", config=config)
    print(f"{cluster.this} serves at {server.target}", flush=True)
    (chief,) = cluster.of("chief")
    while True:
        if not clusters.unreachable(chief):
            seen, met = time.time(), True
        elif run_directory.finished(run_dir, steps):
            print(f"The run has finished: {cluster.this} ends", flush=True)
            return None
        elif time.time() - seen > peer_timeout:
            message = f"{cluster.this} has seen nothing of {chief} for {peer_timeout:g} s"
            raise RunFailed(f"{message}, and the run has not finished") if met else BadInput(message)
        time.sleep(1)


def _threads(cluster):
    return max(len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(), len(cluster.tasks))


def _lead(recipe, run, data, model, cluster, strategy, stop, peer_timeout):
    # 1. The state, as it was after the last checkpoint, here and on the servers.
    optimizer, totals = recipe.build_optimizer(), Totals()
    optimizer.build(model.trainable_variables)
    checkpoints = Checkpoints(run.path / "checkpoints", model=model, optimizer=optimizer, totals=totals)
    best_checkpoint = Checkpoints(run.path / "checkpoints" / "best", keep=1, model=model)
    step, damaged = checkpoints.restore()
    step = step or 0
    progress = Progress(recipe.steps, step)
    for bad in damaged:
        progress.say(f"The checkpoint of step {bad} is damaged: going back to step {step}")
    metrics = Metrics(run.path, step)
    run.write_recipe(recipe, data.label_names)
    more = {"centre": data.centre, "workers": len(cluster.of("worker"))}
    run.add_session(step, environment.describe(strategy, recipe.precision) | more)
    progress.say(
        f"{recipe.name}: from step {step:,} to {recipe.steps:,}, {model.count_params():,} parameters, "
        f"{recipe.precision}, asynchronous on {len(cluster.of('worker'))} worker(s), in {run.path}"
    )
    servers = Servers(strategy, model, optimizer, totals)
    schedule = recipe.build_schedule()
    make_steps = _scheduler(strategy, servers, schedule, recipe, data, cluster.of("worker"), stop, peer_timeout)
    here = tf.distribute.get_strategy()  # the chief evaluates by itself
    evaluate_step = make_evaluate_step(here, model)

    # 2. Steps, from one look to the next. At a look no step is under way.
    images, seconds = 0, 0.0
    while step < recipe.steps and not stop.signal:
        before, began = step, time.perf_counter()
        intervals = (recipe.log_every, recipe.evaluate_every, recipe.checkpoint_every)
        make_steps(min(recipe.steps, *((step // every + 1) * every for every in intervals)) - step)
        servers.pull()
        step = int(servers.step.read_value())
        images, seconds = images + (step - before) * recipe.batch_size, seconds + time.perf_counter() - began
        if not math.isfinite(totals.sums[0]):
            raise RunFailed(
                f"The loss is not finite between the steps {before} and {step}, with learning rate "
                f"{float(schedule(before)):g}: the last checkpoint is kept; a lower learning rate may help"
            )
        log_now, evaluate_now, save_now = (step >= recipe.steps or step // n > before // n for n in intervals)
        if progress.due():
            progress.show(step, totals.means(), images / seconds)
        if log_now:
            rate = float(f"{float(schedule(step - 1)):.7g}")  # the digits that float32 has
            staleness = int(servers.lag.read_value()) * recipe.batch_size / images
            skipped = {"skipped": totals.skipped()} if totals.skipped() else {}
            rates = {"learning_rate": rate, "images_per_second": images / seconds, "staleness": staleness}
            metrics.add(step, "train", **totals.means(), **skipped, **rates)
            servers.reset()
            images, seconds = 0, 0.0
        if evaluate_now:
            test = evaluate(here, evaluate_step, data, "test", recipe)
            progress.say(f"step {step:,}: {describe(test, 'test')}")
            metrics.add(step, "test", **test)
            if best(metrics.lines) is metrics.lines[-1]:
                best_checkpoint.save(step)
            plot(run.path, recipe.name)
        if save_now or stop.signal:
            metrics.flush()
            checkpoints.save(step)

    # 3. The end, or the way to it.
    if step < recipe.steps:
        progress.say(
            f"Stopped by {signal.Signals(stop.signal).name} and saved at step {step:,}: the same commands go on"
        )
        return stop.signal
    run.finish(model)
    progress.say(
        f"{run.path} has finished, in {duration(progress.elapsed())} of this session. {summary(metrics.lines)}"
    )
    return None


def _scheduler(strategy, servers, schedule, recipe, data, workers, stop, peer_timeout):
    """Returns the function (count) that has the workers make so many steps, or fewer if the run is stopped."""
    coordinator = tf.distribute.coordinator.ClusterCoordinator(strategy)
    worker_step = make_worker_step(
        strategy, servers, schedule, recipe.batch_size, recipe.clip_norm, recipe.label_smoothing
    )

    def batches():
        # The coordinator does not tell the workers apart. Each of them begins with an epoch of its own in the unending
        # sequence of shuffled epochs, and so has its own order of the images.
        epoch = tf.random.uniform([], maxval=2**20, dtype=tf.int64)
        first_step = epoch * data.examples("train") // recipe.batch_size + 1
        return pipeline.distribute(strategy, data.training_batches, recipe, first_step)

    batches = iter(coordinator.create_per_worker_dataset(batches))

    def make_steps(count):
        first, counted, seen = int(servers.step.read_value()), 0, time.monotonic()

        def wait_a_little():
            nonlocal counted, seen
            time.sleep(0.002)
            before, counted = counted, int(servers.step.read_value()) - first
            if counted > before:
                seen = time.monotonic()
            elif time.monotonic() - seen > peer_timeout:  # the coordinator would wait for ever for a worker to be back
                if all(clusters.unreachable(worker) for worker in workers):
                    raise RunFailed(
                        f"No step was made for {peer_timeout:g} s, and none of the workers can be reached "
                        f"({', '.join(map(str, workers))}): the last checkpoint is kept, and the same commands on all "
                        f"machines go on from it"
                    )
                seen = time.monotonic()

        for scheduled in range(count):
            while scheduled - counted >= AHEAD * len(workers):
                wait_a_little()
            if stop.signal:
                break
            coordinator.schedule(worker_step, args=(batches,))
        while not coordinator.done():
            wait_a_little()
        coordinator.join()

    return make_steps
