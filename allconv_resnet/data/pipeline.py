"""Batches for the TensorFlow engines. A training batch is a pure function of (seed, step).

A resumed run therefore only has to begin at another step, and workers that take slices of a batch train together on
the same images as a single worker would.
"""

import tensorflow as tf

from allconv_resnet.data import draws
from allconv_resnet.data.augment import Batch, standardize_and_augment
from allconv_resnet.data.inspection import name_damaged_file
from allconv_resnet.errors import RunFailed, reason
from allconv_resnet.layers import standardize


class TensorFlowDraws:
    """The functions of `draws` for use inside tf.data. They return the same numbers for the same keys."""

    @staticmethod
    def integers(shape, key, maxval):
        """Returns an int32 tensor of `shape` with values in `[0, maxval)`."""
        return tf.random.stateless_uniform(shape, _key(key), maxval=maxval, dtype=tf.int32)

    @staticmethod
    def uniform(shape, key):
        """Returns a float32 tensor of `shape` with values in `[0, 1)`."""
        return tf.random.stateless_uniform(shape, _key(key))

    @staticmethod
    def hashed(numbers, key):
        """Returns an int64 tensor of the shape of `numbers` with values in `[0, 2^62)`, see `draws.hashed`."""
        values = tf.bitcast(tf.cast(numbers, tf.int64), tf.uint64) + draws.state_of(key)
        for shift, multiplier in draws.MIXING:
            shifted = tf.bitwise.right_shift(values, tf.constant(shift, tf.uint64))
            values = (values ^ shifted) * tf.constant(multiplier, tf.uint64)
        return tf.bitcast(tf.bitwise.right_shift(values, tf.constant(2, tf.uint64)), tf.int64)

    @staticmethod
    def shuffled(index, keys, max_index):
        """Returns an int64 tensor of the shape of `index`, see `draws.shuffled`."""
        largest = tf.constant(max_index, tf.int64)
        seed = tf.stack([tf.broadcast_to(tf.cast(part, tf.int64), tf.shape(index)) for part in keys], axis=-1)
        shuffle = tf.raw_ops.RandomIndexShuffle(index=tf.minimum(index, largest), seed=seed, max_index=largest)
        return tf.where(index > largest, index, shuffle)


def _key(key):
    return tf.stack([tf.cast(part, tf.int64) for part in key])


def training_batches(images, labels, recipe, first_step=0, worker=0, workers=1):
    """Returns an endless dataset of the batches of the steps `first_step`, `first_step + 1`, ...

    Args:
        images: uint8 array `[n, h, w, c]`.
        labels: Integer array `[n]`.
        recipe: `Recipe`, of which `seed`, `batch_size` (over all workers) and the augmentations of `data` are used.
        first_step: Integer, the step of the first batch.
        worker: Integer, index of this worker, which gets one of `workers` equal slices of every batch.
        workers: Integer, number of workers, which must divide the batch size.

    Returns:
        `tf.data.Dataset` of (float32 `[batch_size / workers, h, w, c]`, int64 `[batch_size / workers]`).
    """
    images, labels = tf.constant(images), tf.constant(labels, tf.int64)
    batch_size, image_size = recipe.run.batch_size, tuple(images.shape[1:])
    share = batch_size // workers
    part = slice(worker * share, (worker + 1) * share)
    augmentations = recipe.data.augmentations()

    def batch(step):
        rows, epochs = example_indices(recipe.seed, step, batch_size, labels.shape[0])
        whole = Batch(recipe.seed, step, batch_size, image_size, rows, epochs)
        indices = rows[part]
        # Drawing for the whole batch makes the draws independent of the number of workers.
        drawn = [augmentation.draw(TensorFlowDraws, whole) for augmentation in augmentations]
        drawn = [tuple(values[part] for values in each) for each in drawn]
        x = standardize_and_augment(tf.gather(images, indices), augmentations, drawn)
        return x, tf.gather(labels, indices)

    steps = tf.data.Dataset.range(first_step, tf.int64.max)
    return untuned(steps.map(batch, num_parallel_calls=tf.data.AUTOTUNE, deterministic=True).prefetch(2))


def example_indices(seed, step, batch_size, examples):
    """Returns which examples are in the batch of a step, and in which epoch each of them is.

    Each epoch has its own permutation, and no example is dropped.

    Args:
        seed: Integer.
        step: Integer or int64 scalar.
        batch_size: Integer.
        examples: Integer, number of training examples.

    Returns:
        int64 tensor `[batch_size]` with values in `[0, examples)`, and int64 tensor `[batch_size]`.
    """
    position = step * batch_size + tf.range(batch_size, dtype=tf.int64)
    epoch, place = position // examples, position % examples
    return draws.order_of_epochs(TensorFlowDraws, seed, epoch, place, examples), epoch


