"""Gradient descent on deep linear networks in both parameterizations."""

import collections
import itertools

import numpy as np
import pytest

from allconv_resnet.errors import BadInput, RunFailed
from allconv_resnet.theory import linear
from allconv_resnet.theory.commands.linear_dynamics import PHASE_DEPTHS, certified_paths, phase_diagram
from allconv_resnet.theory.hardt_ma.linear_training import descend


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


def final_risk(initialization, R, depth, steps, seed=0):
    factors = linear.initial_factors(initialization, depth, len(R), seed)
    states = itertools.islice(descend(factors, R, np.eye(len(R)), 1 / (4 * depth)), steps + 1)
    ((_, risk, _),) = collections.deque(states, maxlen=1)
    return float(risk)


def test_from_the_identity_negative_eigenvalues_stay_out_of_reach():
    """Bartlett, Helmbold & Long: the factors stay symmetric and commute with R, and cannot pass through 0."""
    R = np.diag([-1.0, -1.0, 1.0])
    assert final_risk("identity", R, 20, 3000) == pytest.approx(2, abs=2e-3)
    assert final_risk("near_identity", R, 20, 1500) < 1e-20
    assert final_risk("zero_asymmetric", R, 20, 200) < 1e-20
    # Independent of the code: on one negative eigenvalue all factors are one number z, and z moves by ODE to 0.
    z, depth = 1.0, 20
    for _ in range(3000):
        z -= 1 / (4 * depth) * 2 * (z**depth + 1) * z ** (depth - 1)
    assert final_risk("identity", R, depth, 3000) == pytest.approx(2 * (z**depth + 1) ** 2, rel=1e-9)


def test_from_the_identity_positive_definite_targets_are_reached_at_every_depth():
    for depth in (2, 9, 30):
        assert final_risk("identity", np.diag([0.5, 1.0, 0.8]), depth, 1000) < 1e-20


def test_initial_factors():
    start = linear.initial_factors("zero_asymmetric", 3, 2)
    np.testing.assert_array_equal(start, [np.eye(2), np.eye(2), np.zeros((2, 2))])
    np.testing.assert_array_equal(linear.initial_factors("identity", 2, 3), [np.eye(3)] * 2)
    near = linear.initial_factors("near_identity", 100, 8, seed=1, deviation=0.02) - np.eye(8)
    assert np.std(near) == pytest.approx(0.02, rel=0.05)
    assert np.std(linear.initial_factors("standard", 100, 8, seed=1)) == pytest.approx(8**-0.5, rel=0.05)
    with pytest.raises(BadInput, match=r"zero_asymmetric, standard. Received: initialization='fixup'"):
        linear.initial_factors("fixup", 2, 2)


def test_many_networks_descend_as_each_one_alone():
    rng = np.random.default_rng(0)
    factors, R = rng.normal(size=(3, 5, 2, 2)), rng.normal(size=(5, 2, 2))
    together = [risk for _, (_, risk, _) in zip(range(4), descend(factors, R, np.eye(2), 0.01), strict=False)]
    for k in range(5):
        alone = [r for _, (_, r, _) in zip(range(4), descend(factors[:, k], R[k], np.eye(2), 0.01), strict=False)]
        np.testing.assert_allclose([risk[k] for risk in together], alone, rtol=1e-12)


def test_phase_diagram_says_who_arrives():
    rows = phase_diagram(3, 300, 2)
    table = {(r["initialization"], r["target"], r["depth"]): r for r in rows}
    for depth in PHASE_DEPTHS:
        assert table["identity", "rotation by 180° (−1, −1)", depth]["reached"] == 0
        assert table["identity", "rotation by 180° (−1, −1)", depth]["risk"] == pytest.approx(2 / 3, abs=0.02)
        assert table["identity", "rotation by 90°", depth]["reached"] == 1
        assert table["zero_asymmetric", "reflection (−1), det < 0", depth]["reached"] == 1


def test_the_certificate_bounds_the_risk_along_every_path():
    for path in certified_paths(depth=6, steps=200, points=20):
        assert np.all(np.array(path["risk"]) <= np.array(path["certified"]) * (1 + 1e-9) + 1e-300)
        assert len(path["step"]) == len(path["clearance"]) > 10


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
