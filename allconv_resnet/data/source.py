"""The protocol of sources of labelled images, and the function that finds a source by name.

| name | module | images |
|---|---|---|
| `digits` | arrays.py | scikit-learn's handwritten digits, which need no download |
| FILE.npz | arrays.py | NumPy arrays in one file, read into memory |
| DIR or FILE.tar.gz | cifar_files.py | the original files of CIFAR-10 and CIFAR-100 |
| DIR | folder.py | a folder of JPEG and PNG files, one folder for each class |
| NAME or NAME/CONFIG | prepared.py | a dataset that tensorflow-datasets has prepared |

Small images of one size are read into memory (arrays.py). Files of all sizes are decoded batch by batch (encoded.py),
from folders (folder.py) or from records (records.py).

To add a source, write a class with the members of `Source` and give `load_data` a line that recognizes its names.
"""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from allconv_resnet.data import arrays, cifar_files
from allconv_resnet.data.holdout import HOLDOUT, hold_out
from allconv_resnet.errors import BadInput
from allconv_resnet.types import Dataset, StrPath

if TYPE_CHECKING:
    import numpy as np

    from allconv_resnet.recipes.parts.data import Images
    from allconv_resnet.recipes.recipe import Recipe


class Source(Protocol):
    """Labelled images in splits. Each source has its own names of splits.

    Attributes:
        name: String, for messages.
        kind: `"arrays"` or `"records"`, the kind of data part that a recipe for this source must have.
        label_names: Tuple with the names of the classes.
        splits: Tuple with the names of the splits.
        image_size: Tuple with the height, width and channels of all images, or None if they differ.

    Example:

    >>> source = acr.load_data("digits")
    >>> source.splits, source.image_size, source.examples("train")
    (('train', 'test'), (32, 32, 3), 1437)
    >>> images, labels, weights = next(iter(source.evaluation_batches("test", acr.recipes.DIGITS)))
    >>> images.shape, labels.shape
    (TensorShape([64, 32, 32, 3]), TensorShape([64]))
    """

    name: str
    kind: str
    label_names: tuple[str, ...]
    splits: tuple[str, ...]
    image_size: tuple[int, int, int] | None

    def as_kind(self, kind: str) -> "Source":
        """Returns the source as one of another kind, which only some sources can be.

        Args:
            kind: `"arrays"` or `"records"`.

        Raises:
            BadInput: if the source is of its own kind alone.
        """

    def check(self, data: "Images", splits: Sequence[str]) -> None:
        """Makes sure that splits fit a recipe.

        Args:
            data: Data part of a recipe.
            splits: Names of the splits that will be read. Other splits are not checked.

        Raises:
            BadInput: if a split does not fit. The message says what was expected and what the split has.
        """

    def examples(self, split: str) -> int:
        """Returns the number of images in a split."""

    def labels(self, split: str) -> "np.ndarray":
        """Returns the labels of a split, an integer array `[n]`."""

    def divide(self, split: str, held: "np.ndarray", name: str) -> "Source":
        """Returns the source with some images of a split in a new split.

        Args:
            split: Name of the split.
            held: Boolean array `[n]`, which images go to the new split.
            name: Name of the new split.
        """

    def training_batches(self, recipe: "Recipe", first_step: Any = 0, worker: int = 0, workers: int = 1) -> Dataset:
        """Returns an endless dataset of batches of the recipe's `train_split`, from that of `first_step` on.

        Args:
            recipe: `Recipe`.
            first_step: Integer or int64 scalar, the step of the first batch.
            worker: Integer, index of the worker, which gets its share of every batch.
            workers: Integer, number of workers, which must divide the batch size.

        Returns:
            `tf.data.Dataset` of float32 images `[n, h, w, c]`, int64 labels `[n]` and, if images can be missing,
            float32 weights `[n]`, with n = `batch_size / workers`.
        """

    def evaluation_batches(
        self, split: str, recipe: "Recipe", worker: int = 0, workers: int = 1, padded: bool = False
    ) -> Dataset:
        """Returns a dataset of the images of a split, once and in order, in batches of the recipe's size.

        Args:
            split: Name of the split.
            recipe: `Recipe`.
            worker: See `training_batches`.
            workers: See `training_batches`.
            padded: Whether all batches have the same number of images. The last one is filled up with images of weight
                0 then. Otherwise all weights are 1, and `fit(validation_data=...)` of Keras counts every image once.

        Returns:
            `tf.data.Dataset` of float32 images, int64 labels and float32 weights.
        """


