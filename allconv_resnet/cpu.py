"""Layers that TensorFlow trains faster on a CPU, with the results of Keras's layers up to rounding.

In training, convolutions and their gradients use Winograd's minimal filtering where that is faster, or matrix products
where a processor has AMX, and a residual block takes one pass over its maps for each convolution. Convolutions that
oneDNN computes get a bias of zeros, so that oneDNN can fuse them with the ReLU or the addition that follows. Batch
normalization is one operation of TensorFlow. Graphs of inference have none of it: the bias would become an input of an
exported model. benchmarks/NOTES.md has the measurements.
"""

import contextlib

import keras
from keras import layers, ops

from allconv_resnet import kernels

if keras.backend.backend() == "tensorflow":
    import tensorflow as tf

# The largest map and the fewest channels for which `filter_gradient` was measured to be faster than oneDNN's kernel.
LARGEST_WIDTH_OF_GRADIENT, FEWEST_CHANNELS_OF_GRADIENT = 14, 96

# Where matrix products are used on processors with AMX: the fewest channels of 1x1 convolutions, and the largest output
# and the fewest channels of 3x3 convolutions with stride 2. The numbers of channels lie between those that were
# measured to be faster and slower than oneDNN's gradients.
FEWEST_CHANNELS_OF_POINTWISE, LARGEST_WIDTH_OF_STRIDED, FEWEST_CHANNELS_OF_STRIDED = 64, 8, 96

_contexts_of_compiled_convolutions = 0


@contextlib.contextmanager
def compiled_convolutions():
    """Returns a context in which convolutions train with the package's compiled operations.

    The context acts on what is traced within it. `fit` traces its train step when it is called for the first time after
    `compile`. The operations are for 3x3 convolutions in bfloat16 with stride 1, without a bias, and with at least 48
    channels and filters; on processors with AMX they are not used for batches that are known to have fewer than 16
    images. Where `kernels.available` says no, nothing changes.

    Other processes and XLA do not know these operations. Therefore what is traced within the context must run in this
    process, and without XLA: `compile` needs `jit_compile=False` if there are GPUs that are hidden from TensorFlow. The
    gradients of the operations have no gradients of their own, so there are no second derivatives. The training program
    uses the context itself.

    Example: training by Keras in bfloat16 on a CPU.

    >>> model = keras.Sequential([keras.Input((8, 8, 64)), acr.ResidualBlock(64, dtype="mixed_bfloat16")])
    >>> model.compile("sgd", "mse")
    >>> with compiled_convolutions():
    ...     history = model.fit(np.ones((2, 8, 8, 64)), np.ones((2, 8, 8, 64)), verbose=0)
    """
    global _contexts_of_compiled_convolutions
    _contexts_of_compiled_convolutions += 1
    try:
        yield
    finally:
        _contexts_of_compiled_convolutions -= 1


@keras.saving.register_keras_serializable(package="allconv_resnet")
class Convolution(layers.Conv2D):
    """`keras.layers.Conv2D`, faster when it trains on a CPU.

    Its arguments and weights are those of Keras's layer. On a GPU and on other backends than TensorFlow, it computes as
    Keras's layer does. In training on a CPU, it computes by `faster_convolution`, or with a bias of zeros that oneDNN
    can fuse with what follows.

    Args:
        *args: Arguments of `keras.layers.Conv2D`.
        **kwargs: Arguments of `keras.layers.Conv2D`.

    Call arguments:
        inputs: Float tensor `[n, h, w, c]`.
        training: Whether gradients will be computed.
        scale: Scalar tensor or None. The kernel is multiplied by it, which costs less than multiplying the output.

    Returns:
        Float tensor `[n, h', w', filters]`.

    Example:

    >>> Convolution(96, 3, padding="same", use_bias=False, dtype="mixed_bfloat16")(np.ones((1, 8, 8, 96))).shape
    (1, 8, 8, 96)
    """

    def call(self, inputs, training=None, scale=None):
        kernel = self.kernel if scale is None else self.kernel * scale
        convolve = faster_convolution(self, inputs) if training else None
        if convolve:
            y = convolve(inputs, kernel)
        elif scale is None:
            y = super().call(inputs)
        else:
            y = self.convolution_op(inputs, kernel)
            if self.use_bias:
                channels_first = self.data_format == "channels_first"
                y = y + (ops.reshape(self.bias, (1, self.filters, 1, 1)) if channels_first else self.bias)
            y = y if self.activation is None else self.activation(y)
        if training and convolve is not compiled_convolution and self._has_fusable_bias():
            return _with_fusable_bias(y)
        return y

    def _has_fusable_bias(self):
        channels_last = self.data_format == "channels_last"
        return _on_tensorflow_cpu() and channels_last and not self.use_bias and tf.inside_function()


