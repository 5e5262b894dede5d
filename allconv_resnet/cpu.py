"""Layers that TensorFlow trains faster on a CPU, with the results of Keras's layers up to rounding.

In training, convolutions and their gradients use Winograd's minimal filtering where that is faster, or matrix products
where a processor has AMX, and a residual block takes one pass over its maps for each convolution. Convolutions that
oneDNN computes get a bias of zeros, so that oneDNN can fuse them with the ReLU or the addition that follows. Batch
normalization is one operation of TensorFlow. Graphs of inference have none of it: the bias would become an input of an
exported model. benchmarks/NOTES.md has the measurements.
"""

import contextlib
from collections.abc import Iterator

import keras
from keras import layers, ops

from allconv_resnet import convolutions, kernels

if keras.backend.backend() == "tensorflow":
    import tensorflow as tf

# The largest map and the fewest channels for which `convolutions.filter_gradient` was measured to be faster than
# oneDNN's kernel.
LARGEST_WIDTH_OF_GRADIENT, FEWEST_CHANNELS_OF_GRADIENT = 14, 96

# Where matrix products are used on processors with AMX: the fewest channels of 1x1 convolutions, and the largest output
# and the fewest channels of 3x3 convolutions with stride 2. The numbers of channels lie between those that were
# measured to be faster and slower than oneDNN's gradients.
FEWEST_CHANNELS_OF_POINTWISE, LARGEST_WIDTH_OF_STRIDED, FEWEST_CHANNELS_OF_STRIDED = 64, 8, 96

_contexts_of_compiled_convolutions = 0


@contextlib.contextmanager
def compiled_convolutions() -> Iterator[None]:
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

    >>> from allconv_resnet.cpu import compiled_convolutions
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

    >>> from allconv_resnet.cpu import Convolution
    >>> layer = Convolution(96, 3, padding="same", use_bias=False, dtype="mixed_bfloat16")
    >>> keras.ops.shape(layer(np.ones((1, 8, 8, 96))))
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
        if training and convolve is not convolutions.compiled_convolution and self._has_fusable_bias():
            return convolutions.with_fusable_bias(y)
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

    >>> from allconv_resnet.cpu import BatchNormalization
    >>> keras.ops.shape(BatchNormalization(dtype="mixed_bfloat16")(np.ones((1, 8, 8, 96)), training=True))
    (1, 8, 8, 96)
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
        A function of `convolutions`, or None.
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
        is_wide = fewest >= FEWEST_CHANNELS_OF_POINTWISE
        return convolutions.pointwise_convolution if kernels.has_amx() and is_wide else None
    if kernel_and_strides == ((3, 3), (2, 2)):
        is_even = None not in (height, width) and height % 2 == width % 2 == 0
        is_small = is_even and width // 2 <= LARGEST_WIDTH_OF_STRIDED and fewest >= FEWEST_CHANNELS_OF_STRIDED
        return convolutions.strided_convolution if kernels.has_amx() and is_small else None
    if kernel_and_strides != ((3, 3), (1, 1)):
        return None
    if _contexts_of_compiled_convolutions and kernels.faster(images, channels, layer.filters):
        return convolutions.compiled_convolution
    is_wide = fewest >= FEWEST_CHANNELS_OF_GRADIENT
    if is_wide and None not in (height, width) and width <= LARGEST_WIDTH_OF_GRADIENT:
        return convolutions.convolution_with_minimal_gradient
    return None
