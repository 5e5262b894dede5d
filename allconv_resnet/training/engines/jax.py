"""Training with Keras on JAX on all devices of one machine. TensorFlow need not be installed.

The devices hold all images as bytes. The host draws the rows and the augmentation of a batch with the same functions of
(seed, step) as on TensorFlow. Each step is one compiled function, and JAX distributes its batch over the devices.
"""

import os
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import NamedSharding, PartitionSpec

from allconv_resnet.data import draws
from allconv_resnet.data.augment import Batch, standardize_and_augment
from allconv_resnet.errors import BadInput
from allconv_resnet.layers import standardize
from allconv_resnet.training.engines.engine import SUMS, TOP, Engine, whitening_images


class JaxEngine(Engine):
    """Trains on devices that share every batch through JAX's sharding.

    Args:
        strategy: `"auto"`, `"one"` or `"mirrored"`, see `engines.create_engine`.
        replicas: See `engines.create_engine`.
    """

    def __init__(self, strategy="auto", replicas=None):
        if strategy in ("multi-worker", "parameter-server") or os.environ.get("TF_CONFIG"):
            raise BadInput(
                "Keras on JAX trains on one machine, and several machines need KERAS_BACKEND=tensorflow. "
                f"Received: strategy={strategy!r}, TF_CONFIG={os.environ.get('TF_CONFIG')!r}"
            )
        if strategy == "one" and (replicas or 1) != 1:
            raise BadInput(f"strategy one has one replica. Received: replicas={replicas}")
        self.devices = _devices(1 if strategy == "one" else replicas)
        self.replicas = len(self.devices)
        self.strategy = "one" if self.replicas == 1 else "mirrored"

    def resolve_precision(self):
        capabilities = [getattr(device, "compute_capability", "0.0") for device in self.devices]
        # XLA has no bfloat16 convolutions for CPUs. It would convert to float32 and back.
        fast = all(float(capability) >= 8 for capability in capabilities)
        return "bfloat16" if fast or self.devices[0].platform == "tpu" else "float32"

    def describe(self):
        names = [device.device_kind for device in self.devices if device.platform != "cpu"]
        return {**super().describe(), "gpus": names}

    def build(self, recipe, source, training=True):
        if source.kind != "arrays":
            raise BadInput(
                f"Keras on JAX needs a dataset in memory, but {source.name} is read from records: "
                "use KERAS_BACKEND=tensorflow"
            )
        if recipe.run.batch_size % self.replicas:
            raise BadInput(
                f"batch_size must be a multiple of the replicas, {self.replicas}. "
                f"Received: batch_size={recipe.run.batch_size}"
            )
        self.recipe, self.source = recipe, source
        mesh = jax.sharding.Mesh(np.array(self.devices), ("batch",))
        self._everywhere, self._shared = (NamedSharding(mesh, PartitionSpec(*axes)) for axes in ((), ("batch",)))
        self.model = recipe.build_model(whitening_images(recipe, source) if training else None)
        self.optimizer = recipe.build_optimizer()
        self.optimizer.build(self.model.trainable_variables)
        self._sums = np.zeros(len(SUMS))
        self._recent, self._first_bad = [], 0
        self._evaluate_step = jax.jit(partial(_evaluate_batch, self.model))
        self.push()

    def begin(self, step, stop):
        self._stop = stop
        images, labels = self.source.arrays(self.recipe.data.train_split)
        self._images, self._labels = jax.device_put((images, labels.astype(np.int32)), self._everywhere)
        self._train_step = jax.jit(
            partial(_train_once, self.model, self.optimizer, self.recipe),
            donate_argnums=0,
            out_shardings=self._everywhere,
        )

    def advance(self, step, to_step):
        while step < to_step and not self._stop.signal:
            batch = jax.device_put(self._drawn(step), self._shared)
            self._state, sums = self._train_step(self._state, self._images, self._labels, *batch)
            step += 1
            self._recent.append((step, sums))
        self.stopped = self._stop.signal if step < to_step else None
        self._collect()
        return step

    def _drawn(self, step):
        """Returns the rows of a batch, int32 `[batch_size]`, and the draws of each augmentation for it."""
        recipe, shape = self.recipe, self._images.shape
        places = step * recipe.run.batch_size + np.arange(recipe.run.batch_size)
        epochs, places = places // shape[0], places % shape[0]
        rows = draws.order_of_epochs(draws, recipe.seed, epochs, places, shape[0]).astype(np.int32)
        batch = Batch(recipe.seed, step, recipe.run.batch_size, shape[1:], rows, epochs)
        drawn = [augmentation.draw(draws, batch) for augmentation in recipe.data.augmentations()]
        return rows, drawn

    def _collect(self):
        for step, sums in self._recent:
            sums = np.asarray(sums, np.float64)
            if not self._first_bad and not np.isfinite(sums[0]):
                self._first_bad = step
            self._sums += sums
        self._recent = []

    def first_bad_step(self):
        return self._first_bad

    def sums(self):
        return self._sums.copy()

    def reset(self):
        self._sums = np.zeros(len(SUMS))

    def load_sums(self, sums):
        self._sums = np.array(sums, np.float64)

    def pull(self):
        for variables, values in zip(self._variables(), self._state, strict=True):
            for variable, value in zip(variables, values, strict=True):
                # The value is copied because the next step reuses the memory of the state.
                variable.assign(np.array(value))

    def push(self):
        values = [[np.asarray(variable) for variable in variables] for variables in self._variables()]
        self._state = jax.device_put(values, self._everywhere)

    def _variables(self):
        return self.model.trainable_variables, self.model.non_trainable_variables, self.optimizer.variables

    def test(self, split):
        images, labels = self.source.arrays(split)
        size = self.recipe.run.batch_size
        sums = np.zeros(len(SUMS))
        for start in range(0, len(labels), size):
            rows = np.minimum(start + np.arange(size), len(labels) - 1)
            weights = (start + np.arange(size) < len(labels)).astype(np.float32)
            batch = jax.device_put((images[rows], labels[rows].astype(np.int32), weights), self._shared)
            sums += np.asarray(self._evaluate_step(self._state[:2], *batch), np.float64)
        return sums