def load_data(name: str, data_dir: StrPath | None = None) -> Source:
    """Returns the source with a name. Splits are read when they are first used.

    A name that begins with `/`, `./`, `../` or `~` is a path, and so is one with a `/` of a file or folder that exists.

    Args:
        name: `"digits"`, the path of a `.npz` file, of a folder of images (`folder.from_folder`) or of the original
            files of CIFAR (`cifar_files.from_cifar`), or the name of a dataset of tensorflow-datasets with the features
            `image` and `label`, as `NAME` or `NAME/CONFIG`.
        data_dir: Directory of tensorflow-datasets. Defaults to `$TFDS_DATA_DIR`, or `~/tensorflow_datasets`. A dataset
            that is not there is downloaded, if the network can be reached.

    Returns:
        `Source`.

    Raises:
        BadInput: if there is no such source, it cannot be read, or a name of a class is not one line of text.

    Example:

    >>> source = acr.load_data("digits")
    >>> images, labels = source.arrays("test")
    >>> images.shape, images.dtype, labels.shape
    ((360, 32, 32, 3), dtype('uint8'), (360,))
    """
    source = _load(name, data_dir)
    _check_names(source)
    return source


def _load(name, data_dir):
    if name == arrays.EMBEDDED:
        return arrays.digits()
    if name.endswith(".npz"):
        return arrays.from_npz(_existing(name))
    if name.endswith(cifar_files.ARCHIVES):
        return cifar_files.from_cifar(_existing(name))
    if _is_path(name):
        path = _existing(name)
        if cifar_files.is_cifar(path):
            return cifar_files.from_cifar(path)
        if not path.is_dir():
            raise BadInput(
                f"A dataset that is a path must be a folder of images, original files of CIFAR, or FILE.npz. "
                f"Received: {name}"
            )
        from allconv_resnet.data import folder  # this and the next source need TensorFlow

        return folder.from_folder(path)
    from allconv_resnet.data import prepared

    return prepared.load_prepared(name, data_dir)


def _check_names(source):
    """Raises `BadInput` if a name of a class cannot be a line of labels.txt."""
    for name in map(str, source.label_names):
        if name.splitlines() != [name] or name != name.encode(errors="replace").decode():
            raise BadInput(
                f"The name of a class must be one line of text. Received: {name!r}, a class of {source.name}"
            )


def _is_path(name):
    begins = name.startswith(("/", "./", "../", "~")) or name in (".", "..")
    return begins or "://" in name or ("/" in name and os.path.exists(name))


def _existing(name):
    if "://" in name:
        raise BadInput(f"The files of a dataset must be on a file system of this machine. Received: dataset={name!r}")
    path = Path(os.path.expanduser(name))
    try:
        os.stat(path)
        if path.is_dir():  # its names are listed, and its files are opened
            os.scandir(path).close()
            os.stat(os.path.join(path, "."))
    except OSError as error:
        missing = isinstance(error, FileNotFoundError | NotADirectoryError)
        problem = f"There is no file or folder {path}" if missing else f"{path} cannot be read: {error.strerror}"
        raise BadInput(f"{problem}. Received: dataset={name!r}") from error
    return path


def load_for_recipe(
    data: "Images",
    splits: Sequence[str],
    data_dir: StrPath | None = None,
    seed: int = 0,
    source: "Source | None" = None,
) -> Source:
    """Returns the source of a recipe after checking that it fits the recipe.

    Args:
        data: Data part of the recipe.
        splits: Names of the splits that will be read.
        data_dir: See `load_data`.
        seed: Integer, seed of the recipe, which determines the images that `data.holdout` holds out.
        source: `Source`, if it has been loaded already.

    Returns:
        `Source`.

    Raises:
        BadInput: if there is no such source, it cannot be read, or it does not fit the recipe.

    Example:

    >>> from allconv_resnet.data.source import load_for_recipe
    >>> data = acr.recipes.DIGITS.replace(holdout=0.1).data
    >>> source = load_for_recipe(data, ["train", "holdout"])
    >>> source.examples("train"), source.examples("holdout")
    (1293, 144)
    """
    source = load_data(data.dataset, data_dir) if source is None else source
    _check_names(source)  # also those of a source that was given
    source = source.as_kind(data.kind)
    if data.holdout and {HOLDOUT, data.train_split} & set(splits):
        source = hold_out(source, data.train_split, data.holdout, seed)
    if missing := [split for split in splits if split not in source.splits]:
        raise BadInput(f"{source.name} has no split {missing[0]!r}. Its splits are: {', '.join(source.splits)}")
    source.check(data, splits)
    return source
