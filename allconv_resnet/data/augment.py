"""Augmentations of training as pure functions of batches. Every image has its own random draw.

An augmentation is a class, a part of a recipe whose fields become options of the command line. It has two methods:
`draw` returns random numbers that are a function of the seed and the step, and `apply` changes a batch of images and
draws nothing. Both run eagerly, inside tf.data, and on JAX. They import Keras themselves, because recipes contain
augmentations, and the command line shows recipes without Keras.
"""

from typing import Any, ClassVar, NamedTuple

from allconv_resnet.errors import BadInput
from allconv_resnet.part import Border, part
from allconv_resnet.types import Tensor


class Batch(NamedTuple):
    """The batch that an augmentation draws for.

    Example:

    >>> from allconv_resnet.data.augment import Batch
    >>> Batch(seed=0, step=5, count=128, image_size=(32, 32, 3)).count
    128
    """

    seed: int
    """Seed of the recipe."""
    step: object
    """Integer or int64 scalar."""
    count: int
    """Number of images in the batch."""
    image_size: tuple[int, int, int]
    """Height, width and channels."""
    rows: object = None
    """Integer tensor `[count]`: which images of the dataset make the batch. None for records."""
    epochs: object = None
    """Integer tensor `[count]`: in which epoch each of them is. None for records."""


@part
class CropAndFlip:
    """Pads images with zeros, crops them at a random place, and mirrors half of them (Hardt & Ma, section 4.1).

    Example:

    >>> import numpy as np
    >>> from allconv_resnet.data.augment import CropAndFlip
    >>> images = np.arange(16).reshape(1, 4, 4, 1)
    >>> moved = CropAndFlip(padding=2).apply(images, offsets=np.array([[2, 4]]), flips=np.array([False]))
    >>> np.asarray(moved)[0, :, :, 0]
    array([[ 2,  3,  0,  0],
           [ 6,  7,  0,  0],
           [10, 11,  0,  0],
           [14, 15,  0,  0]])
    """

    padding: Border = 4
    """Pixels of zeros on each side before the random crop. The 2016 TensorFlow model had 2."""
    flip: bool = True
    """Mirror half of the training images, left to right."""
    alternate: bool = False
    """Mirror each image in every other epoch, in place of at random (Jordan 2024, arXiv 2404.00498)."""
    reflect: bool = False
    """Continue images beyond their edges by mirrored pixels in place of zeros."""

    def __post_init__(self) -> None:
        if self.alternate and not self.flip:
            raise BadInput("alternate needs flip, which it changes. Received: alternate=True, flip=False")

    def require_fit(self, height: int, width: int) -> None:
        """Raises `BadInput` if images are too small to be continued by their mirrored pixels."""
        if self.reflect and self.padding >= min(height, width):
            raise BadInput(
                "With reflect, padding must be less than the height and width of the images. "
                f"Received: padding={self.padding}, images of {height}x{width}"
            )

    def draw(self, random: Any, batch: "Batch") -> tuple[Tensor, ...]:
        """Draws the places of the crops, and which of them are mirrored.

        Args:
            random: Object with the functions `integers`, `uniform` and `hashed`: the module `draws`, or
                `pipeline.TensorFlowDraws`.
            batch: `Batch`.

        Returns:
            Offsets of the crops, int32 `[count, 2]` in `[0, 2 * padding]`, and whether to mirror, bool `[count]`.
        """
        seed, step, count = batch.seed, batch.step, batch.count
        offsets = random.integers((count, 2), (2 * seed, step), 2 * self.padding + 1)
        if self.flip and self.alternate:
            first = random.hashed(batch.rows, (2 * seed + 1, 1)) // 2**40  # a random bit of each image
            return offsets, (first + batch.epochs) % 2 == 1
        flips = random.integers((count,), (2 * seed + 1, step), 2) == 1
        return offsets, flips if self.flip else flips & False

    def apply(self, images: Tensor, offsets: Tensor, flips: Tensor) -> Tensor:
        """Pads the images, crops each back to its size at its own offset, and mirrors some of them.

        Args:
            images: Tensor `[n, h, w, c]` of any dtype.
            offsets: Integer tensor `[n, 2]`: first row and column of each crop in the padded image. An offset equal to
                `padding` leaves the image where it was.
            flips: Boolean tensor `[n]`.

        Returns:
            Tensor `[n, h, w, c]` of the dtype of `images`.
        """
        from keras import ops

        height, width, channels = images.shape[1:]
        self.require_fit(height, width)
        border = self.padding
        rows = offsets[:, :1] + ops.arange(height, dtype="int32")
        # One gather both crops and mirrors, by reading the columns of mirrored images backwards.
        columns = ops.arange(width, dtype="int32")
        columns = offsets[:, 1:] + ops.where(flips[:, None], columns[::-1], columns)
        if self.reflect:  # mirrored pixels need no padding, but indices that turn around at the edges
            rows, columns = (
                size - 1 - ops.abs(size - 1 - ops.abs(indices - border))
                for size, indices in ((height, rows), (width, columns))
            )
            return take_of_each(take_of_each(images, rows, axis=1), columns, axis=2)
        # Padding rows of width * channels bytes is seven times as fast as padding pixel by pixel.
        padded = ops.reshape(images, (-1, height, width * channels))
        padded = ops.pad(padded, ((0, 0), (border, border), (border * channels, border * channels)))
        padded = ops.reshape(padded, (-1, height + 2 * border, width + 2 * border, channels))
        return take_of_each(take_of_each(padded, rows, axis=1), columns, axis=2)


