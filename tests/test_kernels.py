"""The compiled filter gradient against float64, where it is used, and what happens where it is not."""

import contextlib
import importlib.machinery

import keras
import numpy as np
import pytest
import tensorflow as tf

from allconv_resnet import cpu, kernels
from allconv_resnet.blocks import ResidualBlock

compiled = pytest.mark.skipif(
    not kernels.available(), reason=f"the compiled operation is not used: {kernels.reason_against()}"
)
# n, height, width, channels, filters: widths of all remainders modulo 4, and numbers of channels that fill no vector
SHAPES = (
    (1, 1, 1, 1, 1),
    (2, 5, 6, 3, 16),
    (2, 6, 7, 17, 168),
    (3, 4, 4, 48, 64),
    (5, 9, 5, 64, 80),
    (40, 4, 4, 64, 512),
    (3, 32, 32, 64, 64),
)


def normal(*shape, seed=0):
    return tf.cast(np.random.default_rng(seed).standard_normal(shape), tf.bfloat16)


def exact(x, dy):
    """Returns the gradient in float64 as nine products of shifted images."""
    x, dy = (tf.cast(a, tf.float64).numpy() for a in (x, dy))
    height, width = x.shape[1:3]
    padded = np.pad(x, [(0, 0), (1, 1), (1, 1), (0, 0)])
    windows = [[padded[:, i : i + height, j : j + width] for j in range(3)] for i in range(3)]
    return np.array([[np.einsum("nhwc,nhwk->ck", window, dy) for window in row] for row in windows])


@compiled
@pytest.mark.parametrize("threads", [1, 2, 3, 100])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_the_operation_computes_the_gradient(shape, threads, monkeypatch):
    monkeypatch.setattr("allconv_resnet.environment.cores", lambda: threads)
    n, height, width, channels, filters = shape
    x, dy = normal(n, height, width, channels), normal(n, height, width, filters, seed=1)
    ours, wanted = kernels.filter_gradient(x, dy), exact(x, dy)
    assert ours.dtype == tf.bfloat16 and ours.shape == wanted.shape
    # Both roundings of bfloat16, of the factors and of the result, are 2^-9 at most.
    assert np.abs(tf.cast(ours, tf.float64) - wanted).max() <= 6e-3 * np.abs(wanted).max() + 2e-2


@compiled
def test_the_operation_repeats_itself_to_the_bit():
    x, dy = normal(9, 8, 8, 64), normal(9, 8, 8, 64, seed=1)
    results = {kernels.filter_gradient(x, dy).numpy().tobytes() for _ in range(5)}
    assert len(results) == 1


@compiled
@pytest.mark.parametrize(
    ("x", "dy"),
    [((2, 4, 4, 3), (2, 4, 5, 3)), ((2, 4, 4), (2, 4, 4)), ((0, 4, 4, 3), (0, 4, 4, 3)), ((2, 4, 4, 3), (1, 4, 4, 3))],
    ids=str,
)
def test_other_shapes_are_refused(x, dy):
    with pytest.raises(tf.errors.InvalidArgumentError, match="must have shapes"):
        kernels.filter_gradient(normal(*x), normal(*dy))


def operations_of_a_step(block, x):
    @tf.function
    def step(x):
        with tf.GradientTape() as tape:
            y = block(x, training=True)
        return tape.gradient(y, block.trainable_variables)

    return [operation.type for operation in step.get_concrete_function(x).graph.get_operations()]


@compiled
@pytest.mark.parametrize(("width", "filters"), [(32, 64), (8, 96)])
def test_it_is_used_within_the_context_alone(width, filters):
    block = ResidualBlock(filters, dtype="mixed_bfloat16")
    x = normal(2, width, width, filters)
    block.build(x.shape)
    assert operations_of_a_step(block, x).count("AllconvFilterGradient") == 0
    with cpu.compiled_gradients(), cpu.compiled_gradients():
        assert operations_of_a_step(block, x).count("AllconvFilterGradient") == 2
    assert operations_of_a_step(block, x).count("AllconvFilterGradient") == 0
    with pytest.raises(ValueError, match="inside"), cpu.compiled_gradients():
        raise ValueError("inside")
    assert operations_of_a_step(block, x).count("AllconvFilterGradient") == 0


@compiled
@pytest.mark.parametrize("size", [(None, None), (32, 32)], ids=str)
def test_a_network_trains_to_nearly_the_same_weights(size):
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
        with context:
            history = model.fit(x, y, batch_size=16, epochs=2, shuffle=False, verbose=0)
        return history.history["loss"]

    ours, plain = trained(cpu.compiled_gradients()), trained(contextlib.nullcontext())
    np.testing.assert_allclose(ours, plain, rtol=2e-3)
    assert ours[1] < ours[0]


def test_without_the_operation_the_layers_compute_with_those_of_tensorflow(monkeypatch):
    monkeypatch.setattr(kernels, "available", lambda: False)
    block = ResidualBlock(96, dtype="mixed_bfloat16")
    x = normal(2, 8, 8, 96)
    block.build(x.shape)
    with cpu.compiled_gradients():
        operations = operations_of_a_step(block, x)
    assert "AllconvFilterGradient" not in operations and operations.count("MatMul") == 24


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        ({"avx2"}, "does not have AVX512-BF16"),
        ({"avx512_bf16", "amx_bf16"}, "has AMX"),
    ],
)
def test_why_it_is_not_used(flags, words, monkeypatch):
    monkeypatch.setattr("allconv_resnet.environment.processor", lambda: ("a processor", flags))
    assert words in kernels.reason_against()


@pytest.mark.parametrize("content", [None, b"", b"not a library"], ids=["none", "empty", "damaged"])
def test_an_installation_without_a_library_that_can_be_loaded_says_so(content, tmp_path, monkeypatch):
    if content is not None:
        (tmp_path / f"compiled{importlib.machinery.EXTENSION_SUFFIXES[0]}").write_bytes(content)
    monkeypatch.setattr("allconv_resnet.environment.processor", lambda: ("a processor", {"avx512_bf16"}))
    monkeypatch.setattr(kernels, "__file__", str(tmp_path / "__init__.py"))
    monkeypatch.setattr(kernels, "_operations", kernels._operations.__wrapped__)
    assert "was not compiled" in kernels.reason_against()
