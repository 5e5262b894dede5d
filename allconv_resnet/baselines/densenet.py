"""DenseNet-BC of Huang et al. 2016 (arXiv 1608.06993), with bottlenecks and compression."""

import itertools
from typing import Any

import keras
from keras import layers

from allconv_resnet.baselines.ends import classify, model_of, normalize
from allconv_resnet.errors import BadInput
from allconv_resnet.layers import convolution, wide_dtype
from allconv_resnet.types import Shape


def densenet_bc(
    num_classes: int = 10,
    depth: int = 100,
    growth: int = 12,
    input_shape: Shape = (32, 32, 3),
    seed: int = 0,
    dtype: Any = None,
) -> keras.Model:
    """Returns DenseNet-BC with compression 1/2: 769,162 trainable parameters at depth 100 and growth 12.

    Args:
        num_classes: Integer, the number of logits.
        depth: Integer, `6m + 4`.
        growth: Integer, the number of channels that each layer adds (k in the paper).
        input_shape: `(height, width, channels)`.
        seed: Integer. It determines the initial weights.
        dtype: Keras dtype policy or its name.

    Returns:
        Keras model from images `[n, h, w, c]` to logits `[n, num_classes]`.

    Raises:
        BadInput: if `depth` is not `6m + 4` with m at least 1.

    Example:

    >>> from allconv_resnet import baselines
    >>> model = baselines.densenet_bc(num_classes=10, depth=22, growth=12)
    >>> model.output_shape
    (None, 10)
    """
    if depth < 10 or (depth - 4) % 6:
        raise BadInput(f"depth must be 6m + 4 with m at least 1. Received: depth={depth}")
    seeds = itertools.count(seed * 10_000)
    policy = keras.dtype_policies.get(dtype)

    def conv(x, filters, kernel_size):
        return convolution(filters, kernel_size, 1, False, "he", next(seeds), dtype=policy)(x)

    def active(x):
        return layers.ReLU(dtype=policy)(normalize(x, policy))

    images = keras.Input(input_shape, name="images")
    x = conv(images, 2 * growth, 3)
    for stage in range(3):
        for _ in range((depth - 4) // 6):
            y = conv(active(x), 4 * growth, 1)
            y = conv(active(y), growth, 3)
            x = layers.Concatenate(dtype=policy)([x, y])
        if stage < 2:
            x = conv(active(x), x.shape[-1] // 2, 1)
            x = layers.AveragePooling2D(2, data_format="channels_last", dtype=policy)(x)
    logits = classify(active(x), num_classes, next(seeds), wide_dtype(policy))
    return model_of(images, logits, f"densenet_bc_{depth}_{growth}", policy)
