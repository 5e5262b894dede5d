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


def test_lanczos_finds_the_pairs_of_a_circular_convolution():
    """Every singular value of a circulant matrix but one or two is there twice."""
    double, size = {"dtype": "float64"}, 40
    x = inputs = keras.Input((size, 1), **double)
    x = keras.layers.Lambda(lambda x: keras.ops.concatenate([x[:, -1:], x, x[:, :1]], axis=1), **double)(x)
    model = keras.Model(inputs, keras.layers.Conv1D(1, 3, use_bias=False, **double)(x))
    model.layers[-1].kernel.assign(np.reshape([0.3, 1.0, -0.5], (3, 1, 1)))
    frequencies = np.exp(2j * np.pi * np.outer(np.arange(size), [-1, 0, 1]) / size)
    expected = np.sort(np.abs(frequencies @ [0.3, 1.0, -0.5]))[::-1]
    point = np.zeros((size, 1))
    values = isometry.jacobian_singular_values(model, point, k=5, which="largest", method="lanczos")
    np.testing.assert_allclose(values, expected[:5], rtol=1e-9)
    assert np.isclose(values, values[1]).sum() == 2


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


@pytest.mark.parametrize("name", ["relu", "tanh"])
@pytest.mark.parametrize("size", [4, 9])
def test_isometric_normal_keeps_its_promise_on_maps_with_borders(name, size):
    """c is the sum over the layers of the mean square of the singular values of the branch."""
    depth, channels, c = 3, 48, 0.5
    x = np.random.default_rng(0).standard_normal((1, size, size, channels)).astype("float32")
    totals = {}
    for map_size in (None, (size, size)):
        h, totals[map_size] = x, 0.0
        for layer in range(depth):
            initializer = isometry.IsometricNormal(name, c, depth, map_size=map_size, seed=layer)
            branch = keras.layers.Conv2D(channels, 3, 1, "same", activation=name, kernel_initializer=initializer)
            vectors = np.random.default_rng(layer).standard_normal((16, x.size))
            images = isometry.JacobianOperator(branch, h[0]).forward(vectors)
            totals[map_size] += np.sum(images**2) / np.sum(vectors**2)
            h = h + keras.ops.convert_to_numpy(branch(h))
    assert totals[size, size] == pytest.approx(c, rel=0.05)
    assert totals[None] == pytest.approx(c * ((3 * size - 2) / (3 * size)) ** 2, rel=0.1)


@pytest.mark.parametrize(("shape", "size"), [((2, 4, 3, 3), (5, 3)), ((5, 3, 3), (2,)), ((1, 1, 3, 3), (4, 4))])
def test_taps_of_kernels_of_all_sizes_are_counted(shape, size):
    initializer = isometry.IsometricNormal("linear", c=1.0, depth=1, map_size=size, seed=0)
    spatial = shape[:-2]
    conv = (keras.layers.Conv1D if len(spatial) == 1 else keras.layers.Conv2D)(1, spatial, padding="same")
    conv.build((1, *size, 1))
    conv.kernel.assign(np.ones((*spatial, 1, 1)))
    taps = np.mean(keras.ops.convert_to_numpy(conv(np.ones((1, *size, 1)))))
    wide = (*spatial, 400, 400)
    kernel = keras.ops.convert_to_numpy(initializer(wide))
    assert kernel.var() * 400 * taps == pytest.approx(1.0, rel=0.02)


def test_isometric_normal_round_trips_and_has_its_deviation():
    initializer = isometry.IsometricNormal("relu", c=0.125, depth=20, map_size=None, seed=3)
    on_maps = isometry.IsometricNormal("relu", c=0.125, depth=20, map_size=(4, 4), seed=3)
    assert keras.initializers.deserialize(keras.initializers.serialize(on_maps)).get_config() == on_maps.get_config()
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
    with pytest.raises(BadInput, match="spatial dimensions, 0"):
        on_maps((8, 8))
    with pytest.raises(BadInput, match="map_size must be an integer"):
        isometry.IsometricNormal("relu", c=0.125, depth=20, map_size=(4, 0))


def two_inputs(as_dictionary=False):
    a, b = keras.Input((3,), name="a"), keras.Input((2, 2), name="b", dtype="float64")
    out = [keras.layers.Dense(2, "tanh")(a), keras.layers.Dense(2, "tanh", dtype="float64")(b)]
    mixed = keras.layers.Multiply(dtype="float64")([keras.layers.Reshape((1, 2))(out[0]), out[1]])
    return keras.Model({"b": b, "a": a} if as_dictionary else [a, b], [mixed, out[0]])


