"""Theorem 2.1: `factorize` returns a product that equals R up to rounding, with factors within the bound."""

import numpy as np
import pytest
import scipy
from hypothesis import given, settings
from hypothesis import strategies as st

from allconv_resnet.errors import BadInput
from allconv_resnet.theory import linear
from allconv_resnet.theory.commands.linear import factorize_random_matrices
from allconv_resnet.theory.hardt_ma.random_matrices import TARGET_KINDS, random_rotation, random_target


def relative_error(A, R):
    return np.linalg.norm(linear.product(A) - R) / np.linalg.norm(R)


def check(seen):
    """Checks the results of `factorize_random_matrices`, which also has depths outside the range of the theorem."""
    assert seen["error"] <= 1e-9
    assert seen["applicable"] > seen["count"] / 2
    assert seen["svd_share"] <= 1 and seen["polar_share"] <= 1
    assert len(seen["above"]) <= 0.05 * seen["count"], seen["above"]


def test_random_matrices():
    check(factorize_random_matrices(70, seed=1))


@pytest.mark.slow
def test_a_thousand_random_matrices():
    seen = factorize_random_matrices(1000, seed=0)
    print(f"\npolar norm above svd norm in {len(seen['above'])} of 1000", *seen["above"], sep="\n")
    check(seen)


@pytest.mark.parametrize("method", ["polar", "svd"])
@pytest.mark.parametrize("depth", [1, 2, 3, 4, 7, 30])
@pytest.mark.parametrize(
    "R",
    [
        np.eye(3),
        -np.eye(2),
        -np.eye(6),
        np.diag([-1.0, 1.0, -1.0]),
        np.diag([-3.0, 0.2, -0.5]),
        np.eye(5)[[1, 2, 0, 4, 3]] * np.array([1, 1, 1, 1, -1.0]),
        np.array([[7.0]]),
        np.array([[1e-3]]),
        np.array([[0.0, -1.0], [1.0, 0.0]]),
        np.array([[1.0, 1e5], [0.0, 1.0]]),
        np.array([[-1.0, 1.0], [0.0, -1.0]]),  # not diagonalizable, no real logarithm
        1e5 * np.eye(2),
    ],
    ids=str,
)
def test_hand_picked(R, depth, method):
    A = linear.factorize(R, depth, method=method)
    assert A.shape == (depth, *R.shape)
    assert relative_error(A, R) <= 1e-9
    if depth >= 3 * linear.gamma(R):
        assert linear.norm(A) <= linear.norm_bound(R, depth)


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    kind=st.sampled_from(TARGET_KINDS),
    d=st.integers(1, 9),
    depth=st.integers(1, 60),
    scale=st.floats(0.01, 100),
    method=st.sampled_from(["polar", "svd"]),
)
def test_any_scale_and_depth(seed, kind, d, depth, scale, method):
    R = scale * random_target(np.random.default_rng(seed), kind, d)
    A = linear.factorize(R, depth, method=method)
    assert relative_error(A, R) <= 1e-9
    if depth >= 3 * linear.gamma(R):
        assert linear.norm(A) <= linear.norm_bound(R, depth)


@pytest.mark.parametrize("scale", [1e-200, 1e200])
def test_a_scale_whose_square_is_not_a_float(scale):
    R = scale * np.diag([1.0, 2.0])
    np.testing.assert_allclose(linear.product(linear.factorize(R, 3000)) / scale, R / scale, atol=1e-9)


def test_a_tiny_target_needs_depth():
    R = 1e-14 * np.eye(2)
    with pytest.raises(BadInput, match=r"depth = 1 is too small for an R of spectral norm 1e-14.*3 gamma\(R\) = 96.7"):
        linear.factorize(R, 1)
    assert relative_error(linear.factorize(R, 97), R) <= 1e-9


def test_polar_factors_have_equal_norms_and_the_stated_size():
    R = random_target(np.random.default_rng(5), "normal", 12)
    depth = 40
    norms = np.linalg.norm(linear.factorize(R, depth), ord=2, axis=(1, 2))
    np.testing.assert_allclose(norms, norms[0], rtol=1e-10)
    assert norms[0] <= np.pi / depth + np.expm1(linear.gamma(R) / depth)


def test_svd_legs_are_the_papers():
    """The first factors are rotations, the next ones are stretches, and the last ones are rotations again."""
    Q, (U, s, Vt) = np.eye(2), (np.array([[0, -1.0], [1, 0]]), np.array([np.e, 1]), np.array([[0, -1.0], [1, 0]]))
    R = U * s @ Vt
    A = linear.factorize(R, 60, method="svd")
    skew = [np.allclose((np.eye(2) + a).T @ (np.eye(2) + a), Q) for a in A]
    symmetric = [np.allclose(a, a.T) for a in A]
    assert sum(skew) + sum(symmetric) >= 58  # at most the two that straddle are neither
    assert skew[0] and skew[-1] and symmetric[30]


