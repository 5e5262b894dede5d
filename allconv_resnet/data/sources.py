"""Labelled images: the embedded digits, and whatever tensorflow-datasets has prepared, in memory or in records."""

import os
import urllib.error
import urllib.request
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from allconv_resnet.data import pipeline
from allconv_resnet.data.imagenet import RecordData
from allconv_resnet.errors import BadInput

TORONTO = "https://www.cs.toronto.edu/~kriz"
ORIGINS = {
    "cifar10": f"{TORONTO}/cifar-10-python.tar.gz",
    "cifar100": f"{TORONTO}/cifar-100-python.tar.gz",
}
EMBEDDED = "digits"


@dataclass(frozen=True)
class ImageData:
    """A data set in memory."""

    name: str
    num_classes: int
    train_images: np.ndarray  # uint8 [n, h, w, c]
    train_labels: np.ndarray  # int64 [n]
    test_images: np.ndarray
    test_labels: np.ndarray
    label_names: tuple[str, ...]

    centre = 1.0  # part of an image that evaluation shows, on each side

    def split(self, name):
        """Returns the images and labels of `train` or `test`.

        Raises:
            BadInput: for any other name.
        """
        if name not in ("train", "test"):
            raise BadInput(f"split must be train or test. Received: split={name!r}")
        return getattr(self, f"{name}_images"), getattr(self, f"{name}_labels")

    def examples(self, split):
        """Returns how many images `train` or `test` has."""
        return len(self.split(split)[1])

    def training_batches(self, *arguments):
        """Returns `pipeline.training_batches` of the training images. Its other arguments are these."""
        return pipeline.training_batches(*self.split("train"), *arguments)

    def evaluation_batches(self, split, recipe, *arguments):
        """Returns `pipeline.evaluation_batches` of a split, in batches of the recipe's size."""
        return pipeline.evaluation_batches(*self.split(split), recipe.batch_size, *arguments)

    def check(self, image_size, num_classes):
        """Makes sure that the data are what the recipe takes them for.

        Args:
            image_size: `(height, width, channels)`.
            num_classes: Integer.

        Raises:
            BadInput: if a shape, a dtype, the number of classes or a label is not as expected.
        """
        if self.num_classes != num_classes:
            raise BadInput(f"The recipe has num_classes={num_classes}, but {self.name} has {self.num_classes} classes")
        for split in ("train", "test"):
            images, labels = self.split(split)
            expected = ("uint8", tuple(image_size))
            received = (str(images.dtype), images.shape[1:])
            if received != expected:
                raise BadInput(
                    f"The recipe expects {expected[0]} images of shape {expected[1]}, "
                    f"but the {split} split of {self.name} has {received[0]} images of shape {received[1]}"
                )
            if labels.shape != images.shape[:1] or labels.size == 0:
                raise BadInput(f"The {split} split of {self.name} has {len(images)} images and {labels.size} labels")
            if labels.min() < 0 or labels.max() >= num_classes:
                raise BadInput(
                    f"Labels must lie in [0, {num_classes}), but the {split} split of {self.name} has labels "
                    f"from {labels.min()} to {labels.max()}"
                )


def load(name, data_dir=None):
    """Returns a data set, from what is prepared on disk if it is there, else by download.

    Args:
        name: `"digits"`, or the name of a tensorflow-datasets set with the features `image` and `label`: of equally
            sized images in a `train` and a `test` split, or of JPEG files of all sizes in `train` and `validation`.
        data_dir: Directory of tensorflow-datasets. Defaults to `$TFDS_DATA_DIR`, or `~/tensorflow_datasets`.

    Returns:
        `ImageData`, or `RecordData` of JPEG files of all sizes.

    Raises:
        BadInput: if the set is unknown, or neither on disk nor to be had.
    """
    if name == EMBEDDED:
        return load_digits()
    data_dir = Path(data_dir or os.environ.get("TFDS_DATA_DIR") or "~/tensorflow_datasets").expanduser()
    return read(prepared_directory(name, data_dir) or download(name, data_dir))


