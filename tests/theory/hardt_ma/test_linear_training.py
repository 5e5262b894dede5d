"""Gradient descent on deep linear networks in both parameterizations."""

import numpy as np
import pytest

from allconv_resnet.errors import BadInput, RunFailed
from allconv_resnet.theory import linear


def test_descent_from_zero():
    """The zero weights are a bad critical point of the standard parameterization only (remark after theorem 2.2)."""
    R, cov = np.diag([2.0, 0.5, 1.0]), np.diag([1.0, 2.0, 0.5])
    standard = linear.train_linear(R, cov, depth=4, parameterization="standard", steps=300)
    residual = linear.train_linear(R, cov, depth=4, steps=300)
    assert np.all(standard.gradient_norm == 0) and np.all(standard.A == 0)
    np.testing.assert_allclose(standard.risk, np.trace(R @ cov @ R.T))
    assert residual.risk[-1] < 1e-4 * residual.risk[0]
    assert np.all(np.diff(residual.risk) <= 0)
    assert residual.risk[-1] == pytest.approx(linear.risk(residual.A, R, cov), rel=1e-9)


def test_depth_slows_the_standard_parameterization_only():
    R, cov = np.diag([1.5, 0.75]), np.eye(2)

    def steps_to_a_hundredth(parameterization, depth):
        run = linear.train_linear(R, cov, depth, parameterization, steps=3000, deviation=0.05, seed=3)
        below = run.risk < 0.01 * run.risk[0]
        return int(np.argmax(below)) if below.any() else np.inf

    residual = [steps_to_a_hundredth("residual", depth) for depth in (2, 4, 8)]
    standard = [steps_to_a_hundredth("standard", depth) for depth in (2, 4, 8)]
    assert max(residual) <= 3 * min(residual)
    assert standard[0] > residual[0] and standard[1] == standard[2] == np.inf


def test_first_step_of_descent_is_the_gradient():
    R, cov = np.diag([2.0, 0.5]), np.eye(2)
    run = linear.train_linear(R, cov, depth=3, steps=1, learning_rate=0.01)
    np.testing.assert_allclose(run.A, -0.01 * linear.gradient(np.zeros((3, 2, 2)), R, cov))
    assert run.learning_rate == 0.01 and run.risk.shape == run.gradient_norm.shape == (2,)


def test_divergence_is_reported():
    with pytest.raises(RunFailed, match=r"no longer finite at step .* learning rate 5 is too large"):
        linear.train_linear(np.diag([2.0, 0.5]), np.eye(2), depth=3, learning_rate=5.0)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"depth": 0}, "depth must be an integer of at least 1"),
        ({"parameterization": "dense"}, "residual, standard. Received: parameterization='dense'"),
        ({"steps": 0}, "steps must be an integer"),
        ({"learning_rate": 0.0}, "learning_rate must be a finite number above 0. Received: learning_rate=0.0"),
        ({"learning_rate": np.nan}, "learning_rate must be"),
        ({"deviation": -1.0}, "deviation must be a finite number of at least 0. Received: deviation=-1.0"),
        ({"cov": np.zeros((2, 2))}, "cov must not be zero"),
        ({"cov": np.diag([1.0, -2.0])}, "positive semidefinite"),
        ({"R": np.diag([1.0, np.nan])}, "R must be finite"),
    ],
)
def test_bad_training(options, message):
    with pytest.raises(BadInput, match=message):
        linear.train_linear(**{"R": np.eye(2), "cov": np.eye(2), "depth": 2, **options})
