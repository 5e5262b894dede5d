"""Simulated networks are compared with the universal law and with the predicted outlier."""

import numpy as np
import pytest

from allconv_resnet.errors import BadInput
from allconv_resnet.theory import isometry
from allconv_resnet.theory.commands.simulated_spectra import SCALES, compare_spectrum


@pytest.mark.parametrize(("name", "bias_scale"), [("tanh", 0.5), ("relu", 0.0)])
def test_spectra_follow_the_law_outside_the_outlier(name, bias_scale):
    r = compare_spectrum(name, 1.0, bias_scale, depth=40, width=300, seed=0)
    assert r["kolmogorov_smirnov"] < 0.025
    bulk = r["values"][1:] if r["predicted_outlier"] else r["values"]
    assert r["edges"][0] * 0.8 < bulk[-1] and bulk[0] < r["edges"][1] * 1.1


@pytest.mark.slow
@pytest.mark.parametrize("name", SCALES)
def test_spectra_at_width_1000_and_depth_100(name):
    r = compare_spectrum(name, *SCALES[name], depth=100, width=1000, seed=0)
    print(name, "KS", r["kolmogorov_smirnov"], "outlier", r["values"][0], "predicted", r["predicted_outlier"])
    assert r["kolmogorov_smirnov"] <= 0.02
    if r["predicted_outlier"]:
        assert r["values"][0] == pytest.approx(r["predicted_outlier"], rel=0.25)


@pytest.mark.parametrize("name", ["relu", "leaky_relu", "softplus"])
def test_outlier_of_simulated_networks(name):
    simulated = [
        isometry.simulate_network(name, 1.0, 0.1, 20, 200, seed).squared_singular_values[0] for seed in range(12)
    ]
    error = np.std(simulated, ddof=1) / np.sqrt(len(simulated))
    predicted = isometry.outlier(name, 1.0, 0.1, 20)
    # Of order 1/width below the limit: at most a few percent here.
    assert abs(np.mean(simulated) - predicted) < 3 * error + 0.04 * predicted
    assert predicted > 1.3 * isometry.spectral_edges(isometry.effective_cumulant(name, 1.0, 0.1, 20))[1]


@pytest.mark.parametrize("name", ["linear", "tanh", "hard_tanh", "sigmoid"])
def test_no_outlier_without_a_mean_response(name):
    """The mean of the sigmoid is far from zero, but E[phi'(h) h] = 0."""
    assert isometry.outlier(name, 1.0, 0.3, 40) is None


def test_bad_input_is_refused():
    with pytest.raises(BadInput, match="depth"):
        isometry.simulate_network("tanh", 1.0, 0.0, 0, 10)
    with pytest.raises(BadInput, match="width"):
        isometry.simulate_network("tanh", 1.0, 0.0, 3, 1)
    with pytest.raises(BadInput, match="positive"):
        isometry.simulate_matrix_product(-1.0, 10, 3)
