import contextlib

import keras
import numpy as np
import pytest
import tensorflow as tf
from tensorflow.python.eager import context

from allconv_resnet import convolutions, cpu, kernels
from allconv_resnet.blocks import ResidualBlock, ScaledResidualBlock

SHAPES = ((3, 8, 8, 5, 7), (2, 7, 7, 4, 4), (1, 1, 1, 2, 3), (4, 5, 2, 3, 6), (2, 2, 5, 6, 2))


def normal(*shape, seed=0):
    return tf.constant(np.random.default_rng(seed).standard_normal(shape), tf.float32)


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_filter_gradient_is_the_gradient(shape):
    n, height, width, channels, filters = shape
    x, kernel = normal(n, height, width, channels), normal(3, 3, channels, filters, seed=1)
    dy = normal(n, height, width, filters, seed=2)
    with tf.GradientTape() as tape:
        tape.watch(kernel)
        y = tf.nn.conv2d(x, kernel, 1, "SAME")
    np.testing.assert_allclose(convolutions.filter_gradient(x, dy), tape.gradient(y, kernel, dy), rtol=1e-4, atol=1e-4)


def layer(filters=96, dtype="mixed_bfloat16", **arguments):
    arguments = {"dtype": dtype} | arguments
    return keras.layers.Conv2D(filters, **({"kernel_size": 3, "padding": "same", "use_bias": False} | arguments))


@pytest.mark.parametrize(
    ("shape", "arguments", "dtype", "applies"),
    [
        ((2, 8, 8, 96), {}, "bfloat16", True),
        ((2, 14, 14, 336), {"filters": 336}, "bfloat16", True),
        ((2, 8, 8, 96), {}, "float32", False),
        ((2, 16, 16, 128), {"filters": 128}, "bfloat16", False),
        ((2, 8, 8, 64), {}, "bfloat16", False),
        ((2, 8, 8, 96), {"filters": 64}, "bfloat16", False),
        ((2, 8, 8, 96), {"strides": 2}, "bfloat16", False),
        ((2, 8, 8, 96), {"dilation_rate": 2}, "bfloat16", False),
        ((2, 8, 8, 96), {"kernel_size": 1}, "bfloat16", False),
        ((2, 8, 8, 96), {"padding": "valid"}, "bfloat16", False),
        ((2, 8, 8, 96), {"use_bias": True}, "bfloat16", False),
        ((2, 8, 8, 96), {"trainable": False}, "bfloat16", False),
        ((2, 8, 8, 96), {"dtype": "float32"}, "bfloat16", False),
        ((2, None, None, 96), {}, "bfloat16", False),
        ((2, 8, 8, 96), {"groups": 2}, "bfloat16", False),
        ((2, 8, 8, 96), {"activation": "relu"}, "bfloat16", False),
        ((2, 96, 8, 8), {"data_format": "channels_first"}, "bfloat16", False),
        ((2, 96, None, None), {"data_format": "channels_first"}, "bfloat16", False),
    ],
    ids=str,
)
def test_where_the_gradient_is_faster(monkeypatch, shape, arguments, dtype, applies):
    monkeypatch.setattr(kernels, "has_amx", lambda: False)
    found = cpu.faster_convolution(layer(**arguments), keras.KerasTensor(shape, dtype))
    assert found is (convolutions.convolution_with_minimal_gradient if applies else None)


@pytest.mark.parametrize(
    ("shape", "arguments", "expected"),
    [
        ((2, 9, 7, 64), {"kernel_size": 1, "filters": 64}, convolutions.pointwise_convolution),
        ((None, None, None, 64), {"kernel_size": 1, "filters": 64}, convolutions.pointwise_convolution),
        ((2, 8, 8, 64), {"kernel_size": 1, "filters": 32}, None),
        ((2, 8, 8, 64), {"kernel_size": 1, "filters": 64, "strides": 2}, None),
        ((None, 16, 16, 96), {"strides": 2}, convolutions.strided_convolution),
        ((2, 18, 18, 96), {"strides": 2}, None),
        ((2, 15, 16, 96), {"strides": 2}, None),
        ((2, None, None, 96), {"strides": 2}, None),
        ((2, 16, 16, 96), {"strides": 2, "filters": 64}, None),
        ((2, 16, 16, 96), {"strides": (1, 2)}, None),
        ((2, 8, 8, 96), {"kernel_size": (3, 1)}, None),
    ],
    ids=lambda value: getattr(value, "__name__", str(value)),  # the address of a function differs between processes
)
@pytest.mark.parametrize("amx", [True, False])
def test_where_products_are_faster(monkeypatch, amx, shape, arguments, expected):
    monkeypatch.setattr(kernels, "has_amx", lambda: amx)
    found = cpu.faster_convolution(layer(**arguments), keras.KerasTensor(shape, "bfloat16"))
    assert found is (expected if amx else None)


