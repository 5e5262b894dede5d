"""The residual block of Hardt & Ma, and the table of block types.

A new block type is one class and one line in `BLOCKS`. `AllConvResNet(block=NAME, ...)` then builds its stages from it.
"""

import numbers
from collections.abc import Sequence
from typing import Any, Literal

import keras
import numpy as np
from keras import ops

from allconv_resnet.convolutions import compiled_convolution, compiled_residual_block
from allconv_resnet.cpu import BatchNormalization, Convolution, faster_convolution
from allconv_resnet.errors import BadInput
from allconv_resnet.layers import Configured, convolution, own_activation
from allconv_resnet.types import Activation, Shape, Tensor


def batch_normalization(name: str, dtype: Any = None) -> BatchNormalization:
    """Returns the batch normalization of the paper's comparison, with the constants of the 2016 TensorFlow model.

    Args:
        name: String, the name of the layer.
        dtype: Keras dtype policy or its name.

    Returns:
        The layer, with momentum 0.9 and epsilon 0.001.

    Example:

    >>> from allconv_resnet.blocks import batch_normalization
    >>> batch_normalization("norm").momentum
    0.9
    """
    return BatchNormalization(momentum=0.9, epsilon=1e-3, name=name, dtype=dtype)


@keras.saving.register_keras_serializable(package="allconv_resnet")
class ResidualBlock(Configured):
    """The block `x + C2(activation(C1(x)))` of two convolutions (Hardt & Ma, section 4, equation 4.1 onward).

    A block has one nonlinearity, and none follows the addition. Where the block changes the shape, the shortcut is an
    average pooling for the stride and zero padding for the channels, half before and half after.

    Args:
        filters: Integer, the number of output channels, at least that of the input.
        strides: Integer, the stride of the first convolution and the size of the shortcut's pooling.
        activation: Name, callable or layer. Each block makes its own copy of a layer, with its own weights.
        shortcut: `"identity"`, or None for `C2(activation(C1(x)))` alone (an ablation).
        kernel_sizes: Two integers, the kernel sizes of C1 and C2. The paper's are 3 and 3.
        use_bias: Whether the convolutions have a bias. The paper's have none.
        normalization: None, or `"batch"` for a batch normalization after each convolution (an ablation).
        initialization: Initializer of both kernels, see `initializers.for_kernel`.
        seed: Integer. The two kernels are drawn from `seed` and `seed + 1`.
        **kwargs: Arguments of `keras.layers.Layer`: `name`, `dtype`, ...

    Call arguments:
        x: Float tensor `[n, h, w, c]`, where `strides` divides h and w.

    Returns:
        Float tensor `[n, h / strides, w / strides, filters]`.

    Raises:
        BadInput: if the input has more channels than `filters`, or if `strides` does not divide its height and width.

    Example:

    >>> acr.ResidualBlock(32, strides=2)(np.ones((1, 8, 8, 16))).shape
    TensorShape([1, 4, 4, 32])
    """

    def __init__(
        self,
        filters: int,
        strides: int = 1,
        activation: Activation = "relu",
        shortcut: Literal["identity"] | None = "identity",
        kernel_sizes: Sequence[int] = (3, 3),
        use_bias: bool = False,
        normalization: Literal["batch"] | None = None,
        initialization: Any = "near_identity",
        seed: int = 0,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        if normalization not in (None, "batch"):
            raise BadInput(f'normalization must be None or "batch". Received: normalization={normalization!r}')
        if shortcut not in (None, "identity"):
            raise BadInput(f'shortcut must be "identity" or None. Received: shortcut={shortcut!r}')
        if not isinstance(strides, numbers.Integral) or strides < 1:
            raise BadInput(f"strides must be a positive integer. Received: strides={strides}")
        if np.shape(kernel_sizes) != (2,) or min(kernel_sizes) < 1:
            raise BadInput(f"kernel_sizes must be two positive integers. Received: kernel_sizes={kernel_sizes}")
        strides = int(strides)  # Keras takes no integers of NumPy
        self.filters, self.strides, self.use_bias, self.normalization = filters, strides, use_bias, normalization
        self.initialization, self.seed, self.shortcut = initialization, seed, shortcut
        self.kernel_sizes = tuple(kernel_sizes)
        self.activation = own_activation(activation, "activation")

        def conv(name, size, strides, seed):
            arguments = (filters, size, strides, use_bias, initialization, seed)
            return convolution(*arguments, Convolution, name=name, dtype=self.dtype_policy)

        self.conv1 = conv("conv1", self.kernel_sizes[0], strides, seed)
        self.conv2 = conv("conv2", self.kernel_sizes[1], 1, seed + 1)
        if normalization == "batch":
            self.norm1 = batch_normalization("norm1", self.dtype_policy)
            self.norm2 = batch_normalization("norm2", self.dtype_policy)

    def build(self, input_shape: Shape) -> None:
        channels = input_shape[-1]
        if channels is None:
            raise BadInput(f"The number of channels must be known. Received: input_shape={input_shape}")
        if channels > self.filters:
            raise BadInput(
                f"The filters of a block must be at least the channels of its input, {channels}. "
                f"Received: filters={self.filters}"
            )
        self.check_size(input_shape)
        extra = self.filters - channels
        self.channel_padding = (extra // 2, extra - extra // 2)
        self.conv1.build(input_shape)
        hidden_shape = self.compute_output_shape(input_shape)
        self.conv2.build(hidden_shape)
        if isinstance(self.activation, keras.layers.Layer):
            self.activation.build(hidden_shape)
        if self.normalization == "batch":
            self.norm1.build(hidden_shape)
            self.norm2.build(hidden_shape)
        if not self.trainable:  # the constructor of Keras does not pass it on to the sublayers
            for layer in self._flatten_layers(include_self=False):
                layer.trainable = False

    def call(self, x: Tensor, training: bool | None = None) -> Tensor:
        self.check_size(x.shape)
        if self.strides > 1 and None in x.shape[1:3]:
            x = self.checked_in_graph(x)
        if training and self.fuses(x):
            return compiled_residual_block(x, *self.kernels())
        y = self.conv1(x, training=training)
        y = self.norm1(y, training=training) if self.normalization else y
        y = self.conv2(self.activation(y), training=training, scale=self.branch_scale())
        y = self.norm2(y, training=training) if self.normalization else y
        return self.reshaped(x) + y if self.shortcut else y

    def branch_scale(self) -> Tensor | None:
        """Returns the scalar by which the branch is multiplied, or None."""
        return None

    def fuses(self, x: Tensor) -> bool:
        """Returns whether `compiled_residual_block` trains this block on x, with fewer passes over the maps."""
        return (
            all(faster_convolution(layer, x) is compiled_convolution for layer in (self.conv1, self.conv2))
            and self.shortcut is not None
            and self.normalization is None
            and self.activation is keras.activations.relu
            and x.shape[-1] == self.filters
            and self.conv1.activity_regularizer is self.conv2.activity_regularizer is None
        )

    def kernels(self) -> tuple[Tensor, Tensor]:
        """Returns the kernels of C1 and of C2, the latter multiplied by the scale of the branch."""
        scale = self.branch_scale()
        return self.conv1.kernel, self.conv2.kernel if scale is None else self.conv2.kernel * scale

    def check_size(self, shape: Shape) -> None:
        """Raises `BadInput` if `strides` does not divide a known height or width of an input's shape."""
        if any(size is not None and size % self.strides for size in shape[1:3]):
            raise BadInput(f"{self.size_message} Received: input_shape={tuple(shape)}")

    def checked_in_graph(self, x: Tensor) -> Tensor:
        """Returns x after a check, in a TensorFlow graph, that `strides` divides its size: only there it is unknown."""
        import tensorflow as tf

        check = tf.debugging.assert_equal(tf.shape(x)[1:3] % self.strides, 0, self.size_message)
        with tf.control_dependencies([check]):  # or the addition might fail first, with a message of its own
            return tf.identity(x)

    @property
    def size_message(self) -> str:
        """What is wrong if `strides` does not divide the height and width."""
        return f"The strides of a block, {self.strides}, must divide the height and width of its input."

    def reshaped(self, x: Tensor) -> Tensor:
        """Returns x in the shape of the block's output. This is x itself where the block keeps the shape."""
        if self.strides > 1:
            x = ops.average_pool(x, self.strides, self.strides, padding="valid", data_format="channels_last")
        return ops.pad(x, [(0, 0), (0, 0), (0, 0), self.channel_padding]) if any(self.channel_padding) else x

    def compute_output_shape(self, input_shape: Shape) -> Shape:
        n, height, width, _ = input_shape
        return (n, height and height // self.strides, width and width // self.strides, self.filters)


@keras.saving.register_keras_serializable(package="allconv_resnet")
class ScaledResidualBlock(ResidualBlock):
    """The block `x + gain * C2(activation(C1(x)))` with a trained scalar, as in SkipInit.

    De & Smith (2020, arXiv 2002.10444) let the scalar begin at 0 or at most at one over the root of the number of
    blocks. The default of 0.4 is this project's.

    Args:
        filters: Integer, see `ResidualBlock`.
        gain: Float, the scalar's initial value.
        **kwargs: Arguments of `ResidualBlock`.

    Example:

    >>> from allconv_resnet.blocks import ScaledResidualBlock
    >>> ScaledResidualBlock(32, gain=0.4)(np.ones((1, 8, 8, 16))).shape
    TensorShape([1, 8, 8, 32])
    """

    def __init__(self, filters: int, gain: float = 0.4, **kwargs: Any) -> None:
        super().__init__(filters, **kwargs)
        self.gain = gain

    def build(self, input_shape: Shape) -> None:
        super().build(input_shape)
        initial = keras.initializers.Constant(self.gain)
        self.scale = self.add_weight(name="gain", shape=(1,), initializer=initial)

    def branch_scale(self) -> Tensor:
        return ops.cast(self.scale, self.compute_dtype)


BLOCKS: dict[str, type[keras.layers.Layer]] = {"residual": ResidualBlock, "scaled": ScaledResidualBlock}
"""The block types by name. `AllConvResNet` passes `filters`, `strides`, `use_bias`, `normalization`, `initialization`,
`seed`, `name` and `dtype` to the constructor, and whatever else it was given that the constructor takes."""