def load_digits():
    """Returns scikit-learn's 1,797 real handwritten digits: 8x8 enlarged to 32x32x3; a fifth of each class is test."""
    from sklearn.datasets import load_digits
    from sklearn.model_selection import train_test_split

    digits = load_digits()
    images = np.minimum(digits.images * 16, 255).astype(np.uint8)  # they come as 0 to 16
    images = np.repeat(np.kron(images, np.ones((4, 4), np.uint8))[..., None], 3, axis=-1)
    train_x, test_x, train_y, test_y = train_test_split(
        images, digits.target.astype(np.int64), test_size=0.2, stratify=digits.target, random_state=0
    )
    return ImageData(EMBEDDED, 10, train_x, train_y, test_x, test_y, tuple("0123456789"))


def prepared_directory(name, data_dir):
    """Returns the newest prepared version of a data set under `data_dir`, or None."""
    found = [path.parent for path in (data_dir / name).glob("**/dataset_info.json")]
    return max(found, key=_version, default=None)


def _version(path):
    return [int(part) if part.isdigit() else -1 for part in path.name.split(".")]


def read(directory):
    """Returns the data set in a directory that tensorflow-datasets prepared. The network is not used.

    Raises:
        BadInput: if it is not a set of labelled, equally sized images in splits `train` and `test`, or is damaged.
    """
    import tensorflow as tf
    import tensorflow_datasets as tfds

    try:
        builder = tfds.builder_from_directory(directory)
        features = builder.info.features
        if "image" in features and None in features["image"].shape:
            return RecordData(builder)
        if not {"image", "label"} <= set(features) or not {"train", "test"} <= set(builder.info.splits):
            raise BadInput(
                f"{directory} must have features image and label, and splits train and test. "
                f"Received: features {sorted(features)}, splits {sorted(builder.info.splits)}"
            )
        # The names of the files ("id") are left unread.
        decoders = tfds.decode.PartialDecoding({"image": True, "label": True})
        arrays = {}
        for split in ("train", "test"):
            everything = builder.as_dataset(split=split, batch_size=-1, decoders=decoders)
            arrays[f"{split}_images"] = everything["image"].numpy()
            arrays[f"{split}_labels"] = everything["label"].numpy()
    except (tf.errors.OpError, OSError, AttributeError) as error:
        reason = str(error).splitlines()[0]
        raise BadInput(f"The data set in {directory} cannot be read: {reason}") from error
    label = features["label"]
    return ImageData(builder.name, label.num_classes, **arrays, label_names=tuple(label.names))


def download(name, data_dir):
    """Downloads and prepares a data set, and returns its directory.

    Raises:
        BadInput: within seconds if the set is unknown or the network does not answer.
    """
    import tensorflow_datasets as tfds

    if name not in tfds.list_builders():
        raise BadInput(f"tensorflow-datasets knows no data set {name!r}, and {data_dir / name} has none prepared")
    origin = ORIGINS.get(name, "https://storage.googleapis.com/tfds-data")
    try:  # tensorflow-datasets itself would try for minutes
        urllib.request.urlopen(urllib.request.Request(origin, method="HEAD"), timeout=5).close()
    except urllib.error.HTTPError:
        pass  # it answered
    except OSError as error:
        raise BadInput(
            f"{name} is not prepared in {data_dir / name}, and {origin} does not answer ({error}): on a machine with "
            f"a network `tfds build {name} --data_dir {data_dir}` prepares it, and `--recipe digits` trains on the "
            f"embedded data set without any"
        ) from error
    builder = tfds.builder(name, data_dir=data_dir)
    if instructions := builder.MANUAL_DOWNLOAD_INSTRUCTIONS:
        raise BadInput(
            f"{name} is not prepared in {data_dir / name}, and has to be fetched by hand before "
            f"`tfds build {name} --data_dir {data_dir}` prepares it: {' '.join(instructions.split())}"
        )
    builder.download_and_prepare()
    return Path(builder.data_path)
