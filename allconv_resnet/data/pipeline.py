"""Step -> batch: a training batch is a pure function of (seed, step).

So resuming is seeking, and workers that take slices of the same global batch together see what one would have seen.
"""

import re

import tensorflow as tf

from allconv_resnet.data import augment
from allconv_resnet.errors import RunFailed


def training_batches(images, labels, recipe, first_step=0, worker=0, workers=1):
    """Returns the batches of the steps `first_step`, `first_step + 1`, ... without end.

    Args:
        images: uint8 array `[n, h, w, c]`.
        labels: Integer array `[n]`.
        recipe: `Recipe`: its `seed`, `batch_size` (of all workers), `padding`, `flip` and `cutout` are used.
        first_step: Integer, the step of the first batch.
        worker: Integer. The worker gets the slice number `worker` of `workers` of every batch.
        workers: Integer, divides the batch size.

    Returns:
        `tf.data.Dataset` of (float32 `[batch_size / workers, h, w, c]`, int64 `[batch_size / workers]`).
    """
    images, labels = tf.constant(images), tf.constant(labels, tf.int64)
    share = recipe.batch_size // workers
    part = slice(worker * share, (worker + 1) * share)

    def batch(step):
        indices = example_indices(recipe.seed, step, recipe.batch_size, labels.shape[0])[part]
        offsets, flips = augmentation_draws(recipe.seed, step, recipe.batch_size, recipe.padding)
        flips = flips[part] if recipe.flip else tf.zeros_like(flips[part])
        x = augment.crop_and_flip(tf.gather(images, indices), offsets[part], flips, recipe.padding)
        x = augment.standardize(x)
        if recipe.cutout:
            centres = cutout_draws(recipe.seed, step, recipe.batch_size, images.shape[1:3])
            x = augment.cut_out(x, centres[part], recipe.cutout)
        return x, tf.gather(labels, indices)

    steps = tf.data.Dataset.range(first_step, tf.int64.max)
    return steps.map(batch, num_parallel_calls=tf.data.AUTOTUNE, deterministic=True).prefetch(2)


def example_indices(seed, step, batch_size, examples):
    """Returns which examples make the batch of `step`: each epoch is a permutation of its own, nothing is dropped.

    Args:
        seed: Integer.
        step: Integer or int64 scalar.
        batch_size: Integer.
        examples: Integer, size of the training set.

    Returns:
        int64 tensor `[batch_size]` with values in `[0, examples)`.
    """
    position = step * batch_size + tf.range(batch_size, dtype=tf.int64)
    epoch, place = position // examples, position % examples
    key = tf.stack([tf.fill([batch_size], tf.cast(seed, tf.int64)), epoch, tf.zeros_like(epoch)], axis=1)
    return tf.raw_ops.RandomIndexShuffle(index=place, seed=key, max_index=tf.cast(examples - 1, tf.int64))


def augmentation_draws(seed, step, batch_size, padding):
    """Returns the crop offsets and the flips of the batch of `step`.

    Args:
        seed: Integer.
        step: Integer or int64 scalar.
        batch_size: Integer.
        padding: Integer, pixels.

    Returns:
        int32 tensor `[batch_size, 2]` in `[0, 2 * padding]`, and boolean tensor `[batch_size]`.
    """
    offsets_key, flips_key = ([tf.cast(2 * seed + stream, tf.int64), tf.cast(step, tf.int64)] for stream in (0, 1))
    offsets = tf.random.stateless_uniform([batch_size, 2], offsets_key, maxval=2 * padding + 1, dtype=tf.int32)
    flips = tf.random.stateless_uniform([batch_size], flips_key, maxval=2, dtype=tf.int32)
    return offsets, tf.cast(flips, tf.bool)


def cutout_draws(seed, step, batch_size, size):
    """Returns the centres of the squares that are cut out of the images of the batch of `step`.

    Args:
        seed: Integer.
        step: Integer or int64 scalar; of records, which are drawn for one by one, the position.
        batch_size: Integer.
        size: Two integers, height and width of the images.

    Returns:
        int32 tensor `[batch_size, 2]`, rows in `[0, height)` and columns in `[0, width)`.
    """
    key = [tf.cast(-1 - seed, tf.int64), tf.cast(step, tf.int64)]  # those of augmentation_draws are not negative
    return tf.cast(tf.random.stateless_uniform([batch_size, 2], key) * tf.constant([*size], tf.float32), tf.int32)


def evaluation_batches(images, labels, batch_size, worker=0, workers=1):
    """Returns the images in order, standardized, once; the last batch is filled up with images of weight 0.

    Every batch has the same shape, so that replicas can always share it evenly.

    Args:
        images: uint8 array `[n, h, w, c]`.
        labels: Integer array `[n]`.
        batch_size: Integer, of all workers.
        worker: As in `training_batches`.
        workers: As in `training_batches`.

    Returns:
        `tf.data.Dataset` of (float32 `[batch_size / workers, h, w, c]`, int64 `[batch_size / workers]`, and float32
        weights `[batch_size / workers]`).
    """
    images, labels = tf.constant(images), tf.constant(labels, tf.int64)
    examples, share = labels.shape[0], batch_size // workers

    def batch(start):
        position = start + worker * share + tf.range(share, dtype=tf.int64)
        indices = tf.minimum(position, examples - 1)
        weights = tf.cast(position < examples, tf.float32)
        return augment.standardize(tf.gather(images, indices)), tf.gather(labels, indices), weights

    starts = tf.data.Dataset.range(0, examples, batch_size)
    return starts.map(batch, num_parallel_calls=tf.data.AUTOTUNE, deterministic=True).prefetch(2)


def taken(batches):
    """Yields batches; where they cannot be read, says so.

    Args:
        batches: Of `distribute`.

    Raises:
        RunFailed: if a record cannot be read or, in a run that is to fail then, decoded.
    """
    iterator = iter(batches)
    while True:
        try:
            batch = next(iterator)
        except StopIteration:
            return
        except (*UNREADABLE, tf.errors.FailedPreconditionError) as error:  # the latter: too few records
            raise unreadable(error) from error
        yield batch


UNREADABLE = (tf.errors.DataLossError, tf.errors.NotFoundError, tf.errors.InvalidArgumentError)


def unreadable(error):
    """Returns the `RunFailed` that says in one sentence what one of the `UNREADABLE` errors of a pipeline is about."""
    # TensorFlow puts the operations before and behind what failed in them.
    reason = re.sub(r"^\{\{.*?\}\} |.*assertion failed: | \[Op:.*", "", error.message.splitlines()[0])
    return RunFailed(f"The images cannot be read any further: {reason.strip('[]')}")


def distribute(strategy, batches, *arguments):
    """Returns what the replicas of a strategy take in turn from a pipeline.

    Args:
        strategy: `tf.distribute.Strategy`.
        batches: `training_batches` or `evaluation_batches`.
        *arguments: Theirs, up to `worker` and `workers`, which come from the strategy.
    """

    def share(context):
        dataset = batches(*arguments, context.input_pipeline_id, context.num_input_pipelines)
        replicas = context.num_replicas_in_sync // context.num_input_pipelines
        return dataset if replicas == 1 else dataset.rebatch(dataset.element_spec[1].shape[0] // replicas)

    return strategy.distribute_datasets_from_function(share)