@keras.saving.register_keras_serializable(package="allconv_resnet")
class BatchNormalization(layers.BatchNormalization):
    """`keras.layers.BatchNormalization`, faster when it trains on a CPU.

    Its arguments and weights are those of Keras's layer. Keras's layer takes some twenty passes over a map in float32.
    In training in bfloat16 with TensorFlow on a CPU, this layer takes TensorFlow's fused operation, which reads
    bfloat16 and computes in float32. Everywhere else, it computes as Keras's layer does.

    Args:
        **kwargs: Arguments of `keras.layers.BatchNormalization`.

    Call arguments:
        inputs: Float tensor `[n, h, w, c]`.
        training: Whether the statistics are those of the batch.
        mask: Mask of `keras.layers.BatchNormalization`, or None.

    Returns:
        Float tensor `[n, h, w, c]`.

    Example:

    >>> BatchNormalization(dtype="mixed_bfloat16")(np.ones((1, 8, 8, 96)), training=True).shape
    TensorShape([1, 8, 8, 96])
    """

    def call(self, inputs, training=None, mask=None):
        if not (training and mask is None and self._fuses(inputs)):
            return super().call(inputs, training=training, mask=mask)
        channels = self.moving_mean.shape
        y, mean, variance, *_ = tf.raw_ops.FusedBatchNormV3(
            x=inputs,
            scale=ops.cast(self.gamma, "float32") if self.scale else tf.ones(channels),
            offset=ops.cast(self.beta, "float32") if self.center else tf.zeros(channels),
            mean=tf.zeros(0),
            variance=tf.zeros(0),
            epsilon=self.epsilon,
            is_training=True,
        )
        # The operation returns the sum of squares over n - 1. Keras's moving variance has that over n.
        n = tf.cast(tf.size(inputs, tf.int64) // tf.size(mean, tf.int64), variance.dtype)
        for moving, new in ((self.moving_mean, mean), (self.moving_variance, variance * (n - 1) / n)):
            moving.assign(ops.cast(moving, new.dtype) * self.momentum + new * (1 - self.momentum))
        return y

    def _fuses(self, x):
        return (
            _on_tensorflow_cpu()
            and x.dtype == tf.bfloat16
            and self.compute_dtype == "bfloat16"
            and self.trainable
            and len(x.shape) == 4
            and self.axis in (-1, 3)
            and not self.renorm
            and not self.synchronized
        )


def _on_tensorflow_cpu():
    return keras.backend.backend() == "tensorflow" and not tf.config.list_logical_devices("GPU")


def faster_convolution(layer, x):
    """Returns the function (x, kernel) -> y that trains a layer faster than oneDNN, or None.

    There is one in bfloat16 alone. The rounding of bfloat16 hides that the sums are taken in another order, and results
    in float32 stay comparable with those of other programs. There is none for a frozen layer, because the functions
    would compute its filter gradient all the same.

    Args:
        layer: `keras.layers.Conv2D`.
        x: Tensor `[n, h, w, c]`, its input.

    Returns:
        `compiled_convolution`, `convolution_with_minimal_gradient`, `pointwise_convolution`, `strided_convolution`, or
        None.
    """
    applies = (
        _on_tensorflow_cpu()
        and x.dtype == tf.bfloat16
        and layer.compute_dtype == "bfloat16"
        and layer.trainable
        and layer.data_format == "channels_last"
        and layer.dilation_rate == (1, 1)
        and layer.groups == 1
        and layer.padding == "same"
        and layer.activation is keras.activations.linear
        and not layer.use_bias
    )
    if not applies:
        return None
    images, height, width, channels = x.shape
    if channels is None:
        return None
    fewest = min(channels, layer.filters)
    kernel_and_strides = layer.kernel_size, layer.strides
    if kernel_and_strides == ((1, 1), (1, 1)):
        return pointwise_convolution if kernels.has_amx() and fewest >= FEWEST_CHANNELS_OF_POINTWISE else None
    if kernel_and_strides == ((3, 3), (2, 2)):
        is_even = None not in (height, width) and height % 2 == width % 2 == 0
        is_small = is_even and width // 2 <= LARGEST_WIDTH_OF_STRIDED and fewest >= FEWEST_CHANNELS_OF_STRIDED
        return strided_convolution if kernels.has_amx() and is_small else None
    if kernel_and_strides != ((3, 3), (1, 1)):
        return None
    if _contexts_of_compiled_convolutions and kernels.faster(images, channels, layer.filters):
        return compiled_convolution
    is_wide = fewest >= FEWEST_CHANNELS_OF_GRADIENT
    if is_wide and None not in (height, width) and width <= LARGEST_WIDTH_OF_GRADIENT:
        return convolution_with_minimal_gradient
    return None


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


def _with_fusable_bias(y):
    # The graph optimizer makes one oneDNN primitive of a convolution, its bias and a ReLU or an addition, which saves a
    # pass over the map. It does not do so without a bias, and it would remove a constant bias of zeros, but it does not
    # take the default value of a placeholder for a constant.
    zeros = tf.zeros(y.shape[-1:], y.dtype)
    return tf.nn.bias_add(y, tf.compat.v1.placeholder_with_default(zeros, zeros.shape))
