import numpy as np
import pytest
import tensorflow as tf

from allconv_resnet import recipes
from allconv_resnet.data.augment import CropAndFlip, Cutout
from allconv_resnet.errors import BadInput
from allconv_resnet.layers import standardize

RNG = np.random.default_rng(0)


def reference_crop_and_flip(images, offsets, flips, padding, reflect):
    """One image at a time, in NumPy."""
    results = []
    for image, (row, column), flip in zip(images, offsets, flips, strict=True):
        border = [(padding, padding), (padding, padding), (0, 0)]
        padded = np.pad(image, border, mode="reflect" if reflect else "constant")
        crop = padded[row : row + image.shape[0], column : column + image.shape[1]]
        results.append(crop[:, ::-1] if flip else crop)
    return np.stack(results)


def in_dataset(function, *batches):
    """Runs `function` inside tf.data."""
    dataset = tf.data.Dataset.from_tensors(batches).map(function)
    return next(iter(dataset)).numpy()


@pytest.mark.parametrize("padding", [0, 2, 4])
@pytest.mark.parametrize("shape", [(32, 32, 3), (5, 8, 1)])
@pytest.mark.parametrize("reflect", [False, True])
def test_crop_and_flip_equals_one_image_at_a_time_eagerly_and_in_tf_data(padding, shape, reflect):
    crop = CropAndFlip(padding, reflect=reflect)
    images = RNG.integers(0, 256, (20, *shape), dtype=np.uint8)
    offsets = RNG.integers(0, 2 * padding + 1, (20, 2), dtype=np.int32)
    flips = RNG.integers(0, 2, 20).astype(bool)
    expected = reference_crop_and_flip(images, offsets, flips, padding, reflect)
    eager = crop.apply(images, offsets, flips)
    assert eager.dtype == tf.uint8
    np.testing.assert_array_equal(eager, expected)
    np.testing.assert_array_equal(in_dataset(lambda x, o, f: crop.apply(x, o, f), images, offsets, flips), expected)


def test_every_corner_of_the_border_can_be_reached():
    image = RNG.integers(1, 256, (1, 8, 8, 3), dtype=np.uint8)
    corner = CropAndFlip(4).apply(image, tf.constant([[0, 0]]), tf.constant([False])).numpy()[0]
    assert (corner[:4] == 0).all() and (corner[:, :4] == 0).all()
    np.testing.assert_array_equal(corner[4:, 4:], image[0, :4, :4])
    corner = CropAndFlip(4).apply(image, tf.constant([[8, 8]]), tf.constant([False])).numpy()[0]
    np.testing.assert_array_equal(corner[:4, :4], image[0, 4:, 4:])


@pytest.mark.parametrize("size", [1, 4, 7, 40])
@pytest.mark.parametrize("shape", [(32, 32, 3), (5, 9, 1)])
def test_cut_out_equals_one_image_at_a_time_eagerly_and_in_tf_data(size, shape):
    images = RNG.standard_normal((30, *shape)).astype("float32")
    centres = RNG.integers(0, shape[:2], (30, 2), dtype=np.int32)
    centres[:4] = [(row, column) for row in (0, shape[0] - 1) for column in (0, shape[1] - 1)]
    expected = images.copy()
    for image, (row, column) in zip(expected, centres, strict=True):
        top, left = row - size // 2, column - size // 2
        image[max(top, 0) : top + size, max(left, 0) : left + size] = 0
    eager = Cutout(size).apply(images, centres)
    assert eager.dtype == tf.float32
    np.testing.assert_array_equal(eager, expected)
    np.testing.assert_array_equal(in_dataset(lambda x, c: Cutout(size).apply(x, c), images, centres), expected)


def test_standardize_equals_per_image_standardization():
    images = RNG.integers(0, 256, (16, 32, 32, 3), dtype=np.uint8)
    images[0] = 255  # no deviation: the floor
    images[1] = 7
    images[1, 0, 0, 0] = 8
    expected = tf.image.per_image_standardization(images)
    np.testing.assert_allclose(standardize(images), expected, rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(in_dataset(standardize, images), expected, rtol=1e-4, atol=1e-4)


def test_standardized_images_have_mean_0_and_deviation_1():
    result = standardize(RNG.integers(0, 256, (16, 32, 32, 3), dtype=np.uint8)).numpy()
    assert result.dtype == np.float32
    np.testing.assert_allclose(result.mean((1, 2, 3)), 0, atol=1e-5)
    np.testing.assert_allclose(result.std((1, 2, 3)), 1, atol=1e-5)


def test_mirrored_borders_need_images_that_are_larger():
    with pytest.raises(BadInput, match="padding must be less than the height and width"):
        recipes.DIGITS.replace(reflect=True, padding=8, image_size=(8, 32, 3))
    with pytest.raises(BadInput, match="padding must be less"):
        CropAndFlip(padding=4, reflect=True).apply(np.zeros((1, 4, 4, 3)), np.zeros((1, 2), int), np.zeros(1, bool))