@pytest.mark.parametrize("shape", [(3, 8, 8, 5, 7), (2, 4, 6, 4, 4), (1, 2, 2, 2, 3)], ids=str)
@pytest.mark.parametrize(
    ("convolve", "size", "stride"),
    [(convolutions.pointwise_convolution, 1, 1), (convolutions.strided_convolution, 3, 2)],
)
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_convolutions_by_products(convolve, size, stride, dtype, shape):
    n, height, width, channels, filters = shape
    x, kernel = normal(n, height, width, channels), normal(size, size, channels, filters, seed=1)
    dy = normal(n, height // stride, width // stride, filters, seed=2)
    x, kernel, dy = (tf.cast(value, dtype) for value in (x, kernel, dy))

    def output_and_gradients(function, x, kernel):
        with tf.GradientTape() as tape:
            tape.watch([x, kernel])
            y = function(x, kernel)
        return y, *tape.gradient(y, [x, kernel], dy)

    ours = tf.function(output_and_gradients)(convolve, x, kernel)
    plain = output_and_gradients(lambda x, kernel: tf.nn.conv2d(x, kernel, stride, "SAME"), x, kernel)
    for a, b in zip(ours, plain, strict=True):
        a, b = (tf.cast(value, tf.float32).numpy() for value in (a, b))
        assert np.abs(a - b).max() <= (2e-2 if dtype == "bfloat16" else 1e-5) * np.abs(b).max()


def test_a_block_of_cifar10_wide_trains_with_products(monkeypatch):
    monkeypatch.setattr(kernels, "available", lambda: False)  # these would use instructions of AMX
    x, dy = normal(2, 16, 16, 96), normal(2, 8, 8, 128, seed=1)
    block = ScaledResidualBlock(128, strides=2, kernel_sizes=(3, 1), dtype="mixed_bfloat16")
    block.build(x.shape)
    found = []
    for amx in (True, False):
        monkeypatch.setattr(kernels, "has_amx", lambda amx=amx: amx)

        @tf.function
        def gradients(x):
            with tf.GradientTape() as tape:
                y = block(x, training=True)
            return tape.gradient(y, block.trainable_variables, tf.cast(dy, y.dtype))

        operations = {operation.type for operation in gradients.get_concrete_function(x).graph.get_operations()}
        assert ("SpaceToDepth" in operations) == amx
        found.append([value.numpy() for value in gradients(x)])
    for a, b in zip(*found, strict=True):
        assert np.abs(a - b).max() <= 3e-2 * max(np.abs(b).max(), 1e-3)


@pytest.mark.parametrize("arguments", [{}, {"use_bias": True}, {"normalization": "batch"}], ids=str)
@pytest.mark.parametrize("dtype", ["float32", "mixed_bfloat16"])
def test_a_block_has_the_outputs_and_gradients_of_its_layers(arguments, dtype):
    block = ResidualBlock(128, activation="relu", initialization="he", dtype=dtype, **arguments)
    x, dy = normal(4, 8, 8, 96), normal(4, 8, 8, 128, seed=1)
    block.build(x.shape)

    @tf.function
    def gradients(x):
        with tf.GradientTape() as tape:
            tape.watch(x)
            y = block(x, training=True)
        return y, *tape.gradient(y, [x, *block.trainable_variables], tf.cast(dy, y.dtype))

    ours = gradients(x)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(cpu.Convolution, "call", lambda layer, x, **_: keras.layers.Conv2D.call(layer, x))
        plain = tf.function(gradients.python_function)(x)
    for a, b in zip(ours, plain, strict=True):
        a, b = (tf.cast(value, tf.float32).numpy() for value in (a, b))
        assert np.abs(a - b).max() <= (3e-2 if "bfloat16" in dtype else 1e-5) * np.abs(b).max()


@pytest.mark.parametrize("filters", [16, 96])
@pytest.mark.parametrize("block", [ResidualBlock, ScaledResidualBlock])
@pytest.mark.parametrize("context", [contextlib.nullcontext, cpu.compiled_convolutions])
def test_a_block_trains_outside_a_graph(block, filters, context):
    block = block(filters, dtype="mixed_bfloat16")
    x = normal(2, 8, 8, filters)
    with context(), tf.GradientTape() as tape:
        tape.watch(x)
        y = block(x, training=True)
    assert None not in tape.gradient(y, [x, *block.trainable_variables])


def test_convolutions_are_fused_in_training():
    block = ResidualBlock(16)
    x = normal(2, 8, 8, 16)
    block.build(x.shape)

    with context.collect_graphs(optimized=True) as graphs:
        tf.function(lambda x: block(x, training=True))(x)
    operations = [node.op for graph in graphs for node in graph.node]
    assert sum("FusedConv2D" in operation for operation in operations) == 2
    assert not {"Relu", "AddV2", "BiasAdd"} & set(operations)


def test_graphs_of_inference_have_no_bias_of_their_own():
    block = ResidualBlock(16)
    block.build((2, 8, 8, 16))
    for training in (False, None, True):
        graph = tf.function(lambda x, training=training: block(x, training=training)).get_concrete_function(
            tf.TensorSpec((2, 8, 8, 16))
        )
        operations = [operation.type for operation in graph.graph.get_operations()]
        assert operations.count("PlaceholderWithDefault") == operations.count("BiasAdd") == (2 if training else 0)


def test_batches_of_any_size():
    block = ResidualBlock(96, dtype="mixed_bfloat16")
    block.build((None, 8, 8, 96))
    step = tf.function(lambda x: block(x, training=True), input_signature=[tf.TensorSpec((None, 8, 8, 96))])
    for n in (1, 3):
        assert step(normal(n, 8, 8, 96)).shape == (n, 8, 8, 96)


def test_a_convolution_is_a_layer_of_keras(tmp_path):
    images = keras.Input((8, 8, 96))
    model = keras.Model(images, cpu.Convolution(96, 3, padding="same", activation="tanh")(images))
    model.save(tmp_path / "model.keras")
    x = normal(2, 8, 8, 96)
    plain = keras.layers.Conv2D(96, 3, padding="same", activation="tanh")
    plain.build(x.shape)
    plain.set_weights(model.get_weights())
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    assert isinstance(loaded.layers[1], cpu.Convolution)
    for each in (model, loaded):
        np.testing.assert_allclose(each(x, training=True), plain(x), rtol=1e-5, atol=1e-6)


def test_a_block_computes_with_convolutions():
    assert all(isinstance(conv, cpu.Convolution) for conv in (ResidualBlock(8).conv1, ResidualBlock(8).conv2))


def trained(layer, x, dy):
    """Returns output, gradients and moving statistics of a layer in training, all in float32."""
    layer.build(x.shape)
    for variable, start in zip(layer.trainable_variables, (1.5, 0.3), strict=False):
        variable.assign(start + 0.1 * np.arange(x.shape[-1]))

    @tf.function
    def step(x):
        with tf.GradientTape() as tape:
            tape.watch(x)
            y = layer(x, training=True)
        return y, *tape.gradient(y, [x, *layer.trainable_variables], tf.cast(dy, y.dtype))

    values = [*step(x), *layer.non_trainable_variables]
    return [tf.cast(value, tf.float32).numpy() for value in values]


@pytest.mark.parametrize(
    "arguments", [{}, {"center": False, "scale": False}, {"momentum": 0.6, "epsilon": 0.1}], ids=str
)
def test_batch_normalization_in_training(arguments):
    x, dy = tf.cast(3 + 2 * normal(8, 6, 5, 7), tf.bfloat16), normal(8, 6, 5, 7, seed=1)
    ours = trained(cpu.BatchNormalization(dtype="mixed_bfloat16", **arguments), x, dy)
    plain = trained(keras.layers.BatchNormalization(dtype="mixed_bfloat16", **arguments), x, dy)
    # The scale and the gradients of Keras's layer are rounded to bfloat16 on the way.
    for a, b in zip(ours, plain, strict=True):
        np.testing.assert_allclose(a, b, rtol=2e-2, atol=1e-2 * np.abs(b).max())
    for a, b in zip(ours[-2:], plain[-2:], strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4)  # a variance over n - 1 would be 240/239 of this


@pytest.mark.parametrize(
    ("arguments", "call", "fused"),
    [
        ({}, {"training": True}, True),
        ({}, {"training": False}, False),
        ({}, {"training": True, "mask": tf.ones((8, 6, 5), bool)}, False),
        ({"dtype": "float32"}, {"training": True}, False),
        ({"trainable": False}, {"training": True}, False),
        ({"axis": 1}, {"training": True}, False),
        ({"synchronized": True}, {"training": True}, False),
    ],
    ids=str,
)
def test_where_batch_normalization_is_fused(arguments, call, fused):
    layer = cpu.BatchNormalization(**({"dtype": "mixed_bfloat16"} | arguments))
    layer.build((8, 6, 5, 7))
    graph = tf.function(lambda x: layer(x, **call)).get_concrete_function(tf.TensorSpec((8, 6, 5, 7))).graph
    assert fused == any("FusedBatchNorm" in operation.type for operation in graph.get_operations())


def test_batch_normalization_is_a_layer_of_keras(tmp_path):
    images = keras.Input((8, 8, 3))
    model = keras.Model(images, cpu.BatchNormalization(dtype="mixed_bfloat16")(images))
    assert model.layers[1].name.startswith("batch_normalization")
    model.compile("sgd", "mse", jit_compile=True)
    x = normal(4, 8, 8, 3)
    model.fit(x, x, verbose=0)
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    np.testing.assert_array_equal(loaded.predict(x, verbose=0), model.predict(x, verbose=0))


def test_the_layers_are_called_as_those_of_keras():
    x = tf.cast(normal(2, 8, 8, 5), tf.bfloat16)
    for layer in (cpu.Convolution(4, 3, dtype="mixed_bfloat16"), cpu.BatchNormalization(dtype="mixed_bfloat16")):
        assert layer(inputs=x, training=True).shape[0] == 2
    layer = cpu.BatchNormalization(center=False, scale=False, dtype="mixed_bfloat16")
    layer.build(x.shape)
    step = tf.function(lambda x: layer(x, training=True), input_signature=[tf.TensorSpec([None] * 4, tf.bfloat16)])
    np.testing.assert_allclose(np.mean(tf.cast(step(x), tf.float32), axis=(0, 1, 2)), np.zeros(5), atol=0.01)
