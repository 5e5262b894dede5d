"""Images of one size in memory: the embedded digits, and the arrays of a NumPy file."""

import zipfile
import zlib
from functools import cached_property

import numpy as np

from allconv_resnet import files, memory
from allconv_resnet.errors import BadInput

EMBEDDED = "digits"
# Names of the arrays of images and labels, as keras.datasets and NumPy users call them. Capitals make no difference.
NPZ_NAMES = (
    ("x_{}", "y_{}"),
    ("{}_images", "{}_labels"),
    ("images_{}", "labels_{}"),
    ("{}_x", "{}_y"),
    ("{}_data", "{}_labels"),
)
# The names of each split in a file and elsewhere. The first is the one that is written.
NPZ_SPLITS = {"train": ("train", "training"), "test": ("test", "testing"), "validation": ("val", "valid", "validation")}
WITHOUT_SPLIT = (("images", "labels"), ("x", "y"), ("data", "labels"))  # these are training images


class ArraySource:
    """A `Source` of images in memory.

    Args:
        name: String, for messages.
        label_names: Sequence with the names of the classes.
        read: Dictionary from the name of each split to a function without arguments, which returns its images, uint8
            `[n, h, w, c]`, or `[n, h, w]` for grey-scale images, and labels, integers `[n]`.
        image_size: Tuple with the height, width and channels of the images. By default they are read to find it.
        sizes: Dictionary from the name of each split to its number of images. By default they are read to find it.
    """

    kind = "arrays"

    def __init__(self, name, label_names, read, image_size=None, sizes=None):
        self.name, self.label_names, self.splits = name, tuple(label_names), tuple(read)
        self._read, self._arrays, self._image_size, self._sizes = read, {}, image_size, sizes or {}

    @property
    def image_size(self):
        return tuple(self._image_size or self.arrays(self.splits[0])[0].shape[1:])

    def arrays(self, split):
        """Returns the images and the labels of a split.

        Args:
            split: Name of the split.

        Returns:
            uint8 array `[n, h, w, c]` and integer array `[n]`.

        Raises:
            BadInput: if there is no such split, or it cannot be read.
        """
        if split not in self.splits:
            raise BadInput(f"{self.name} has no split {split!r}. Its splits are: {', '.join(self.splits)}")
        if split not in self._arrays:
            images, labels = self._read[split]()
            images, labels = np.asarray(images), np.asarray(labels)
            if images.ndim == 3:
                images = images[..., None]
            if labels.ndim == 2 and labels.shape[1] == 1:  # the shape of keras.datasets
                labels = labels[:, 0]
            if images.ndim != 4 or labels.ndim != 1:
                raise BadInput(
                    f"The {split} split of {self.name} must have images [n, h, w, c] or [n, h, w], and labels [n]. "
                    f"Received: images of shape {images.shape} and labels of shape {labels.shape}"
                )
            if len(images) != len(labels):
                received = f"{len(images)} images and {len(labels)} labels"
                raise BadInput(
                    f"There must be a label for each image in the {split} split of {self.name}. Received: {received}"
                )
            self._arrays[split] = images, labels
        return self._arrays[split]

    def as_kind(self, kind):
        return of_kind(self, kind)

    def examples(self, split):
        return self._sizes[split] if split in self._sizes else len(self.arrays(split)[1])

    def labels(self, split):
        """Returns the labels of a split, integers `[n]`."""
        return self.arrays(split)[1]

    def divide(self, split, held, name):
        """Returns the source with some images of a split in a new split.

        Args:
            split: Name of the split.
            held: Boolean array `[n]`, which images go to the new split.
            name: Name of the new split.
        """
        images, labels = self.arrays(split)
        read = {each: lambda each=each: self.arrays(each) for each in self.splits}
        read |= {split: lambda: (images[~held], labels[~held]), name: lambda: (images[held], labels[held])}
        return ArraySource(self.name, self.label_names, read, self._image_size)

    def check(self, data, splits):
        if data.num_classes != len(self.label_names):
            raise BadInput(
                f"The recipe has num_classes={data.num_classes}, but {self.name} has {len(self.label_names)} classes"
            )
        for split in splits:
            images, labels = self.arrays(split)
            where, expected = f"the {split} split of {self.name}", tuple(data.image_size)
            if images.dtype != np.uint8 or images.shape[1:] != expected:
                raise BadInput(
                    f"The recipe expects uint8 images of shape {expected}, "
                    f"but {where} has {images.dtype} images of shape {images.shape[1:]}"
                )
            if labels.shape != images.shape[:1] or labels.size == 0:
                received = f"{len(images)} images and {labels.size} labels"
                raise BadInput(f"There must be a label for each image in {where}. Received: {received}")
            if not np.issubdtype(labels.dtype, np.integer):
                raise BadInput(f"Labels must be integers, but {where} has {labels.dtype} labels")
            if labels.min() < 0 or labels.max() >= data.num_classes:
                raise BadInput(
                    f"Labels must lie in [0, {data.num_classes}), but {where} has labels "
                    f"from {labels.min()} to {labels.max()}"
                )

    def training_batches(self, recipe, *arguments):
        from allconv_resnet.data import pipeline  # needs TensorFlow, which the arrays do not

        return pipeline.training_batches(*self.arrays(recipe.data.train_split), recipe, *arguments)

    def evaluation_batches(self, split, recipe, *arguments, **options):
        from allconv_resnet.data import pipeline

        return pipeline.evaluation_batches(*self.arrays(split), recipe.run.batch_size, *arguments, **options)


