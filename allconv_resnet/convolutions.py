"""Convolutions with gradients of their own, for TensorFlow on a CPU.

Their results are those of `tf.nn.conv2d` and its gradients up to rounding. A residual block has a function of its own.
`cpu.faster_convolution` chooses among them. benchmarks/NOTES.md has the measurements.
"""

import keras

from allconv_resnet import kernels

if keras.backend.backend() == "tensorflow":
    import tensorflow as tf


def compiled_convolution(x, kernel):
    """Returns a 3x3 convolution, SAME and with stride 1, that is computed by `allconv_resnet.kernels`.

    Args:
        x: bfloat16 tensor `[n, h, w, c]`.
        kernel: bfloat16 tensor or variable `[3, 3, c, k]`.

    Returns:
        bfloat16 tensor `[n, h, w, k]`.
    """

    @tf.custom_gradient
    def convolution(x, kernel):
        def gradient(dy):
            dkernel = kernels.filter_gradient(x, dy)
            # Each operation has threads of its own. Beside each other, they would wait for each other.
            with tf.control_dependencies([dkernel]):
                return kernels.convolution(dy, kernel, transposed=True), dkernel

        return kernels.convolution(x, kernel), gradient

    return convolution(x, tf.convert_to_tensor(kernel))


def compiled_residual_block(x, kernel1, kernel2):
    """Returns `x + C2(ReLU(C1(x)))`, where `allconv_resnet.kernels` takes one pass for each convolution and gradient.

    Args:
        x: bfloat16 tensor `[n, h, w, c]`.
        kernel1: bfloat16 tensor or variable `[3, 3, c, c]`, the kernel of C1.
        kernel2: bfloat16 tensor or variable `[3, 3, c, c]`, the kernel of C2.

    Returns:
        bfloat16 tensor `[n, h, w, c]`.
    """

    @tf.custom_gradient
    def block(x, kernel1, kernel2):
        hidden = kernels.convolution(x, kernel1, last="relu")

        def gradient(dy):
            # Each operation has threads of its own. Beside each other, they would wait for each other.
            dkernel2 = kernels.filter_gradient(hidden, dy)
            with tf.control_dependencies([dkernel2]):
                dhidden = kernels.convolution(dy, kernel2, transposed=True, last="mask", other=hidden)
            dkernel1 = kernels.filter_gradient(x, dhidden)
            with tf.control_dependencies([dkernel1]):
                dx = kernels.convolution(dhidden, kernel1, transposed=True, last="add", other=dy)
            return dx, dkernel1, dkernel2

        return kernels.convolution(hidden, kernel2, last="add", other=x), gradient

    return block(x, tf.convert_to_tensor(kernel1), tf.convert_to_tensor(kernel2))


def convolution_with_minimal_gradient(x, kernel):
    """Returns a 3x3 convolution, SAME and with stride 1, by oneDNN, and with `filter_gradient`.

    Args:
        x: Float tensor `[n, h, w, c]`. h and w must be static.
        kernel: Float tensor or variable `[3, 3, c, k]`.

    Returns:
        Float tensor `[n, h, w, k]`.
    """

    @tf.custom_gradient
    def convolution(x, kernel):
        def gradient(dy):
            # Without this, what depends on x alone would be computed, and kept, during the forward pass.
            with tf.control_dependencies([dy]):
                dkernel = filter_gradient(x, dy)
            return tf.nn.conv2d_transpose(dy, kernel, tf.shape(x), strides=1), dkernel

        return tf.nn.conv2d(x, kernel, strides=1, padding="SAME"), gradient

    return convolution(x, tf.convert_to_tensor(kernel))


def pointwise_convolution(x, kernel):
    """Returns a 1x1 convolution with stride 1, by oneDNN, whose filter gradient is one matrix product.

    Args:
        x: Float tensor `[n, h, w, c]`.
        kernel: Float tensor or variable `[1, 1, c, k]`.

    Returns:
        Float tensor `[n, h, w, k]`.
    """

    @tf.custom_gradient
    def convolution(x, kernel):
        def gradient(dy):
            pixels, dpixels = tf.reshape(x, [-1, x.shape[-1]]), tf.reshape(dy, [-1, dy.shape[-1]])
            dkernel = tf.reshape(tf.matmul(pixels, dpixels, transpose_a=True), kernel.shape)
            return tf.nn.conv2d_transpose(dy, kernel, tf.shape(x), strides=1), dkernel

        return tf.nn.conv2d(x, kernel, strides=1, padding="SAME"), gradient

    return convolution(x, tf.convert_to_tensor(kernel))


