"""Certificates of Keras networks against dense Hessians by finite differences, and at points that are known."""

import keras
import numpy as np
import pytest

import allconv_resnet as acr
from allconv_resnet.errors import BadInput
from allconv_resnet.theory import autodiff, landscape
from allconv_resnet.theory.shamir import networks

RNG = np.random.default_rng(0)
X = RNG.standard_normal((40, 4)).astype("float32")
TARGETS = {
    "squared": RNG.standard_normal((40, 2)),
    "logistic": RNG.choice([-1.0, 1.0], (40, 2)),
    "cross_entropy": RNG.integers(2, size=40),
}


def double_network(seed=0, scale=1.0):
    """A network of one residual block in float64."""
    initial = [keras.initializers.RandomNormal(stddev=scale, seed=seed + i) for i in range(3)]
    x = keras.Input((4,), dtype="float64")
    h = keras.layers.Dense(3, "tanh", kernel_initializer=initial[0], dtype="float64")(x)
    h = keras.layers.Dense(4, kernel_initializer=initial[1], use_bias=False, dtype="float64")(h)
    h = keras.layers.Add(dtype="float64")([x, h])
    return keras.Model(
        x, keras.layers.Dense(2, use_bias=False, kernel_initializer=initial[2], name="head", dtype="float64")(h)
    )


def numeric_hessian(model, y, loss, e=1e-5):
    gradients, _ = autodiff.weight_derivatives(model, networks.LOSSES[loss])
    variables = model.trainable_variables
    start = [keras.ops.convert_to_numpy(v) for v in variables]
    rows = []
    for i, variable in enumerate(variables):
        for entry in range(start[i].size):
            ends = []
            for sign in (1, -1):
                moved = start[i].copy()
                moved.flat[entry] += sign * e
                variable.assign(moved)
                ends.append(np.concatenate([np.ravel(g) for g in gradients(X, y)[1]]))
            variable.assign(start[i])
            rows.append((ends[0] - ends[1]) / (2 * e))
    H = np.array(rows) / len(X)
    return (H + H.T) / 2


@pytest.mark.parametrize("loss", TARGETS)
def test_the_ends_of_the_spectrum_are_those_of_the_dense_hessian(loss):
    model = double_network()
    found = landscape.certify_network(model, X, TARGETS[loss], loss, batch_size=16)
    H = numeric_hessian(model, TARGETS[loss], loss)
    values = np.linalg.eigvalsh(H)
    assert found.smallest == pytest.approx(values[0], abs=1e-3 * values[-1])
    assert found.largest == pytest.approx(values[-1], rel=1e-3)
    flat = np.concatenate([np.ravel(part) for part in found.direction])
    assert flat @ H @ flat == pytest.approx(found.smallest, abs=1e-6 * values[-1])
    assert found.decrease > 0 and found.step > 0
    problem = landscape.Problem(np.concatenate([X, np.ones((40, 1))], 1), TARGETS[loss], loss, 2)
    assert found.linear == pytest.approx(landscape.linear_optimum(problem).value)


def test_the_four_verdicts():
    model, y = double_network(), TARGETS["squared"]
    weights = model.get_weights()
    assert landscape.certify_network(model, X, y, "squared").verdict == "gradient too large to be stationary"
    for after, before in zip(model.get_weights(), weights, strict=True):
        np.testing.assert_array_equal(after, before)  # the weights are as they were
    assert landscape.certify_network(model, X, y, "squared", linear=1e3).verdict == "at least as good as linear"
    # With the best head and no branch, all derivatives in the branch vanish: a saddle.
    problem = landscape.Problem(X, y, "squared", 2)
    head = landscape.linear_optimum(problem)
    model.set_weights([*[0 * w for w in weights[:-1]], head.U.T])
    at_saddle = landscape.certify_network(model, X, y, "squared", linear=head.value - 1e-3)
    assert at_saddle.verdict == "escapes along a direction"
    assert at_saddle.relative_gradient < 1e-12 and at_saddle.decrease > 0 and at_saddle.smallest < 0
    assert landscape.certify_network(model, X, y, "squared", linear=head.value).verdict == "at least as good as linear"
    # Without hidden layers the problem is convex: there is no direction.
    line = keras.Sequential([keras.Input((4,)), keras.layers.Dense(2, use_bias=False)])
    line.set_weights([head.U.T])
    best = landscape.certify_network(line, X, y, "squared", linear=head.value - 1e-3)
    assert best.verdict == "nearly stationary" and best.smallest > 0 and best.step == 0


def test_a_deep_residual_network_of_this_project():
    images = RNG.standard_normal((12, 8, 8, 3)).astype("float32")
    model = acr.AllConvResNet((8, 8, 3), 3, stages=[acr.Stage(1, 16), acr.Stage(1, 20, 2)], activation="tanh", seed=1)
    found = landscape.certify_network(model, images, np.arange(12) % 3, batch_size=5)
    whole = landscape.certify_network(model, images, np.arange(12) % 3, batch_size=12)
    assert found.objective == pytest.approx(whole.objective, rel=1e-5)
    assert found.smallest == pytest.approx(whole.smallest, abs=1e-2 * whole.largest)
    assert found.linear < 1e-6 and found.verdict == "gradient too large to be stationary"  # 12 images are separable


@keras.saving.register_keras_serializable(package="tests")
class Steep(keras.layers.Layer):
    """Logits (g, -g) with g = exp(60 w^2), which overflow after a step of 2."""

    def build(self, shape):
        self.w = self.add_weight(shape=(1,), initializer="zeros", dtype="float64")

    def call(self, x):
        g = keras.ops.exp(60 * self.w**2) * x
        return keras.ops.concatenate([g, -g], axis=1)


def test_a_step_to_numbers_that_are_not_finite_hides_no_saddle():
    model = keras.Sequential([keras.Input((1,), dtype="float64"), Steep(dtype="float64")])
    found = landscape.certify_network(model, np.ones((2, 1)), np.zeros(2, int), "cross_entropy", linear=0.0)
    assert found.smallest < -1 and found.verdict == "escapes along a direction" and found.decrease > 0


def test_weights_that_are_not_finite_are_refused():
    model = double_network()
    model.set_weights([np.full_like(w, np.nan) for w in model.get_weights()])
    with pytest.raises(BadInput, match="must be finite"):
        landscape.certify_network(model, X, TARGETS["squared"], "squared")


def test_unknown_losses_are_refused():
    with pytest.raises(BadInput, match="loss must be"):
        landscape.certify_network(double_network(), X, TARGETS["squared"], "hinge")