def of_kind(source, kind):
    """Returns a source that is of one kind alone, or raises `BadInput` if this is not the kind that was asked for."""
    if source.kind != kind:
        what = {"arrays": "images of one size in memory", "records": "image files of all sizes"}
        raise BadInput(f"{source.name} has {what[source.kind]}: it needs --data {source.kind}, not {kind}")
    return source


def digits():
    """Returns the source of scikit-learn's 1,797 handwritten digits.

    The images are enlarged from 8x8 pixels to 32x32x3. A fifth of each class is the test split.

    Returns:
        `ArraySource` with the splits `train` and `test`.
    """

    class Digits:
        @cached_property
        def parts(self):
            from sklearn.datasets import load_digits
            from sklearn.model_selection import train_test_split

            loaded = load_digits()
            images = np.minimum(loaded.images * 16, 255).astype(np.uint8)  # scikit-learn's values lie in [0, 16]
            images = np.repeat(np.kron(images, np.ones((4, 4), np.uint8))[..., None], 3, axis=-1)
            return train_test_split(
                images, loaded.target.astype(np.int64), test_size=0.2, stratify=loaded.target, random_state=0
            )

    loaded = Digits()
    read = {"train": lambda: (loaded.parts[0], loaded.parts[2]), "test": lambda: (loaded.parts[1], loaded.parts[3])}
    return ArraySource(EMBEDDED, "0123456789", read)


