"""The best linear predictor is compared with least squares, a general minimizer and random predictors."""

import numpy as np
import pytest
from scipy.optimize import minimize

from allconv_resnet.errors import BadInput
from allconv_resnet.theory import landscape

RNG = np.random.default_rng(1)
X = RNG.standard_normal((80, 6)) * [10, 3, 1, 1, 0.3, 0.1]  # badly scaled
TARGETS = {
    "squared": (X @ RNG.standard_normal((6, 2)) + RNG.standard_normal((80, 2)), 2),
    "logistic": (np.sign(X[:, 1:2] + 2 * RNG.standard_normal((80, 1))), 1),
    "cross_entropy": (np.argmax(X[:, 1:4] + 2 * RNG.standard_normal((80, 3)), axis=1), 3),
}


def problem(name):
    return landscape.Problem(X, TARGETS[name][0], name, TARGETS[name][1])


def test_squared_loss_gives_least_squares():
    best = landscape.linear_optimum(problem("squared"))
    np.testing.assert_allclose(best.U.T, np.linalg.lstsq(X, TARGETS["squared"][0], rcond=None)[0], rtol=1e-6)


@pytest.mark.parametrize("name", TARGETS)
def test_free_optimum_equals_a_general_minimizer(name):
    p = problem(name)
    best = landscape.linear_optimum(p)
    shape = best.U.shape
    other = minimize(
        lambda u: p.linear(u.reshape(shape)),
        np.zeros(best.U.size),
        jac=lambda u: p.linear_gradient(u.reshape(shape)).ravel(),
        method="L-BFGS-B",
        options={"maxiter": 5000, "ftol": 1e-15, "gtol": 1e-10},
    )
    assert best.value <= other.fun + 1e-12
    assert best.value == pytest.approx(other.fun, abs=1e-6)
    assert best.gap < 1e-7


@pytest.mark.parametrize("name", TARGETS)
@pytest.mark.parametrize("share", [0.01, 0.5, 0.99])
def test_constrained_optimum_is_certified_and_beats_random_points_of_the_ball(name, share):
    p = problem(name)
    radius = share * np.linalg.norm(landscape.linear_optimum(p).U)
    best = landscape.linear_optimum(p, radius)
    assert np.linalg.norm(best.U) == pytest.approx(radius, rel=1e-6) and np.linalg.norm(best.U) <= radius * (1 + 1e-12)
    assert best.gap < 1e-6
    for _ in range(200):
        U = RNG.standard_normal(best.U.shape)
        U *= radius * RNG.uniform() ** 0.2 / np.linalg.norm(U)
        near = best.U + 0.1 * (U - best.U)  # in the ball, by convexity
        assert min(p.linear(U), p.linear(near)) >= best.value - best.gap


def test_separable_classes_have_an_infimum_of_zero():
    p = landscape.Problem([[1.0], [2.0], [-1.0]], [1.0, 1.0, -1.0], "logistic")
    assert landscape.linear_optimum(p).value < 1e-8
    assert landscape.linear_optimum(p, radius=2.0).value == pytest.approx(p.linear(np.array([[2.0]])), abs=1e-9)


def test_rank_deficient_inputs():
    x = np.concatenate([X, X[:, :1] + X[:, 1:2], np.zeros((80, 1))], axis=1)
    p = landscape.Problem(x, TARGETS["squared"][0], "squared", 2)
    assert landscape.linear_optimum(p).value == pytest.approx(
        landscape.linear_optimum(problem("squared")).value, rel=1e-9
    )


@pytest.mark.parametrize("radius", [0.0, -1.0, np.inf])
def test_radius_must_be_positive(radius):
    with pytest.raises(BadInput, match="radius"):
        landscape.linear_optimum(problem("squared"), radius)
