"""Initializers: those of Hardt & Ma, section 4.1, and a whitening of patches for a first layer that is not trained."""

import math
from collections.abc import Sequence
from typing import Any, Self

import keras
import numpy as np

from allconv_resnet.errors import BadInput
from allconv_resnet.types import Config, Tensor


@keras.saving.register_keras_serializable(package="allconv_resnet")
class NearIdentityNormal(keras.initializers.Initializer):
    """An initializer with normal weights so small that a residual block starts close to the identity.

    The standard deviation is `1 / (k^2 c)` for a `k x k` kernel with `c` output channels (Hardt & Ma, section 4.1).
    This is one over the product of the spatial sizes and the output channels.

    Args:
        seed: Integer, `keras.random.SeedGenerator` or None. With an integer, every call with the same shape returns the
            same values.

    Example: a kernel with the standard deviation `1 / (9 * 64)`.

    >>> kernel = acr.NearIdentityNormal(seed=0)((3, 3, 64, 64))
    >>> round(float(keras.ops.std(kernel)) * 9 * 64, 2)
    1.0
    """

    def __init__(self, seed: Any = None) -> None:
        self.seed = seed

    def __call__(self, shape: Sequence[int], dtype: Any = None) -> Tensor:
        """Returns a kernel of shape `[*spatial, in_channels, out_channels]`."""
        *spatial, _, out_channels = shape
        return keras.random.normal(shape, stddev=1 / (math.prod(spatial) * out_channels), dtype=dtype, seed=self.seed)

    def get_config(self) -> Config:
        return {"seed": keras.saving.serialize_keras_object(self.seed)}

    @classmethod
    def from_config(cls, config: Config) -> Self:
        return cls(seed=keras.saving.deserialize_keras_object(config["seed"]))


def for_kernel(identifier: Any, seed: int) -> keras.initializers.Initializer:
    """Returns the initializer that `identifier` names, with a given seed.

    Args:
        identifier: `"near_identity"` (standard deviation `1/(k^2 c)`), `"standard"` (`1/(k sqrt(c))`, the paper's
            stem), `"he"` (`sqrt(2)/(k sqrt(c))`, He et al. 2015, fan-out), or whatever `keras.initializers.get` takes.
        seed: Integer. It replaces the seed of an initializer that has one.

    Returns:
        Keras initializer.

    Raises:
        ValueError: if Keras has no such initializer.
        BadInput: if `identifier` is None or a class.

    Example:

    >>> from allconv_resnet.initializers import for_kernel
    >>> for_kernel("near_identity", seed=0)((3, 3, 16, 16)).shape
    TensorShape([3, 3, 16, 16])
    """
    if identifier is None or isinstance(identifier, type):
        raise BadInput(f"initialization must be an initializer or its name. Received: initialization={identifier}")
    name = identifier if isinstance(identifier, str) else ""
    if name == "near_identity":
        return NearIdentityNormal(seed)
    if name in ("standard", "he"):
        scale = {"standard": 1.0, "he": 2.0}[name]
        return keras.initializers.VarianceScaling(scale, mode="fan_out", distribution="untruncated_normal", seed=seed)
    initializer = keras.initializers.get(identifier)
    if not isinstance(initializer, keras.initializers.Initializer):  # a function of shape and dtype
        return initializer
    config = initializer.get_config()
    # Many kernels share one initializer. If each did not get its own seed, kernels of one shape would all be equal.
    return type(initializer).from_config({**config, "seed": seed}) if "seed" in config else initializer


def patch_whitening(images: np.ndarray, kernel_size: int, filters: int, epsilon: float = 0.1) -> np.ndarray:
    """Returns a kernel whose outputs are white on given images: uncorrelated, with variances of about 1.

    Jordan (2024, arXiv 2404.00498) uses it for a first layer that is not trained. Each filter is an eigenvector of the
    second moments of the patches, divided by the square root of its eigenvalue plus `epsilon`. The filters are sorted
    by eigenvalue, the largest first.

    Args:
        images: Float array `[n, h, w, c]`, as the network sees them.
        kernel_size: Integer k, at most h and w.
        filters: Integer, at most `k * k * c`.
        epsilon: Float, added to the eigenvalues. Variances above it become about 1, and those below it, for instance
            of the noise of JPEG, stay small. The mean variance of the pixels of standardized images is 1.

    Returns:
        float32 array `[k, k, c, filters]`.

    Raises:
        BadInput: if there are no images, if they are smaller than a patch, or if `filters` is larger than the number of
            values in a patch.

    Example: the outputs of the whitened patches are uncorrelated.

    >>> from allconv_resnet.initializers import patch_whitening
    >>> images = np.random.default_rng(0).standard_normal((8, 6, 6, 1))
    >>> kernel = patch_whitening(images, kernel_size=2, filters=4, epsilon=0.0)
    >>> patches = np.lib.stride_tricks.sliding_window_view(images[..., 0], (2, 2), axis=(1, 2)).reshape(-1, 4)
    >>> outputs = patches @ kernel.reshape(4, 4)
    >>> bool(np.allclose(outputs.T @ outputs / len(outputs), np.eye(4), atol=1e-5))
    True
    """
    if not len(images) or min(images.shape[1:3]) < kernel_size:
        size = f"{kernel_size}x{kernel_size}"
        raise BadInput(f"Whitening needs images, of at least {size} pixels each. Received: shape={images.shape}")
    patches = np.lib.stride_tricks.sliding_window_view(images, (kernel_size, kernel_size), axis=(1, 2))
    patches = np.moveaxis(patches, 3, -1)  # [n, rows, columns, k, k, c]
    shape = patches.shape[3:]
    if filters > math.prod(shape):
        raise BadInput(
            f"filters must be at most the number of values in a patch, {math.prod(shape)}. Received: filters={filters}"
        )
    covariance = np.zeros((math.prod(shape),) * 2)
    for part in np.array_split(
        patches, -(-len(patches) // 100)
    ):  # all patches at once take k * k times the memory of the images
        rows = part.reshape(-1, math.prod(shape)).astype("float64")
        covariance += rows.T @ rows
    values, vectors = np.linalg.eigh(covariance / math.prod(patches.shape[:3]))
    kernel = (vectors / np.sqrt(np.maximum(values, 0) + epsilon))[:, ::-1][:, :filters]
    return kernel.reshape(*shape, filters).astype("float32")