def from_npz(path):
    """Returns the source of a `.npz` file.

    The arrays have the names of `keras.datasets` (`x_train`, `y_train`, `x_test`, `y_test`) or others that are usual,
    such as `train_images` and `train_labels`, or `images` and `labels` for training images alone. An array `names` has
    the names of the classes. Without it they are the numbers from 0 to the largest label, which must be below 1,000 or
    the number of labels: identifiers such as 20000000 are no classes.

    Args:
        path: Path of the file.

    Returns:
        `ArraySource`.

    Raises:
        BadInput: if the file cannot be read, or has no images and labels under these names.
    """
    try:
        file = np.load(path, allow_pickle=False)
        names = set(file.files)
    except (OSError, ValueError, AttributeError, zipfile.BadZipFile, EOFError) as error:
        raise BadInput(f"{path} cannot be read as a .npz file: {error}") from error

    def read(name):
        try:
            array = file[name]
        except (OSError, ValueError, zipfile.BadZipFile, zlib.error, EOFError) as error:
            raise BadInput(f"The array {name} of {path} cannot be read: {error}") from error
        if not isinstance(array, np.ndarray):  # NumPy returns the bytes of a file that is no array
            raise BadInput(f"The array {name} of {path} cannot be read: it is not a NumPy array")
        return array

    found = {split: _npz_pair(split, names) for split in NPZ_SPLITS}
    sizes = {info.filename.removesuffix(".npy"): info.file_size for info in file.zip.infolist()}
    arrays = {name for pair in found.values() if pair for name in pair}
    memory.require(f"dataset={str(path)!r}", arrays=sum(sizes[name] for name in arrays))
    readers = {
        split: lambda pair=pair: (read(pair[0]), read(pair[1])) for split, pair in found.items() if pair is not None
    }
    if not readers:
        raise BadInput(
            f"{path} must have arrays named x_train and y_train, or images and labels. "
            f"Received: {', '.join(sorted(names))}"
        )
    if "names" in names:
        label_names = _names(path, read("names"))
    else:
        labels = {pair[1]: read(pair[1]) for pair in found.values() if pair is not None}
        if wrong := [name for name, values in labels.items() if not np.issubdtype(values.dtype, np.integer)]:
            raise BadInput(f"Labels must be integers, but {wrong[0]} of {path} has {labels[wrong[0]].dtype} labels")
        highest = max(int(np.max(values, initial=0)) for values in labels.values())
        count = sum(values.size for values in labels.values())
        if highest >= max(count, 1_000):
            raise BadInput(
                f"Labels must be numbers from 0 to the number of classes - 1, or {path} must have an array of their "
                f"names. Received: {highest} among {count:,} labels"
            )
        label_names = [str(number) for number in range(highest + 1)]
    return ArraySource(str(path), label_names, readers)


def _names(path, names):
    """Returns the names of the classes in the array of a `.npz` file as a list of strings."""
    if names.ndim != 1:
        raise BadInput(f"The array names of {path} must have one name for each class. Received: shape {names.shape}")
    try:
        found = [name.decode() if isinstance(name, bytes) else str(name) for name in names]
    except UnicodeDecodeError as error:
        raise BadInput(f"The array names of {path} must be text in UTF-8: {error}") from error
    if twice := [name for name in found if found.count(name) > 1]:
        raise BadInput(f"The array names of {path} must have different names. Received: {twice[0]!r} twice")
    return found


def _npz_pair(split, names):
    """Returns the names of the arrays with the images and the labels of a split, or None if there are none."""
    written = {name.lower(): name for name in names}
    pairs = [(x.format(alias), y.format(alias)) for alias in NPZ_SPLITS[split] for x, y in NPZ_NAMES]
    pairs += WITHOUT_SPLIT if split == "train" else ()
    return next(((written[x], written[y]) for x, y in pairs if x in written and y in written), None)


def save_npz(source, path, splits=None):
    """Writes a source in memory as a `.npz` file that `from_npz` reads, on any machine and without TensorFlow.

    Args:
        source: `ArraySource`.
        path: Path that ends with `.npz`.
        splits: Names of the splits to write. Defaults to all splits of the source.

    Raises:
        BadInput: if the source has no such split, a split has no name in such a file, or the file cannot be written.
    """
    splits = source.splits if splits is None else splits
    content = {"names": np.array(source.label_names)}
    for split in splits:
        in_file = next((name for name, others in NPZ_SPLITS.items() if split in others), None)
        if in_file is None:
            known = ", ".join(name for names in NPZ_SPLITS.values() for name in names)
            raise BadInput(f"A .npz file can have the splits {known}. Received: {split}, a split of {source.name}")
        names = [name.format(NPZ_SPLITS[in_file][0]) for name in NPZ_NAMES[0]]
        if names[0] in content:
            raise BadInput(f"{source.name} has two splits that would be {names[0]} and {names[1]}")
        content.update(zip(names, source.arrays(split), strict=True))
    try:
        with files.replacing(path) as temporary:
            np.savez(temporary, **content)
    except OSError as error:
        raise BadInput(f"{path} cannot be written: {error.strerror}") from error
