"""Dynamical isometry in residual networks (Tarnowski et al., arXiv 1809.08848), as programs.

`effective_cumulant` maps an activation and its scales to the one parameter c of the universal spectrum, whose density,
edges, distribution and quantiles are closed forms; `weight_scale_for` and `IsometricNormal` go back from c to weights;
`outlier` predicts the one singular value that is not of the law; `simulate_network` and `jacobian_singular_values`
say what random and real networks have.
"""

import math
from functools import lru_cache

import keras

from allconv_resnet.theory.activations import ACTIVATIONS, Activation, gaussian_means
from allconv_resnet.theory.jacobians import JacobianOperator, jacobian_singular_values, lanczos_singular_values
from allconv_resnet.theory.mean_field import MeanField, check_cumulant, effective_cumulant, mean_field, weight_scale_for
from allconv_resnet.theory.outlier import outlier
from allconv_resnet.theory.simulation import (
    Simulation,
    kolmogorov_smirnov,
    simulate_matrix_product,
    simulate_network,
)
from allconv_resnet.theory.spectrum import spectral_density, spectral_distribution, spectral_edges, spectral_quantile

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


_cached_weight_scale_for = lru_cache(weight_scale_for)  # a network has one initializer a layer, all alike


@keras.saving.register_keras_serializable(package="allconv_resnet")
class IsometricNormal(keras.initializers.Initializer):
    """Normal weights that give a residual network `x + phi(W x + b)` the effective cumulant `c`.

    The standard deviation is `weight_scale_for(activation, c, depth, ...) / sqrt(fan_in * depth)` (Tarnowski et al.,
    section 4): networks with different activations then have the same spectrum of the Jacobian.

    Args:
        activation: Name in `ACTIVATIONS` or callable written with `keras.ops`, the one that follows the weights.
        c: Positive float, effective cumulant of the whole network.
        depth: Positive integer, number of residual layers.
        bias_scale: Nonnegative float, standard deviation of the biases.
        input_mean_square: Positive float, mean square of the entries of the network's input.
        input_mean: Float, their mean.
        seed: Integer or None. The same seed and shape give the same values; None draws anew at every
            call: the law is that of independent matrices.

    Call arguments:
        shape: `[*spatial, inputs, outputs]`; fan-in is the product of all but the last.
        dtype: Floating-point type.

    Raises:
        BadInput: if `c` is not positive or out of the activation's reach, or the depth is 0.

    Example:

    >>> kernel = IsometricNormal("relu", c=0.125, depth=20, seed=1)((256, 256))  # deviation 0.5 / sqrt(256 * 20)
    >>> round(float(keras.ops.std(kernel)), 4)
    0.007
    """

    def __init__(self, activation, c, depth, bias_scale=0.0, input_mean_square=1.0, input_mean=0.0, seed=None):
        check_cumulant(c)
        self.activation, self.c, self.depth = activation, c, depth
        self.bias_scale, self.input_mean_square, self.input_mean = bias_scale, input_mean_square, input_mean
        self.seed = seed
        self.weight_scale = _cached_weight_scale_for(activation, c, depth, bias_scale, input_mean_square, input_mean)

    def __call__(self, shape, dtype=None):
        fan_in = math.prod(shape[:-1])
        deviation = self.weight_scale / math.sqrt(fan_in * self.depth)
        return keras.random.normal(shape, stddev=deviation, dtype=dtype, seed=self.seed)

    def get_config(self):
        return {
            "activation": keras.saving.serialize_keras_object(self.activation),
            "c": self.c,
            "depth": self.depth,
            "bias_scale": self.bias_scale,
            "input_mean_square": self.input_mean_square,
            "input_mean": self.input_mean,
            "seed": self.seed,
        }

    @classmethod
    def from_config(cls, config):
        return cls(**{**config, "activation": keras.saving.deserialize_keras_object(config["activation"])})