def test_norm_bound_formula_and_gamma():
    R = np.diag([np.e**2, 1 / np.e])
    assert linear.gamma(R) == pytest.approx(2)
    assert linear.norm_bound(R, 6) == pytest.approx(2 * (np.sqrt(np.pi) + np.sqrt(6)) ** 2 / 6)
    with pytest.raises(BadInput, match=r"depth >= 3 gamma\(R\) = 6. Received: depth=5"):
        linear.norm_bound(R, 5)
    with pytest.raises(BadInput, match="det R > 0"):
        linear.norm_bound(np.diag([1.0, -1.0]), 5)


def test_norm_falls_like_one_over_depth():
    R = random_target(np.random.default_rng(2), "normal", 8)
    norms = [linear.norm(linear.factorize(R, depth)) for depth in (200, 400, 800)]
    np.testing.assert_allclose([norms[0] / norms[1], norms[1] / norms[2]], 2, rtol=0.02)


def test_negative_determinant():
    R = np.diag([2.0, -0.5, 1.0])
    with pytest.raises(BadInput, match=r"negative determinant.*augment=True"):
        linear.factorize(R, 5)
    for method in ("polar", "svd"):
        A = linear.factorize(R, 5, method=method, augment=True)
        np.testing.assert_allclose(linear.product(A), scipy.linalg.block_diag(R, -1), atol=1e-12)
        assert linear.norm(A) <= linear.norm_bound(linear.add_flipped_dimension(R), 5)
    assert linear.factorize(-np.eye(2), 5, augment=True).shape == (5, 2, 2)


@pytest.mark.parametrize("depth", [1, 7, 50])
def test_counterexample_to_theorem_2_1_as_the_iclr_text_states_it(depth):
    """The text of ICLR 2017 has no `det R > 0`. At R = diag(1, -1), gamma = 0, its norm would be 2 pi / depth < 1.

    Factors of norm below 1 have positive determinants, so that their product is not R: every such network has a risk
    above a positive constant. Random networks, and gradient descent among them, confirm it.
    """
    R = np.diag([1.0, -1.0])
    assert linear.gamma(R) == 0
    claimed = 2 * np.pi / depth
    rng = np.random.default_rng(depth)
    for _ in range(20):
        A = rng.normal(size=(depth, 2, 2))
        A *= min(claimed, 0.999) / np.linalg.norm(A, ord=2, axis=(1, 2)).max()
        assert np.linalg.det(linear.product(A)) > 0
        assert linear.risk(A, R, np.eye(2)) >= 1  # the distance of R from the matrices of determinant >= 0, squared
    with pytest.raises(BadInput, match="det R > 0"):
        linear.norm_bound(R, depth)


def test_determinant_that_underflows_keeps_its_sign():
    R = 1e-8 * random_rotation(np.random.default_rng(0), 64)
    assert np.linalg.det(R) == 0
    assert relative_error(linear.factorize(R, 60), R) <= 1e-9


@pytest.mark.parametrize(
    ("R", "depth", "method", "message"),
    [
        (np.ones((2, 3)), 3, "polar", r"square matrix.*Received: shape \[2, 3\]"),
        (np.ones(4), 3, "polar", r"square matrix.*Received: shape \[4\]"),
        (np.zeros((0, 0)), 3, "polar", r"d >= 1. Received: shape \[0, 0\]"),
        (np.diag([1, np.nan]), 3, "polar", "R must be finite. Received: 1 NaN or infinite"),
        (np.diag([1, np.inf]), 3, "polar", "R must be finite"),
        (np.diag([1.0, 0.0]), 3, "polar", "R must not be singular. Received: singular values from 1 down to 0"),
        (np.ones((3, 3)), 3, "svd", "R must not be singular"),
        (np.zeros((2, 2)), 3, "svd", "R must not be singular"),
        (1j * np.eye(2), 3, "polar", "real numbers"),
        ([["a"]], 3, "polar", "real numbers"),
        (np.eye(2), 0, "polar", "depth must be an integer of at least 1. Received: depth=0"),
        (np.eye(2), 2.5, "polar", "depth must be an integer of at least 1. Received: depth=2.5"),
        (np.eye(2), True, "polar", "depth must be an integer of at least 1. Received: depth=True"),
        (np.eye(2), 3, "qr", "method must be one of polar, svd. Received: method='qr'"),
    ],
)
def test_bad_input(R, depth, method, message):
    with pytest.raises(BadInput, match=message):
        linear.factorize(R, depth, method=method)
