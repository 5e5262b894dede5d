"""The laws of finite depth are compared with random matrices, exact moments, each other and the universal law."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.polynomial.legendre import leggauss

from allconv_resnet.errors import BadInput
from allconv_resnet.theory import isometry

KINDS = [{}, {"inner": 0.5}, {"inner": 2.0}, {"active": 0.5}, {"active": 0.9}]


def mean_of(function, c, **law):
    """Returns the mean of a function of a squared singular value, by quadrature over the quantiles."""
    nodes, weights = leggauss(400)
    # The quantiles have square roots at the edges and a power at zero.
    angle = (nodes + 1) * np.pi / 4
    values = isometry.spectral_quantile(np.sin(angle) ** 2, c, **law)
    return np.sum(weights * np.pi / 4 * np.sin(2 * angle) * function(values))


def greens_function(z, c, **law):
    return mean_of(lambda lam: 1 / (z - lam), c, **law)


@settings(max_examples=20, deadline=None)
@given(c=st.floats(1e-4, 12.0), depth=st.integers(1, 60), kind=st.sampled_from(KINDS), share=st.floats(0.001, 0.999))
@pytest.mark.slow
def test_mean_edges_quantiles_and_density_agree(c, depth, kind, share):
    if depth == 1 and list(kind.values()) == [0.5]:
        depth = 2
    law = {"depth": depth, **kind}
    assert isometry.spectral_mean(c, **law) == pytest.approx((1 + c / depth) ** depth, rel=1e-12)
    assert mean_of(lambda lam: lam, c, **law) == pytest.approx((1 + c / depth) ** depth, rel=1e-4)
    low, high = isometry.spectral_edges(c, **law)
    assert isometry.spectral_quantile([0.0, 1.0], c, **law) == pytest.approx([low, high], rel=1e-9)
    assert (low == 0) == (c >= depth * (1 - 1e-4))
    assert isometry.spectral_distribution([low / 2, high * 1.01], c, **law).tolist() == [0.0, 1.0]
    assert isometry.spectral_density([low * (1 - 1e-6), high * (1 + 1e-6), 0.0, -1.0], c, **law).tolist() == [0.0] * 4
    lam = isometry.spectral_quantile(share, c, **law)
    assert isometry.spectral_distribution(lam, c, **law) == pytest.approx(share, abs=1e-9)
    step = 1e-5 * lam
    difference = np.diff(isometry.spectral_distribution([lam - step, lam + step], c, **law)) / (2 * step)
    assert isometry.spectral_density(lam, c, **law) == pytest.approx(difference[0], rel=1e-3)


@pytest.mark.parametrize(("kind", "fourth"), [({}, 0), ({"inner": 0.7}, 1 / 0.7), ({"active": 0.7}, 0.3 / 0.7)])
@pytest.mark.parametrize("v", [0.05, 0.8, 3.0])
def test_second_moment_of_one_layer(kind, fourth, v):
    """tr |1 + X|^4 = 1 + 4 v + tr |X|^4, and tr |X|^4 = 2 v^2 + the second cumulant of X."""
    assert mean_of(lambda lam: lam**2, v, depth=1, **kind) == pytest.approx(1 + 4 * v + (2 + fourth) * v**2, rel=1e-5)


@pytest.mark.parametrize("kind", [{}, {"inner": 0.7}, {"active": 0.7}])
@pytest.mark.parametrize("v", [0.1, 1.5])
def test_s_transforms_multiply(kind, v):
    """At equal y = z G - 1, z(y) = (1 + y)/y S(y)^-L, with G by quadrature."""
    z = 30 * isometry.spectral_edges(v, 1, **kind)[1]  # above the edges of the other depths too, at the same y
    y = z * greens_function(z, v, depth=1, **kind) - 1
    S = (1 + y) / (y * z)
    for depth in (2, 5):
        z = (1 + y) / y / S**depth
        assert z > isometry.spectral_edges(v * depth, depth, **kind)[1]
        assert z * greens_function(z, v * depth, depth=depth, **kind) - 1 == pytest.approx(y, rel=1e-5)


@pytest.mark.parametrize(("c", "depth"), [(1.0, 2), (1.0, 8), (14.0, 8)])
def test_gaussian_layers_satisfy_the_equation_in_closed_form(c, depth):
    """u = ((1 - 1/v) + sqrt((1/v - 1)^2 + 4 (1 + y)/v)) / (2 (1 + y)), 1/z = y/(1 + y) ((1 - u)/(v y))^L."""
    v, z = c / depth, 1.2 * isometry.spectral_edges(c, depth)[1]
    y = z * greens_function(z, c, depth=depth) - 1
    u = ((1 - 1 / v) + math.sqrt((1 / v - 1) ** 2 + 4 * (1 + y) / v)) / (2 * (1 + y))
    assert z * y / (1 + y) * ((1 - u) / (v * y)) ** depth == pytest.approx(1, rel=1e-5)


def masked_product(c, width, depth, active, seed=0, rotated=False):
    """Returns the squared singular values of a product of layers 1 + D W, or 1 + O D W with random rotations O."""
    random, product = np.random.default_rng(seed), np.eye(width)
    for _ in range(depth):
        mask = random.permutation(width) < active * width
        noise = random.standard_normal((width, width)) * np.sqrt(c / (depth * active * width))
        step = mask[:, None] * (noise @ product)
        product = product + (np.linalg.qr(random.standard_normal((width, width)))[0] @ step if rotated else step)
    return np.linalg.svd(product, compute_uv=False) ** 2


HARD = [  # Newton's method jumped to other roots here
    (16.0, {"depth": 2, "active": 0.3}),
    (0.08, {"depth": 8, "active": 0.07}),
    (2.4, {"depth": 8, "inner": 0.07}),
    (240.0, {"depth": 8, "inner": 0.1}),
    (3000.0, {"depth": 30, "active": 1.0}),  # the Gaussian law, as a masked one behind a branch point
]


@pytest.mark.parametrize(("c", "law"), HARD)
def test_the_distribution_inverts_the_quantiles_where_the_curve_bends(c, law):
    share = np.linspace(0.01, 0.99, 15)
    values = isometry.spectral_quantile(share, c, **law)
    assert isometry.spectral_distribution(values, c, **law) == pytest.approx(share, abs=1e-9)


def test_products_with_few_active_neurons():
    """The rotations make the layers free; masks alone commute, which keeps a distance of 0.04 here."""
    values = masked_product(16.0, 400, 2, 0.3, rotated=True)
    assert isometry.kolmogorov_smirnov(values, 16.0, 2, active=0.3) < 0.013


def test_a_curve_that_cannot_be_followed_is_refused():
    with pytest.raises(BadInput, match="cannot be computed"):
        isometry.spectral_edges(30.0, 1, active=0.9)


@pytest.mark.parametrize(("c", "depth"), [(1.0, 2), (3.5, 8), (14.0, 8)])
@pytest.mark.parametrize("kind", [{}, {"inner": 0.5}, {"inner": 1.5}, {"active": 0.5}])
def test_products_of_random_matrices(c, depth, kind):
    if "active" in kind:
        values = masked_product(c, 300, depth, **kind)
    else:
        values = isometry.simulate_matrix_product(c, 300, depth, seed=1, **kind)
    assert isometry.kolmogorov_smirnov(values, c, depth, **kind) < 0.013
    assert isometry.kolmogorov_smirnov(values, c) > 0.025  # the universal law
    low, high = isometry.spectral_edges(c, depth, **kind)
    assert 0.7 * high < values[0] < 1.1 * high
    assert low * 0.8 < values[-1] < max(1.6 * low, 1e-12)


def test_networks_follow_the_law_of_their_kind_of_block():
    """Real ReLU networks of depth 4, whose neurons choose the masks; that of layers has an outlier."""
    blocks = isometry.simulate_network("relu", 2.0, 0.0, 4, 400, mixed=True).squared_singular_values
    assert isometry.kolmogorov_smirnov(blocks, 2.0, 4, inner=0.5) < 0.013
    assert isometry.kolmogorov_smirnov(blocks, 2.0, 4) > 0.04
    layers = isometry.simulate_network("relu", 2.0, 0.0, 4, 400).squared_singular_values[1:]
    assert isometry.kolmogorov_smirnov(layers, 2.0, 4, active=0.5) < 0.013
    assert isometry.kolmogorov_smirnov(layers, 2.0, 4, inner=0.5) > 0.02


def test_skip_scales_the_law():
    values = isometry.simulate_matrix_product(1.0, 300, 4, inner=0.5, skip=0.8)
    assert isometry.kolmogorov_smirnov(values, 1.0, 4, inner=0.5, skip=0.8) < 0.013
    network = isometry.simulate_network("tanh", 1.0, 0.2, 6, 300, skip=0.9)
    c = isometry.effective_cumulant("tanh", 1.0, 0.2, 6, skip=0.9)
    assert isometry.kolmogorov_smirnov(network.squared_singular_values, c, 6, skip=0.9) < 0.013
    assert isometry.spectral_mean(1.0, depth=4, skip=0.8) == pytest.approx(0.8**8 * 1.25**4)


@pytest.mark.parametrize("kind", [{}, {"inner": 0.5}, {"active": 0.5}])
def test_infinite_depth_is_the_universal_law(kind):
    lam = np.geomspace(0.05, 20, 30)
    universal = isometry.spectral_distribution(lam, 1.0)
    errors = [
        np.abs(isometry.spectral_distribution(lam, 1.0, depth=depth, **kind) - universal).max()
        for depth in (50, 500, 5000)
    ]
    assert errors[2] < 1e-4
    assert errors[0] / errors[1] == pytest.approx(10, rel=0.2)
    assert errors[1] / errors[2] == pytest.approx(10, rel=0.2)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"depth": 0}, "depth"),
        ({"depth": 2, "inner": 0.25}, "1 / \\(2 depth\\)"),
        ({"depth": 2, "active": -1.0}, "1 / \\(2 depth\\)"),
        ({"depth": 2, "active": 1.5}, "share"),
        ({"depth": 2, "inner": float("nan")}, "1 / \\(2 depth\\)"),
        ({"depth": 2, "inner": 1.0, "active": 0.5}, "not both"),
        ({"depth": 2, "skip": 0.0}, "skip"),
        ({"inner": 0.5}, "depth must be given"),
        ({"skip": 0.5}, "depth must be given"),
        ({"depth": 1_000_000}, "exp"),
    ],
)
def test_bad_arguments_are_refused(options, message):
    c = 1e4 if options.get("depth") == 1_000_000 else 1.0
    for function in (isometry.spectral_edges, isometry.spectral_mean):
        with pytest.raises(BadInput, match=message):
            function(c, **options)