def _train_once(model, optimizer, recipe, state, images, labels, rows, drawn):
    """Makes one step. This pure function of the state and the batch returns the new state and `SUMS`."""
    weights, others, slots = state
    images, labels = standardize_and_augment(images[rows], recipe.data.augmentations(), drawn), labels[rows]

    def mean_loss(weights):
        logits, rest = model.stateless_call(weights, others, images, training=True)
        losses = _cross_entropy(labels, logits, recipe.run.label_smoothing)
        return losses.mean(), (rest, _batch_sums(labels, logits, losses, jnp.ones_like(losses)))

    gradients, (others, sums) = jax.grad(mean_loss, has_aux=True)(weights)
    if (most := recipe.optimizer.clip_norm) is not None:
        norm = jnp.sqrt(sum(jnp.sum(jnp.square(gradient)) for gradient in gradients))
        gradients = [gradient * jnp.minimum(1.0, most / norm) for gradient in gradients]
    weights, slots = optimizer.stateless_apply(slots, gradients, weights)
    return [list(weights), list(others), list(slots)], sums


def _evaluate_batch(model, state, images, labels, weights):
    logits, _ = model.stateless_call(*state, standardize(images), training=False)
    return _batch_sums(labels, logits, _cross_entropy(labels, logits), weights)


def _cross_entropy(labels, logits, smoothing=0.0):
    logs = jax.nn.log_softmax(logits)
    losses = -jnp.take_along_axis(logs, labels[:, None], axis=1)[:, 0]
    return (1 - smoothing) * losses - smoothing * logs.mean(axis=1) if smoothing else losses


def _batch_sums(labels, logits, losses, weights):
    wrong = jnp.argmax(logits, axis=1) != labels
    own = jnp.take_along_axis(logits, labels[:, None], axis=1)
    missed = (logits > own).sum(axis=1) >= TOP
    totals = [(x * weights).sum() for x in (losses, wrong, missed, jnp.ones_like(weights))]
    return jnp.stack([*totals, (1 - weights).sum()])


def _devices(replicas):
    """Returns the devices to train on. Without accelerators the CPU is split into `replicas` devices."""
    if replicas is not None and replicas < 1:
        raise BadInput(f"replicas must be positive. Received: replicas={replicas}")
    try:
        if replicas:
            jax.config.update("jax_num_cpu_devices", replicas)
    except RuntimeError:  # JAX has started already
        pass
    devices = jax.local_devices()
    if replicas is None:
        return devices if devices[0].platform != "cpu" else devices[:1]
    if replicas > len(devices):
        limit = f"replicas must be at most the number of devices, {len(devices)}"
        raise BadInput(f"{limit}. Received: replicas={replicas}")
    return devices[:replicas]
