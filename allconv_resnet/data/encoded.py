"""Sources of image files of all sizes, which are decoded batch by batch.

The images of a batch are decoded together, and the draw for each image is a function of (seed, position). An image that
cannot be decoded is replaced by zeros of weight 0, so that all other images keep their positions.
"""

import abc
from typing import NamedTuple

import tensorflow as tf

from allconv_resnet.data import jpeg, orientation
from allconv_resnet.data.arrays import of_kind
from allconv_resnet.data.augment import Batch
from allconv_resnet.data.pipeline import TensorFlowDraws, untuned, without_padding
from allconv_resnet.errors import BadInput
from allconv_resnet.layers import standardize

NAMED = 8  # most names of bad images in one line
DECODED_AT_ONCE = 64  # upper bound on parallel decodes per batch: tf.data does not tune a dataset inside another
NOT_DECODED = "These files cannot be decoded as JPEG or PNG: "


class Files(NamedTuple):
    """The files of a batch of n images."""

    images: object
    """String tensor `[n]`, from which `EncodedSource.contents` gets the contents of each file."""
    labels: object
    """int64 tensor `[n]`."""
    names: object
    """String tensor `[n]`, names of the files for messages."""
    present: object
    """Boolean tensor `[n]`, false for what fills up the last batch of a split."""


class EncodedSource(abc.ABC):
    """Base class of the sources of the kind `records`. A subclass says which files make a batch."""

    kind = "records"
    image_size = None
    without_effect = ()
    """Names of the fields of such recipes that have no effect on this source."""
    names_test_images = False
    """Whether a split called `test` has labels. The one of ImageNet has none, so that `validation` is tested."""

    @abc.abstractmethod
    def training_files(self, recipe, first_step, worker, workers):
        """Returns an endless dataset of `Files`, the shares of a worker of the batches from `first_step` on.

        Args:
            recipe: `Recipe` with a data part of the kind `records`.
            first_step: int64 scalar.
            worker: Integer, index of the worker.
            workers: Integer, number of workers.
        """

    @abc.abstractmethod
    def evaluation_files(self, split, recipe, worker, workers):
        """Returns a dataset of `Files`, the share of a worker of a split, which is filled up to whole batches.

        The number of batches is the same for all workers.

        Args:
            split: Name of the split.
            recipe: See `training_files`.
            worker: See `training_files`.
            workers: See `training_files`.
        """

    def contents(self, image):
        """Returns the contents of a file, a string scalar, from a string scalar of `Files.images`."""
        return image

    def orientations(self, images):
        """Returns the EXIF orientations of the files of a batch, int32 `[n]`, or None if they are not read yet.

        Args:
            images: String tensor `[n]`, see `Files.images`.
        """
        return orientation.orientation(images)

    def as_kind(self, kind):
        return of_kind(self, kind)

    def require_fit(self, data):
        """Raises `BadInput` if a recipe has other classes, or another number of channels than 1 or 3."""
        if len(self.label_names) != data.num_classes:
            raise BadInput(
                f"The recipe has num_classes={data.num_classes}, but {self.name} has {len(self.label_names)} classes"
            )
        if data.image_size[-1] not in (1, 3):
            raise BadInput(
                f"{self.name} is decoded to images of 1 or 3 channels. Received: image_size={data.image_size}"
            )

    def training_batches(self, recipe, first_step=0, worker=0, workers=1):
        """Returns an endless dataset of the batches of the steps `first_step`, `first_step + 1`, ...

        Args:
            recipe: `Recipe` with a data part of the kind `records`.
            first_step: Integer or int64 scalar, the step of the first batch.
            worker: Integer, index of this worker, whose images come from its share of the files.
            workers: Integer, number of workers, which must divide the batch size.

        Returns:
            `tf.data.Dataset` of (float32 `[n, h, w, c]`, int64 `[n]`, float32 weights `[n]`) with n =
            `batch_size / workers`. The weight of an image is 1, or 0 if it cannot be decoded.
        """
        data, batch_size = recipe.data, recipe.run.batch_size
        share, first_step = batch_size // workers, tf.cast(first_step, tf.int64)

        def prepare(image, position, turned=None):
            contents = self.contents(image)
            window_key, flip_key = ([tf.cast(2 * recipe.seed + stream, tf.int64), position] for stream in (0, 1))
            header = jpeg.header(contents, turned)
            window = jpeg.random_window(header[0], data.smallest_crop, window_key)
            image = jpeg.decode_window(contents, window, data.image_size[:2], data.image_size[2], header)
            if data.flip:
                flip = tf.random.stateless_uniform([], flip_key) < 0.5
                image = tf.cond(flip, lambda: tf.reverse(image, [1]), lambda: image)
            image = standardize(image[None])
            for augmentation in data.augmentations():
                drawn = augmentation.draw(TensorFlowDraws, Batch(recipe.seed, position, 1, data.image_size))
                image = augmentation.apply(image, *drawn)
            return image[0]

        def batch(step, files):
            positions = step * batch_size + worker * share + tf.range(share, dtype=tf.int64)
            return decode_batch(files, positions, prepare, data, self.orientations(files.images), self.contents)

        return _mapped(self.training_files(recipe, first_step, worker, workers).enumerate(first_step), batch)

    def evaluation_batches(self, split, recipe, worker=0, workers=1, padded=False):
        """Returns a dataset of the images of a split, once, in a fixed order, cropped in the middle.

        Args:
            split: Name of the split.
            recipe: See `training_batches`.
            worker: See `training_batches`.
            workers: See `training_batches`.
            padded: Whether all batches have the same number of images. Those that cannot be decoded, and those with
                which the last batch is filled up, have weight 0. Otherwise they are left out.

        Returns:
            `tf.data.Dataset`, see `training_batches`.
        """
        data = recipe.data

        def prepare(image, _, turned=None):
            contents = self.contents(image)
            header = jpeg.header(contents, turned)
            window = jpeg.centre_window(header[0], data.image_size[:2], data.centre)
            image = jpeg.decode_window(contents, window, data.image_size[:2], data.image_size[2], header)
            return standardize(image[None])[0]

        def batch(_, files):
            positions = tf.range(files.images.shape[0], dtype=tf.int64)
            return decode_batch(files, positions, prepare, data, self.orientations(files.images), self.contents)

        batches = _mapped(self.evaluation_files(split, recipe, worker, workers).enumerate(), batch)
        return batches if padded else without_padding(batches)