@pytest.mark.parametrize("as_dictionary", [False, True])
def test_several_inputs_and_outputs_are_one_vector(as_dictionary):
    keras.utils.set_random_seed(1)
    model = two_inputs(as_dictionary)
    random = np.random.default_rng(0)
    a, b = random.standard_normal(3), random.standard_normal((2, 2))
    step, columns = 1e-3, []
    for i in range(7):
        shift = step * np.eye(7)[i]
        ends = []
        for sign in (1, -1):
            parts = (a + sign * shift[:3])[None], (b + sign * shift[3:].reshape(2, 2))[None]
            outputs = model(dict(zip("ab", parts, strict=True)) if as_dictionary else list(parts))
            ends.append(np.concatenate([np.ravel(keras.ops.convert_to_numpy(y)) for y in outputs]))
        columns.append((ends[0] - ends[1]) / (2 * step))
    expected = np.linalg.svd(np.array(columns).T, compute_uv=False)
    x = {"a": a, "b": b[None]} if as_dictionary else [a, b]
    values = isometry.jacobian_singular_values(model, x)
    assert values.shape == (6,)
    np.testing.assert_allclose(values, expected, atol=1e-4)
    np.testing.assert_allclose(isometry.jacobian_singular_values(model, x, k=1, method="lanczos")[0], values[0])


def test_several_arguments_of_a_function():
    values = isometry.jacobian_singular_values(lambda x: x[0] * 2 + 0 * x[1], (np.zeros(2), np.ones(2)))
    np.testing.assert_allclose(values, [2, 2])


@pytest.mark.parametrize("options", [{}, {"k": 1, "method": "lanczos"}])
def test_a_jacobian_that_is_not_finite_is_refused(options):
    model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(2)])
    model.set_weights([np.full((3, 2), np.nan), np.zeros(2)])
    with pytest.raises(BadInput, match="Jacobian must be finite"):
        isometry.jacobian_singular_values(model, np.zeros(3), **options)


def integer_input():
    return keras.Sequential([keras.Input((3,), dtype="int32"), keras.layers.Embedding(5, 2)])


@pytest.mark.parametrize(
    ("model", "x", "options", "message"),
    [
        (two_inputs, np.zeros(3), {}, "2 inputs of the model, in a list. Received: 1 in a ndarray"),
        (two_inputs, [np.zeros(3)] * 3, {}, "2 inputs of the model, in a list. Received: 3 in a list"),
        (two_inputs, {"a": np.zeros(3), "b": np.zeros((2, 2))}, {}, "in a list. Received: 2 in a dict"),
        (two_inputs, [np.zeros(3), np.zeros(3)], {}, "one input of shape"),
        (integer_input, np.zeros(3), {}, "floating-point"),
        (lambda: keras.Sequential([keras.Input((3,)), keras.layers.Dense(2)]), np.zeros(3, complex), {}, "real"),
        (lambda: keras.Sequential([keras.Input((3,)), keras.layers.Dense(2)]), np.zeros(4), {}, "shape"),
        (lambda: keras.Sequential([keras.Input((3,)), keras.layers.Dense(2)]), np.zeros((2, 3)), {}, "one input"),
        (lambda: keras.Sequential([keras.Input((3,)), keras.layers.Dense(2)]), np.full(3, np.nan), {}, "finite"),
        (lambda: keras.Sequential([keras.Input((3,)), keras.layers.Dense(2)]), np.zeros(3), {"k": 3}, "k must"),
        (lambda: keras.Sequential([keras.Input((3,)), keras.layers.Dense(2)]), np.zeros(3), {"method": "qr"}, "method"),
        (lambda: keras.Sequential([keras.Input((3,)), keras.layers.Dense(2)]), np.zeros(3), {"which": "top"}, "which"),
        (lambda: keras.Sequential([keras.Input((3,)), keras.layers.Dense(2)]), np.zeros(3), {"batch_size": 0}, "batch"),
        (lambda: lambda x: keras.ops.cast(x, "complex64"), np.zeros(3), {}, "real outputs"),
    ],
)
def test_bad_input_is_refused(model, x, options, message):
    with pytest.raises(BadInput, match=message):
        isometry.jacobian_singular_values(model(), x, **options)