def evaluation_batches(images, labels, batch_size, worker=0, workers=1, padded=False):
    """Returns a dataset of the standardized images, once and in order.

    Args:
        images: uint8 array `[n, h, w, c]`.
        labels: Integer array `[n]`.
        batch_size: Integer, images of a batch over all workers.
        worker: See `training_batches`.
        workers: See `training_batches`.
        padded: Whether the last batch is filled up with images of weight 0. Every batch then has the same shape, so
            that replicas can always share it evenly. Otherwise it is smaller, as `fit` and `evaluate` of Keras need it,
            which divide the loss of a batch by the number of all its images.

    Returns:
        `tf.data.Dataset` of (float32 `[n, h, w, c]`, int64 `[n]`, and float32 weights `[n]`) with n =
        `batch_size / workers`.
    """
    images, labels = tf.constant(images), tf.constant(labels, tf.int64)
    examples, share = labels.shape[0], batch_size // workers

    def batch(start):
        position = start + worker * share + tf.range(share, dtype=tf.int64)
        indices = tf.minimum(position, examples - 1)
        weights = tf.cast(position < examples, tf.float32)
        return standardize(tf.gather(images, indices)), tf.gather(labels, indices), weights

    starts = tf.data.Dataset.range(0, examples, batch_size)
    batches = starts.map(batch, num_parallel_calls=tf.data.AUTOTUNE, deterministic=True)
    if not padded:
        count = -(-max(examples - worker * share, 0) // batch_size)  # Keras warns if it does not know the number
        batches = without_padding(batches).apply(tf.data.experimental.assert_cardinality(count))
    return untuned(batches.prefetch(2))


def untuned(dataset):
    """Returns the dataset without the autotuning of tf.data: `AUTOTUNE` is the number of cores, and at most 16.

    The deletion of an iterator that is tuned often sleeps until the next tuning, which can be a minute away. Every
    evaluation has an iterator of its own.

    Args:
        dataset: `tf.data.Dataset`.
    """
    options = tf.data.Options()
    options.autotune.enabled = False
    return dataset.with_options(options)


def without_padding(batches):
    """Returns a dataset of batches without their images of weight 0, and without batches that have no others.

    Args:
        batches: `tf.data.Dataset` of images, labels and weights.
    """

    def counting(*batch):
        return tuple(tf.boolean_mask(part, batch[2] > 0) for part in batch)

    return batches.map(counting).filter(lambda images, labels, weights: tf.size(weights) > 0)


def read_batches(batches, source):
    """Yields batches; read errors become `RunFailed`.

    Args:
        batches: Dataset that `distribute` returned.
        source: `Source` of the batches, whose files are searched for the damage.

    Yields:
        The elements of the dataset.

    Raises:
        RunFailed: if a record cannot be read, or an image cannot be decoded and the recipe's `bad_images` is `"fail"`.
    """
    iterator = iter(batches)
    while True:
        try:
            batch = next(iterator)
        except StopIteration:
            return
        except (*UNREADABLE, tf.errors.FailedPreconditionError) as error:  # the latter is raised for a truncated file
            raise unreadable(error, source) from error
        yield batch


UNREADABLE = (
    tf.errors.DataLossError,
    tf.errors.NotFoundError,
    tf.errors.PermissionDeniedError,
    tf.errors.InvalidArgumentError,
)


def unreadable(error, source):
    """Returns a `RunFailed` that says in one sentence why a pipeline raised one of the `UNREADABLE` errors.

    Args:
        error: Error of TensorFlow.
        source: `Source` of the batches.
    """
    files = source.files() if hasattr(source, "files") else ()
    return RunFailed(f"The images cannot be read any further: {name_damaged_file(reason(error), files)}")


def distribute(strategy, batches, *arguments, **options):
    """Returns a distributed dataset of the batches of a source.

    Args:
        strategy: `tf.distribute.Strategy`.
        batches: Method `training_batches` or `evaluation_batches` of a source.
        *arguments: Arguments of the method before `worker` and `workers`, which the strategy provides.
        **options: Arguments of the method after them.
    """

    def share(context):
        dataset = batches(*arguments, context.input_pipeline_id, context.num_input_pipelines, **options)
        replicas = context.num_replicas_in_sync // context.num_input_pipelines
        return dataset if replicas == 1 else dataset.rebatch(dataset.element_spec[1].shape[0] // replicas)

    return strategy.distribute_datasets_from_function(share)
