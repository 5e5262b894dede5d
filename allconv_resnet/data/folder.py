"""Folders of images: `DIR/train/CLASS/*` with the test images beside it, or `DIR/CLASS/*` alone.

Small images of one size are read into memory. All others are decoded batch by batch, as those of records are.
"""

import os
import tempfile
import warnings
from pathlib import Path

import numpy as np
import tensorflow as tf
import tensorflow_datasets as tfds
from PIL import ExifTags, Image

from allconv_resnet import memory
from allconv_resnet.data import jpeg, pipeline
from allconv_resnet.data.arrays import ArraySource
from allconv_resnet.data.encoded import EncodedSource, Files
from allconv_resnet.data.splits import TEST, TRAIN
from allconv_resnet.errors import BadInput, reason
from allconv_resnet.progress import say

LARGEST = 96  # most pixels of the height and the width of images that are read into memory
MOST_BYTES = 2**32  # of all images that are read into memory
SUFFIXES = (".jpg", ".jpeg", ".png")
GREY = ("1", "L", "LA", "I", "I;16", "F")  # modes of Pillow


def from_folder(path):
    """Returns the source of a folder of JPEG and PNG files, one folder for each class.

    The splits have the names of their folders. In a folder that has only folders of classes, all images belong to the
    split `train`. If all images have the same size, with at most 96 pixels in height and width, they are read into
    memory, as grey-scale images if all of them are, unless a recipe asks for `--data records`. All other images are
    decoded batch by batch.

    Args:
        path: Path of the folder.

    Returns:
        `ArraySource` or `FileSource`.

    Raises:
        BadInput: if there are no such images, a class has no training images, or an image that is read into memory
            cannot be decoded.
    """
    files, labels, names = _listed(Path(path))
    size = _common_size([file for split in files.values() for file in split])
    if size is None:
        return FileSource(str(path), names, files, labels)
    reads = {split: lambda split=split: (_read(str(path), files[split], size), labels[split]) for split in files}
    sizes = {split: len(files[split]) for split in files}
    return SmallFiles(str(path), names, reads, size, sizes, FileSource(str(path), names, files, labels))


def _listed(path):
    """Returns the paths of the images of each split, their labels, and the names of the classes."""
    has_splits = any((path / name).is_dir() for name in TRAIN)
    with tempfile.TemporaryDirectory() as root:
        (Path(root) / TRAIN[0]).symlink_to(path.resolve())  # ImageFolder lists the folders of splits alone
        try:
            listed = tfds.ImageFolder(str(path if has_splits else root))
        except UnicodeDecodeError as error:
            name = error.object.decode(errors="backslashreplace") if isinstance(error.object, bytes) else ""
            raise BadInput(f"The names of files and folders in {path} must be in UTF-8. Received: {name}") from error
        except (OSError, tf.errors.OpError) as error:
            raise BadInput(f"The folder {path} cannot be read: {reason(error)}") from error
    # Its public methods would begin TensorFlow's eager context, after which no cluster can be set up.
    of_splits = {split: images for split, images in listed._split_examples.items() if not split.startswith(".")}
    # The folders of training images are the classes, with those that have images elsewhere. Others may lie beside them.
    classes = next((path / name for name in TRAIN if (path / name).is_dir()), path)
    names = {each.name for each in classes.iterdir() if each.is_dir()}
    names |= {image.label for images in of_splits.values() for image in images}
    names = sorted(name for name in names if not name.startswith("."))
    files, labels = {}, {}
    for split, images in of_splits.items():
        folder = path / split if has_splits else path
        found = [folder / image.label / Path(image.image_path).name for image in images if image.label in names]
        found = [file for file in found if not file.name.startswith(".")]
        if found:
            files[split] = [str(file) for file in found]
            labels[split] = np.array([names.index(file.parent.name) for file in found], np.int64)
    splits = [path / name for name in TRAIN + TEST if (path / name).is_dir()] if has_splits else []
    _say_what_is_not_read(path, splits, files)
    train = next((name for name in TRAIN if name in files), None)
    if train is None:
        raise BadInput(f"There must be folders of JPEG or PNG files, one for each class, in {path}")
    if empty := [name for label, name in enumerate(names) if label not in labels[train]]:
        where = path / train if has_splits else path
        raise BadInput(f"Every class must have JPEG or PNG files to train on. Received: none in {where / empty[0]}")
    return files, labels, names


def _say_what_is_not_read(path, splits, files):
    """Names what else is in the folders of the classes, such as further folders, and images beside these folders."""
    read = {file for split in files.values() for file in split}
    folders = sorted({file.rpartition("/")[0] for file in read})
    entries = (f"{folder}/{name}" for folder in folders for name in sorted(os.listdir(folder)) if name[0] != ".")
    others = [str(file) for folder in (path, *splits) for file in sorted(folder.iterdir()) if _is_loose_image(file)]
    others += [entry for entry in entries if entry not in read]
    if others:
        more = f" and {len(others) - 1:,} more" if len(others) > 1 else ""
        say(f"{path}: only JPEG and PNG files in the folder of a class are read, and not {others[0]}{more}")


