"""The last block of a network of this project as Shamir's predictor, so that his theorem holds for it as it is.

Behind the last block h + C2(phi(C1 h)) come a global average pool and a linear head. Pooling commutes with the sum and
with the convolution C2, so the logits are W (x + V f), where x `[d]` is the pooled input of the block (after its
shortcut), W the head, V the kernel of C2 as a matrix, and f the averages of phi(C1 h) over the windows that each entry
of the kernel sees. All other weights are in x and f. Therefore, if the head is trained, a point at which the network is
worse than the best linear predictor on x has a gradient in (W, V) or a direction of negative curvature there.
"""

from typing import NamedTuple

import keras
import numpy as np

from allconv_resnet.blocks import ResidualBlock
from allconv_resnet.errors import BadInput


class LastBlock(NamedTuple):
    """The result of `last_block`: the logits of the network are W (x + V f).

    Attributes:
        x: Float64 array `[n, d]`, pooled input of the last block.
        W: Float64 array `[m, d]`, head.
        V: Float64 array `[d, k]`, kernel of the block's second convolution.
        features: Float64 array `[n, k]`, f.
    """

    x: np.ndarray
    W: np.ndarray
    V: np.ndarray
    features: np.ndarray


def last_block(model: keras.Model, images: np.ndarray, batch_size: int = 256) -> LastBlock:
    """Returns the last block of a network in the form W (x + V f).

    Args:
        model: `AllConvResNet` whose last block is a `ResidualBlock` with a shortcut, without biases and normalization,
            and without a final activation.
        images: Float array `[n, height, width, channels]`.
        batch_size: Positive integer, number of images at a time.

    Returns:
        `LastBlock` of float64 arrays, for `Problem` and `certify`.

    Raises:
        BadInput: if the network does not have this form.

    Example:

    >>> from allconv_resnet.model import AllConvResNet, Stage
    >>> form = last_block(AllConvResNet((8, 8, 3), 10, stages=[Stage(1, 16)]), np.ones((5, 8, 8, 3), "float32"))
    >>> form.x.shape, form.W.shape, form.V.shape, form.features.shape
    ((5, 16), (10, 16), (16, 144), (5, 144))
    """
    block, pool, head = model.layers[-3:]
    plain = type(block) is ResidualBlock and block.shortcut and not block.use_bias and not block.normalization
    if not plain or type(pool) is not keras.layers.GlobalAveragePooling2D:
        raise BadInput(
            "The network must end in a ResidualBlock with a shortcut, without biases and normalization, a global "
            f"average pool and a head. Received: layers {', '.join(layer.name for layer in model.layers[-3:])}"
        )
    before = keras.Model(model.input, block.input)
    parts = [_pooled(block, before(images[i : i + batch_size])) for i in range(0, len(images), batch_size)]
    x, features = (np.concatenate(arrays).astype(np.float64) for arrays in zip(*parts, strict=True))
    kernel = keras.ops.convert_to_numpy(block.conv2.kernel).astype(np.float64)
    W = keras.ops.convert_to_numpy(head.kernel).astype(np.float64).T
    return LastBlock(x, W, kernel.reshape(-1, kernel.shape[-1]).T, features)


def _pooled(block, h):
    """Returns the averages of the shortcut, and those of the windows of the second convolution."""
    x = keras.ops.convert_to_numpy(keras.ops.mean(block.reshaped(h), axis=(1, 2)))
    hidden = keras.ops.convert_to_numpy(block.activation(block.conv1(h))).astype(np.float64)
    height, width = hidden.shape[1:3]
    rows, columns = block.conv2.kernel.shape[:2]
    margins = [((size - 1) // 2, size - 1 - (size - 1) // 2) for size in (rows, columns)]  # the SAME padding
    padded = np.pad(hidden, [(0, 0), *margins, (0, 0)])
    windows = [padded[:, i : i + height, j : j + width].mean(axis=(1, 2)) for i in range(rows) for j in range(columns)]
    return x, np.concatenate(windows, axis=1)
