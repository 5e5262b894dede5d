"""Simulated networks are compared with the laws and with the predicted outliers, on both sides of the bulk."""

import numpy as np
import pytest
from keras import ops

from allconv_resnet.errors import BadInput
from allconv_resnet.theory import isometry
from allconv_resnet.theory.commands.simulated_spectra import SCALES, bulk_of, compare_spectrum

COSINE = isometry.Activation("cos", ops.cos)


@pytest.mark.parametrize(("name", "bias_scale"), [("tanh", 0.5), ("relu", 0.0)])
def test_spectra_follow_the_law_outside_the_outlier(name, bias_scale):
    r = compare_spectrum(name, 1.0, bias_scale, depth=40, width=300, seed=0)
    assert r["kolmogorov_smirnov"] < 0.025
    bulk = bulk_of(r)
    assert len(bulk) == 300 - len(r["predicted_outliers"])
    assert r["edges"][0] * 0.8 < bulk[-1] and bulk[0] < r["edges"][1] * 1.1


@pytest.mark.slow
@pytest.mark.parametrize("name", SCALES)
def test_spectra_at_width_1000_and_depth_100(name):
    r = compare_spectrum(name, *SCALES[name], depth=100, width=1000, seed=0)
    print(name, "KS", r["kolmogorov_smirnov"], "outliers", r["outliers"], "predicted", r["predicted_outliers"])
    assert r["kolmogorov_smirnov"] <= 0.02
    assert r["outliers"] == pytest.approx(r["predicted_outliers"], rel=0.25)


@pytest.mark.parametrize(
    ("name", "input_mean", "side"),
    [
        ("relu", 0.0, "above"),
        ("leaky_relu", 0.0, "above"),
        ("softplus", 0.0, "above"),
        ("relu", -1.0, "below"),
        (COSINE, 0.0, "below"),
    ],
)
def test_outliers_of_simulated_networks(name, input_mean, side):
    network = (name, 1.0, 0.0 if input_mean else 0.1, 30)  # biases would hide that the input opposes the drift
    place = {"above": 0, "below": -1}[side]
    simulated = [
        isometry.simulate_network(*network, 200, seed, input_mean=input_mean).squared_singular_values[place]
        for seed in range(10)
    ]
    error = np.std(simulated, ddof=1) / np.sqrt(len(simulated))
    predicted = isometry.outliers(*network, input_mean=input_mean)[-1 - place]
    low, high = isometry.spectral_edges(isometry.effective_cumulant(*network, input_mean=input_mean), 30)
    assert predicted > 1.3 * high if side == "above" else predicted < low / 1.3
    # Of order 1/width below the limit: at most a few percent here.
    assert abs(np.mean(simulated) - predicted) < 3 * error + 0.05 * predicted


@pytest.mark.parametrize("depth", [4, 20])
def test_outliers_where_one_layer_is_not_close_to_the_identity(depth):
    """The ReLU at weight scale 8 and depth 20, with c/depth = 1.6, was said to have none."""
    network = ("relu", 8.0 if depth == 20 else 4.0, 0.0, depth)
    simulated = [isometry.simulate_network(*network, 300, seed).squared_singular_values[:2] for seed in range(6)]
    largest, second = np.exp(np.mean(np.log(simulated), axis=0))
    found = isometry.outliers(*network)
    assert len(found) == 1
    assert second < 0.9 * largest
    assert np.log(found[0]) == pytest.approx(np.log(largest), rel=0.06)


@pytest.mark.parametrize("name", ["linear", "tanh", "hard_tanh", "sigmoid", "sin"])
@pytest.mark.parametrize("input_mean", [0.0, -0.9])
def test_no_outlier_of_an_odd_function_plus_a_constant(name, input_mean):
    """The mean of the sigmoid is far from zero, but E[phi'(h) h] = 0."""
    activation = isometry.Activation("sin", ops.sin) if name == "sin" else name
    assert isometry.gaussian_means(activation, 0.7).h_d == pytest.approx(0, abs=1e-9) or name != "sigmoid"
    assert isometry.outliers(activation, 1.0, 0.3, 40, input_mean=input_mean if name != "sigmoid" else 0.0).size == 0


@pytest.mark.parametrize(("scale", "depth"), [(np.sqrt(6.0), 6), (np.sqrt(1 - 1e-6), 1)])
def test_at_the_scale_where_the_lower_edge_reaches_zero(scale, depth):
    assert isometry.outliers("linear", scale, 0.0, depth).size == 0


def test_no_outlier_of_mixed_blocks_and_one_of_a_shifted_relu():
    """Subtracting a constant removes the drift, but not E[phi'(h) h]; a second random matrix removes both."""
    assert isometry.outliers("relu", 1.0, 0.0, 40, mixed=True).size == 0
    blocks = isometry.simulate_network("relu", 1.0, 0.0, 40, 200, mixed=True).squared_singular_values
    assert blocks[0] < 1.1 * isometry.spectral_edges(0.5)[1]
    shifted = isometry.Activation("relu - 0.05", lambda h: ops.relu(h) - 0.05, {0.0})
    assert isometry.outliers(shifted, 1.0, 0.1, 40)[-1] == pytest.approx(39.6, rel=0.01)
    simulated = [isometry.simulate_network(shifted, 1.0, 0.1, 40, 200, s).squared_singular_values[0] for s in range(6)]
    assert np.mean(simulated) == pytest.approx(39.6, rel=0.15)


@pytest.mark.slow
def test_the_outlier_of_the_relu_grows_like_an_exponential_of_the_root_of_depth():
    """Simulated: 99, 1,690, 4.6e6 and 3.7e9. From a depth of 700 on there was said to be none."""
    found = [isometry.outliers("relu", 1.0, 0.0, depth)[-1] for depth in (40, 100, 400, 800)]
    np.testing.assert_allclose(np.log(found), np.log([99, 1690, 4.6e6, 3.7e9]), rtol=0.01)


def test_bad_input_is_refused():
    with pytest.raises(BadInput, match="inner"):
        isometry.simulate_matrix_product(1.0, 10, 4, inner=0.01)
    with pytest.raises(BadInput, match="input_mean_square must be"):
        isometry.simulate_network("relu", 1.0, 0.0, 4, 10, input_mean=2.0)
    with pytest.raises(BadInput, match="at least one value"):
        isometry.kolmogorov_smirnov([], 1.0)
    with pytest.raises(BadInput, match="depth"):
        isometry.simulate_network("tanh", 1.0, 0.0, 0, 10)
    with pytest.raises(BadInput, match="width"):
        isometry.simulate_network("tanh", 1.0, 0.0, 3, 1)
    with pytest.raises(BadInput, match="positive"):
        isometry.simulate_matrix_product(-1.0, 10, 3)
