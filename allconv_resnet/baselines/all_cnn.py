"""All-CNN-C of Springenberg et al. 2014 (arXiv 1412.6806), table 1."""

import itertools
from typing import Any

import keras
from keras import layers

from allconv_resnet.baselines.ends import average, model_of
from allconv_resnet.layers import wide_dtype
from allconv_resnet.types import Shape


def all_cnn_c(
    num_classes: int = 10,
    input_shape: Shape = (32, 32, 3),
    dropout: tuple[float, float] = (0.2, 0.5),
    seed: int = 0,
    dtype: Any = None,
) -> keras.Model:
    """Returns All-CNN-C: nine convolutions with biases, two of stride 2 instead of pooling; 1,369,738 parameters.

    The paper does not give its initialization. Here the kernels are initialized as by Glorot & Bengio. The biases of
    the logits are initialized to 1, which the softmax cancels. With 0.1 (or with 0 and the kernels of He et al.), the
    ReLU after the logits was dead for all images within 40 steps of the paper's training.

    Args:
        num_classes: Integer, the number of logits.
        input_shape: `(height, width, channels)`.
        dropout: Two floats, the rates at the input and after each convolution of stride 2.
        seed: Integer. It determines the initial weights and the dropout.
        dtype: Keras dtype policy or its name.

    Returns:
        Keras model from images `[n, h, w, c]` to logits `[n, num_classes]`.

    Example:

    >>> from allconv_resnet import baselines
    >>> baselines.all_cnn_c(num_classes=10).count_params()
    1369738
    """
    seeds = itertools.count(seed * 10_000)
    policy = keras.dtype_policies.get(dtype)

    def conv(x, filters, kernel_size=3, strides=1, padding="same", bias=0.0):
        return layers.Conv2D(
            filters,
            kernel_size,
            strides,
            padding,
            data_format="channels_last",
            activation="relu",
            kernel_initializer=keras.initializers.GlorotUniform(next(seeds)),
            bias_initializer=keras.initializers.Constant(bias),
            dtype=policy,
        )(x)

    images = keras.Input(input_shape, name="images")
    x = layers.Dropout(dropout[0], seed=next(seeds), dtype=policy)(images)
    for filters in (96, 192):
        x = conv(conv(x, filters), filters)
        x = conv(x, filters, strides=2)
        x = layers.Dropout(dropout[1], seed=next(seeds), dtype=policy)(x)
    x = conv(x, 192, padding="valid")
    x = conv(x, 192, 1)
    x = conv(x, num_classes, 1, bias=1.0)  # the paper has a ReLU after this one too
    return model_of(images, average(x, wide_dtype(policy)), "all_cnn_c", policy)
