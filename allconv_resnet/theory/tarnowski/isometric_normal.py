"""An initializer that gives residual networks a chosen spectrum of their Jacobian (Tarnowski et al., 1809.08848)."""

import math
from collections.abc import Sequence
from functools import lru_cache
from typing import Any, Self

import keras
import numpy as np

from allconv_resnet.errors import BadInput
from allconv_resnet.theory.checks import positive_integer
from allconv_resnet.theory.tarnowski.activations import ActivationLike
from allconv_resnet.theory.tarnowski.mean_field import check_cumulant, weight_scale_for
from allconv_resnet.types import Config, Tensor

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
        map_size: For convolutions with padding "same", the spatial sizes of the feature map, a pair of positive
            integers. At the border a part of each kernel falls on the padding: of 3x3 kernels on S x S maps, a share
            of ((3S - 2) / (3S))^2 does not on average. The weights make up for it, so that c, which is the mean over
            the positions, is the one that was asked for. None for dense layers and for periodic padding.
        seed: Integer or None. The same seed and shape give the same values. None draws new values at every call; the
            theory assumes that the matrices of different layers are independent.

    Call arguments:
        shape: `[*spatial, inputs, outputs]`; the fan-in is the product of all dimensions but the last, less what falls
            on the padding if `map_size` is given.
        dtype: Floating-point dtype.

    Returns:
        Float tensor of this shape.

    Raises:
        BadInput: if `c` is not positive or cannot be reached by the activation, if `depth` is not positive, or if
            `map_size` is not of positive integers, as many as the kernel has spatial dimensions.

    Example:

    >>> kernel = IsometricNormal("relu", c=0.125, depth=20, seed=1)((256, 256))  # deviation 0.5 / sqrt(256 * 20)
    >>> round(float(keras.ops.std(kernel)), 4)
    0.007
    >>> on_maps = IsometricNormal("relu", c=0.125, depth=20, map_size=(4, 4), seed=1)((3, 3, 64, 64))
    >>> round(float(keras.ops.std(on_maps)) * (9 * 64 * 20) ** 0.5, 2)  # 0.5 * 12 / 10
    0.6
    """

    def __init__(
        self,
        activation: ActivationLike,
        c: float,
        depth: int,
        bias_scale: float = 0.0,
        input_mean_square: float = 1.0,
        input_mean: float = 0.0,
        map_size: Sequence[int] | None = None,
        seed: int | None = None,
    ) -> None:
        check_cumulant(c)
        self.activation, self.c, self.depth = activation, c, depth
        self.bias_scale, self.input_mean_square, self.input_mean = bias_scale, input_mean_square, input_mean
        self.map_size = None if map_size is None else tuple(positive_integer(s, "map_size") for s in map_size)
        self.seed = seed
        self.weight_scale = _cached_weight_scale_for(activation, c, depth, bias_scale, input_mean_square, input_mean)

    def __call__(self, shape: Sequence[int], dtype: Any = None) -> Tensor:
        *spatial, inputs, _ = shape
        if self.map_size is not None and len(self.map_size) != len(spatial):
            raise BadInput(
                f"map_size must have as many sizes as the kernel has spatial dimensions, {len(spatial)}. "
                f"Received: map_size={self.map_size}"
            )
        taps = map(_mean_taps, spatial, self.map_size or [None] * len(spatial))
        deviation = self.weight_scale / math.sqrt(inputs * math.prod(taps) * self.depth)
        return keras.random.normal(shape, stddev=deviation, dtype=dtype, seed=self.seed)

    def get_config(self) -> Config:
        return {
            "activation": keras.saving.serialize_keras_object(self.activation),
            "c": self.c,
            "depth": self.depth,
            "bias_scale": self.bias_scale,
            "input_mean_square": self.input_mean_square,
            "input_mean": self.input_mean,
            "map_size": self.map_size,
            "seed": self.seed,
        }

    @classmethod
    def from_config(cls, config: Config) -> Self:
        return cls(**{**config, "activation": keras.saving.deserialize_keras_object(config["activation"])})


def _mean_taps(kernel_size, size):
    """Returns how many entries of a kernel fall on a map of `size`, on average over its positions."""
    if size is None:
        return kernel_size
    first = np.arange(size) - (kernel_size - 1) // 2
    return float(np.mean(np.minimum(first + kernel_size, size) - np.maximum(first, 0)))
