"""The networks that Hardt & Ma compare with (table 2), each as its own paper describes it, for small images.

all_cnn_c       Springenberg et al. 2014 (arXiv 1412.6806), table 1, "All-CNN-C"
resnet          He et al. 2015 (arXiv 1512.03385), section 4.2: 6n + 2 layers
densenet_bc     Huang et al. 2016 (arXiv 1608.06993), bottlenecks and compression
"""

import itertools

import keras
from keras import layers, ops

from allconv_resnet.errors import BadInput
from allconv_resnet.layers import Configured, convolution


def all_cnn_c(num_classes=10, input_shape=(32, 32, 3), dropout=(0.2, 0.5), seed=0, dtype=None):
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

    >>> model = baselines.all_cnn_c(num_classes=10)
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
    return keras.Model(images, _average(x, policy.variable_dtype), name="all_cnn_c")


def resnet(num_classes=10, depth=20, normalization="batch", input_shape=(32, 32, 3), seed=0, dtype=None):
    """Returns the CIFAR ResNet of He et al. with `6n + 2` layers; ResNet-20 has 269,722 trainable parameters.

    The shortcuts are those of option A: the identity, with stride 2 and zeros for the new channels.

    Args:
        num_classes: Integer, the number of logits.
        depth: Integer, `6n + 2` with n blocks in each stage. The paper has 20, 32, 44, 56 and 110.
        normalization: `"batch"`, or None for the same network without it (an ablation).
        input_shape: `(height, width, channels)`.
        seed: Integer. It determines the initial weights.
        dtype: Keras dtype policy or its name.

    Returns:
        Keras model from images `[n, h, w, c]` to logits `[n, num_classes]`.

    Raises:
        BadInput: if `depth` is not `6n + 2` with n at least 1.

    Example:

    >>> model = baselines.resnet(num_classes=10, depth=110)
    """
    if depth < 8 or (depth - 2) % 6:
        raise BadInput(f"depth must be 6n + 2 with n at least 1. Received: depth={depth}")
    if normalization not in (None, "batch"):
        raise BadInput(f'normalization must be None or "batch". Received: normalization={normalization!r}')
    seeds = itertools.count(seed * 10_000)
    policy = keras.dtype_policies.get(dtype)

    def conv(x, filters, strides=1):
        x = convolution(filters, 3, strides, normalization is None, "he", next(seeds), dtype=policy)(x)
        return x if normalization is None else _normalize(x, policy)

    images = keras.Input(input_shape, name="images")
    x = layers.ReLU(dtype=policy)(conv(images, 16))
    for stage, filters in enumerate((16, 32, 64)):
        for block in range((depth - 2) // 6):
            strides = 2 if stage > 0 and block == 0 else 1
            y = layers.ReLU(dtype=policy)(conv(x, filters, strides))
            y = conv(y, filters)
            x = x if strides == 1 else IdentityShortcut(dtype=policy)(x)
            x = layers.ReLU(dtype=policy)(layers.Add(dtype=policy)([x, y]))
    return keras.Model(images, _classify(x, num_classes, next(seeds), policy.variable_dtype), name=f"resnet{depth}")


def densenet_bc(num_classes=10, depth=100, growth=12, input_shape=(32, 32, 3), seed=0, dtype=None):
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

    >>> model = baselines.densenet_bc(num_classes=10, depth=100, growth=12)
    """
    if depth < 10 or (depth - 4) % 6:
        raise BadInput(f"depth must be 6m + 4 with m at least 1. Received: depth={depth}")
    seeds = itertools.count(seed * 10_000)
    policy = keras.dtype_policies.get(dtype)

    def conv(x, filters, kernel_size):
        return convolution(filters, kernel_size, 1, False, "he", next(seeds), dtype=policy)(x)

    def active(x):
        return layers.ReLU(dtype=policy)(_normalize(x, policy))

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
    logits = _classify(active(x), num_classes, next(seeds), policy.variable_dtype)
    return keras.Model(images, logits, name=f"densenet_bc_{depth}_{growth}")


@keras.saving.register_keras_serializable(package="allconv_resnet")
class IdentityShortcut(Configured):
    """A shortcut that halves the image and doubles the channels without weights (He et al. 2015, option A).

    It takes every second row and column, and adds as many channels of zeros as there are channels.

    Call arguments:
        x: Float tensor `[n, h, w, c]`.

    Returns:
        Float tensor `[n, ceil(h / 2), ceil(w / 2), 2 c]`.
    """

    def call(self, x):
        channels = x.shape[-1]
        return ops.pad(x[:, ::2, ::2], [(0, 0), (0, 0), (0, 0), (channels // 2, channels - channels // 2)])

    def compute_output_shape(self, input_shape):
        n, height, width, channels = input_shape
        return (n, height and -(-height // 2), width and -(-width // 2), 2 * channels)


def _normalize(x, dtype):
    return layers.BatchNormalization(momentum=0.9, epsilon=1e-5, dtype=dtype)(x)


def _average(x, dtype):
    return layers.GlobalAveragePooling2D(data_format="channels_last", dtype=dtype)(x)


def _classify(x, num_classes, seed, dtype):
    initial = keras.initializers.VarianceScaling(1.0, "fan_in", "untruncated_normal", seed=seed)
    return layers.Dense(num_classes, kernel_initializer=initial, dtype=dtype, name="classifier")(_average(x, dtype))
