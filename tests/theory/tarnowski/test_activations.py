"""Activations, their derivatives by automatic differentiation, and their Gaussian means."""

import itertools
import math

import numpy as np
import pytest
from keras import ops
from numpy.polynomial.hermite_e import hermegauss
from scipy.integrate import quad
from scipy.special import expit, ndtr

from allconv_resnet.errors import BadInput
from allconv_resnet.theory.tarnowski import activations

SELU, ALPHA = 1.0507009873554805, 1.6732632423543772
CLOSED_FORMS = {  # value and derivative, in NumPy
    "linear": (lambda h: h, lambda h: 1 + 0 * h),
    "relu": (lambda h: np.maximum(h, 0), lambda h: 1.0 * (h > 0)),
    "leaky_relu": (lambda h: np.where(h > 0, h, h / 4), lambda h: np.where(h > 0, 1, 0.25)),
    "tanh": (np.tanh, lambda h: 1 / np.cosh(h) ** 2),
    "hard_tanh": (lambda h: np.clip(h, -1, 1), lambda h: 1.0 * (np.abs(h) < 1)),
    "sigmoid": (expit, lambda h: expit(h) * expit(-h)),
    "selu": (
        lambda h: SELU * np.where(h > 0, h, ALPHA * np.expm1(np.minimum(h, 0))),
        lambda h: SELU * np.where(h > 0, 1, ALPHA * np.exp(np.minimum(h, 0))),
    ),
    "elu": (lambda h: np.where(h > 0, h, np.expm1(np.minimum(h, 0))), lambda h: np.exp(np.minimum(h, 0))),
    "gelu": (lambda h: h * ndtr(h), lambda h: ndtr(h) + h * np.exp(-h * h / 2) / math.sqrt(2 * math.pi)),
    "softplus": (lambda h: np.logaddexp(0, h), expit),
}


def test_every_named_activation_is_tested():
    assert set(CLOSED_FORMS) == set(activations.ACTIVATIONS)


@pytest.mark.parametrize("name", CLOSED_FORMS)
def test_values_and_derivatives_are_float64_exact(name):
    h = np.linspace(-6, 6, 101) + 0.003
    value, slope = activations.get(name)(h)
    for computed, closed in zip((value, slope), CLOSED_FORMS[name], strict=True):
        np.testing.assert_allclose(computed, closed(h), rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("variance", [0.02, 1.0, 30.0])
@pytest.mark.parametrize("name", CLOSED_FORMS)
def test_gaussian_means_equal_adaptive_quadrature(name, variance):
    phi, d = CLOSED_FORMS[name]
    deviation = math.sqrt(variance)

    def mean(f):  # independent: QUADPACK on the closed forms, split at every possible kink
        inner = [p for p in (-1 / deviation, 0.0, 1 / deviation) if abs(p) < 12]
        edges = [-12.0, *inner, 12.0]
        total = sum(
            quad(lambda z: f(np.float64(deviation * z)) * math.exp(-z * z / 2), a, b, epsabs=1e-13, limit=200)[0]
            for a, b in itertools.pairwise(edges)
        )
        return total / math.sqrt(2 * math.pi)

    means = activations.gaussian_means(name, variance)
    expected = (
        mean(phi),
        mean(lambda h: phi(h) ** 2),
        mean(lambda h: d(h) ** 2),
        mean(lambda h: h * d(h)),
        mean(lambda h: h * h * d(h) ** 2),
        mean(lambda h: h * phi(h) * d(h)),
    )
    np.testing.assert_allclose(means, expected, rtol=1e-8, atol=1e-10)


def test_kinks_of_a_users_function_are_found():
    function = activations.Activation("tent", lambda h: ops.abs(h - 0.3))
    means = activations.gaussian_means(function, 1.0)
    assert means.d_d == pytest.approx(1.0, rel=1e-9)
    density = math.exp(-0.045) / math.sqrt(2 * math.pi)
    assert means.phi == pytest.approx(2 * density + 0.3 * (2 * ndtr(0.3) - 1), rel=1e-9)
    assert min(abs(kink - 0.3) for kink in function.kinks) < 1e-6


@pytest.mark.parametrize("variance", [1e-4, 1.0, 64.0, 1e4, 1e8])
@pytest.mark.parametrize("size", [1.0, 0.1, 1e-3])
def test_slopes_near_zero_are_found_at_any_variance(size, variance):
    means = activations.gaussian_means(lambda h: ops.clip(h, -size, size), variance)
    assert means.d_d == pytest.approx(math.erf(size / math.sqrt(2 * variance)), rel=1e-9)


@pytest.mark.parametrize("variance", [1.0, 1e5, 1e12])
def test_a_smooth_slope_is_found_at_any_variance(variance):
    means = activations.gaussian_means(ops.erf, variance)
    assert means.d_d == pytest.approx(4 / (math.pi * math.sqrt(1 + 4 * variance)), rel=1e-9)


@pytest.mark.parametrize("name", ["tanh", "sigmoid"])
def test_a_large_variance_adds_no_kinks_to_an_activation(name):
    before = set(activations.ACTIVATIONS[name].kinks)
    activations.gaussian_means(name, 1e7)
    assert activations.ACTIVATIONS[name].kinks == before


def test_gauss_hermite_alone_misses_kinks():
    """201 Gauss-Hermite nodes, of which the middle one is the kink of ReLU, give a wrong mean."""
    nodes, weights = hermegauss(201)
    naive = np.sum(weights / weights.sum() * (nodes > 0))
    assert naive == pytest.approx(0.4559, abs=5e-5)
    assert activations.gaussian_means("relu", 1.0).d_d == pytest.approx(0.5, rel=1e-10)


@pytest.mark.parametrize(
    ("function", "message"),
    [
        (ops.log, "finite"),
        (lambda h: ops.sqrt(ops.abs(h)), "do not converge"),
        (lambda h: 1 / h, "do not converge"),
        (np.tanh, "keras.ops"),
        ("swish", "one of linear"),
    ],
)
def test_activations_without_gaussian_means_are_refused(function, message):
    with pytest.raises(BadInput, match=message):
        activations.gaussian_means(function, 1.0)


def test_variance_must_be_positive():
    with pytest.raises(BadInput, match="variance"):
        activations.gaussian_means("tanh", 0.0)
