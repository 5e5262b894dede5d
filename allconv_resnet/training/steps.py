"""One train step and one evaluation step, for every strategy that runs in step."""

import tensorflow as tf

from allconv_resnet.data import pipeline


class Totals(tf.Module):
    """Sums over the images since the last log, kept on the device and saved with the run, so that a log is the same
    whether or not the run was interrupted before it.
    """

    def __init__(self):
        super().__init__()
        self.sums = tf.Variable(tf.zeros(3, tf.float64), trainable=False)  # losses (nats), errors, images
        self.bad_step = tf.Variable(0, dtype=tf.int64, trainable=False)

    def add(self, sums, step):
        """Adds the float32 sums `[3]` of the batch of `step`, the first step being 1."""
        self.sums.assign_add(tf.cast(sums, tf.float64))
        first_bad = (self.bad_step == 0) & ~tf.math.is_finite(sums[0])
        self.bad_step.assign(tf.where(first_bad, step, self.bad_step))

    def first_bad_step(self):
        """Returns the first step, counted from 1, whose loss was not finite, or 0."""
        return int(self.bad_step)

    def means(self):
        """Returns the mean loss (nats) and the error (a fraction)."""
        losses, errors, images = self.sums.numpy().tolist()
        return losses / images, errors / images

    def reset(self):
        """Begins again at 0."""
        self.sums.assign(tf.zeros_like(self.sums))


def make_train_step(strategy, model, optimizer, totals, batch_size, clip_norm=None):
    """Returns the compiled function (images, labels) -> None that makes one step.

    Args:
        strategy: `tf.distribute.Strategy`.
        model: Keras model from images to logits.
        optimizer: Keras optimizer, built.
        totals: `Totals`, to which the batch's are added.
        batch_size: Integer, images a step over all replicas.
        clip_norm: Float or None: largest global norm of the gradient of the whole batch.
    """

    def replica_step(images, labels):
        with tf.GradientTape() as tape:
            logits = model(images, training=True)
            losses = tf.nn.sparse_softmax_cross_entropy_with_logits(labels, logits)
            loss = tf.nn.compute_average_loss(losses, global_batch_size=batch_size)
        gradients = tape.gradient(loss, model.trainable_variables)
        if clip_norm is not None:
            gradients = _clip(gradients, clip_norm)
        optimizer.apply(gradients, model.trainable_variables)  # sums over the replicas
        return _sums(labels, logits, losses, tf.ones_like(losses))

    @tf.function
    def train_step(images, labels):
        sums = strategy.run(replica_step, args=(images, labels))
        totals.add(strategy.reduce("SUM", sums, axis=None), tf.cast(optimizer.iterations.value, tf.int64))

    return train_step


def make_evaluate_step(strategy, model):
    """Returns the compiled function (images, labels, weights) -> float32 sums `[3]`: losses (nats), errors, images."""

    def replica_step(images, labels, weights):
        logits = model(images, training=False)
        return _sums(labels, logits, tf.nn.sparse_softmax_cross_entropy_with_logits(labels, logits), weights)

    @tf.function
    def evaluate_step(images, labels, weights):
        return strategy.reduce("SUM", strategy.run(replica_step, args=(images, labels, weights)), axis=None)

    return evaluate_step


def evaluate(strategy, evaluate_step, images, labels, batch_size):
    """Returns the mean loss (nats) and the error (a fraction) on all of the images.

    Args:
        strategy: `tf.distribute.Strategy`.
        evaluate_step: Of `make_evaluate_step`.
        images: uint8 array `[n, h, w, c]`.
        labels: Integer array `[n]`.
        batch_size: Integer, over all replicas.
    """
    sums = tf.zeros(3, tf.float64)
    for batch in pipeline.distribute(strategy, pipeline.evaluation_batches, images, labels, batch_size):
        sums += tf.cast(evaluate_step(*batch), tf.float64)
    losses, errors, count = sums.numpy().tolist()
    return losses / count, errors / count


def _clip(gradients, norm):
    # The norm is that of the sum over the replicas, so the sum is made here, and an equal share handed on to each.
    replica = tf.distribute.get_replica_context()
    if replica.num_replicas_in_sync > 1:
        gradients = replica.all_reduce("SUM", gradients)
    gradients, _ = tf.clip_by_global_norm(gradients, norm)
    return [gradient / replica.num_replicas_in_sync for gradient in gradients]


def _sums(labels, logits, losses, weights):
    wrong = tf.cast(tf.argmax(logits, axis=-1) != labels, tf.float32)
    return tf.stack([tf.reduce_sum(losses * weights), tf.reduce_sum(wrong * weights), tf.reduce_sum(weights)])
