"""The closed forms of the universal law are compared with quadrature, the equation of the paper and random matrices."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.polynomial.legendre import leggauss

from allconv_resnet.errors import BadInput
from allconv_resnet.theory import isometry

CUMULANTS = st.floats(1e-3, 8.0)


def integral(function, c, stop=None):
    """Returns the integral of `function` times the density up to `stop`, by quadrature in log lambda = T sin(angle)."""
    top = math.log(isometry.spectral_edges(c)[1])
    last = math.pi / 2 if stop is None else math.asin(max(-1.0, min(1.0, math.log(stop) / top)))
    nodes, weights = leggauss(200)
    half = (last + math.pi / 2) / 2
    angle = half * (nodes + 1) - math.pi / 2
    lam = np.exp(top * np.sin(angle))
    return np.sum(half * weights * function(lam) * isometry.spectral_density(lam, c) * lam * top * np.cos(angle))


@settings(max_examples=15, deadline=None)
@given(c=CUMULANTS)
def test_density_integrates_to_one_with_mean_exp_c_and_median_one(c):
    assert integral(np.ones_like, c) == pytest.approx(1, abs=1e-6)
    assert integral(lambda lam: lam, c) == pytest.approx(math.exp(c), rel=1e-6)
    assert integral(np.ones_like, c, stop=1.0) == pytest.approx(0.5, abs=1e-6)
    assert isometry.spectral_quantile(0.5, c) == pytest.approx(1, abs=1e-6)


@settings(max_examples=15, deadline=None)
@given(c=CUMULANTS, share=st.floats(0.01, 0.99))
def test_distribution_is_the_integral_of_the_density_and_quantiles_invert_it(c, share):
    lam = isometry.spectral_quantile(share, c)
    assert isometry.spectral_distribution(lam, c) == pytest.approx(share, abs=1e-12)
    assert integral(np.ones_like, c, stop=lam) == pytest.approx(share, abs=1e-6)


@settings(max_examples=15, deadline=None)
@given(c=CUMULANTS)
def test_edges_are_where_the_density_ends(c):
    s = math.sqrt(1 + 2 / c)
    low, high = isometry.spectral_edges(c)
    assert high == pytest.approx((s + 1) / (s - 1) * math.exp(c * s), rel=1e-12)
    assert low == pytest.approx(1 / high, rel=1e-12)
    inside = isometry.spectral_density(np.array([low * (1 + 1e-6), high * (1 - 1e-6)]), c)
    outside = isometry.spectral_density(np.array([low * (1 - 1e-6), high * (1 + 1e-6), -1.0, 0.0]), c)
    assert np.all(inside > 0) and np.all(outside == 0)
    assert isometry.spectral_distribution([low / 2, 2 * high], c).tolist() == [0.0, 1.0]
    np.testing.assert_allclose(isometry.spectral_quantile([0.0, 1.0], c), [low, high], rtol=1e-6)


@pytest.mark.parametrize("c", [0.05, 0.6461, 3.0])
@pytest.mark.parametrize("z", [2.0 + 1.0j, 0.3 - 0.2j, -1.0 + 0.0j])
def test_density_satisfies_the_papers_equation_for_the_greens_function(c, z):
    """y/(1+y) exp(-c(1+2y)) = 1/z with y = z G - 1, G the Stieltjes transform of the density."""
    G = integral(lambda lam: 1 / (z - lam), c)
    y = z * G - 1
    assert abs(y / (1 + y) * np.exp(-c * (1 + 2 * y)) * z - 1) < 1e-7


@settings(max_examples=15, deadline=None)
@given(c=CUMULANTS, t=st.floats(0.0, 0.999))
def test_law_is_symmetric_under_inversion(c, t):
    lam = isometry.spectral_edges(c)[1] ** t
    assert isometry.spectral_distribution(1 / lam, c) == pytest.approx(
        1 - isometry.spectral_distribution(lam, c), abs=1e-9
    )
    left, right = isometry.spectral_density(np.array([1 / lam, lam]), c)
    assert left / lam == pytest.approx(right * lam, rel=1e-6)


@pytest.mark.parametrize("c", [0.2, 1.0])
def test_products_of_random_matrices_follow_the_law(c):
    values = isometry.simulate_matrix_product(c, width=300, depth=60, seed=1)
    assert isometry.kolmogorov_smirnov(values, c) < 0.02
    assert isometry.kolmogorov_smirnov(values, 1.3 * c) > 0.02  # and not the law of another c


@pytest.mark.parametrize("c", [0.0, -1.0, math.inf, math.nan, 1j, 1e4])
def test_bad_cumulants_are_refused(c):
    for call in (isometry.spectral_edges, lambda c: isometry.spectral_density(1.0, c)):
        with pytest.raises(BadInput, match="c"):
            call(c)


def test_float32_gives_the_law_of_the_same_number():
    for depth in (None, 8):
        assert isometry.spectral_edges(np.float32(0.5), depth) == isometry.spectral_edges(0.5, depth)


def test_bad_arguments_are_refused():
    for function in (isometry.spectral_edges, isometry.spectral_mean):
        with pytest.raises(BadInput, match="skip must be so small"):
            function(1.0, depth=100, skip=100.0)
    with pytest.raises(BadInput, match="probability"):
        isometry.spectral_quantile(1.5, 1.0)
    with pytest.raises(BadInput, match="nan"):
        isometry.spectral_density(np.nan, 1.0)
