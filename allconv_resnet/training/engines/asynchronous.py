"""Asynchronous training, as on the paper's six machines (section 4.2).

A chief schedules steps, workers make them without waiting for each other, and parameter servers hold the weights.
"""

import contextlib
import os
import time

import numpy as np
import tensorflow as tf

from allconv_resnet.data import pipeline
from allconv_resnet.environment import cores
from allconv_resnet.errors import BadInput, RunFailed
from allconv_resnet.training import run_state
from allconv_resnet.training.engines import distribution, tf_config
from allconv_resnet.training.engines.engine import Engine, whitening_images
from allconv_resnet.training.engines.parameter_server import Servers, make_worker_step
from allconv_resnet.training.engines.reasons import tensorflow_reason
from allconv_resnet.training.engines.steps import Totals, make_evaluate_step, sums_of

SCHEDULED_AHEAD = 4  # steps that are scheduled for each worker before the first of them is counted


class AsynchronousEngine(Engine):
    """Trains asynchronously. The chief leads the job, and workers and parameter servers serve it.

    The batch size of the recipe is that of one worker.

    Args:
        cluster: `Cluster` with parameter servers.
        replicas: None, since this engine uses all GPUs of every worker.
        peer_timeout: Number, seconds to wait for the other machines.
    """

    look_every = None  # steps are in progress between two marks
    strategy = "ParameterServerStrategy"

    def __init__(self, cluster, replicas=None, peer_timeout=300):
        if replicas is not None:
            raise BadInput(f"strategy parameter-server uses all GPUs of every worker. Received: replicas={replicas}")
        self.cluster, self.peer_timeout = cluster, peer_timeout
        os.environ.setdefault("GRPC_FAIL_FAST", "use_caller")  # a call to a process that is gone fails at once

    def resolve_precision(self):
        return distribution.resolve_precision("auto")

    def describe(self):
        return {**super().describe(), "workers": len(self.cluster.tasks_of("worker")), "gpus": distribution.gpu_names()}

    def serve(self, recipe, run_dir, overwrite=False):
        _require_momentum(recipe)
        if self.cluster.this.job == "chief":
            return False
        serve_chief(self.cluster, recipe.run, run_dir, self.peer_timeout, overwrite)
        return True

    @contextlib.contextmanager
    def job(self, recipe, run_dir):
        tf.config.threading.set_inter_op_parallelism_threads(_threads(self.cluster))
        tf_config.wait_for(self.cluster.tasks, self.cluster.this, self.peer_timeout)
        self.distribution = tf.distribute.ParameterServerStrategy(distribution.resolver(self.cluster))
        distribution.require_even(recipe.run.batch_size, self.distribution.num_replicas_in_sync)
        try:
            yield
        except (*pipeline.UNREADABLE, tf.errors.FailedPreconditionError) as error:
            raise pipeline.unreadable(error, getattr(self, "source", None)) from error
        except (tf.errors.UnavailableError, tf.errors.AbortedError, tf.errors.CancelledError) as error:
            raise RunFailed(
                f"A parameter server of {', '.join(map(str, self.cluster.tasks_of('ps')))} has ended or cannot be "
                f"reached{tensorflow_reason(error)}: the last checkpoint in {run_dir} is kept, and the same "
                f"commands on all machines continue from it"
            ) from error

    def build(self, recipe, source, training=True):
        self.recipe, self.source = recipe, source
        self.model = recipe.build_model(whitening_images(recipe, source) if training else None)
        self.optimizer = recipe.build_optimizer()
        self.optimizer.build(self.model.trainable_variables)
        self.totals = Totals()
        self._evaluate_step = make_evaluate_step(tf.distribute.get_strategy(), self.model)

    def begin(self, step, stop):
        self._stop, self._first_bad, self._updates = stop, 0, 0
        self.servers = Servers(self.distribution, self.model, self.optimizer, self.totals)
        self._schedule = _scheduler(self, self.recipe.build_schedule())

    def advance(self, step, to_step):
        if not self._stop.signal:
            self._schedule(to_step - step)
            self.servers.pull()
        # A step whose worker fails before it answers is made again, so that there may be more than were asked for.
        before, step = step, min(int(self.servers.step.read_value()), self.recipe.run.steps)
        self._updates += step - before
        if not self._first_bad and not np.isfinite(self.totals.sums[0]):
            self._first_bad = before + 1  # it may be a later step, as the servers keep no losses of steps
        self.stopped = self._stop.signal if step < to_step else None
        return step

    def first_bad_step(self):
        return self._first_bad

    def sums(self):
        return self.totals.sums.numpy()

    def rates(self):
        return {"staleness": int(self.servers.lag.read_value()) / self._updates} if self._updates else {}

    def reset(self):
        self.servers.reset()
        self._updates = 0

    def load_sums(self, sums):
        self.totals.sums.assign(sums)

    def test(self, split):
        strategy = tf.distribute.get_strategy()  # the chief evaluates alone
        batches = pipeline.distribute(strategy, self.source.evaluation_batches, split, self.recipe, padded=True)
        return sums_of(self._evaluate_step, pipeline.read_batches(batches, self.source))


