"""The derivatives of losses are compared with finite differences; losses that are not convex are refused."""

import numpy as np
import pytest
from keras import ops

from allconv_resnet.errors import BadInput
from allconv_resnet.theory.landscape import Problem
from allconv_resnet.theory.shamir import losses

RNG = np.random.default_rng(0)
P, V = RNG.standard_normal((50, 3)), RNG.standard_normal((50, 3))
TARGETS = {
    "squared": RNG.standard_normal((50, 3)),
    "logistic": RNG.choice([-1.0, 1.0], (50, 3)),
    "cross_entropy": RNG.integers(3, size=50),
}


def soft_absolute(p, y):
    return ops.sum(ops.sqrt(1 + (p - y) ** 2), axis=1)


def test_an_output_that_matters_for_one_target_is_a_direction():
    y = np.concatenate([np.random.default_rng(0).standard_normal((2_000, 2)), np.zeros((2_000, 1))], axis=1)
    y[7, 2] = 1

    def masked(p, y):
        return (p[:, 0] - y[:, 0]) ** 2 + y[:, 2] * (p[:, 1] - y[:, 1]) ** 2

    assert losses.output_directions(losses.get(masked, y, 2), y, 2).shape == (2, 2)
    y[7, 2] = 0
    assert losses.output_directions(losses.get(masked, y, 2), y, 2).shape == (2, 1)


@pytest.mark.parametrize("name", [*TARGETS, "user's"])
def test_derivatives_equal_finite_differences(name):
    y = TARGETS.get(name, TARGETS["squared"])
    loss = losses.get(soft_absolute, y, 3) if name == "user's" else losses.get(name)
    e = 1e-6
    slope = (loss.value(P + e * V, y) - loss.value(P - e * V, y)) / (2 * e)
    np.testing.assert_allclose(np.sum(loss.gradient(P, y) * V, axis=1), slope, atol=1e-8)
    curved = (loss.gradient(P + e * V, y) - loss.gradient(P - e * V, y)) / (2 * e)
    np.testing.assert_allclose(loss.hessian_product(P, y, V), curved, atol=1e-8)


@pytest.mark.parametrize("name", TARGETS)
def test_the_three_are_convex(name):
    losses.check_convex(losses.get(name), TARGETS[name], 3)


@pytest.mark.parametrize(
    ("loss", "message"),
    [
        (lambda p, y: ops.sum(ops.sin(p - y), axis=1), "convex"),
        (lambda p, y: ops.sum((p - y) ** 2 - 0.001 * p**4, axis=1), "convex"),
        (lambda p, y: p[:, 0] ** 2 - 0.01 * p[:, 1] ** 2 + p[:, 2] ** 2, "convex"),
        (lambda p, y: ops.sum(ops.log(p), axis=1), "finite"),
        (lambda p, y: ops.sum((p - y) ** 2), "shape"),
        ("hinge", "one of"),
    ],
)
def test_other_losses_are_refused(loss, message):
    with pytest.raises(BadInput, match=message):
        losses.get(loss, TARGETS["squared"], 3)


def test_a_linear_loss_is_convex():
    assert losses.get(lambda p, y: ops.sum(p * y, axis=1), TARGETS["squared"], 3).hessian_product(P, V, V).max() == 0


@pytest.mark.parametrize(
    ("name", "y", "outputs"),
    [
        ("squared", np.zeros((50, 2)), 1),
        ("squared", np.full((50, 1), np.nan), 1),
        ("logistic", np.zeros((50, 1)), 1),
        ("cross_entropy", np.full(50, 3), 3),
        ("cross_entropy", np.zeros(50), 3),
        ("cross_entropy", np.zeros(50, int), 1),
        ("cross_entropy", np.full(50, "a"), 3),
        ("squared", np.full(50, "a"), 1),
        ("squared", 5.0, 1),
    ],
)
def test_targets_must_fit_the_loss(name, y, outputs):
    with pytest.raises(BadInput, match="Received"):
        Problem(RNG.standard_normal((50, 5)), y, name, outputs)


@pytest.mark.parametrize(
    ("x", "outputs", "message"),
    [
        (np.zeros((50, 5), complex), 1, "real"),
        (np.zeros((49, 5)), 1, "one row"),
        (np.full((50, 5), np.inf), 1, "finite"),
        (np.zeros((50, 5)), 6, "between 1 and d"),
        (np.zeros((50, 5)), np.float64(1.0), "outputs must be an integer"),
    ],
)
def test_problems_are_validated(x, outputs, message):
    with pytest.raises(BadInput, match=message):
        Problem(x, np.zeros((50, int(outputs))), "squared", outputs)
