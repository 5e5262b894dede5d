"""Dynamical isometry in residual networks, Tarnowski et al. (arXiv 1809.08848).

`effective_cumulant` maps an activation and the scales of the weights to the one parameter c of the universal spectrum;
`spectral_density`, `spectral_edges`, `spectral_distribution` and `spectral_quantile` are that spectrum in closed form.
`weight_scale_for` and `IsometricNormal` go back from c to weights, and `outlier` predicts the one singular value that
lies outside the spectrum. `simulate_network` draws random networks, and `jacobian_singular_values` measures any Keras
model.
"""

from allconv_resnet.theory.tarnowski.activations import ACTIVATIONS, Activation, gaussian_means
from allconv_resnet.theory.tarnowski.isometric_normal import IsometricNormal
from allconv_resnet.theory.tarnowski.jacobians import (
    JacobianOperator,
    jacobian_singular_values,
    lanczos_singular_values,
)
from allconv_resnet.theory.tarnowski.mean_field import MeanField, effective_cumulant, mean_field, weight_scale_for
from allconv_resnet.theory.tarnowski.outlier import outlier
from allconv_resnet.theory.tarnowski.simulation import (
    Simulation,
    kolmogorov_smirnov,
    simulate_matrix_product,
    simulate_network,
)
from allconv_resnet.theory.tarnowski.spectrum import (
    spectral_density,
    spectral_distribution,
    spectral_edges,
    spectral_quantile,
)

__all__ = [
    "ACTIVATIONS",
    "Activation",
    "IsometricNormal",
    "JacobianOperator",
    "MeanField",
    "Simulation",
    "effective_cumulant",
    "gaussian_means",
    "jacobian_singular_values",
    "kolmogorov_smirnov",
    "lanczos_singular_values",
    "mean_field",
    "outlier",
    "simulate_matrix_product",
    "simulate_network",
    "spectral_density",
    "spectral_distribution",
    "spectral_edges",
    "spectral_quantile",
    "weight_scale_for",
]