@part
class Cutout:
    """Sets a square of each standardized image to its mean, which is 0 (DeVries & Taylor 2017, "Cutout").

    Example:

    >>> import numpy as np
    >>> from allconv_resnet.data.augment import Cutout
    >>> images = np.ones((1, 4, 4, 1), "float32")
    >>> np.asarray(Cutout(2).apply(images, np.array([[1, 1]], "int32")))[0, :, :, 0]
    array([[0., 0., 1., 1.],
           [0., 0., 1., 1.],
           [1., 1., 1., 1.],
           [1., 1., 1., 1.]], dtype=float32)
    """

    cutout: Border = 0
    """Side in pixels of a square that is set to the image's mean and may reach beyond the edge. 0, as in the paper,
    means no square."""

    after_standardization: ClassVar[bool] = True

    def draw(self, random: Any, batch: "Batch") -> tuple[Tensor, ...]:
        """Returns the squares' centres, int32 `[count, 2]`. The arguments are those of `CropAndFlip.draw`."""
        from keras import ops

        if not self.cutout:
            return ()
        # The keys are negative, so that they differ from those of CropAndFlip.
        places = random.uniform((batch.count, 2), (-1 - batch.seed, batch.step))
        return (ops.cast(places * ops.convert_to_tensor(batch.image_size[:2], "float32"), "int32"),)

    def apply(self, images: Tensor, centres: Tensor | None = None) -> Tensor:
        """Sets the squares to zero.

        Args:
            images: Floating tensor `[n, h, w, c]`.
            centres: int32 tensor `[n, 2]`, row and column of each square's centre. Parts of a square outside the image
                are cut off. The centre of an even square is the pixel below and right of its middle.

        Returns:
            Tensor `[n, h, w, c]` of the dtype of `images`.
        """
        from keras import ops

        if centres is None:
            return images
        first = centres - self.cutout // 2
        rows, columns = (
            (ops.arange(length, dtype="int32") >= start) & (ops.arange(length, dtype="int32") < start + self.cutout)
            for length, start in zip(images.shape[1:3], (first[:, :1], first[:, 1:]), strict=True)
        )
        square = (rows[:, :, None] & columns[:, None, :])[..., None]
        return ops.where(square, ops.zeros((), images.dtype), images)


def take_of_each(x, indices, axis):
    """Takes from each `x[i]` the entries `indices[i]` along an axis.

    Args:
        x: Tensor `[n, ...]`.
        indices: Integer tensor `[n, m]`.
        axis: Integer, at least 1.

    Returns:
        Tensor of the shape of `x`, but for `m` entries along the axis.
    """
    import keras

    if keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        return tf.gather(x, indices, axis=axis, batch_dims=1)
    return keras.ops.vectorized_map(lambda pair: keras.ops.take(pair[0], pair[1], axis=axis - 1), (x, indices))


def standardize_and_augment(images, augmentations, drawn):
    """Returns the images of a training batch as the network sees them.

    Args:
        images: Tensor `[n, h, w, c]`, pixels from 0 to 255.
        augmentations: Sequence of augmentations, such as `CropAndFlip()`.
        drawn: Sequence of what `draw` of each augmentation has returned.

    Returns:
        float32 tensor `[n, h, w, c]`.
    """
    from allconv_resnet.layers import standardize

    for after in (False, True):
        images = standardize(images) if after else images
        for augmentation, values in zip(augmentations, drawn, strict=True):
            if getattr(augmentation, "after_standardization", False) is after:
                images = augmentation.apply(images, *values)
    return images
