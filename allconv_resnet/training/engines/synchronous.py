"""Synchronous training with `tf.distribute` on one device, all devices of a machine, or those of several machines."""

import contextlib
import time

import tensorflow as tf

from allconv_resnet.data import pipeline
from allconv_resnet.errors import RunFailed
from allconv_resnet.training.engines import distribution
from allconv_resnet.training.engines.engine import Engine, whitening_images
from allconv_resnet.training.engines.steps import Totals, make_evaluate_step, make_train_step, sums_of
from allconv_resnet.training.engines.team import Team


class SynchronousEngine(Engine):
    """Trains on replicas that share every batch and all apply the same gradient.

    Args:
        strategy: See `engines.create_engine`.
        replicas: See `engines.create_engine`.
        cluster: `Cluster` of a multi-worker job, or None.
        peer_timeout: Number, seconds to wait for the other machines.
    """

    def __init__(self, strategy="auto", replicas=None, cluster=None, peer_timeout=300):
        self._options = (strategy, replicas)
        self._cluster, self._peer_timeout = cluster, peer_timeout

    def resolve_precision(self):
        return distribution.resolve_precision("auto")

    def describe(self):
        strategy = type(self.distribution).__name__.lstrip("_")
        return {**super().describe(), "strategy": strategy, "gpus": distribution.gpu_names()}

    @contextlib.contextmanager
    def job(self, recipe, run_dir):
        batch_size = recipe.run.batch_size
        self.distribution = distribution.create_strategy(*self._options, batch_size, self._cluster, self._peer_timeout)
        self.replicas = self.distribution.num_replicas_in_sync
        self.team = Team(self.distribution, self._cluster)
        self.chief = self.team.chief
        with self.team.together(run_dir):
            self.require_same(replicas=self.replicas, **recipe.flat())
            yield

    def require_same(self, **values):
        self.team.require_same(**values)

    def require_shared(self, run_dir):
        self.team.require_shared(run_dir)

    def build(self, recipe, source, training=True):
        self.recipe, self.source = recipe, source
        images = whitening_images(recipe, source) if training else None
        with self.distribution.scope():
            self.model = recipe.build_model(images)
            self.optimizer = recipe.build_optimizer()
            self.optimizer.build(self.model.trainable_variables)
        self.totals = Totals()
        self._evaluate_step = make_evaluate_step(self.distribution, self.model)

    def begin(self, step, stop):
        self._stop = stop
        distribution.draw_apart(self.distribution, self.model)
        self._train_step = make_train_step(
            self.distribution,
            self.model,
            self.optimizer,
            self.totals,
            self.recipe.run.batch_size,
            self.recipe.optimizer.clip_norm,
            self.recipe.run.label_smoothing,
        )
        batches = pipeline.distribute(self.distribution, self.source.training_batches, self.recipe, step)
        self._batches = pipeline.read_batches(batches)
        self._waited = self._seconds = 0.0

    def advance(self, step, to_step):
        began = time.perf_counter()
        while step < to_step and not (stopped := self.team.stop(self._stop.signal, step)):
            asked = time.perf_counter()
            batch = next(self._batches)
            self._waited += time.perf_counter() - asked
            try:
                self._train_step(*batch)
            except tf.errors.ResourceExhaustedError as error:
                raise RunFailed(
                    f"Step {step + 1} needs more memory than the device has: the last checkpoint is kept, and a "
                    f"smaller batch_size may help. Received: batch_size={self.recipe.run.batch_size}"
                ) from error
            step += 1
        self.stopped = stopped if step < to_step else None
        self._seconds += time.perf_counter() - began
        return step

    def first_bad_step(self):
        return self.totals.first_bad_step()

    def sums(self):
        return self.totals.sums.numpy()

    def rates(self):
        return {"input_wait": self._waited / self._seconds} if self._seconds else {}

    def reset(self):
        self.totals.reset()
        self._waited = self._seconds = 0.0

    def load_sums(self, sums):
        self.totals.sums.assign(sums)

    def test(self, split):
        batches = pipeline.distribute(self.distribution, self.source.evaluation_batches, split, self.recipe)
        return sums_of(self._evaluate_step, pipeline.read_batches(batches))
