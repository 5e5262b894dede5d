"""Which layers and blocks train with the compiled operations, and that their results are those of TensorFlow's own."""

import contextlib

import keras
import numpy as np
import pytest
import tensorflow as tf
from test_kernels import compiled, float64, normal

import allconv_resnet as acr
from allconv_resnet import baselines, convolutions, cpu, kernels
from allconv_resnet.blocks import ResidualBlock, ScaledResidualBlock
from allconv_resnet.training.engines import steps


def operations_of_a_step(block, x):
    @tf.function
    def step(x):
        with tf.GradientTape() as tape:
            y = block(x, training=True)
        return tape.gradient(y, block.trainable_variables)

    operations = [operation.type for operation in step.get_concrete_function(x).graph.get_operations()]
    return {
        name: operations.count(name) for name in ("AllconvConvolution", "AllconvFilterGradient", "Conv2D", "MatMul")
    }


@compiled
@pytest.mark.parametrize(("width", "filters"), [(32, 64), (8, 96)])
def test_they_are_used_within_the_context_alone(width, filters):
    block = ResidualBlock(filters, dtype="mixed_bfloat16")
    x = normal(16, width, width, filters)
    block.build(x.shape)
    before = operations_of_a_step(block, x)
    assert before["AllconvConvolution"] == before["AllconvFilterGradient"] == 0 and before["Conv2D"] == 2
    with cpu.compiled_convolutions(), cpu.compiled_convolutions():
        within = operations_of_a_step(block, x)
    # two convolutions, and the gradients with respect to their inputs
    assert within == {"AllconvConvolution": 4, "AllconvFilterGradient": 2, "Conv2D": 0, "MatMul": 0}
    assert operations_of_a_step(block, x) == before
    with pytest.raises(ValueError, match="inside"), cpu.compiled_convolutions():
        raise ValueError("inside")
    assert operations_of_a_step(block, x) == before


def gradients(block, x):
    """Returns the output of a block, and the gradients of its sum of squares, in float64."""
    with tf.GradientTape() as tape:
        tape.watch(x)
        y = block(x, training=True)
        loss = tf.reduce_sum(tf.cast(y, tf.float32) ** 2)
    return float64(y, *tape.gradient(loss, [x, *block.trainable_variables]))


@compiled
@pytest.mark.parametrize("graph", [False, True])
@pytest.mark.parametrize(("channels", "filters"), [(48, 80), (80, 48)])
def test_the_gradients_of_a_compiled_convolution(channels, filters, graph):
    x, kernel, dy = normal(9, 6, 7, channels), normal(3, 3, channels, filters), normal(9, 6, 7, filters, seed=1)

    def all_of(convolve, *tensors):
        with tf.GradientTape() as tape:
            tape.watch(tensors[:2])
            y = convolve(*tensors[:2])
        return y, *tape.gradient(y, tensors[:2], tensors[2])

    ours = (tf.function(all_of) if graph else all_of)(convolutions.compiled_convolution, x, kernel, dy)
    exact = (tf.cast(a, tf.float64) for a in (x, kernel, dy))
    theirs = all_of(lambda x, kernel: tf.nn.conv2d(x, kernel, 1, "SAME"), *exact)
    for a, b in zip(float64(*ours), float64(*theirs), strict=True):
        assert a.shape == b.shape and np.std(a - b) <= 5e-3 * np.std(b)


@compiled
@pytest.mark.parametrize("activation", ["relu", "tanh"])
@pytest.mark.parametrize("kind", [ResidualBlock, ScaledResidualBlock])
def test_a_compiled_block_is_as_exact_as_one_that_is_not(kind, activation):
    x = normal(16, 8, 8, 64)
    block, exact = (
        kind(64, initialization="he", activation=activation, dtype=dtype) for dtype in ("mixed_bfloat16", "float32")
    )
    for each in (block, exact):
        each.build(x.shape)
    exact.set_weights(block.get_weights())
    assert not block.fuses(x)
    plain = gradients(block, x)
    with cpu.compiled_convolutions():
        assert block.fuses(x) == (activation == "relu")
        fused = gradients(block, x)
    for ours, theirs, wanted in zip(fused, plain, gradients(exact, tf.cast(x, tf.float32)), strict=True):
        error, usual = (np.sqrt(np.mean((values - wanted) ** 2)) for values in (ours, theirs))
        # one that is not fused rounds as often as oneDNN's, and minimal filtering has twice the error of a convolution
        assert 0 < error <= (1.5 if activation == "relu" else 2.5) * usual


@compiled
@pytest.mark.parametrize(
    ("arguments", "compiled_ones"),
    [
        ({"filters": 96}, 4),
        ({"strides": 2}, 2),
        ({"activation": "tanh"}, 4),
        ({"activation": keras.layers.LeakyReLU()}, 4),
        ({"shortcut": None}, 4),
        ({"normalization": "batch"}, 4),
        ({"kernel_sizes": (3, 1)}, 2),
        ({"use_bias": True}, 0),
        ({"trainable": False}, 0),
    ],
    ids=str,
)
def test_which_blocks_are_not_fused(arguments, compiled_ones):
    block = ResidualBlock(**{"filters": 64, "dtype": "mixed_bfloat16"} | arguments)
    x = normal(16, 8, 8, 64)
    block.build(x.shape)
    with cpu.compiled_convolutions():
        assert not block.fuses(x)
        assert operations_of_a_step(block, x)["AllconvConvolution"] == compiled_ones


