"""The bounds at approximate stationary points against dense Hessians, and the ends of spectra against `eigvalsh`."""

import numpy as np
import pytest
from theory.shamir.test_certificates import OUTPUTS, D, N, dense_hessian, random_problem

from allconv_resnet.errors import BadInput
from allconv_resnet.theory import landscape


def random_point(problem, rng):
    """Points far from stationary ones and near to them: W and V of all sizes."""
    f = rng.standard_normal((N, 4)) * 10 ** rng.uniform(-2, 1)
    W = rng.standard_normal((problem.outputs, problem.d)) * 10 ** rng.uniform(-6, 1)
    return W, rng.standard_normal((problem.d, 4)) * 10 ** rng.uniform(-2, 1), f


@pytest.mark.parametrize("loss", OUTPUTS)
def test_the_excess_of_a_point_is_bounded_by_its_gradient_and_smallest_eigenvalue(loss):
    rng = np.random.default_rng(0)
    for _ in range(8):
        problem = random_problem(loss, rng)
        U = landscape.linear_optimum(problem, 10 ** rng.uniform(-1, 1)).U
        for _ in range(6):
            W, V, f = random_point(problem, rng)
            smallest = np.linalg.eigvalsh(dense_hessian(problem, W, V, f))[0]
            excess = problem.objective(W, V, f) - problem.linear(U)
            assert excess <= landscape.excess_of_point(problem, W, V, f, U, smallest) * (1 + 1e-6) + 1e-12


@pytest.mark.parametrize("loss", OUTPUTS)
def test_near_a_saddle_the_bound_is_not_far_from_the_excess(loss):
    rng = np.random.default_rng(1)
    problem = random_problem(loss, rng)
    U = landscape.linear_optimum(problem, 1.0).U
    f = rng.standard_normal((N, 4))
    slopes = problem.loss.gradient(np.zeros((N, problem.outputs)), problem.y) / N
    V = -np.linalg.lstsq(slopes.T @ f, slopes.T @ problem.x, rcond=None)[0].T
    W = np.zeros((problem.outputs, D))
    smallest = landscape.smallest_eigenvalue(problem, W, V, f).smallest
    excess = problem.objective(W, V, f) - problem.linear(U)
    bound = landscape.excess_of_point(problem, W, V, f, U, smallest)
    assert 0 < excess <= bound < 100 * excess


@pytest.mark.parametrize("loss", ["squared", "logistic"])
def test_shamirs_second_theorem_at_zero(loss):
    """|grad F| + |V| sqrt(|lambda| |F_ww| + lambda^2) >= (F - F_lin(w)) / |w|, for one output at w = 0."""
    rng = np.random.default_rng(2)
    for _ in range(10):
        problem = random_problem(loss, rng, 1)
        _, V, f = random_point(problem, rng)
        W, U = np.zeros((1, D)), landscape.linear_optimum(problem, 10 ** rng.uniform(-1, 1)).U
        H = dense_hessian(problem, W, V, f)
        s, ww = -np.linalg.eigvalsh(H)[0], np.linalg.norm(H[:D, :D], 2)
        gradient = np.sqrt(sum(np.sum(g**2) for g in problem.gradient(W, V, f)))
        excess = problem.objective(W, V, f) - problem.linear(U)
        theirs = np.linalg.norm(U) * (gradient + np.linalg.norm(V, 2) * np.sqrt(s * ww + s**2))
        ours = landscape.excess_of_point(problem, W, V, f, U, -s)
        assert excess <= ours * (1 + 1e-6) and ours <= theirs * (1 + 1e-6)


def test_the_bound_of_all_points_covers_each_point():
    rng = np.random.default_rng(3)
    problem = random_problem("cross_entropy", rng)
    U = landscape.linear_optimum(problem, 1.0).U
    for _ in range(20):
        W, V, f = random_point(problem, rng)
        H = dense_hessian(problem, W, V, f)
        gradient = np.sqrt(sum(np.sum(g**2) for g in problem.gradient(W, V, f)))
        smallest = np.linalg.eigvalsh(H)[0]
        size = max(np.linalg.norm(W), np.linalg.norm(V, 2))
        epsilon = max(gradient, smallest**2)
        of_all = landscape.excess_of_points(epsilon, 1.0, size, 1.0, np.linalg.norm(H, 2), outputs=3)
        assert landscape.excess_of_point(problem, W, V, f, U, smallest) <= of_all * (1 + 1e-6)


@pytest.mark.parametrize("loss", OUTPUTS)
def test_the_smallest_eigenvalue_is_that_of_the_dense_hessian(loss):
    rng = np.random.default_rng(4)
    problem = random_problem(loss, rng)
    W, V, f = random_point(problem, rng)
    values = np.linalg.eigvalsh(dense_hessian(problem, W, V, f))
    found = landscape.smallest_eigenvalue(problem, W, V, f)
    scale = np.abs(values).max()
    assert found.smallest == pytest.approx(values[0], abs=1e-5 * scale)
    assert found.largest == pytest.approx(values[-1], abs=1e-5 * scale)
    assert found.residual <= 1e-4 * scale


def test_repeated_eigenvalues_and_the_zero_operator():
    values = np.array([-3.0] * 4 + [0.0] * 90 + [2.0] * 6)
    found = landscape.extreme_eigenvalues(lambda v: values * v, 100)
    assert (found.smallest, found.largest) == pytest.approx((-3, 2)) and found.residual < 1e-5
    assert landscape.extreme_eigenvalues(lambda v: 0 * v, 5).smallest == 0
    found = landscape.extreme_eigenvalues(lambda v: 3 * v, 50)  # ARPACK fails on the zero that is left of it
    assert (found.smallest, found.largest) == pytest.approx((3, 3)) and found.residual < 1e-12


@pytest.mark.parametrize("smallest", [-1e-3, 0.0, 0.5, 0.999])
@pytest.mark.parametrize("sign", [1, -1])
def test_a_smallest_eigenvalue_that_is_small_against_the_largest_is_found(smallest, sign):
    values = sign * np.linspace(smallest, 1, 200)
    found = landscape.extreme_eigenvalues(lambda v: values * v, 200)
    assert (found.smallest, found.largest) == pytest.approx((values.min(), values.max()), abs=1e-6)


def test_what_does_not_converge_is_said():
    values = np.linspace(-1, 1, 2000)
    with pytest.raises(BadInput, match="ends must converge"):
        landscape.extreme_eigenvalues(lambda v: values * v, 2000, tolerance=1e-14, restarts=1)


def test_products_that_are_not_finite_are_refused():
    for size in (5, 50):
        with pytest.raises(BadInput, match="must be finite"):
            landscape.extreme_eigenvalues(lambda v: v * np.nan, size)


def test_bad_input_is_refused():
    problem = landscape.Problem(np.eye(2), np.eye(2), "squared", 2)
    with pytest.raises(BadInput, match="more than 2 entries"):
        landscape.excess_of_point(problem, np.eye(2), np.eye(2), np.eye(2), np.eye(2), 0.0)
