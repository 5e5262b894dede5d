"""Standardization, and layers whose configuration follows from their constructor."""

import keras
import numpy as np
import pytest
from keras import ops

import allconv_resnet as acr
from allconv_resnet.layers import Configured, argument_names

RNG = np.random.default_rng(0)


@pytest.fixture
def pixels():
    images = RNG.integers(0, 256, (16, 12, 10, 3), dtype=np.uint8)
    images[0] = 255  # a standard deviation of zero
    images[1] = 7
    images[1, 0, 0, 0] = 8
    return images


def test_standardize_equals_per_image_standardization(pixels):
    tf = pytest.importorskip("tensorflow")
    expected = tf.image.per_image_standardization(pixels).numpy()
    for images in (pixels, ops.convert_to_tensor(pixels), pixels.astype("float32")):
        found = ops.convert_to_numpy(acr.standardize(images))
        assert found.dtype == np.float32
        np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4)
    dataset = tf.data.Dataset.from_tensor_slices(pixels).batch(5)
    found = np.concatenate([part.numpy() for part in dataset.map(acr.standardize)])
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4)
    sizes = dataset.map(lambda x: tf.ensure_shape(tf.numpy_function(lambda y: y, [x], tf.uint8), (None,) * 4))
    found = np.concatenate([part.numpy() for part in sizes.map(acr.standardize)])  # sizes that the graph does not know
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4)


def test_a_list_of_images_is_standardized_as_their_array():
    images = np.random.default_rng(0).integers(0, 256, (3, 4, 5, 2), dtype="uint8")
    found = ops.convert_to_numpy(acr.standardize(list(images)))
    np.testing.assert_array_equal(found, ops.convert_to_numpy(acr.standardize(images)))


def test_standardized_images_have_mean_0_and_standard_deviation_1(pixels):
    result = ops.convert_to_numpy(acr.standardize(pixels))
    np.testing.assert_allclose(result.mean((1, 2, 3)), 0, atol=1e-5)
    np.testing.assert_allclose(result[2:].std((1, 2, 3)), 1, atol=1e-5)
    assert not result[0].any()


@pytest.mark.parametrize("dtype", [None, "float32", "mixed_bfloat16"])
@pytest.mark.parametrize("pixel_dtype", ["uint8", "float32"])
def test_standardization_is_a_layer_in_float32(pixels, dtype, pixel_dtype, tmp_path):
    pixels = pixels.astype(pixel_dtype) * (0.99 if pixel_dtype == "float32" else 1)
    expected = ops.convert_to_numpy(acr.standardize(pixels))
    images = keras.Input((12, 10, 3), dtype=pixel_dtype)
    model = keras.Model(images, acr.Standardization(dtype=dtype)(images))
    model.save(tmp_path / "model.keras")
    for each in (model, keras.saving.load_model(tmp_path / "model.keras"), keras.models.clone_model(model)):
        found = each.predict(pixels, verbose=0)
        assert found.dtype == np.float32
        np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)


class Two(Configured):
    def __init__(self, first, second=(1, (2, 3)), **kwargs):
        super().__init__(**kwargs)
        self.first, self.second = first, second


class Three(Two):
    def __init__(self, third, **kwargs):
        super().__init__(**kwargs)
        self.third = third


class Fixed(Two):
    def __init__(self, third):
        super().__init__(first=1)
        self.third = third


def test_configuration_follows_from_the_constructor():
    assert argument_names(Three) == ["third", "first", "second"]
    assert argument_names(Fixed) == ["third"]
    layer = Three(first=keras.initializers.Constant(2.0), third="relu", name="three", dtype="bfloat16")
    config = layer.get_config()
    assert config["second"] == [1, [2, 3]] and config["third"] == "relu"
    again = Three.from_config(config)
    assert again.get_config() == config
    assert (again.name, again.dtype, again.first.value) == ("three", "bfloat16", 2.0)


def test_sublayers_that_were_frozen_stay_frozen():
    block = acr.ResidualBlock(8)
    assert block.get_config()["frozen"] == []
    block.conv2.trainable = False
    again = acr.ResidualBlock.from_config(block.get_config())
    again(np.ones((1, 4, 4, 8)))
    assert [weight.path.split("/")[-2] for weight in again.trainable_weights] == ["conv1"]
    model = keras.Sequential([keras.Input((4, 4, 8)), acr.ResidualBlock(8, trainable=False)])
    assert model.trainable_weights == []


@pytest.mark.parametrize("shape", [(8, 8, 3), (2, 2, 8, 8, 3)])
def test_one_image_is_refused_with_a_sentence(shape):
    for images in (np.zeros(shape, "uint8"), ops.zeros(shape)):
        with pytest.raises(ValueError, match=r"A single image needs images\[None\]"):
            acr.Standardization()(images)
