"""Image files of all sizes in record files, as tensorflow-datasets prepares ImageNet.

They do not fit into memory. Each worker reads the records of its own share, undecoded, in an order that is a function
of (seed, epoch), so that a resumed run skips the images it has seen without decoding them.
"""

import contextlib

import numpy as np
import tensorflow as tf
import tensorflow_datasets as tfds

from allconv_resnet.data import inspection
from allconv_resnet.data.encoded import EncodedSource, Files
from allconv_resnet.errors import BadInput
from allconv_resnet.progress import say

FIELDS = {
    "image": tf.io.FixedLenFeature([], tf.string, ""),
    "label": tf.io.FixedLenFeature([], tf.int64, 0),
    "file_name": tf.io.FixedLenFeature([], tf.string, "(without a file_name)"),
}
FILLER = b""  # stands for a record after the last one of a split
FILES_AT_ONCE = 16  # files whose records are interleaved
FIRST_RECORDS = 8  # records of a split that are checked before the first step


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


class RecordSource(EncodedSource):
    """A `Source` of records that tensorflow-datasets has prepared.

    Args:
        builder: `tfds.core.DatasetBuilder` with the features `image` and `label`. A feature `file_name` is used in
            messages.
        parts: Dictionary from the names of splits to pairs: the name of the prepared split, and a boolean array that
            says which of its records belong to the split, or None if all do. Defaults to all prepared splits.
    """

    def __init__(self, builder, parts=None):
        self.builder, self.name = builder, builder.name
        self.label_names = tuple(builder.info.features["label"].names)
        self._parts = parts or {split: (split, None) for split in builder.info.splits}
        self.splits = tuple(self._parts)

    def _split(self, split):
        if split not in self.splits:
            raise BadInput(f"{self.name} has no split {split!r}. Its splits are: {', '.join(self.splits)}")
        return self.builder.info.splits[self._parts[split][0]]

    def examples(self, split):
        whole, kept = self._split(split), self._parts[split][1]
        return whole.num_examples if kept is None else int(kept.sum())

    def labels(self, split):
        """Returns the labels of a split, int64 `[n]`, in the order of its records, all of which are read."""
        whole = self._split(split)
        require_complete(whole, self.name)
        say(f"Reading the labels of {whole.num_examples:,} records of {self.name}")
        return np.concatenate([inspection.read_labels(path) for path in whole.filepaths])

    def divide(self, split, held, name):
        """Returns the source with some records of a split in a new split.

        Args:
            split: Name of the split.
            held: Boolean array `[n]`, which records go to the new split.
            name: Name of the new split.
        """
        whole = self._parts[split][0]
        return RecordSource(self.builder, {**self._parts, split: (whole, ~held), name: (whole, held)})

    def check(self, data, splits):
        self.require_fit(data)
        for split in splits:
            if not self.examples(split):
                raise BadInput(f"The {split} split of {self.name} has no images")
            require_complete(self._split(split), self.name)
            path, count = self._split(split).filepaths[0], self._split(split).shard_lengths[0]
            # The others are checked when they are read: there may be hundreds of gigabytes.
            inspection.check_records(path, min(count, FIRST_RECORDS), data.num_classes, kinds=(b"",))
            records = tf.data.TFRecordDataset(str(path)).take(FIRST_RECORDS).batch(FIRST_RECORDS).get_single_element()
            images = tf.io.parse_example(records, FIELDS)["image"].numpy()
            if not any(image.startswith((inspection.PNG, inspection.JPEG)) for image in images):
                raise BadInput(f"The images of {self.name} must be JPEG or PNG files. Received: other files in {path}")

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
            List with `(file, records to skip, records to take)` for each file of the worker, and a list with a boolean
            array for each file that says which of these records belong to the split, or None if all do.

        Raises:
            BadInput: if there are more workers than records.
        """
        if workers > self.examples(split):
            raise BadInput(f"The {split} split of {self.name} has {self.examples(split)} images for {workers} workers")
        whole, kept = self._parts[split]
        if kept is None:
            part = tfds.even_splits(whole, workers)[worker]
        else:
            own = np.array_split(np.flatnonzero(kept), workers)[worker]
            part = f"{whole}[{own[0]}:{own[-1] + 1}]"
        files = [(f.filename, f.skip, f.take) for f in self.builder.info.splits[part].file_instructions]
        if kept is None:
            return files, None
        ends = np.cumsum([take for *_, take in files])
        return files, np.split(kept[own[0] : own[-1] + 1], ends[:-1])

    def training_files(self, recipe, first_step, worker, workers):
        data = recipe.data
        share, (files, kept) = recipe.run.batch_size // workers, self.share(data.train_split, worker, workers)
        examples = _count(files, kept)
        first_epoch, seen = first_step * share // examples, first_step * share % examples

        def epoch(number):
            key = tf.stack([tf.cast(recipe.seed, tf.int64), number])
            order = tf.argsort(tf.random.stateless_uniform([len(files)], key))
            seed = tf.random.stateless_uniform([], key, None, None, tf.int64)
            with without_global_seed():
                records = read_records(files, order, kept)
                records = records.shuffle(data.shuffle_buffer, seed, reshuffle_each_iteration=False)
            return records.skip(tf.where(number == first_epoch, seen, 0))

        records = tf.data.Dataset.range(first_epoch, tf.int64.max).flat_map(epoch)
        return records.batch(share, drop_remainder=True).map(parse)

    def evaluation_files(self, split, recipe, worker, workers):
        share, (files, kept) = recipe.run.batch_size // workers, self.share(split, worker, workers)
        most = -(-self.examples(split) // workers)  # the largest share, so that workers make equal numbers
        fillers = tf.data.Dataset.from_tensors(tf.constant(FILLER)).repeat()
        records = read_records(files, tf.range(len(files)), kept).concatenate(fillers)
        return records.batch(share, drop_remainder=True).take(-(-most // share)).map(parse)


def parse(records):
    """Returns the `Files` of a batch of serialized examples, string `[n]`, some of which may be `FILLER`."""
    fields = tf.io.parse_example(records, FIELDS)
    return Files(fields["image"], fields["label"], fields["file_name"], records != FILLER)


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


def read_records(files, order, kept=None):
    """Returns a dataset of undecoded records, interleaved from several files at a time.

    Args:
        files: Sequence of `(file, records to skip, records to take)`.
        order: Integer tensor, a permutation of `range(len(files))`: the order in which the files are opened.
        kept: Sequence of a boolean array for each file: which of its records to take are in the dataset. None means all
            of them.
    """
    columns = [tf.constant(column) for column in zip(*files, strict=True)]
    firsts = np.cumsum([0, *(take for *_, take in files)])[:-1]  # the place of each file in the array of all records
    columns.append(tf.constant(firsts, tf.int64))
    dataset = tf.data.Dataset.from_tensor_slices(tuple(tf.gather(column, order) for column in columns))
    kept_of_all = None if kept is None else tf.constant(np.concatenate(kept))

    def part(path, skip, take, first):
        records = tf.data.TFRecordDataset(path).skip(tf.cast(skip, tf.int64)).take(tf.cast(take, tf.int64))
        if kept_of_all is None:
            return records
        records = records.enumerate(first).filter(lambda place, record: kept_of_all[place])
        return records.map(lambda place, record: record)

    records = dataset.interleave(
        part, cycle_length=min(FILES_AT_ONCE, len(files)), num_parallel_calls=tf.data.AUTOTUNE, deterministic=True
    )
    # A truncated file must raise an error instead of making the epoch shorter.
    return records.apply(tf.data.experimental.assert_cardinality(_count(files, kept)))


def _count(files, kept):
    return sum(take for *_, take in files) if kept is None else int(sum(map(np.sum, kept)))
