"""The residual block equals its formula, and a new block type is one class and one line."""

import keras
import numpy as np
import pytest
from keras import ops

import allconv_resnet as acr
from allconv_resnet.blocks import BLOCKS
from allconv_resnet.errors import BadInput

RNG = np.random.default_rng(0)
SMALL = {"input_shape": (8, 8, 3), "num_classes": 4, "stem": (4, 3, 1, 1), "stages": ((2, 8, 1), (1, 16, 2))}


def images(n, size=8):
    return RNG.standard_normal((n, size, size, 3)).astype("float32")


def numpy_convolution(x, kernel, stride):
    (_, h, w, _), k = x.shape, len(kernel)
    total = {size: max((-(-size // stride) - 1) * stride + k - size, 0) for size in (h, w)}  # SAME as TensorFlow has it
    pad = [(0, 0), *((total[size] // 2, total[size] - total[size] // 2) for size in (h, w)), (0, 0)]
    x = np.pad(x, pad)
    windows = np.lib.stride_tricks.sliding_window_view(x, (k, k), axis=(1, 2))[:, ::stride, ::stride]
    return np.einsum("nhwcij,ijco->nhwo", windows, kernel)


@pytest.mark.parametrize("kernel_sizes", [(3, 3), (3, 1), (5, 3)])
@pytest.mark.parametrize(("channels", "filters", "strides"), [(8, 8, 1), (4, 8, 1), (3, 8, 2), (8, 8, 2)])
def test_block_equals_its_formula(channels, filters, strides, kernel_sizes):
    block = acr.ResidualBlock(filters, strides, initialization="he", seed=3, kernel_sizes=kernel_sizes)
    x = RNG.standard_normal((2, 6, 6, channels)).astype("float32")
    y = ops.convert_to_numpy(block(x))
    c1, c2 = (ops.convert_to_numpy(conv.kernel).astype("float64") for conv in (block.conv1, block.conv2))
    shortcut = x.reshape(2, 6 // strides, strides, 6 // strides, strides, channels).mean((2, 4))
    extra = filters - channels
    shortcut = np.pad(shortcut, [(0, 0), (0, 0), (0, 0), (extra // 2, extra - extra // 2)])
    hidden = np.maximum(numpy_convolution(x.astype("float64"), c1, strides), 0)
    np.testing.assert_allclose(y, shortcut + numpy_convolution(hidden, c2, 1), rtol=1e-4, atol=1e-5)


def test_a_block_without_its_shortcut_is_the_rest_of_one_with_it():
    whole, rest = (acr.ResidualBlock(8, initialization="he", shortcut=shortcut) for shortcut in ("identity", None))
    x = images(2)[..., :1].repeat(8, axis=-1)
    y, part = (ops.convert_to_numpy(block(x)) for block in (whole, rest))
    np.testing.assert_allclose(y, x + part, rtol=1e-5, atol=1e-6)


@keras.saving.register_keras_serializable(package="test")
class ScaledBlock(acr.ResidualBlock):
    """A block whose residual part is multiplied by a number."""

    def __init__(self, filters, scale=1.0, **kwargs):
        super().__init__(filters, **kwargs)
        self.scale = scale

    def call(self, x, training=None):
        shortcut = self.reshaped(x)
        return shortcut + self.scale * (super().call(x, training=training) - shortcut)


@pytest.fixture
def scaled():
    BLOCKS["of-a-test"] = ScaledBlock
    yield
    del BLOCKS["of-a-test"]


def test_a_new_block_type_is_a_class_and_a_line(scaled, tmp_path):
    model = acr.AllConvResNet(**SMALL, block="of-a-test", scale=0.5, initialization="he", kernel_sizes=(3, 1), seed=2)
    x = images(4)
    y = ops.convert_to_numpy(model(x))
    plain = acr.AllConvResNet(**SMALL, initialization="he", kernel_sizes=(3, 1), seed=2)
    assert abs(y - ops.convert_to_numpy(plain(x))).max() > 1e-3
    first = [each.get_layer("stage1_block1") for each in (model, plain)]
    hidden = RNG.standard_normal((2, 8, 8, 4)).astype("float32")
    a, b = (ops.convert_to_numpy(block(hidden)) for block in first)
    shortcut = np.pad(hidden, [(0, 0), (0, 0), (0, 0), (2, 2)])
    np.testing.assert_allclose(a, shortcut + 0.5 * (b - shortcut), rtol=1e-4, atol=1e-5)
    model.save(tmp_path / "model.keras")
    loaded, clone = keras.saving.load_model(tmp_path / "model.keras"), keras.models.clone_model(model)
    np.testing.assert_array_equal(y, ops.convert_to_numpy(loaded(x)))
    np.testing.assert_array_equal(y, ops.convert_to_numpy(clone(x)))  # of the same seed
    assert loaded.get_config() == model.get_config()
    for each in (loaded, clone):
        blocks = [layer for layer in each.layers if isinstance(layer, ScaledBlock)]
        assert [block.scale for block in blocks] == [0.5] * 3
    with pytest.raises(
        BadInput, match=r"block='residual' are activation, shortcut, kernel_sizes\. Received: scale=0.5"
    ):
        acr.AllConvResNet(**SMALL, scale=0.5)
    with pytest.raises(BadInput, match=r"block must be one of residual, scaled, of-a-test\. Received: block='dense'"):
        acr.AllConvResNet(**SMALL, block="dense")


ACTIVATIONS = ["tanh", keras.activations.gelu, keras.layers.LeakyReLU(0.3), keras.layers.PReLU("ones")]


@pytest.mark.parametrize("activation", ACTIVATIONS, ids=["tanh", "gelu", "LeakyReLU", "PReLU"])
def test_the_configuration_of_a_block_gives_the_same_block(activation):
    block = acr.ResidualBlock(8, 2, activation, None, (3, 1), True, "batch", keras.initializers.HeNormal(), 5, name="b")
    x = RNG.standard_normal((2, 6, 6, 4)).astype("float32")
    again = acr.ResidualBlock.from_config(block.get_config())
    np.testing.assert_array_equal(*(ops.convert_to_numpy(each(x)) for each in (block, again)))
    assert again.get_config() == block.get_config() and again.name == "b"


def test_each_block_trains_its_own_copy_of_an_activation_layer(tmp_path):
    activation = keras.layers.PReLU("ones", shared_axes=(1, 2))
    model = acr.AllConvResNet(**SMALL, activation=activation, final_activation=activation)
    slopes = [weight for weight in model.trainable_weights if weight.path.endswith("alpha")]
    assert [tuple(slope.shape) for slope in slopes] == 2 * [(1, 1, 8)] + 2 * [(1, 1, 16)]
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(acr.Momentum(0.05), loss)
    x = images(8)
    model.fit(x, np.arange(8) % 4, epochs=3, verbose=0)
    assert all(float(ops.max(ops.abs(slope - 1))) > 0 for slope in slopes)
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    np.testing.assert_array_equal(*(each.predict(x, verbose=0) for each in (model, loaded)))
    assert not activation.built
    block = model.get_layer("stage1_block1")
    again = keras.saving.deserialize_keras_object(keras.saving.serialize_keras_object(block))
    again.set_weights(block.get_weights())
    hidden = RNG.standard_normal((2, 8, 8, 4)).astype("float32")
    np.testing.assert_array_equal(*(ops.convert_to_numpy(each(hidden)) for each in (block, again)))


def test_images_whose_size_the_strides_do_not_divide_are_refused_with_a_sentence():
    model = acr.AllConvResNet(**{**SMALL, "input_shape": (None, None, 3)})
    assert model.predict(images(2, 14), verbose=0).shape == (2, 4)
    for refused in (model, lambda x: model.predict(x, verbose=0)):  # the latter with sizes that the graph does not know
        with pytest.raises(Exception, match="The strides of a block, 2, must divide the height and width of its input"):
            refused(images(2, 15))


@pytest.mark.parametrize("kernel_sizes", [(3, 0), (3,), (3, 3, 3)])
def test_kernel_sizes_are_two_positive_integers(kernel_sizes):
    with pytest.raises(BadInput, match="kernel_sizes must be two positive integers"):
        acr.ResidualBlock(8, kernel_sizes=kernel_sizes)


def test_strides_are_one_positive_integer():
    with pytest.raises(BadInput, match="strides must be a positive integer"):
        acr.ResidualBlock(8, strides=(2, 2))
    with pytest.raises(BadInput, match="kernel_sizes must be two positive integers"):
        acr.ResidualBlock(8, kernel_sizes=3)
    assert acr.ResidualBlock(8, strides=np.int64(2))(np.zeros((1, 4, 4, 8))).shape == (1, 2, 2, 8)
