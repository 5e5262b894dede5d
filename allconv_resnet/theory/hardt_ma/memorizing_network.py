"""The Keras model of `memorize`: projection, residual blocks, and the last layers, with their weights."""

import keras
import numpy as np

from allconv_resnet.theory.hardt_ma.stacked_blocks import CenteredProjection, StackedResidualBlocks


def build_network(shape, input_dtype, dtype, embedding, blocks, outputs):
    """Returns the model of an embedding and of residual blocks, with logits or with exact unit vectors as outputs.

    Args:
        shape: Tuple of integers, the shape of a point.
        input_dtype: `"float32"` or `"float64"`, the precision to which the network first rounds the points.
        dtype: `"float32"` or `"float64"`, the precision in which it computes.
        embedding: `Embedding`.
        blocks: `Blocks`.
        outputs: `"logits"` or `"unit"`.

    Returns:
        Functional `keras.Model`.
    """
    width = blocks.U.shape[-1]
    inputs = keras.Input(shape, dtype=input_dtype, name="points")
    h = keras.layers.Flatten(dtype=dtype)(inputs)
    h = CenteredProjection(width, dtype=dtype, name="projection")(h)
    h = StackedResidualBlocks(len(blocks.U), blocks.U.shape[1], dtype=dtype, name="blocks")(h)
    if outputs == "logits":
        last = {"readout": (None, (blocks.readout, blocks.readout_bias))}
    else:
        distances, unit = unit_outputs(blocks.surrogates, blocks.apart)
        last = {"distances": ("relu", distances), "unit": ("relu", unit)}
    for name, (activation, (kernel, _)) in last.items():
        h = keras.layers.Dense(kernel.shape[1], activation, dtype=dtype, name=name)(h)
    model = keras.Model(inputs, h, name="memorization")
    more = width - embedding.kernel.shape[1]  # coordinates that start at 0
    kernel, bias = np.pad(embedding.kernel, [(0, 0), (0, more)]), np.pad(embedding.bias, (0, more))
    model.get_layer("projection").set_weights([embedding.center, kernel, bias])
    model.get_layer("blocks").set_weights([blocks.U, blocks.s, blocks.V])
    for name, (_, weights) in last.items():
        model.get_layer(name).set_weights([weight.astype(dtype) for weight in weights])
    return model


def unit_outputs(surrogates, apart):
    """Returns two layers of ReLUs that map every point near the surrogate of its class to exactly its unit vector.

    The first layer has `t_c = sum_a ReLU(|h_a - q_ca| - apart/6)` as separate neurons for both signs, over the
    coordinates a in which surrogates differ, and the second one has `ReLU(1 - 4 t_c / apart)`. For the class of the
    point all neurons of the first layer are 0, since h is within `apart/8` of its surrogate, and the output is 1
    without a rounding error. For any other class some coordinate differs by more than `apart/2`, so `4 t_c / apart`
    is above 1, and the output is 0. With real numbers in place of floating-point numbers, the last block of theorem 3.2
    has one such layer.

    Args:
        surrogates: Float array `[classes, width]`.
        apart: Float, the smallest distance between two surrogates; infinite for one class.

    Returns:
        Pairs `(kernel, bias)` of both layers.

    Example:

    >>> (kernel, bias), (last, ones) = unit_outputs(np.array([[0.0], [1.0], [2.0]]), 1.0)
    >>> h = np.array([[0.9], [2.1]])
    >>> np.maximum(np.maximum(h @ kernel + bias, 0) @ last + ones, 0)
    array([[0., 1., 0.],
           [0., 0., 1.]])
    """
    classes, width = surrogates.shape
    apart = min(apart, 1e30)
    axes = [a for a in range(width) if np.ptp(surrogates[:, a]) > 0] or [0]
    kernel, bias = np.zeros((width, classes, len(axes), 2)), np.empty((classes, len(axes), 2))
    for place, a in enumerate(axes):
        kernel[a, :, place] = 1, -1
        bias[:, place] = surrogates[:, a, None] * (-1, 1) - apart / 6
    last = np.repeat(np.eye(classes) * (-4 / apart), 2 * len(axes), axis=0)
    return (kernel.reshape(width, -1), bias.reshape(-1)), (last, np.ones(classes))
