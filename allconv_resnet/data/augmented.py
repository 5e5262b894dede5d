"""The augmentation of training for a `tf.data.Dataset` of one's own, without a recipe."""

import tensorflow as tf

from allconv_resnet.data.augment import Batch, CropAndFlip, Cutout, standardize_and_augment
from allconv_resnet.data.pipeline import TensorFlowDraws
from allconv_resnet.types import Dataset


def augmented(
    dataset: Dataset, padding: int = 4, flip: bool = True, reflect: bool = False, cutout: int = 0, seed: int = 0
) -> Dataset:
    """Returns a dataset for `fit` whose images are augmented as in training, and standardized.

    Every image has its own random crop, and every epoch has other ones.

    Args:
        dataset: `tf.data.Dataset` of batches `(images, labels)`, or with weights after them, such as
            `keras.utils.image_dataset_from_directory` returns. The images are a tensor `[n, h, w, c]` with pixels from
            0 to 255, and of a known size.
        padding: Integer, pixels on each side before the random crop.
        flip: Whether half of the images are mirrored, left to right.
        reflect: Whether images are continued beyond their edges by mirrored pixels in place of zeros.
        cutout: Integer, side in pixels of a square that is set to the image's mean.
        seed: Integer that determines the augmentation.

    Returns:
        `tf.data.Dataset` of float32 images `[n, h, w, c]`, and the rest of each batch as it was.

    Example:

    >>> import tensorflow as tf
    >>> images, labels = acr.load_data("digits").arrays("train")
    >>> batches = tf.data.Dataset.from_tensor_slices((images, labels)).shuffle(2_000).batch(64)
    >>> train = acr.augmented(batches, padding=2)  # for model.fit(train, epochs=20)
    >>> images, labels = next(iter(train))
    >>> images.shape, images.dtype
    (TensorShape([64, 32, 32, 3]), tf.float32)
    """
    augmentations = CropAndFlip(padding, flip, reflect=reflect), Cutout(cutout)

    def prepare(step, batch):
        images, *rest = batch
        batch = Batch(seed, step, tf.shape(images)[0], tuple(images.shape[1:]))
        drawn = [augmentation.draw(TensorFlowDraws, batch) for augmentation in augmentations]
        return standardize_and_augment(images, augmentations, drawn), *rest

    steps = tf.data.Dataset.random(seed, rerandomize_each_iteration=True)
    return tf.data.Dataset.zip(steps, dataset).map(prepare, num_parallel_calls=tf.data.AUTOTUNE).prefetch(2)