def _is_loose_image(file):
    return file.suffix.lower() in SUFFIXES and not file.name.startswith(".") and file.is_file()


def _common_size(paths):
    """Returns the height, width and channels of all images if they are small and equal, and None otherwise."""
    sizes, modes = set(), set()
    for path in paths:
        try:
            with warnings.catch_warnings(action="ignore"), Image.open(path) as image:  # reads the header alone
                exif = Image.Exif()  # `getexif` would look in XMP too, and in PNG files, which are not turned
                exif.load(image.info.get("exif", b"") if image.format in ("JPEG", "MPO") else b"")
                turned = exif.get(ExifTags.Base.Orientation, 1) in range(5, 9)
                sizes.add(image.size if turned else image.size[::-1])
                modes.add(image.mode)
        except Exception:  # Pillow raises many types of errors. Whoever decodes the image says what is wrong
            continue
        if len(sizes) > 1 or max(max(sizes)) > LARGEST:
            return None
    if not sizes:
        raise BadInput(f"None of {len(paths):,} files is a JPEG or PNG file that can be decoded, such as {paths[0]}")
    size = (*sizes.pop(), 1 if modes <= set(GREY) else 3)
    return size if len(paths) * np.prod(size) <= MOST_BYTES else None


def _read(name, paths, size):
    memory.require(f"dataset={name!r}, {len(paths):,} images of shape {size}", images=len(paths) * int(np.prod(size)))
    images = np.empty((len(paths), *size), np.uint8)
    for place, path in enumerate(paths):
        try:
            image = jpeg.decode_image(tf.io.read_file(path), size[2]).numpy()
        except tf.errors.OpError as error:
            raise BadInput(f"{path} cannot be decoded as JPEG or PNG: {reason(error)}") from error
        if image.shape != size:
            raise BadInput(f"All images must have the shape {size}. Received: {image.shape} in {path}")
        images[place] = image
    return images


class SmallFiles(ArraySource):
    """Image files that are read into memory unless a recipe asks for `--data records`.

    Args:
        *arguments: See `ArraySource`.
        files: `FileSource` of the same files.
    """

    def __init__(self, *arguments):
        *arguments, self._files = arguments
        super().__init__(*arguments)

    def as_kind(self, kind):
        return self if kind == self.kind else self._files


class FileSource(EncodedSource):
    """A `Source` of image files. A training batch is a pure function of (seed, step), whatever the workers.

    Args:
        name: String, for messages.
        label_names: Sequence with the names of the classes.
        paths: Dictionary from the name of each split to the paths of its files.
        labels: Dictionary from the name of each split to the labels of its files, int64 `[n]`.
    """

    without_effect = ("shuffle_buffer",)
    names_test_images = True

    def __init__(self, name, label_names, paths, labels):
        self.name, self.label_names, self.splits = name, tuple(label_names), tuple(paths)
        self._paths = {split: np.array(paths[split]) for split in paths}
        self._labels = labels

    def _split(self, split):
        if split not in self.splits:
            raise BadInput(f"{self.name} has no split {split!r}. Its splits are: {', '.join(self.splits)}")
        return self._paths[split], self._labels[split]

    def examples(self, split):
        return len(self._split(split)[1])

    def labels(self, split):
        """Returns the labels of a split, int64 `[n]`."""
        return self._split(split)[1]

    def divide(self, split, held, name):
        """Returns the source with some images of a split in a new split, see `RecordSource.divide`."""
        paths, labels = self._split(split)
        parts = {split: ~held, name: held}
        return FileSource(
            self.name,
            self.label_names,
            {**self._paths, **{part: paths[taken] for part, taken in parts.items()}},
            {**self._labels, **{part: labels[taken] for part, taken in parts.items()}},
        )

    def check(self, data, splits):
        self.require_fit(data)
        for split in splits:
            if not self.examples(split):
                raise BadInput(f"The {split} split of {self.name} has no images")

    def orientations(self, images):
        return None

    def contents(self, image):
        return tf.io.read_file(image)

    def _files(self, split):
        paths, labels = (tf.constant(values) for values in self._split(split))

        def files(rows, present):
            chosen = tf.where(present, tf.gather(paths, rows), "")
            return Files(chosen, tf.gather(labels, rows), chosen, present)

        return files

    def training_files(self, recipe, first_step, worker, workers):
        files, examples = self._files(recipe.data.train_split), self.examples(recipe.data.train_split)
        batch_size, share = recipe.run.batch_size, recipe.run.batch_size // workers

        def batch(step):
            rows, _ = pipeline.example_indices(recipe.seed, step, batch_size, examples)
            rows = rows[worker * share : (worker + 1) * share]
            return files(rows, tf.ones(share, tf.bool))

        return tf.data.Dataset.range(first_step, tf.int64.max).map(batch)

    def evaluation_files(self, split, recipe, worker, workers):
        files, examples = self._files(split), self.examples(split)
        batch_size, share = recipe.run.batch_size, recipe.run.batch_size // workers

        def batch(start):
            places = start + worker * share + tf.range(share, dtype=tf.int64)
            return files(tf.minimum(places, examples - 1), places < examples)

        return tf.data.Dataset.range(0, examples, batch_size).map(batch)