def strided_convolution(x, kernel):
    """Returns a 3x3 convolution, SAME and with stride 2, by oneDNN, whose gradients are one matrix product each.

    If each square of 2x2 pixels is taken for one pixel with four times the channels, this is a convolution with stride
    1 and four taps: the square itself, the next one in the row, and those two in the next row. So the products are
    those of the squares, the four shifts of dy, and a 4x4 kernel whose last row and column are zeros.

    Args:
        x: Float tensor `[n, h, w, c]`. h and w must be static and even.
        kernel: Float tensor or variable `[3, 3, c, k]`.

    Returns:
        Float tensor `[n, h / 2, w / 2, k]`.
    """
    height, width, channels = x.shape[1:]

    @tf.custom_gradient
    def convolution(x, kernel):
        filters = kernel.shape[-1]

        def gradient(dy):
            below = tf.pad(dy[:, :-1], [(0, 0), (1, 0), (0, 0), (0, 0)])
            shifts = [shift for rows in (dy, below) for shift in (rows, _shifted_right(rows))]
            shifts = tf.reshape(tf.concat(shifts, axis=-1), [-1, 4 * filters])
            with tf.control_dependencies([dy]):  # otherwise the squares would be kept from the forward pass on
                squares = tf.reshape(tf.nn.space_to_depth(x, 2), [-1, 4 * channels])
            dkernel = tf.reshape(tf.matmul(squares, shifts, transpose_a=True), [2, 2, channels, 2, 2, filters])
            dkernel = tf.reshape(tf.transpose(dkernel, [3, 0, 4, 1, 2, 5]), [4, 4, channels, filters])[:3, :3]
            taps = tf.reshape(tf.pad(kernel, [(0, 1), (0, 1), (0, 0), (0, 0)]), [2, 2, 2, 2, channels, filters])
            taps = tf.reshape(tf.transpose(taps, [0, 2, 5, 1, 3, 4]), [4 * filters, 4 * channels])
            dsquares = tf.reshape(tf.matmul(shifts, taps), [-1, height // 2, width // 2, 4 * channels])
            return tf.nn.depth_to_space(dsquares, 2), dkernel

        return tf.nn.conv2d(x, kernel, strides=2, padding="SAME"), gradient

    return convolution(x, tf.convert_to_tensor(kernel))


def _shifted_right(x):
    return tf.pad(x[:, :, :-1], [(0, 0), (0, 0), (1, 0), (0, 0)])


def filter_gradient(x, dy):
    """Returns the gradient of a 3x3 convolution with respect to its kernel, with 2/3 of the multiplications.

    For each row offset, the three taps along a row are a correlation of x with dy. The algorithm takes two columns of
    dy at a time. Winograd's F(3, 2) (Lavin & Gray 2015, arXiv 1509.09308, section 4) then needs 4 products, not 6:

        m1 = (x0 - x2) d0    m2 = (x1 + x2) (d0 + d1) / 2    m3 = (x2 - x1) (d0 - d1) / 2    m4 = (x1 - x3) d1
        taps: m1 + m2 + m3,  m2 - m3,  m2 + m3 - m4

    The products are summed over all images and columns before they are combined, so they are matrix products. In
    bfloat16 the sums of two columns are rounded. The error is then 0.4 % of the gradient's standard deviation, where
    oneDNN's is 0.2 %.

    Args:
        x: Float tensor `[n, h, w, c]`, the input of a SAME convolution with stride 1. h and w must be static.
        dy: Float tensor `[n, h, w, k]`, the gradient with respect to its output.

    Returns:
        Float tensor `[3, 3, c, k]`.
    """
    _, height, width, channels = x.shape
    pairs = -(-width // 2)
    # With rows as the first axis, the rows of one offset are contiguous and slicing copies nothing.
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


def with_fusable_bias(y):
    """Returns y with a bias of zeros, which oneDNN fuses with the ReLU or the addition that follows.

    Args:
        y: Float tensor `[n, h, w, k]`, the output of a convolution in a graph.
    """
    # The graph optimizer makes one oneDNN primitive of a convolution, its bias and a ReLU or an addition, which saves a
    # pass over the map. It does not do so without a bias, and it would remove a constant bias of zeros, but it does not
    # take the default value of a placeholder for a constant.
    zeros = tf.zeros(y.shape[-1:], y.dtype)
    return tf.nn.bias_add(y, tf.compat.v1.placeholder_with_default(zeros, zeros.shape))
