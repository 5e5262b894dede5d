"""Where labelled images come from: one protocol, and the function that finds the source of a name.

| source | in | images |
|---|---|---|
| `digits` | arrays.py | scikit-learn's handwritten digits, embedded |
| FILE.npz | arrays.py | arrays of NumPy, in memory |
| NAME or NAME/CONFIG | prepared.py | what tensorflow-datasets has prepared |

Prepared images of one size are read into memory (arrays.py), JPEG files of all sizes from records (records.py).

To add a source, write a class with the members of `Source` and give `load_data` a line that recognizes its names.
"""

from pathlib import Path
from typing import Protocol

from allconv_resnet.data import arrays
from allconv_resnet.data.holdout import hold_out
from allconv_resnet.errors import BadInput


class Source(Protocol):
    """Labelled images in splits. The names of the splits are the data's own.

    Attributes:
        name: String, for messages.
        kind: `"arrays"` or `"records"`: the kind of a recipe's data part that it can serve.
        label_names: Tuple with the names of the classes.
        splits: Tuple with the names of the splits.
    """

    name: str
    kind: str
    label_names: tuple[str, ...]
    splits: tuple[str, ...]

    def check(self, data, splits):
        """Makes sure that some splits are what a recipe takes them for.

        Args:
            data: Data part of a recipe.
            splits: Names of the splits that will be read; no others are looked at.

        Raises:
            BadInput: naming what was expected and what is there.
        """

    def examples(self, split):
        """Returns how many images a split has."""

    def training_batches(self, recipe, first_step=0, worker=0, workers=1):
        """Returns the batches of the steps from `first_step` on, without end, of the recipe's `train_split`.

        Args:
            recipe: `Recipe`.
            first_step: Integer or int64 scalar, the step of the first batch.
            worker: Integer. The worker gets its share of every batch.
            workers: Integer, divides the batch size.

        Returns:
            `tf.data.Dataset` of float32 images `[n, h, w, c]`, int64 labels `[n]` and, where images can be missing,
            float32 weights `[n]`, with n = `batch_size / workers`.
        """

    def evaluation_batches(self, split, recipe, worker=0, workers=1):
        """Returns the images of a split once, in order, in batches of the recipe's size.

        The last batch is filled up with images of weight 0.

        Args:
            split: Name of the split.
            recipe: `Recipe`.
            worker: As in `training_batches`.
            workers: As in `training_batches`.

        Returns:
            `tf.data.Dataset` of float32 images, int64 labels and float32 weights.
        """


def load_data(name, data_dir=None):
    """Returns the source of a name. Splits are read when they are first asked for.

    Args:
        name: `"digits"`, the path of a `.npz` file, or the name of a set of tensorflow-datasets with the features
            `image` and `label`, as `NAME` or `NAME/CONFIG`.
        data_dir: Directory of tensorflow-datasets. Defaults to `$TFDS_DATA_DIR`, or `~/tensorflow_datasets`. A set that
            is not there is downloaded, if there is a network.

    Returns:
        `Source`.

    Raises:
        BadInput: if there is no such source, or it cannot be read.
    """
    if name == arrays.EMBEDDED:
        return arrays.digits()
    if name.endswith(".npz"):
        return arrays.from_npz(Path(name).expanduser())
    from allconv_resnet.data import prepared  # the one source that needs TensorFlow to be read

    return prepared.load(name, data_dir)


def load_for_recipe(data, splits, data_dir=None, seed=0):
    """Returns the source of a recipe, after a check that it has what the recipe needs.

    Args:
        data: Data part of the recipe.
        splits: Names of the splits that will be read.
        data_dir: See `load_data`.
        seed: Integer of the recipe, which fixes what `data.holdout` holds out.

    Raises:
        BadInput: as `load_data`, or if the source does not fit the recipe.
    """
    source = load_data(data.dataset, data_dir)
    if source.kind != data.kind:
        what = {"arrays": "images of one size in memory", "records": "JPEG files of all sizes in records"}
        raise BadInput(f"{source.name} has {what[source.kind]}: it needs --data {source.kind}, not {data.kind}")
    if data.holdout:
        source = hold_out(source, data.train_split, data.holdout, seed)
    if missing := [split for split in splits if split not in source.splits]:
        raise BadInput(f"{source.name} has no split {missing[0]!r}. Its splits are: {', '.join(source.splits)}")
    source.check(data, splits)
    return source