@compiled
@pytest.mark.parametrize(
    ("change", "compiled_ones"),
    [
        (lambda block: setattr(block.conv1, "trainable", False), 2),
        (lambda block: setattr(block.conv2, "activity_regularizer", keras.regularizers.L2(0.1)), 4),
        (lambda block: setattr(block.conv1, "dtype_policy", keras.DTypePolicy("float32")), 2),
    ],
    ids=["frozen", "regularized", "float32"],
)
def test_blocks_with_a_changed_layer_are_not_fused(change, compiled_ones):
    block = ResidualBlock(64, dtype="mixed_bfloat16")
    x = normal(16, 8, 8, 64)
    block.build(x.shape)
    change(block)
    with cpu.compiled_convolutions():
        assert not block.fuses(x)
        assert operations_of_a_step(block, x)["AllconvConvolution"] == compiled_ones


@compiled
@pytest.mark.parametrize(
    ("channels", "dtype", "training", "applies"),
    [
        (48, "mixed_bfloat16", True, True),
        (47, "mixed_bfloat16", True, False),
        (48, "float32", True, False),
        (48, "mixed_bfloat16", False, False),
    ],
)
def test_which_blocks_train_compiled(channels, dtype, training, applies):
    block = ResidualBlock(channels, dtype=dtype)
    x = normal(16, 8, 8, channels)
    block.build(x.shape)
    with cpu.compiled_convolutions():
        graph = tf.function(lambda x: block(x, training=training)).get_concrete_function(x).graph
    assert any(operation.type == "AllconvConvolution" for operation in graph.get_operations()) == applies


@compiled
def test_the_training_program_trains_with_them_and_evaluates_without():
    model = acr.AllConvResNet((8, 8, 3), 10, stem=(48, 3, 1, 1), stages=[(1, 48, 1)], dtype="mixed_bfloat16")
    optimizer, strategy = acr.Momentum(0.1), tf.distribute.get_strategy()
    optimizer.build(model.trainable_variables)
    train = steps.make_train_step(strategy, model, optimizer, steps.Totals(), 16)
    batch = tf.zeros((16, 8, 8, 3)), tf.zeros(16, tf.int64)
    evaluate = steps.make_evaluate_step(strategy, model)

    def count(function, *arguments):
        graph = function.get_concrete_function(*arguments).graph
        return [operation.type for operation in graph.get_operations()].count("AllconvConvolution")

    assert count(train, *batch) == 4
    with cpu.compiled_convolutions():
        assert count(evaluate, *batch, tf.ones(16)) == 0


@compiled
def test_the_peers_train_with_them():
    for make, arguments in ((baselines.airbench, {"widths": (64, 64, 64)}), (baselines.resnet, {"depth": 8})):
        model = make(num_classes=10, dtype="mixed_bfloat16", **arguments)
        with cpu.compiled_convolutions():
            graph = tf.function(lambda x, model=model: model(x, training=True)).get_concrete_function(
                tf.zeros((16, 32, 32, 3))
            )
        assert "AllconvConvolution" in {operation.type for operation in graph.graph.get_operations()}


@compiled
@pytest.mark.parametrize("size", [(None, None), (32, 32)], ids=str)
def test_fit_changes_the_weights_nearly_as_it_does_without_them(size):
    def trained(context):
        keras.utils.set_random_seed(0)
        model = keras.Sequential(
            [
                keras.Input((*size, 64)),
                ResidualBlock(64, initialization="he", dtype="mixed_bfloat16"),
                keras.layers.GlobalAveragePooling2D(dtype="float32"),
                keras.layers.Dense(4, dtype="float32"),
            ]
        )
        model.compile(keras.optimizers.SGD(0.002), keras.losses.SparseCategoricalCrossentropy(from_logits=True))
        x, y = np.random.default_rng(0).standard_normal((64, 32, 32, 64)), np.arange(64) % 4
        before = model.get_weights()
        with context:
            model.fit(x, y, batch_size=16, epochs=2, shuffle=False, verbose=0)
        return [b - a for a, b in zip(before, model.get_weights(), strict=True)]

    pairs = list(zip(trained(cpu.compiled_convolutions()), trained(contextlib.nullcontext()), strict=True))
    for ours, plain in pairs:
        assert np.linalg.norm(ours - plain) <= 0.05 * np.linalg.norm(plain)
    # With AMX, the filter gradients alone are rounded in another way than those of oneDNN.
    assert any((ours != plain).any() for ours, plain in pairs)


def test_a_number_of_channels_that_is_not_known():
    layer = cpu.Convolution(8, 3, padding="same", use_bias=False, dtype="mixed_bfloat16")
    layer.build((None, 8, 8, 4))
    x = normal(2, 8, 8, 4)
    call = tf.function(
        lambda x: layer(x, training=True), input_signature=[tf.TensorSpec([None, 8, 8, None], tf.bfloat16)]
    )
    ours, plain = float64(call(x), layer(x))
    np.testing.assert_allclose(ours, plain, rtol=1e-2, atol=1e-2)


def test_without_the_operations_the_layers_compute_with_those_of_tensorflow(monkeypatch):
    monkeypatch.setattr(kernels, "available", lambda: False)
    block = ResidualBlock(96, dtype="mixed_bfloat16")
    x = normal(2, 8, 8, 96)
    block.build(x.shape)
    with cpu.compiled_convolutions():
        operations = operations_of_a_step(block, x)
    assert operations == {"AllconvConvolution": 0, "AllconvFilterGradient": 0, "Conv2D": 2, "MatMul": 24}
