"""Labelled JPEG files of all sizes in record files, as tensorflow-datasets prepares ImageNet.

They do not fit into memory. Each worker reads the records of its own share, undecoded, in an order that is a function
of (seed, epoch), so that a resumed run skips the images it has seen without decoding them. The images of a batch are
decoded together, and the draw for each image is a function of (seed, position). An image that cannot be decoded is
replaced by zeros of weight 0, so that all other images keep their positions.
"""

import contextlib

import tensorflow as tf
import tensorflow_datasets as tfds

from allconv_resnet.data import inspection, jpeg
from allconv_resnet.data.augment import Batch
from allconv_resnet.data.pipeline import TensorFlowDraws, without_padding
from allconv_resnet.errors import BadInput
from allconv_resnet.layers import standardize

FIELDS = {
    "image": tf.io.FixedLenFeature([], tf.string, ""),
    "label": tf.io.FixedLenFeature([], tf.int64, 0),
    "file_name": tf.io.FixedLenFeature([], tf.string, "(without a file_name)"),
}
FILLER = b""  # stands for a record after the last one of a split
FILES_AT_ONCE = 16  # files whose records are interleaved
FIRST_RECORDS = 8  # records of a split that are checked before the first step
NAMED = 8  # most names of bad images in one line
DECODED_AT_ONCE = 64  # upper bound on parallel decodes per batch: tf.data does not tune a dataset inside another
NOT_DECODED = "These files cannot be decoded as JPEG: "


def require_complete(split, where):
    """Raises `BadInput` if files of a split are missing, or are shorter than the dataset's description says.

    Args:
        split: `tfds.core.SplitInfo`.
        where: String, the name or the directory of the dataset.
    """
    size = 0
    for path in split.filepaths:
        if not tf.io.gfile.exists(str(path)):
            raise BadInput(f"{where} is not complete: its {split.name} split has no file {path}")
        size += tf.io.gfile.stat(str(path)).length
    if size < split.num_bytes:
        raise BadInput(
            f"{where} is not complete: the files of its {split.name} split must have at least {split.num_bytes:,} "
            f"bytes. Received: {size:,} bytes"
        )