def _require_momentum(recipe):
    if recipe.optimizer.kind != "momentum":
        raise BadInput(f"Asynchronous training needs optimizer momentum. Received: optimizer={recipe.optimizer.kind!r}")


def serve_chief(cluster, run, run_dir, peer_timeout, overwrite=False):
    """Serves a chief as a worker or a parameter server until its run has finished.

    A chief that ends may be started again within the time limit. It then continues from its last checkpoint.

    Args:
        cluster: `Cluster`.
        run: The part `run` of the recipe.
        run_dir: Path of the run directory.
        peer_timeout: Number, time limit in seconds.
        overwrite: Boolean, whether a run that has finished before the chief answers is an earlier one.

    Raises:
        BadInput: if the chief never answers, or the port of this process is taken.
        RunFailed: if the chief does not answer for longer than the time limit and the run has not finished.
    """
    tf_config.wait_for([], cluster.this, 0)  # checks the port
    seen, met = time.time(), False
    # On few cores TensorFlow has few threads, and steps that wait for a server would block all of them forever.
    config = tf.compat.v1.ConfigProto(inter_op_parallelism_threads=_threads(cluster))
    server = tf.distribute.Server(
        cluster.addresses(), cluster.this.job, cluster.this.index, protocol="grpc", config=config
    )
    print(f"{cluster.this} serves at {server.target}", flush=True)
    (chief,) = cluster.tasks_of("chief")
    while True:
        if not tf_config.unreachable(chief):
            seen, met = time.time(), True
        elif (met or not overwrite) and run_state.finished(run_dir, run):
            print(f"The run has finished: {cluster.this} ends", flush=True)
            return
        elif time.time() - seen > peer_timeout:
            message = f"{cluster.this} could not reach {chief} for {peer_timeout:g} s"
            raise RunFailed(f"{message}, and the run has not finished") if met else BadInput(message)
        time.sleep(1)


def _threads(cluster):
    return max(cores(), len(cluster.tasks))


def _scheduler(engine, learning_rate):
    """Returns a function (count) -> None that lets the workers make `count` steps, or fewer if the run is stopped."""
    recipe, servers, strategy = engine.recipe, engine.servers, engine.distribution
    workers = engine.cluster.tasks_of("worker")
    coordinator = tf.distribute.coordinator.ClusterCoordinator(strategy)
    worker_step = make_worker_step(
        strategy,
        servers,
        learning_rate,
        recipe.run.batch_size,
        recipe.optimizer.clip_norm,
        recipe.run.label_smoothing,
    )

    def batches():
        # The coordinator does not distinguish the workers. Each of them begins at a random epoch of the endless
        # sequence of shuffled epochs, and so has its own order of the images.
        epoch = tf.random.uniform([], maxval=2**20, dtype=tf.int64)
        first_step = epoch * engine.source.examples(recipe.data.train_split) // recipe.run.batch_size + 1
        return pipeline.distribute(strategy, engine.source.training_batches, recipe, first_step)

    batches = iter(coordinator.create_per_worker_dataset(batches))

    def make_steps(count):
        first, counted, seen = int(servers.step.read_value()), 0, time.monotonic()

        def wait_a_little():
            nonlocal counted, seen
            time.sleep(0.002)
            before, counted = counted, int(servers.step.read_value()) - first
            if counted > before:
                seen = time.monotonic()
            elif time.monotonic() - seen > engine.peer_timeout:  # the coordinator would wait forever for a worker
                if all(tf_config.unreachable(worker) for worker in workers):
                    raise RunFailed(
                        f"No step was made for {engine.peer_timeout:g} s, and none of the workers can be reached "
                        f"({', '.join(map(str, workers))}): the last checkpoint is kept, and the same command on all "
                        f"machines continues from it"
                    )
                seen = time.monotonic()

        for scheduled in range(count):
            while scheduled - counted >= SCHEDULED_AHEAD * len(workers):
                wait_a_little()
            if engine._stop.signal:
                break
            coordinator.schedule(worker_step, args=(batches,))
        while not coordinator.done():
            wait_a_little()
        coordinator.join()

    return make_steps
