"""Networks as matrices against Keras and automatic differentiation, and the measures of gradients against depth."""

import keras
import numpy as np
import pytest

from allconv_resnet.blocks import ResidualBlock, ScaledResidualBlock
from allconv_resnet.errors import BadInput
from allconv_resnet.theory import autodiff
from allconv_resnet.theory.balduzzi.gradient_measures import backward, forward
from allconv_resnet.theory.balduzzi.matrix_networks import convolution_matrix, kernel_gradient
from allconv_resnet.theory.gradients import initial_blocks, measure_gradients

SIZE, CHANNELS, DEPTH, SEED = 4, 3, 3, 2
# With normalization, the gain of `ScaledResidualBlock` stands before the second one, unlike SkipInit's.
KINDS = [("standard", "batch"), ("near_identity", None), ("skipinit", None), ("plain", None), ("plain", "batch")]
JAX = keras.backend.backend() == "jax"  # which compiles every model for seconds


@pytest.fixture(scope="module")
def maps():
    return np.random.default_rng(0).normal(size=(6, SIZE, SIZE, CHANNELS))


def keras_network(variant, normalization, maps):
    """Returns the blocks of this project with the same initialization, with the statistics of the batch if any."""
    inputs = h = keras.Input(maps.shape[1:])
    for b in range(DEPTH):
        options = {"normalization": normalization, "seed": 10_000 * SEED + 2 * b}
        if variant == "skipinit":
            h = ScaledResidualBlock(CHANNELS, gain=0.0, initialization="he", **options)(h)
        elif variant == "plain":
            h = ResidualBlock(CHANNELS, shortcut=None, initialization="he", **options)(h)
        else:
            h = ResidualBlock(CHANNELS, initialization=variant, **options)(h)
    model = keras.Model(inputs, h)
    if normalization:
        for layer in model._flatten_layers():
            if isinstance(layer, keras.layers.BatchNormalization):
                layer.momentum = 0.0
        model(maps.astype("float32"), training=True)  # the moving statistics become those of the batch
    return model


@pytest.mark.parametrize(("variant", "normalization"), KINDS[:1] if JAX else KINDS)
def test_the_network_and_its_gradients_are_those_of_keras(variant, normalization, maps):
    h = maps.reshape(len(maps), -1)
    blocks = initial_blocks(variant, DEPTH, h, SIZE, normalization, SEED)
    states = forward(blocks, h)
    model = keras_network(variant, normalization, maps)
    values, pullback = autodiff.parameter_pullback(model, maps)
    np.testing.assert_allclose(states[-1][0].reshape(values.shape), values, rtol=1e-3, atol=1e-4)

    cotangents = np.random.default_rng(1).normal(size=values.shape)
    gradient, norm = backward(blocks, states, cotangents.reshape(len(maps), -1), SIZE)
    _, expected = autodiff.value_and_gradient(lambda x: model(x, training=False), maps.astype("float32"), cotangents)
    np.testing.assert_allclose(gradient.reshape(expected.shape), expected, rtol=1e-3, atol=1e-3)
    own = [v.path for v in model.trainable_variables]
    kernels = [
        g for g, path in zip(pullback(cotangents), own, strict=True) if "gamma" not in path and "beta" not in path
    ]
    assert norm == pytest.approx(np.sqrt(sum(np.sum(g**2) for g in kernels)), rel=2e-3)


@pytest.mark.parametrize("normalization", [None, "batch"])
def test_the_jacobian_is_that_of_finite_differences(normalization, maps):
    h = maps.reshape(len(maps), -1)
    blocks = initial_blocks("standard", DEPTH, h, SIZE, normalization, SEED)
    J = np.eye(h.shape[1])
    for block, (_, _, active) in zip(blocks, forward(blocks, h)[1:], strict=True):
        J = block.push(J, active[0])
    direction, step = np.random.default_rng(1).normal(size=h.shape[1]), 1e-7
    ends = [forward(blocks, h[:1] + sign * step * direction)[-1][0][0] for sign in (1, -1)]
    np.testing.assert_allclose(J @ direction, (ends[0] - ends[1]) / (2 * step), rtol=1e-4, atol=1e-5)


