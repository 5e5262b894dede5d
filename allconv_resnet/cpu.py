"""Convolutions on a CPU: the same function as Keras's layer, by arithmetic that TensorFlow runs faster.

In training the filter gradients of small maps go by Winograd's minimal filtering; always convolutions are put so that
TensorFlow's graph optimizer fuses them with what follows. benchmarks/NOTES.md has what each was measured to do.
"""

import keras
from keras import ops

if keras.backend.backend() == "tensorflow":
    import tensorflow as tf

LARGEST_WIDTH, FEWEST_CHANNELS = 14, 96  # of the maps that were measured to be faster here than in oneDNN's kernel


def convolve(layer, x, training):
    """Returns what a layer returns.

    Args:
        layer: Built `keras.layers.Conv2D`, channels last.
        x: Float tensor `[n, h, w, c]`.
        training: Whether gradients will be asked for.

    Returns:
        Float tensor.
    """
    if keras.backend.backend() != "tensorflow" or tf.config.list_logical_devices("GPU"):
        return layer(x)
    if training and has_faster_gradient(layer, x):
        y = _convolve_with_faster_gradient(x, ops.convert_to_tensor(layer.kernel))
    else:
        y = layer(x)
    return y if layer.use_bias or not tf.inside_function() else _with_fusable_bias(y)


def has_faster_gradient(layer, x):
    """Returns whether `filter_gradient` applies to a layer and its input, and was measured to be faster.

    bfloat16 alone: its rounding hides the other order of the sums, and float32 stays what others can be checked by.
    """
    _, height, width, channels = x.shape
    return (
        x.dtype == tf.bfloat16
        and layer.kernel_size == (3, 3)
        and layer.strides == layer.dilation_rate == (1, 1)
        and layer.groups == 1
        and layer.padding == "same"
        and layer.activation is keras.activations.linear
        and not layer.use_bias
        and None not in (height, width)
        and width <= LARGEST_WIDTH
        and min(channels, layer.filters) >= FEWEST_CHANNELS
    )


def filter_gradient(x, dy):
    """Returns the gradient of a 3x3 convolution with respect to its kernel, with 2/3 of the multiplications.

    For each row offset, the three taps along a row are a correlation of x with dy. Two columns of dy at a time,
    F(3, 2) of Winograd (Lavin & Gray 2015, arXiv 1509.09308, section 4) has them from 4 products where there are 6:

        m1 = (x0 - x2) d0    m2 = (x1 + x2) (d0 + d1) / 2    m3 = (x2 - x1) (d0 - d1) / 2    m4 = (x1 - x3) d1
        taps: m1 + m2 + m3,  m2 - m3,  m2 + m3 - m4

    The products are summed over all images and columns before they are combined: they are matrix products. In bfloat16
    the sums of two columns are rounded: the error is 0.4 % of the gradient's deviation, where oneDNN's is 0.2 %.

    Args:
        x: Float tensor `[n, h, w, c]`, the input of a convolution with stride 1 and SAME padding; h and w are known.
        dy: Float tensor `[n, h, w, k]`, the gradient with respect to its output.

    Returns:
        Float tensor `[3, 3, c, k]`.
    """
    _, height, width, channels = x.shape
    pairs = -(-width // 2)
    # Rows come first: then those that belong to one row offset lie together, and slicing copies nothing.
    x = tf.pad(tf.transpose(x, [1, 0, 2, 3]), [(1, 1), (0, 0), (1, 1 + width % 2), (0, 0)])
    x = tf.reshape(x, [height + 2, -1, pairs + 1, 2, channels])
    x0, x1, x2, x3 = x[:, :, :-1, 0], x[:, :, :-1, 1], x[:, :, 1:, 0], x[:, :, 1:, 1]
    dy = tf.pad(tf.transpose(dy, [1, 0, 2, 3]), [(0, 0), (0, 0), (0, width % 2), (0, 0)])
    dy = tf.reshape(dy, [-1, 2, dy.shape[-1]])
    d0, d1 = dy[:, 0], dy[:, 1]
    xs, dys = (x0 - x2, x1 + x2, x2 - x1, x1 - x3), (d0, (d0 + d1) / 2, (d0 - d1) / 2, d1)

    taps = []
    for row in range(3):
        rows = (tf.reshape(part[row : row + height], [-1, channels]) for part in xs)
        m1, m2, m3, m4 = (tf.matmul(a, b, transpose_a=True) for a, b in zip(rows, dys, strict=True))
        taps += [m1 + m2 + m3, m2 - m3, m2 + m3 - m4]
    return tf.reshape(tf.stack(taps), [3, 3, channels, -1])


def _convolve_with_faster_gradient(x, kernel):
    @tf.custom_gradient
    def convolution(x, kernel):
        def gradient(dy):
            with tf.control_dependencies([dy]):  # or what needs x alone would be made, and kept, in the forward pass
                return tf.nn.conv2d_transpose(dy, kernel, tf.shape(x), strides=1), filter_gradient(x, dy)

        return tf.nn.conv2d(x, kernel, strides=1, padding="SAME"), gradient

    return convolution(x, kernel)


def _with_fusable_bias(y):
    # A convolution, its bias and a ReLU or an addition become one oneDNN primitive, which spares a pass over the map;
    # without a bias they do not. A placeholder's default is not taken for a constant, which would be simplified away.
    zeros = tf.zeros(y.shape[-1:], y.dtype)
    return tf.nn.bias_add(y, tf.compat.v1.placeholder_with_default(zeros, zeros.shape))
