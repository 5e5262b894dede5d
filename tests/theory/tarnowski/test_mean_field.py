"""The mean-field recursion, the effective cumulant c, and the weight scale for a given c."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from keras import ops
from numpy.polynomial.hermite_e import hermegauss

from allconv_resnet.errors import BadInput
from allconv_resnet.theory import isometry
from allconv_resnet.theory.commands.simulated_spectra import SCALES
from allconv_resnet.theory.tarnowski import activations

TABLE = {  # weight scale, bias scale, c at L = 40, p0 = 1, m0 = 0
    "linear": (1.0, 0.0, 1.0000),
    "tanh": (1.0, 0.5, 0.6461),
    "sigmoid": (2.0, 0.5, 0.0996),
    "hard_tanh": (1.0, 0.3, 0.9753),
    "selu": (0.7, 0.1, 0.8312),
    "relu": (1.0, 0.0, 0.5000),
    "leaky_relu": (1.0, 0.0, 0.5312),
}
# A first table of c came from 201 Gauss-Hermite nodes, which is inaccurate at kinks.
NAIVE = {"hard_tanh": 0.9749, "selu": 0.8754, "relu": 0.4559, "leaky_relu": 0.4899}


@pytest.mark.parametrize("name", TABLE)
def test_effective_cumulant_equals_the_table(name):
    weight_scale, bias_scale, c = TABLE[name]
    assert isometry.effective_cumulant(name, weight_scale, bias_scale, 40) == pytest.approx(c, abs=5.1e-5)


@pytest.mark.parametrize("name", NAIVE)
def test_where_the_first_table_was_wrong(name):
    """201 Gauss-Hermite nodes reproduce the wrong values of a first table; two of the true values are closed forms."""
    weight_scale, bias_scale, _ = TABLE[name]
    assert _naive_cumulant(name, weight_scale, bias_scale, 40) == pytest.approx(NAIVE[name], abs=5.1e-5)
    exact = {"relu": 1 / 2, "leaky_relu": (1 + 1 / 16) / 2}.get(name)
    if exact is not None:
        assert isometry.effective_cumulant(name, 1.0, 0.0, 40) == pytest.approx(exact, rel=1e-9)


def _naive_cumulant(name, weight_scale, bias_scale, depth):
    nodes, weights = hermegauss(201)
    weights = weights / weights.sum()
    p, m, total = 1.0, 0.0, 0.0
    for _ in range(depth):
        h = np.sqrt(weight_scale**2 / depth * p + bias_scale**2) * nodes
        phi, slope = activations.get(name)(h)
        slope = np.where(h > 0, slope, activations.get(name)(np.minimum(h, -1e-12))[1])  # left derivative at the kink
        total += weight_scale**2 / depth * (weights @ slope**2)
        p, m = p + 2 * m * (weights @ phi) + weights @ phi**2, m + weights @ phi
    return total


def test_linear_recursion_has_a_closed_form():
    field = isometry.mean_field("linear", 0.8, 0.0, 25, input_mean_square=2.0)
    np.testing.assert_allclose(field.p, 2.0 * (1 + 0.64 / 25) ** np.arange(26), rtol=1e-12)
    np.testing.assert_allclose(field.q, 0.64 / 25 * field.p[:-1], rtol=1e-12)


def standard_scores(name, weight_scale, bias_scale, depth, width, networks, seed):
    """Returns the deviations of the mean q[l] of simulated networks from the theory in standard errors, `[depth]`."""
    q = np.array(
        [
            isometry.simulate_network(name, weight_scale, bias_scale, depth, width, seed + i, jacobian=False).q
            for i in range(networks)
        ]
    )
    error = q.std(axis=0, ddof=1) / np.sqrt(networks)
    return (q.mean(axis=0) - isometry.mean_field(name, weight_scale, bias_scale, depth).q) / error


@pytest.mark.parametrize(("name", "bias_scale"), [("tanh", 0.5), ("relu", 0.0)])
def test_variances_of_simulated_networks(name, bias_scale):
    """One of 20 normal deviates exceeds 4 in about one of 800 repetitions."""
    assert np.abs(standard_scores(name, 1.0, bias_scale, depth=20, width=150, networks=60, seed=0)).max() < 4


@pytest.mark.slow
def test_variances_of_simulated_networks_at_every_layer_for_every_activation():
    """On average 1.1 of 400 normal deviates exceed 3, and one exceeds 4.5 in about one of 370 repetitions."""
    scores = np.array([standard_scores(name, *scales, 40, 300, 40, seed=0) for name, scales in SCALES.items()])
    outside = {name: int(np.sum(np.abs(row) > 3)) for name, row in zip(SCALES, scores, strict=True)}
    print("largest deviation", np.abs(scores).max(), "outside 3 standard errors:", outside)
    assert np.abs(scores).max() < 4.5
    assert sum(outside.values()) <= 5
    assert np.sqrt(np.mean(scores**2)) < 1.3


@pytest.mark.parametrize("name", ["tanh", "relu", "selu", "sigmoid"])
def test_weight_scale_inverts_the_effective_cumulant(name):
    scale = isometry.weight_scale_for(name, 0.125, 10, bias_scale=0.1)
    assert isometry.effective_cumulant(name, scale, 0.1, 10) == pytest.approx(0.125, rel=1e-9)


@pytest.mark.parametrize(
    ("activation", "depth", "c"),
    [
        (lambda h: h**3, 40, 50.0),
        (lambda h: h**3, 1, 1e-14),
        (lambda h: h * ops.abs(h), 10, 1e3),
        ("softplus", 4, 50.0),
        ("tanh", 4, 1e-14),
    ],
)
def test_weight_scale_of_activations_that_grow_faster_than_linearly(activation, depth, c):
    """Their networks overflow not far beyond c: h^3 with c = 50 and depth 40 at weight scale 7, the first one tried."""
    scale = isometry.weight_scale_for(activation, c, depth)
    assert isometry.effective_cumulant(activation, scale, 0.0, depth) == pytest.approx(c, rel=1e-6)


def test_a_cumulant_that_no_weight_scale_reaches_is_refused():
    with pytest.raises(BadInput, match="c must be reached by a weight scale below"):
        isometry.weight_scale_for(lambda h: 1e-9 * h, 1.0, 2)
    with pytest.raises(BadInput, match="finite on Gaussian inputs"):
        isometry.weight_scale_for(lambda h: ops.log(h), 1.0, 2)


def test_skip_and_mixed_blocks_in_simulated_networks():
    for name, options in [
        ("relu", {"skip": 0.8}),
        ("softplus", {"mixed": True}),
        ("tanh", {"skip": 1.2, "mixed": True}),
    ]:
        arguments = (name, 1.0, 0.2, 10)
        field = isometry.mean_field(*arguments, input_mean=0.5, **options)
        q = [
            isometry.simulate_network(*arguments, 200, seed, input_mean=0.5, jacobian=False, **options).q
            for seed in range(40)
        ]
        error = np.std(q, axis=0, ddof=1) / np.sqrt(len(q))
        assert np.abs((np.mean(q, axis=0) - field.q) / error).max() < 4
    field = isometry.mean_field("linear", 0.5, 0.0, 10, skip=0.9)
    assert field.cumulants.sum() == pytest.approx(0.25 / 0.81)


@settings(max_examples=6, deadline=None)
@given(c=st.floats(1e-3, 5.0), depth=st.integers(1, 12))
def test_weight_scale_of_relu_has_a_closed_form(c, depth):
    assert isometry.weight_scale_for("relu", c, depth) == pytest.approx(np.sqrt(2 * c), rel=1e-8)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"c": 0.0, "depth": 10}, "positive finite"),
        ({"c": -1.0, "depth": 10}, "positive finite"),
        ({"c": float("nan"), "depth": 10}, "positive finite"),
        ({"c": 1 + 1j, "depth": 10}, "positive finite"),
        ({"c": 0.1, "depth": 0}, "depth"),
        ({"c": 0.1, "depth": 2.5}, "depth"),
    ],
)
def test_bad_targets_are_refused(arguments, message):
    with pytest.raises(BadInput, match=message):
        isometry.weight_scale_for("tanh", **arguments)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("tanh", 0.0, 0.0, 10), "weight_scale"),
        (("tanh", 1.0, -0.1, 10), "bias_scale"),
        (("tanh", 1.0, 0.1, 0), "depth"),
        (("tanh", 1.0, 0.1, 10, 1.0, 1.5), "input_mean"),
        (("tanh", 1.0, 0.1, 10, 1.0, 0.0, 0.0), "skip"),
        ((lambda h: h**3, 30.0, 0.1, 40), "finite activations"),
        ((ops.sign, 1.0, 0.1, 4), "derivative"),
    ],
)
def test_bad_networks_are_refused(arguments, message):
    with pytest.raises(BadInput, match=message):
        isometry.effective_cumulant(*arguments)
