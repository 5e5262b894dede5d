"""The batch-normalized network of Jordan 2024, "94% on CIFAR-10 in 3.29 seconds on a single GPU" (arXiv 2404.00498)."""

import itertools
from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
from keras import layers, ops

from allconv_resnet.baselines.ends import model_of
from allconv_resnet.cpu import BatchNormalization, Convolution
from allconv_resnet.errors import BadInput
from allconv_resnet.initializers import patch_whitening
from allconv_resnet.layers import Configured, standardize, wide_dtype
from allconv_resnet.mirror import PoolingOverMirrorImages, WithMirrorImages
from allconv_resnet.types import Shape, Tensor


def airbench(
    num_classes: int = 10,
    widths: Sequence[int] = (64, 256, 256),
    mirror_average: bool = True,
    input_shape: Shape = (32, 32, 3),
    seed: int = 0,
    dtype: Any = None,
    images: np.ndarray | None = None,
) -> keras.Model:
    """Returns the network of airbench94, with 1,971,352 trainable parameters.

    A 2x2 convolution, which is not trained, whitens the patches. Three groups follow. Each has two 3x3 convolutions
    with batch normalization and GELU, and a max pooling after the first convolution. The first filters of each
    convolution are the identity at the start. The network of airbench95 has the widths `(128, 384, 384)`.

    Args:
        num_classes: Integer, the number of logits.
        widths: Three integers, the channels of the groups.
        mirror_average: Boolean, whether inference averages the logits over an image and its mirror image. The paper
            averages over six views.
        input_shape: `(height, width, channels)`, at least 26 pixels high and wide.
        seed: Integer. It determines the initial weights.
        dtype: Keras dtype policy or its name.
        images: uint8 array `[n, h, w, c]` of training images that determine the whitening, or None if the weights will
            be loaded.

    Returns:
        Keras model from standardized images `[n, h, w, c]` to logits `[n, num_classes]`.

    Raises:
        BadInput: if the images are too small.

    Example:

    >>> from allconv_resnet import baselines
    >>> images, _ = acr.load_data("digits").arrays("train")
    >>> model = baselines.airbench(num_classes=10, images=images)
    >>> model.output_shape
    (None, 10)
    """
    if None in input_shape or min(input_shape[:2]) < 26:
        raise BadInput(f"airbench needs images of at least 26x26 pixels. Received: input_shape={input_shape}")
    seeds = itertools.count(seed * 10_000)
    policy = keras.dtype_policies.get(dtype)
    form = {"data_format": "channels_last", "dtype": policy}

    def gelu(x):
        return layers.Activation("gelu", dtype=policy)(x)

    inputs = keras.Input(input_shape, name="images")
    x = WithMirrorImages(dtype=policy)(inputs) if mirror_average else inputs
    stem = layers.Conv2D(
        2 * 2 * 2 * input_shape[-1],
        2,
        use_bias=False,
        trainable=False,
        kernel_initializer=_uniform(next(seeds)),
        name="stem",
        **form,
    )
    x = gelu(Bias(dtype=policy)(stem(x)))
    for filters in widths:
        for pooling in (True, False):
            kernel = PartialIdentity(next(seeds))
            x = Convolution(filters, 3, padding="same", use_bias=False, kernel_initializer=kernel, **form)(x)
            x = layers.MaxPooling2D(2, **form)(x) if pooling else x
            x = BatchNormalization(momentum=0.6, epsilon=1e-12, center=False, scale=False, dtype=policy)(x)
            x = gelu(Bias(speed=64, dtype=policy)(x))
    x = layers.MaxPooling2D(3, **form)(x)
    pooling = PoolingOverMirrorImages if mirror_average else layers.GlobalAveragePooling2D
    wide = wide_dtype(policy)
    x = pooling(data_format="channels_last", dtype=wide)(x)
    head = layers.Dense(num_classes, use_bias=False, kernel_initializer=_uniform(next(seeds)), dtype=wide)
    model = model_of(inputs, layers.Rescaling(1 / 9, dtype=wide)(head(x)), "airbench", policy)
    if images is not None:
        sample = ops.convert_to_numpy(standardize(images[:: max(1, -(-len(images) // 5_000))]))
        kernel = patch_whitening(sample, 2, stem.filters // 2, epsilon=5e-4)
        stem.kernel.assign(ops.concatenate([kernel, -kernel], axis=-1))
    return model


@keras.saving.register_keras_serializable(package="allconv_resnet")
class Bias(Configured):
    """A layer that adds a trained bias to each channel. The bias may learn faster than the other variables.

    Args:
        speed: Float. The bias is `sqrt(speed)` times the variable, so that plain gradient steps change it as if its
            learning rate were `speed` times as large.
        **kwargs: Arguments of `keras.layers.Layer`.

    Call arguments:
        x: Float tensor `[..., c]`.

    Returns:
        Float tensor of the same shape.

    Example:

    >>> from allconv_resnet import baselines
    >>> baselines.Bias(speed=64.0)(np.ones((2, 8, 8, 16))).shape
    TensorShape([2, 8, 8, 16])
    """

    def __init__(self, speed: float = 1.0, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.speed = speed

    def build(self, input_shape: Shape) -> None:
        self.bias = self.add_weight((input_shape[-1],), name="bias", initializer="zeros")

    def call(self, x: Tensor) -> Tensor:
        return x + ops.cast(self.speed**0.5 * self.bias, x.dtype)


@keras.saving.register_keras_serializable(package="allconv_resnet")
class PartialIdentity(keras.initializers.Initializer):
    """An initializer of kernels whose first filters return the input channels, and whose other filters are random.

    The random ones are uniform with the limits `±1 / sqrt(fan_in)`, PyTorch's default.

    Args:
        seed: Integer, or None.
    """

    def __init__(self, seed=None):
        self.seed = seed

    def __call__(self, shape, dtype=None):
        """Returns a kernel of shape `[k, k, in_channels, out_channels]` with an odd k."""
        size, _, inputs, filters = shape
        count = min(inputs, filters)
        identity = ops.pad(
            ops.reshape(ops.eye(inputs, count, dtype=dtype), (1, 1, inputs, count)),
            [(size // 2, size // 2), (size // 2, size // 2), (0, 0), (0, 0)],
        )
        return ops.concatenate([identity, _uniform(self.seed)(shape, dtype)[..., count:]], axis=-1)

    def get_config(self):
        return {"seed": self.seed}


def _uniform(seed):
    return keras.initializers.VarianceScaling(1 / 3, "fan_in", "uniform", seed=seed)
