"""An initializer that gives residual networks a chosen spectrum of their Jacobian (Tarnowski et al., 1809.08848)."""

import math
from functools import lru_cache

import keras

from allconv_resnet.theory.tarnowski.mean_field import check_cumulant, weight_scale_for

_cached_weight_scale_for = lru_cache(weight_scale_for)  # all layers of a network ask for the same one


@keras.saving.register_keras_serializable(package="allconv_resnet")
class IsometricNormal(keras.initializers.Initializer):
    """Draws normal weights that give a residual network `x + phi(W x + b)` the effective cumulant `c`.

    The standard deviation is `weight_scale_for(activation, c, depth, ...) / sqrt(fan_in * depth)`. Networks with
    different activations then have the same spectrum of the Jacobian (Tarnowski et al., arXiv 1809.08848, section 4).

    Args:
        activation: Name in `ACTIVATIONS` or callable written with `keras.ops`, the activation after these weights.
        c: Positive float, effective cumulant of the whole network.
        depth: Positive integer, number of residual layers.
        bias_scale: Nonnegative float, standard deviation of the biases.
        input_mean_square: Positive float, mean square of the entries of the network's input.
        input_mean: Float, their mean.
        seed: Integer or None. The same seed and shape give the same values. None draws new values at every call; the
            theory assumes that the matrices of different layers are independent.

    Call arguments:
        shape: `[*spatial, inputs, outputs]`; the fan-in is the product of all dimensions but the last.
        dtype: Floating-point dtype.

    Returns:
        Float tensor of this shape.

    Raises:
        BadInput: if `c` is not positive or cannot be reached by the activation, or if `depth` is not positive.

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
