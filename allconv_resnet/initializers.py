"""Initializers of Hardt & Ma, section 4.1."""

import math

import keras


@keras.saving.register_keras_serializable(package="allconv_resnet")
class NearIdentityNormal(keras.initializers.Initializer):
    """Normal weights so small that a residual block starts close to the identity.

    The standard deviation is `1 / (k^2 c)` for a `k x k` kernel with `c` output channels (Hardt & Ma, section 4.1):
    one over the product of the spatial sizes and the output channels.

    Args:
        seed: Integer, `keras.random.SeedGenerator` or None. With an integer, every call with the same shape gives the
            same values.

    Example:

    >>> kernel = NearIdentityNormal(seed=0)((3, 3, 64, 64))  # standard deviation 1 / (9 * 64)
    """

    def __init__(self, seed=None):
        self.seed = seed

    def __call__(self, shape, dtype=None):
        """Returns a kernel of shape `[*spatial, in_channels, out_channels]`."""
        *spatial, _, out_channels = shape
        return keras.random.normal(shape, stddev=1 / (math.prod(spatial) * out_channels), dtype=dtype, seed=self.seed)

    def get_config(self):
        return {"seed": keras.saving.serialize_keras_object(self.seed)}

    @classmethod
    def from_config(cls, config):
        return cls(seed=keras.saving.deserialize_keras_object(config["seed"]))


def for_kernel(identifier, seed):
    """Returns the initializer that `identifier` names, drawing from `seed` alone.

    Args:
        identifier: `"near_identity"` (deviation `1/(k^2 c)`), `"standard"` (`1/(k sqrt(c))`, the paper's stem),
            `"he"` (`sqrt(2)/(k sqrt(c))`, He et al. 2015, fan-out), or whatever `keras.initializers.get` takes.
        seed: Integer.

    Raises:
        ValueError: if Keras knows no such initializer.
    """
    if identifier == "near_identity":
        return NearIdentityNormal(seed)
    if identifier in ("standard", "he"):
        scale = {"standard": 1.0, "he": 2.0}[identifier]
        return keras.initializers.VarianceScaling(scale, mode="fan_out", distribution="untruncated_normal", seed=seed)
    initializer = keras.initializers.get(identifier)
    config = initializer.get_config()
    # One initializer serves many kernels: without a seed for each, kernels of one shape would all be equal.
    return type(initializer).from_config({**config, "seed": seed}) if "seed" in config else initializer
