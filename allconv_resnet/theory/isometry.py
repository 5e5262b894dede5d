"""Dynamical isometry in residual networks, Tarnowski et al. (arXiv 1809.08848).

`effective_cumulant` maps an activation and the scales of the weights to the one parameter c of the universal spectrum;
`spectral_density`, `spectral_edges`, `spectral_distribution`, `spectral_quantile` and `spectral_mean` are that spectrum
in closed form, or the spectrum of finitely many layers. `weight_scale_for` and `IsometricNormal` go back from c to
weights, and `outliers` predicts the singular values that lie outside the spectrum. `simulate_network` draws random
networks, and `jacobian_singular_values` measures any Keras model.

The examples assume `from allconv_resnet.theory.isometry import *`, `import keras` and `import numpy as np`.
"""

from allconv_resnet.theory.tarnowski.activations import ACTIVATIONS, Activation, gaussian_means
from allconv_resnet.theory.tarnowski.isometric_normal import IsometricNormal
from allconv_resnet.theory.tarnowski.jacobians import JacobianOperator, jacobian_singular_values
from allconv_resnet.theory.tarnowski.lanczos import lanczos_singular_values
from allconv_resnet.theory.tarnowski.mean_field import MeanField, effective_cumulant, mean_field, weight_scale_for
from allconv_resnet.theory.tarnowski.outliers import outliers
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
    spectral_mean,
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
    "outliers",
    "simulate_matrix_product",
    "simulate_network",
    "spectral_density",
    "spectral_distribution",
    "spectral_edges",
    "spectral_mean",
    "spectral_quantile",
    "weight_scale_for",
]
