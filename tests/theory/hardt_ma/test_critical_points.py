"""Theorem 2.2 without its hypothesis: the bound at any norm, its equality, and critical points where it is 0."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from allconv_resnet.errors import BadInput
from allconv_resnet.theory import linear
from allconv_resnet.theory.commands.linear import evaluate_gradient_bounds
from allconv_resnet.theory.hardt_ma.random_matrices import random_network, random_network_of_any_norm


def numerical_gradient(A, R, cov, step=1e-6):
    """Returns the gradient of the risk by central differences, an independent method."""
    result = np.zeros_like(A)
    for index in np.ndindex(A.shape):
        moved = [A.copy(), A.copy()]
        moved[0][index] += step
        moved[1][index] -= step
        result[index] = (linear.risk(moved[0], R, cov) - linear.risk(moved[1], R, cov)) / (2 * step)
    return result


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), scale=st.floats(0.1, 3), rank=st.integers(1, 3))
def test_bound_against_central_differences_for_any_norm_and_singular_covariances(seed, scale, rank):
    rng = np.random.default_rng(seed)
    A, R, x = scale * rng.normal(size=(4, 3, 3)), rng.normal(size=(3, 3)), rng.normal(size=(3, rank))
    size = np.sum(numerical_gradient(A, R, x @ x.T) ** 2)
    assert linear.gradient_lower_bound_anywhere(A, R, x @ x.T) <= size * (1 + 1e-4)
    assert linear.risk(A, R, x @ x.T) <= linear.certified_risk(A, R, x @ x.T) * (1 + 1e-9)


def test_bound_holds_at_thousands_of_networks_and_is_attained():
    ratios, _ = evaluate_gradient_bounds(1500, seed=2)
    assert 1 - 1e-9 <= ratios[:, 2].min() <= 1 + 1e-9
    rng = np.random.default_rng(3)
    norms = [linear.norm(random_network_of_any_norm(rng)[0]) for _ in range(200)]
    assert np.mean(np.array(norms) >= 1) > 0.3  # networks that theorem 2.2 leaves out


def test_it_is_never_weaker_than_the_corrected_equation():
    rng = np.random.default_rng(4)
    for _ in range(200):
        A, R, cov = random_network(rng)
        general, corrected = linear.gradient_lower_bound_anywhere(A, R, cov), linear.gradient_lower_bound(A, R, cov)
        assert general >= corrected * (1 - 1e-9)


def test_the_smallest_eigenvalue_that_is_not_zero_counts():
    A, R, cov = np.zeros((2, 2, 2)), np.diag([3.0, 9.0]), np.diag([2.0, 0.0])
    assert linear.gradient_lower_bound(A, R, cov) == 0
    # E cov has the one entry (1 - 3) * 2, and each of the two gradients is 2 E cov.
    assert linear.gradient_lower_bound_anywhere(A, R, cov) == pytest.approx(2 * 8**2)
    assert np.sum(linear.gradient(A, R, cov) ** 2) == pytest.approx(2 * 8**2)
    assert linear.certified_risk(A, R, cov) == pytest.approx(linear.risk(A, R, cov))


@settings(max_examples=50, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), powers=st.lists(st.floats(-30, 0), min_size=3, max_size=3))
def test_bound_holds_for_eigenvalues_of_any_size(seed, powers):
    """An eigenvalue of 1e-13 counted as zero, while the risk along its eigenvector did not."""
    rng = np.random.default_rng(seed)
    cov = np.diag(10.0 ** np.array(powers))
    A, R = 0.3 * rng.normal(size=(4, 3, 3)), rng.normal(size=(3, 3))
    R[:, rng.integers(3)] *= 1e6  # the risk may lie along any eigenvector
    size = np.sum(linear.gradient(A, R, cov) ** 2)
    assert linear.gradient_lower_bound_anywhere(A, R, cov) <= size * (1 + 1e-9)
    assert linear.certified_risk(A, R, cov) >= linear.risk(A, R, cov) * (1 - 1e-9)


def test_one_singular_factor_leaves_no_bad_critical_point():
    """Where one factor is singular the bound is positive, so that the gradient does not vanish above the optimum."""
    R = np.diag([2.0, 1.0])
    A = np.zeros((3, 2, 2))
    A[1] = np.diag([-1.0, 0.0])
    assert linear.gradient_lower_bound_anywhere(A, R, np.eye(2)) == pytest.approx(4 * 4 * 1)
    assert np.sum(linear.gradient(A, R, np.eye(2)) ** 2) >= 16


@pytest.mark.parametrize("depth", [2, 3, 6])
@pytest.mark.parametrize("kept", [[], [0], [2], [0, 2], [0, 1, 2]])
def test_two_singular_factors_make_critical_points_of_any_kept_singular_values(depth, kept):
    rng = np.random.default_rng(depth)
    R = rng.normal(size=(3, 3))
    values = np.linalg.svd(R, compute_uv=False)
    A = linear.singular_critical_point(R, kept, depth)
    lost = np.delete(values, kept)
    assert np.abs(numerical_gradient(A, R, np.eye(3))).max() < 1e-7
    assert linear.risk(A, R, np.eye(3)) == pytest.approx(np.sum(lost**2), abs=1e-12)
    singular = np.linalg.svd(np.eye(3) + A, compute_uv=False)[:, -1] < 1e-12
    assert singular.sum() == (2 if len(kept) < 3 else 0)
    bound = linear.certified_risk(A, R, np.eye(3))
    assert bound > 1e3 if len(kept) < 3 else bound < 1e-20


def test_certificate_at_points_where_it_says_nothing():
    assert linear.certified_risk(-np.ones((2, 1, 1)), np.eye(1), np.eye(1)) == np.inf
    assert linear.certified_risk(-np.ones((2, 1, 1)), np.zeros((1, 1)), np.eye(1)) == 0  # P = R = 0
    assert linear.certified_risk(np.ones((2, 1, 1)), np.eye(1), np.zeros((1, 1))) == 0  # no input
    assert linear.certified_risk(np.full((3, 1, 1), 1e120), np.eye(1), np.eye(1)) == np.inf  # an overflow


@pytest.mark.parametrize(
    ("A", "R", "cov"),
    [
        (np.zeros((1, 1, 1)), [[2.0]], [[1e-200]]),
        (np.full((31, 1, 1), -1 + 1e-5), [[1e-13]], [[1.0]]),
        (
            [[[-1, -1e-280], [1e-280, -1]], 1e150 * np.eye(2), 1e150 * np.eye(2)],
            np.zeros((2, 2)),
            1e-200 * np.eye(2),
        ),
    ],
)
def test_the_certificate_holds_where_numbers_underflow(A, R, cov):
    assert linear.certified_risk(A, R, cov) >= linear.risk(A, R, cov) > 0


@pytest.mark.parametrize(
    ("R", "kept", "depth", "message"),
    [
        (np.ones((2, 3)), [], 3, "R must be a square matrix"),
        (np.eye(2), [2], 3, r"kept must have indices in \[0, 2\). Received: kept=\[2\]"),
        (np.eye(2), [-1], 3, r"Received: kept=\[-1\]"),
        (np.eye(2), [0.5], 3, r"Received: kept=\[0.5\]"),
        (np.eye(2), [0], 1, "depth must be at least 2, one for each singular factor. Received: depth=1"),
    ],
)
def test_bad_input(R, kept, depth, message):
    with pytest.raises(BadInput, match=message):
        linear.singular_critical_point(R, kept, depth)


def test_bad_networks():
    for function in (linear.gradient_lower_bound_anywhere, linear.certified_risk):
        with pytest.raises(BadInput, match="A must be finite"):
            function(np.full((1, 2, 2), np.nan), np.eye(2), np.eye(2))
