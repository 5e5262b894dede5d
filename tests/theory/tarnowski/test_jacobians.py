"""Singular values of Jacobians by both methods are compared with finite differences and with each other."""

import keras
import numpy as np
import pytest

import allconv_resnet as acr
from allconv_resnet.errors import BadInput
from allconv_resnet.theory import isometry

X = np.random.default_rng(0).standard_normal((6, 6, 2))


@pytest.fixture(scope="module")
def network():
    """A small float64 network with 72 inputs and 64 outputs, in which inactive ReLUs make some singular values zero."""
    keras.utils.set_random_seed(0)
    double = {"dtype": "float64"}
    return keras.Sequential(
        [
            keras.Input((6, 6, 2), dtype="float64"),
            keras.layers.Conv2D(4, 3, padding="same", activation="tanh", **double),
            keras.layers.Conv2D(4, 3, activation="relu", **double),
            keras.layers.Dropout(0.5, **double),
            keras.layers.BatchNormalization(**double),
            keras.layers.Flatten(**double),
            keras.layers.Dense(64, **double),
        ]
    )


def finite_differences(model, x, step=1e-6):
    points = np.concatenate(
        [x + step * np.eye(x.size).reshape(-1, *x.shape), x - step * np.eye(x.size).reshape(-1, *x.shape)]
    )
    y = keras.ops.convert_to_numpy(model(points, training=False)).reshape(2, x.size, -1)
    return (y[0] - y[1]).T / (2 * step)


@pytest.fixture(scope="module")
def operator(network):
    return isometry.JacobianOperator(network, X)


def test_operator_is_the_jacobian(network, operator):
    expected = finite_differences(network, X)
    assert operator.shape == expected.shape == (64, 72)
    np.testing.assert_allclose(operator.forward(np.eye(72)).T, expected, atol=1e-8)
    np.testing.assert_allclose(operator.backward(np.eye(64)), expected, atol=1e-8)
    np.testing.assert_allclose(operator.dense(batch_size=5).T, expected, atol=1e-8)


@pytest.mark.parametrize("which", ["largest", "smallest", "both"])
def test_lanczos_equals_dense(operator, which):
    dense = np.linalg.svd(operator.dense(), compute_uv=False)
    values = isometry.lanczos_singular_values(operator, 7, which)
    if which != "smallest":
        np.testing.assert_allclose(values[:7], dense[:7], rtol=1e-6)
    if which != "largest":
        np.testing.assert_allclose(values[-7:], dense[-7:], rtol=1e-6, atol=1e-12)


def test_ends_are_chosen(network, operator):
    dense = np.linalg.svd(operator.dense(), compute_uv=False)
    for options, expected in [
        ({}, dense),
        ({"k": 2, "which": "largest"}, dense[:2]),
        ({"k": 40, "method": "lanczos"}, dense),
        ({"k": 3, "method": "lanczos"}, np.append(dense[:3], dense[-3:])),
    ]:
        values = isometry.jacobian_singular_values(network, X, **options)
        np.testing.assert_allclose(values, expected, rtol=1e-6, atol=1e-12)


def test_lanczos_stops_early_when_the_largest_values_have_converged():
    operator = _Diagonal(np.linspace(1, 2, 600) ** 6)
    values = isometry.lanczos_singular_values(operator, 3, "largest")
    np.testing.assert_allclose(values[:3], np.sort(operator.diagonal)[::-1][:3], rtol=1e-9)
    assert operator.products < 400


def test_lanczos_finds_repeated_and_zero_values():
    values = isometry.lanczos_singular_values(_Diagonal(np.repeat([3.0, 1.0, 0.0], 4)), 12)
    np.testing.assert_allclose(values, np.repeat([3.0, 1.0, 0.0], 4), atol=1e-10)


class _Diagonal:
    def __init__(self, diagonal):
        self.diagonal, self.shape, self.products = diagonal, (len(diagonal),) * 2, 0

    def forward(self, vectors):
        self.products += 1
        return self.diagonal * vectors

    backward = forward


def test_all_values_of_a_wide_jacobian():
    double = {"dtype": "float64"}
    layers = [keras.Input((40,), **double), keras.layers.Dense(20, "tanh", **double), keras.layers.Dense(10, **double)]
    logits, x = keras.Sequential(layers), np.random.default_rng(1).standard_normal(40)
    expected = np.linalg.svd(finite_differences(logits, x), compute_uv=False)
    np.testing.assert_allclose(isometry.jacobian_singular_values(logits, x[None]), expected, rtol=1e-6)


