"""The best linear predictor is compared with least squares, a general minimizer and random predictors."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import settings as examples
from hypothesis import strategies as st
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
@pytest.mark.parametrize("share", [1e-12, 1e-8, 0.01, 0.5, 0.99])
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


@examples(max_examples=25, deadline=None)
@given(
    name=st.sampled_from(sorted(TARGETS)),
    units=st.tuples(st.floats(-8, 8), st.floats(-8, 8)).map(lambda powers: 10.0 ** np.array(powers)),
    share=st.sampled_from([None, 1e-9, 1e-3, 0.5, 0.999]),
)
def test_the_optimum_does_not_depend_on_the_units_of_x_and_y(name, units, share):
    of_x, of_y = units[0], units[1] if name == "squared" else 1.0
    y, outputs = TARGETS[name]
    p, q = problem(name), landscape.Problem(of_x * X, of_y * y if name == "squared" else y, name, outputs)
    radius = share and share * np.linalg.norm(landscape.linear_optimum(p).U)
    one, other = landscape.linear_optimum(p, radius), landscape.linear_optimum(q, radius and radius * of_y / of_x)
    np.testing.assert_allclose(other.U * of_x / of_y, one.U, rtol=1e-5, atol=1e-6 * np.abs(one.U).max())
    assert other.value / of_y**2 == pytest.approx(one.value, rel=1e-9)


@pytest.mark.parametrize("size", [1e5, 1e8])
@pytest.mark.parametrize("radius", [None, 1.0])
def test_large_targets(size, radius):
    """In a ball that is small against the optimum, U is the negative gradient at zero, scaled to the sphere."""
    y = size * TARGETS["squared"][0]
    p = landscape.Problem(X, y, "squared", 2)
    best = landscape.linear_optimum(p, radius)
    if radius is None:
        np.testing.assert_allclose(best.U.T, np.linalg.lstsq(X, y, rcond=None)[0], rtol=1e-9)
    else:
        gradient = p.linear_gradient(np.zeros((2, 6)))
        np.testing.assert_allclose(best.U, -gradient / np.linalg.norm(gradient), atol=1e3 / size)


@pytest.mark.parametrize("radius", [0.0, -1.0, np.inf])
def test_radius_must_be_positive(radius):
    with pytest.raises(BadInput, match="radius"):
        landscape.linear_optimum(problem("squared"), radius)