def _mapped(dataset, batch):
    # The images of a batch are decoded in parallel, see decode_batch. Two batches at a time keep all cores busy.
    return untuned(dataset.map(batch, num_parallel_calls=2, deterministic=True).prefetch(2))


def decode_batch(files, positions, prepare, data, orientations=None, contents=None):
    """Decodes and prepares the images of a batch in parallel.

    Images that cannot be decoded are named on standard error.

    Args:
        files: `Files` of n images.
        positions: int64 tensor `[n]`, positions of the images in the run.
        prepare: Function (string scalar of `Files.images`, its position[, its orientation]) -> float32 image of
            `image_size`.
        data: Data part of a recipe: `image_size`, `num_classes` and `bad_images`, which says whether images that cannot
            be decoded are skipped or raise an error.
        orientations: int32 tensor `[n]` that `prepare` gets, or None.
        contents: Function (string scalar of `Files.images`) -> contents of the file. It tells files that cannot be read
            from images that cannot be decoded. By default there are no such files.

    Returns:
        float32 images `[n, h, w, c]`, int64 labels `[n]`, and float32 weights `[n]`. An image that cannot be decoded is
        all zeros and has weight 0. All others have weight 1.

    Raises:
        tf.errors.InvalidArgumentError: if a label is not that of a class, or if an image cannot be decoded and
            `bad_images` is `"fail"`.
        tf.errors.OpError: if a file cannot be read.
    """
    count, image_size = files.images.shape[0], data.image_size

    # Only tf.data can skip an operation that fails, so each batch is a dataset of its own.
    places = tf.range(count)
    known = () if orientations is None else (orientations,)
    images = tf.data.Dataset.from_tensor_slices((places, files.images, positions, *known))
    images = images.map(
        lambda place, *image: (place, prepare(*image)),
        num_parallel_calls=min(count, DECODED_AT_ONCE),
        deterministic=True,
    ).ignore_errors()
    nothing = tf.data.Dataset.from_tensors((count, tf.zeros(image_size)))  # a batch must not be empty
    places, images = images.concatenate(nothing).take(count).batch(count).get_single_element()
    weights = tf.scatter_nd(places[:, None], tf.ones_like(places, tf.float32), [count + 1])[:count]
    images = tf.cond(
        tf.reduce_all(weights == 1),
        lambda: images,
        lambda: tf.scatter_nd(places[:, None], images, [count + 1, *image_size])[:count],
    )
    bad = (weights == 0) & files.present

    def report_bad_images():
        # A file that cannot be read at all raises its error here, and is not taken for a damaged image.
        unread = tf.boolean_mask(files.images, bad)
        size = (
            unread
            if contents is None
            else tf.map_fn(lambda image: tf.strings.length(contents(image)), unread, fn_output_signature=tf.int32)
        )
        with tf.control_dependencies([size]):
            return _report_bad_images(tf.boolean_mask(files.names, bad), data.bad_images)

    report = tf.cond(tf.reduce_any(bad), report_bad_images, tf.no_op)
    with tf.control_dependencies([report, _check_labels(files, data.num_classes)]):
        images = tf.ensure_shape(images, [count, *image_size])
    return images, files.labels, weights


def _check_labels(files, num_classes):
    wrong = (files.labels < 0) | (files.labels >= num_classes)

    def refuse():
        label, name = (tf.boolean_mask(values, wrong)[0] for values in (files.labels, files.names))
        label = tf.strings.as_string(label)
        message = [f"labels must be at least 0 and below {num_classes}, but ", name, " has label ", label]
        return tf.group(tf.debugging.Assert(False, [tf.strings.join(message)]))

    return tf.cond(tf.reduce_any(wrong), refuse, tf.no_op)


def _report_bad_images(names, bad_images):
    more = tf.strings.join([" and ", tf.strings.as_string(tf.size(names) - NAMED), " more"])
    more = tf.where(tf.size(names) > NAMED, more, "")
    message = tf.strings.join([NOT_DECODED, tf.strings.reduce_join(names[:NAMED], separator=", "), more])
    if bad_images == "fail":
        return tf.group(tf.debugging.Assert(False, [message]))
    return tf.group(tf.print(message, "(skipped)"))