def test_residual_network_of_this_project():
    model = acr.AllConvResNet((8, 8, 3), 10, stem=(4, 3, 1, 1), stages=[(2, 4, 1), (1, 8, 2)], dtype="float64")
    body = keras.Model(model.input, model.get_layer("pool").input)
    image = np.random.default_rng(1).standard_normal((8, 8, 3)).astype("float32")
    operator = isometry.JacobianOperator(body, image)
    assert operator.shape == (128, 192)
    expected = np.linalg.svd(operator.forward(np.eye(192)), compute_uv=False)
    lanczos = isometry.jacobian_singular_values(body, image, k=20, method="lanczos")
    np.testing.assert_allclose(lanczos, np.append(expected[:20], expected[-20:]), rtol=1e-5)


def test_random_residual_network_follows_the_law_through_keras():
    """Weights from `IsometricNormal` give a Keras model whose Jacobian has the spectrum of c."""
    width, depth, c = 150, 8, 0.4
    x = inputs = keras.Input((width,), dtype="float64")
    for layer in range(depth):
        initializer = isometry.IsometricNormal("tanh", c, depth, seed=layer)
        h = keras.layers.Dense(width, "tanh", kernel_initializer=initializer, dtype="float64")(x)
        x = keras.layers.Add(dtype="float64")([x, h])
    point = np.random.default_rng(0).standard_normal(width)
    values = isometry.jacobian_singular_values(keras.Model(inputs, x), point / point.std()) ** 2
    assert isometry.kolmogorov_smirnov(values, c) < 0.03
    assert isometry.kolmogorov_smirnov(values, 2 * c) > 0.05


def test_isometric_normal_round_trips_and_has_its_deviation():
    initializer = isometry.IsometricNormal("relu", c=0.125, depth=20, seed=3)
    copy = keras.initializers.deserialize(keras.initializers.serialize(initializer))
    kernel, again = (keras.ops.convert_to_numpy(i((3, 3, 32, 64))) for i in (initializer, copy))
    np.testing.assert_array_equal(kernel, again)
    assert kernel.std() == pytest.approx(0.5 / np.sqrt(9 * 32 * 20), rel=0.02)
    alike = isometry.IsometricNormal("relu", c=0.125, depth=20)  # without a seed no two layers are the same
    assert not np.array_equal(*(keras.ops.convert_to_numpy(alike((8, 8))) for _ in range(2)))
    with pytest.raises(BadInput, match="depth"):
        isometry.IsometricNormal("relu", c=0.125, depth=0)
    with pytest.raises(BadInput, match="positive"):
        isometry.IsometricNormal("relu", c=0, depth=20)


def two_inputs():
    a, b = keras.Input((3,)), keras.Input((3,))
    return keras.Model([a, b], keras.layers.Add()([a, b]))


def two_outputs():
    a = keras.Input((3,))
    return keras.Model(a, [keras.layers.Dense(2)(a), keras.layers.Dense(2)(a)])


def integer_input():
    return keras.Sequential([keras.Input((3,), dtype="int32"), keras.layers.Embedding(5, 2)])


@pytest.mark.parametrize(
    ("model", "x", "options", "message"),
    [
        (two_inputs, np.zeros(3), {}, "one input.*2 inputs"),
        (two_outputs, np.zeros(3), {}, "one output.*2 outputs"),
        (integer_input, np.zeros(3), {}, "floating-point"),
        (lambda: keras.Sequential([keras.Input((3,)), keras.layers.Dense(2)]), np.zeros(3, complex), {}, "real"),
        (lambda: keras.Sequential([keras.Input((3,)), keras.layers.Dense(2)]), np.zeros(4), {}, "shape"),
        (lambda: keras.Sequential([keras.Input((3,)), keras.layers.Dense(2)]), np.zeros((2, 3)), {}, "one input"),
        (lambda: keras.Sequential([keras.Input((3,)), keras.layers.Dense(2)]), np.full(3, np.nan), {}, "finite"),
        (lambda: keras.Sequential([keras.Input((3,)), keras.layers.Dense(2)]), np.zeros(3), {"k": 3}, "k must"),
        (lambda: keras.Sequential([keras.Input((3,)), keras.layers.Dense(2)]), np.zeros(3), {"method": "qr"}, "method"),
        (lambda: keras.Sequential([keras.Input((3,)), keras.layers.Dense(2)]), np.zeros(3), {"which": "top"}, "which"),
        (lambda: lambda x: keras.ops.cast(x, "complex64"), np.zeros(3), {}, "real outputs"),
    ],
)
def test_bad_input_is_refused(model, x, options, message):
    with pytest.raises(BadInput, match=message):
        isometry.jacobian_singular_values(model(), x, **options)
