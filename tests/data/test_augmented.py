"""The augmentation of training for datasets of one's own."""

import numpy as np
import tensorflow as tf

import allconv_resnet as acr

RNG = np.random.default_rng(0)
IMAGES, LABELS = RNG.integers(0, 256, (20, 12, 10, 3), dtype=np.uint8), np.arange(20)


def dataset(pixels=IMAGES, size=8):
    return tf.data.Dataset.from_tensor_slices((pixels, LABELS)).batch(size)


def epoch(batches):
    images, labels = zip(*((x.numpy(), y.numpy()) for x, y in batches), strict=True)
    return np.concatenate(images), np.concatenate(labels)


def test_without_augmentation_the_images_are_standardized():
    for pixels in (IMAGES, IMAGES.astype("float32")):
        images, labels = epoch(acr.augmented(dataset(pixels), padding=0, flip=False))
        np.testing.assert_allclose(images, acr.standardize(IMAGES), rtol=1e-5, atol=1e-5)
        np.testing.assert_array_equal(labels, LABELS)


def test_every_image_is_a_crop_of_itself_and_half_are_mirrored():
    images, _ = epoch(acr.augmented(dataset(), padding=2, seed=3))
    padded = np.pad(IMAGES, ((0, 0), (2, 2), (2, 2), (0, 0)))
    found = []
    for image, whole in zip(images, padded, strict=True):
        crops = {
            (top, left, mirrored): whole[top : top + 12, left : left + 10][:, :: -1 if mirrored else 1]
            for top in range(5)
            for left in range(5)
            for mirrored in (False, True)
        }
        fits = [key for key, crop in crops.items() if np.allclose(acr.standardize(crop[None])[0], image, atol=1e-4)]
        found += fits[:1]
    assert len(found) == 20 and len(set(found)) > 10
    assert 4 <= sum(mirrored for *_, mirrored in found) <= 16


def test_every_epoch_and_every_seed_has_its_own_draws_and_the_same_seed_the_same():
    batches, again, other = (acr.augmented(dataset(), seed=seed) for seed in (1, 1, 2))
    first, second = epoch(batches)[0], epoch(batches)[0]
    assert all(abs(a - b).max() > 0.1 for a, b in ((first, second), (first, epoch(other)[0])))
    np.testing.assert_array_equal(first, epoch(again)[0])
    np.testing.assert_array_equal(second, epoch(again)[0])


def test_cutout_sets_a_square_to_the_mean_and_weights_are_kept():
    weighted = dataset().map(lambda x, y: (x, y, tf.ones_like(y)))
    for images, _, weights in acr.augmented(weighted, padding=0, flip=False, cutout=3):
        assert weights.dtype == LABELS.dtype
        zeros = (images.numpy() == 0).all(-1).sum((1, 2))
        assert (zeros >= 4).all() and (zeros <= 9).all()