class RecordSource:
    """A `Source` of records that tensorflow-datasets has prepared.

    Args:
        builder: `tfds.core.DatasetBuilder` with the features `image` and `label`. A feature `file_name` is used in
            messages.
    """

    kind = "records"

    def __init__(self, builder):
        self.builder, self.name = builder, builder.name
        self.label_names = tuple(builder.info.features["label"].names)
        self.splits = tuple(builder.info.splits)

    def _split(self, split):
        if split not in self.splits:
            raise BadInput(f"{self.name} has no split {split!r}. Its splits are: {', '.join(self.splits)}")
        return self.builder.info.splits[split]

    def examples(self, split):
        return self._split(split).num_examples

    def check(self, data, splits):
        if len(self.label_names) != data.num_classes:
            raise BadInput(
                f"The recipe has num_classes={data.num_classes}, but {self.name} has {len(self.label_names)} classes"
            )
        if data.image_size[-1] != 3:
            raise BadInput(f"{self.name} is decoded to images of 3 channels. Received: image_size={data.image_size}")
        for split in splits:
            if not self.examples(split):
                raise BadInput(f"The {split} split of {self.name} has no images")
            require_complete(self._split(split), self.name)
            path, count = self._split(split).filepaths[0], self._split(split).shard_lengths[0]
            # The others are checked when they are read: there may be hundreds of gigabytes.
            inspection.check_records(path, min(count, FIRST_RECORDS), data.num_classes, kinds=(b"",))
            records = tf.data.TFRecordDataset(str(path)).take(FIRST_RECORDS).batch(FIRST_RECORDS).get_single_element()
            images = tf.io.parse_example(records, FIELDS)["image"].numpy()
            if all(image.startswith(inspection.PNG) for image in images):
                raise BadInput(f"The images of {self.name} must be JPEG files. Received: PNG files in {path}")

    def files(self):
        """Returns the paths of all record files."""
        return [path for split in self.splits for path in self._split(split).filepaths]

    def share(self, split, worker, workers):
        """Returns the records of one worker.

        Workers get equal numbers of consecutive records, to within one. If there are many files, most are whole.

        Args:
            split: Name of the split.
            worker: Integer, index of the worker.
            workers: Integer, number of workers.

        Returns:
            List with `(file, records to skip, records to take)` for each file of the worker.

        Raises:
            BadInput: if there are fewer records than workers.
        """
        if self.examples(split) < workers:
            raise BadInput(f"The {split} split of {self.name} has {self.examples(split)} images for {workers} workers")
        part = tfds.even_splits(split, workers)[worker]
        return [(f.filename, f.skip, f.take) for f in self.builder.info.splits[part].file_instructions]

    def training_batches(self, recipe, first_step=0, worker=0, workers=1):
        """Returns an endless dataset of the batches of the steps `first_step`, `first_step + 1`, ...

        Args:
            recipe: `Recipe` with a data part of the kind `records`.
            first_step: Integer or int64 scalar, the step of the first batch.
            worker: Integer, index of this worker, whose images come from its share of the records.
            workers: Integer, number of workers, which must divide the batch size.

        Returns:
            `tf.data.Dataset` of (float32 `[n, h, w, 3]`, int64 `[n]`, float32 weights `[n]`) with n =
            `batch_size / workers`. The weight of an image is 1, or 0 if it cannot be decoded.
        """
        data, batch_size = recipe.data, recipe.run.batch_size
        share, files = batch_size // workers, self.share(data.train_split, worker, workers)
        examples, first_step = sum(take for *_, take in files), tf.cast(first_step, tf.int64)
        first_epoch, seen = first_step * share // examples, first_step * share % examples

        def epoch(number):
            key = tf.stack([tf.cast(recipe.seed, tf.int64), number])
            order = tf.argsort(tf.random.stateless_uniform([len(files)], key))
            seed = tf.random.stateless_uniform([], key, None, None, tf.int64)
            with without_global_seed():
                records = read_records(files, order).shuffle(data.shuffle_buffer, seed, reshuffle_each_iteration=False)
            return records.skip(tf.where(number == first_epoch, seen, 0))

        def prepare(contents, position):
            window_key, flip_key = ([tf.cast(2 * recipe.seed + stream, tf.int64), position] for stream in (0, 1))
            header = jpeg.header(contents)
            window = jpeg.random_window(header[0], data.smallest_crop, window_key)
            image = jpeg.decode_window(contents, window, data.image_size[:2], header)
            if data.flip:
                flip = tf.random.stateless_uniform([], flip_key) < 0.5
                image = tf.cond(flip, lambda: image[:, ::-1], lambda: image)
            image = standardize(image[None])
            for augmentation in data.augmentations():
                drawn = augmentation.draw(TensorFlowDraws, Batch(recipe.seed, position, 1, data.image_size))
                image = augmentation.apply(image, *drawn)
            return image[0]

        def batch(step, records):
            positions = step * batch_size + worker * share + tf.range(share, dtype=tf.int64)
            return decode_batch(records, positions, prepare, data)

        records = tf.data.Dataset.range(first_epoch, tf.int64.max).flat_map(epoch)
        return _mapped(records.batch(share, drop_remainder=True).enumerate(first_step), batch)

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
        data, share = recipe.data, recipe.run.batch_size // workers
        files = self.share(split, worker, workers)
        most = -(-self.examples(split) // workers)  # the largest share, so that workers make equal numbers

        def prepare(contents, _):
            header = jpeg.header(contents)
            window = jpeg.centre_window(header[0], data.image_size[:2], data.centre)
            return standardize(jpeg.decode_window(contents, window, data.image_size[:2], header)[None])[0]

        def batch(_, records):
            positions = tf.range(share, dtype=tf.int64)
            return decode_batch(records, positions, prepare, data)

        fillers = tf.data.Dataset.from_tensors(tf.constant(FILLER)).repeat()
        records = read_records(files, tf.range(len(files))).concatenate(fillers)
        batches = _mapped(records.batch(share, drop_remainder=True).take(-(-most // share)).enumerate(), batch)
        return batches if padded else without_padding(batches)


@contextlib.contextmanager
def without_global_seed():
    """Returns a context manager for traced functions, in which `tf.random.set_seed` has no effect.

    The order of the records would otherwise depend on what the user's program has set, and 0 would be an error.
    """
    graph = tf.compat.v1.get_default_graph()
    seed, graph.seed = graph.seed, None
    try:
        yield
    finally:
        graph.seed = seed


def _mapped(dataset, batch):
    # The images of a batch are decoded in parallel, see decode_batch. Two batches at a time keep all cores busy.
    return dataset.map(batch, num_parallel_calls=2, deterministic=True).prefetch(2)


def read_records(files, order):
    """Returns a dataset of undecoded records, interleaved from several files at a time.

    Args:
        files: Sequence of `(file, records to skip, records to take)`.
        order: Integer tensor, a permutation of `range(len(files))`: the order in which the files are opened.
    """
    columns = (tf.constant(column) for column in zip(*files, strict=True))
    dataset = tf.data.Dataset.from_tensor_slices(tuple(tf.gather(column, order) for column in columns))

    def part(path, skip, take):
        return tf.data.TFRecordDataset(path).skip(tf.cast(skip, tf.int64)).take(tf.cast(take, tf.int64))

    records = dataset.interleave(
        part, cycle_length=min(FILES_AT_ONCE, len(files)), num_parallel_calls=tf.data.AUTOTUNE, deterministic=True
    )
    # A truncated file must raise an error instead of making the epoch shorter.
    return records.apply(tf.data.experimental.assert_cardinality(sum(take for *_, take in files)))


def decode_batch(records, positions, prepare, data):
    """Decodes and prepares the images of a batch of records in parallel.

    Images that cannot be decoded are named on standard error by their `file_name`.

    Args:
        records: String tensor `[n]` of serialized examples, or `FILLER`.
        positions: int64 tensor `[n]`, positions of the images in the run.
        prepare: Function (contents of a JPEG file, its position) -> float32 image of `image_size`.
        data: Data part of a recipe: `image_size`, `num_classes` and `bad_images`, which says whether images that cannot
            be decoded are skipped or raise an error.

    Returns:
        float32 images `[n, h, w, 3]`, int64 labels `[n]`, and float32 weights `[n]`. An image that cannot be decoded is
        all zeros and has weight 0. All others have weight 1.

    Raises:
        tf.errors.InvalidArgumentError: if a label is not that of a class, or if an image cannot be decoded and
            `bad_images` is `"fail"`.
    """
    count, image_size = records.shape[0], data.image_size
    fields = tf.io.parse_example(records, FIELDS)

    # Only tf.data can skip an operation that fails, so each batch is a dataset of its own.
    places = tf.range(count)
    images = tf.data.Dataset.from_tensor_slices((places, fields["image"], positions))
    images = images.map(
        lambda place, contents, position: (place, prepare(contents, position)),
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
    bad = tf.boolean_mask(fields["file_name"], (weights == 0) & (records != FILLER))
    report = tf.cond(tf.size(bad) > 0, lambda: _report_bad_images(bad, data.bad_images), tf.no_op)
    with tf.control_dependencies([report, _check_labels(fields, data.num_classes)]):
        images = tf.ensure_shape(images, [count, *image_size])
    return images, fields["label"], weights


def _check_labels(fields, num_classes):
    wrong = (fields["label"] < 0) | (fields["label"] >= num_classes)

    def refuse():
        label, name = (tf.boolean_mask(fields[key], wrong)[0] for key in ("label", "file_name"))
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
