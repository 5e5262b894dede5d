"""The train step and the evaluation step of TensorFlow for all synchronous strategies."""

from contextlib import contextmanager

import keras
import tensorflow as tf

from allconv_resnet.cpu import compiled_convolutions
from allconv_resnet.training.engines.engine import SUMS, TOP


class Totals(tf.Module):
    """Sums over the images since the last log, on the device.

    Checkpoints include them, so that a log is the same whether or not the run was interrupted before it.
    """

    def __init__(self):
        super().__init__()
        self.sums = tf.Variable(tf.zeros(len(SUMS), tf.float64), trainable=False)
        self.bad_step = tf.Variable(0, dtype=tf.int64, trainable=False)

    def add(self, sums, step):
        """Adds the sums of a batch.

        Args:
            sums: float32 tensor of `SUMS`.
            step: int64 scalar, the step of the batch, counted from 1.
        """
        self.sums.assign_add(tf.cast(sums, tf.float64))
        first_bad = (self.bad_step == 0) & ~tf.math.is_finite(sums[0])
        self.bad_step.assign(tf.where(first_bad, step, self.bad_step))

    def first_bad_step(self):
        """Returns the first step, counted from 1, whose loss was not finite, or 0 if there was none."""
        return int(self.bad_step)

    def reset(self):
        """Sets the sums to 0."""
        self.sums.assign(tf.zeros_like(self.sums))


def make_train_step(strategy, model, optimizer, totals, batch_size, clip_norm=None, label_smoothing=0.0):
    """Returns a compiled function (images, labels[, weights]) -> None that makes one step.

    An image of weight 0 takes the place of one that could not be decoded. It does not contribute to the gradient,
    except through the means and variances of batch normalization.

    Args:
        strategy: `tf.distribute.Strategy`.
        model: Keras model from images to logits.
        optimizer: Keras optimizer, built.
        totals: `Totals`, to which the sums of the batch are added.
        batch_size: Integer, images of a step over all replicas.
        clip_norm: Float or None, largest global norm of the gradient of the whole batch.
        label_smoothing: Float, see `cross_entropy`.
    """

    def replica_step(images, labels, weights=None):
        with tf.GradientTape() as tape:
            with normalized_together(strategy, model):
                logits = model(images, training=True)
            losses = cross_entropy(labels, logits, label_smoothing)
            loss = tf.nn.compute_average_loss(losses, weights, global_batch_size=batch_size)
        gradients = tape.gradient(loss, model.trainable_variables)
        if clip_norm is not None:
            gradients = _clip(gradients, clip_norm)
        optimizer.apply(gradients, model.trainable_variables)  # sums over the replicas
        return batch_sums(labels, logits, losses, tf.ones_like(losses) if weights is None else weights)

    @tf.function
    def train_step(*batch):
        with compiled_convolutions():
            sums = strategy.run(replica_step, args=batch)
        totals.add(strategy.reduce("SUM", sums, axis=None), tf.cast(optimizer.iterations.value, tf.int64))

    return train_step


@contextmanager
def normalized_together(strategy, model):
    """Returns a context manager in which batch normalization is traced with statistics over all replicas.

    Several devices then compute the same as one device. Afterwards the layers are as before, so that a saved network
    does not depend on the number of replicas.

    Args:
        strategy: `tf.distribute.Strategy`.
        model: Keras model.
    """
    norms = [layer for layer in model._flatten_layers() if isinstance(layer, keras.layers.BatchNormalization)]
    for norm in norms:
        norm.synchronized = strategy.num_replicas_in_sync > 1
    try:
        yield
    finally:
        for norm in norms:
            norm.synchronized = False


def make_evaluate_step(strategy, model):
    """Returns a compiled function (images, labels, weights) -> float32 `SUMS` over all replicas.

    Args:
        strategy: `tf.distribute.Strategy`.
        model: Keras model from images to logits.
    """

    def replica_step(images, labels, weights):
        logits = model(images, training=False)
        return batch_sums(labels, logits, tf.nn.sparse_softmax_cross_entropy_with_logits(labels, logits), weights)

    @tf.function
    def evaluate_step(images, labels, weights):
        return strategy.reduce("SUM", strategy.run(replica_step, args=(images, labels, weights)), axis=None)

    return evaluate_step


def sums_of(evaluate_step, batches):
    """Returns a float64 array of `SUMS` over all batches.

    Args:
        evaluate_step: Function that `make_evaluate_step` returned.
        batches: Iterable of (images, labels, weights).
    """
    sums = tf.zeros(len(SUMS), tf.float64)
    for batch in batches:
        sums += tf.cast(evaluate_step(*batch), tf.float64)
    return sums.numpy()


def cross_entropy(labels, logits, smoothing=0.0):
    """Returns the cross-entropies with label smoothing (Szegedy et al. 2015, arXiv 1512.00567, section 7).

    Args:
        labels: Integer tensor `[n]`.
        logits: float32 tensor `[n, classes]`.
        smoothing: Float, fraction of each label that is distributed evenly over all classes.

    Returns:
        float32 tensor `[n]`, in nats.
    """
    losses = tf.nn.sparse_softmax_cross_entropy_with_logits(labels, logits)
    if not smoothing:
        return losses
    return (1 - smoothing) * losses - smoothing * tf.reduce_mean(tf.nn.log_softmax(logits), axis=-1)


def _clip(gradients, norm):
    # The sum over the replicas is clipped. The optimizer sums again, so each replica gets an equal share of it.
    replica = tf.distribute.get_replica_context()
    if replica.num_replicas_in_sync > 1:
        gradients = replica.all_reduce("SUM", gradients)
    gradients, _ = tf.clip_by_global_norm(gradients, norm)
    return [gradient / replica.num_replicas_in_sync for gradient in gradients]


def batch_sums(labels, logits, losses, weights):
    """Returns the float32 `SUMS` of a batch.

    Args:
        labels: Integer tensor `[n]`.
        logits: float32 tensor `[n, classes]`.
        losses: float32 tensor `[n]`, in nats.
        weights: float32 tensor `[n]`, 0 for images that do not count and 1 for others.
    """
    wrong = tf.cast(tf.argmax(logits, axis=-1) != labels, tf.float32)
    missed = tf.cast(~tf.math.in_top_k(labels, logits, TOP), tf.float32)
    return tf.stack([*(tf.reduce_sum(x * weights) for x in (losses, wrong, missed, 1.0)), tf.reduce_sum(1 - weights)])