def test_convolution_matrix_and_its_adjoint(maps):
    kernel = np.random.default_rng(0).normal(size=(3, 3, CHANNELS, 5)).astype("float32")
    expected = keras.ops.convert_to_numpy(
        keras.ops.conv(maps.astype("float32"), kernel, padding="same", data_format="channels_last")
    )
    matrix = convolution_matrix(kernel, SIZE)
    found = (maps.reshape(len(maps), -1) @ matrix.T).reshape(expected.shape)
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)
    other = np.random.default_rng(1).normal(size=matrix.shape)
    assert np.sum(matrix * other) == pytest.approx(np.sum(kernel * kernel_gradient(other, SIZE)))


def measured(variant, depth, normalization=None, seeds=2):
    h = np.random.default_rng(0).normal(size=(16, 4 * 4 * 4))
    found = [measure_gradients(variant, depth, h, np.arange(16) % 4, 4, normalization, seed=s) for s in range(seeds)]
    return {name: np.mean([getattr(f, name) for f in found]) for name in ("backward_growth", "largest", "correlation")}


def test_near_identity_keeps_gradients_and_the_others_do_not():
    near, standard, plain = (measured(variant, 40) for variant in ("near_identity", "standard", "plain"))
    assert near["backward_growth"] == pytest.approx(1, abs=0.1) and near["correlation"] > 0.99
    assert near["largest"] < 2
    assert standard["backward_growth"] > 100 and standard["largest"] > 1000
    assert plain["correlation"] < standard["correlation"] < near["correlation"]
    assert plain["correlation"] < 0.6  # shattered, for each backend's random kernels
    assert measured("standard", 40, "batch")["backward_growth"] < 50


def test_fixup_and_skipinit_are_the_identity_with_gradients_that_do_not_vanish():
    h, labels = np.random.default_rng(0).normal(size=(16, 64)), np.arange(16) % 4
    for variant in ("fixup", "skipinit"):
        sizes = []
        for depth in (4, 64):
            found = measure_gradients(variant, depth, h, labels, 4)
            assert found.largest == found.median == found.smallest == found.backward_growth == 1
            assert found.correlation == pytest.approx(1)
            sizes.append(found.weight_gradient)
        # Fixup's scaling by depth^(-1/2) keeps the norm of the gradient of all blocks together.
        assert sizes[1] / sizes[0] == pytest.approx(1 if variant == "fixup" else 4, rel=0.5)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"variant": "orthogonal"}, r"variant must be one of near_identity, .*Received: variant='orthogonal'"),
        ({"normalization": "layer"}, r"normalization must be None or \"batch\". Received: normalization='layer'"),
        ({"depth": 0}, r"depth must be an integer of at least 1"),
        ({"size": 3}, r"h must have a multiple of 9 columns. Received: shape \[2, 16\]"),
    ],
)
def test_bad_input(options, message):
    with pytest.raises(BadInput, match=message):
        initial_blocks(**{"variant": "he", "depth": 2, "h": np.zeros((2, 16)), "size": 2, **options})


def test_lists_are_measured_and_bad_inputs_are_refused():
    h = np.random.default_rng(0).normal(size=(3, 12))
    arrays, lists = (measure_gradients("he", 2, *data, 2) for data in ((h, np.arange(3)), (h.tolist(), [0, 1, 2])))
    assert arrays == lists
    for bad, labels, message in (
        (h * np.nan, [0, 1, 2], "h must be a finite array"),
        (h, [0, -1, 2], "labels must be 3 integers of at least 0"),
        (h, [0.0, 1.0, 2.0], "labels must be 3 integers"),
        (h, [0, 1], "labels must be 3 integers"),
        (h, [0, 0, 0], "not all of them 0"),
    ):
        with pytest.raises(BadInput, match=message):
            measure_gradients("he", 2, bad, labels, 2)


def test_gradients_of_zero_have_no_correlation():
    h = np.random.default_rng(0).normal(size=(3, 12))
    expected = measure_gradients("plain", 2, h, np.arange(3), 2, seed=1).correlation
    h = np.concatenate([h, np.zeros((1, 12))])  # no ReLU is active in the last row
    assert -1 <= expected <= 1 and abs(measure_gradients("plain", 2, h, np.arange(4), 2, seed=1).correlation) <= 1
    assert np.isnan(measure_gradients("plain", 2, h[[3, 3]], [0, 1], 2).correlation)
