"""The two layers of Hardt & Ma's networks, the residual block and the fixed random projection; and a pair that averages
over an image and its mirror image.
"""

import keras
from keras import layers, ops

from allconv_resnet import cpu, initializers


@keras.saving.register_keras_serializable(package="allconv_resnet")
class ResidualBlock(layers.Layer):
    """The block `x + C2(activation(C1(x)))` of two convolutions (Hardt & Ma, section 4, equation 4.1 onward).

    There is one nonlinearity a block and none after the addition. Where the block changes the shape, the shortcut is
    an average pooling for the stride and zero padding for the channels, half before and half after.

    Args:
        filters: Integer, output channels; at least the input's.
        strides: Integer, stride of the first convolution and size of the shortcut's pooling.
        activation: Name or callable.
        use_bias: Whether the convolutions have a bias. The paper's have none.
        normalization: None, or `"batch"` for a batch normalization after each convolution (an ablation).
        initialization: Of both kernels, see `initializers.for_kernel`.
        shortcut: `"identity"`, or None for `C2(activation(C1(x)))` alone (an ablation).
        seed: Integer. The two kernels draw from `seed` and `seed + 1`.
        kernel_sizes: Two integers, of C1 and C2. The paper's are 3x3.
        **kwargs: Of `keras.layers.Layer`: `name`, `dtype`, ...

    Call arguments:
        x: Float tensor `[n, h, w, c]`; h and w are multiples of `strides`.

    Returns:
        Float tensor `[n, h / strides, w / strides, filters]`.

    Raises:
        ValueError: if the input has more channels than `filters`, or `strides` does not divide its height and width.
    """

    def __init__(
        self,
        filters,
        strides=1,
        activation="relu",
        use_bias=False,
        normalization=None,
        initialization="near_identity",
        seed=0,
        shortcut="identity",
        kernel_sizes=(3, 3),
        **kwargs,
    ):
        super().__init__(**kwargs)
        if normalization not in (None, "batch"):
            raise ValueError(f'normalization must be None or "batch". Received: normalization={normalization!r}')
        if shortcut not in (None, "identity"):
            raise ValueError(f'shortcut must be "identity" or None. Received: shortcut={shortcut!r}')
        self.filters, self.strides, self.use_bias, self.normalization = filters, strides, use_bias, normalization
        self.activation = keras.activations.get(activation)
        self.initialization, self.seed, self.shortcut = initialization, seed, shortcut
        self.kernel_sizes = tuple(kernel_sizes)

        def conv(name, size, strides, seed):
            arguments = (filters, size, strides, use_bias, initialization, seed)
            return convolution(*arguments, name=name, dtype=self.dtype_policy)

        self.conv1 = conv("conv1", self.kernel_sizes[0], strides, seed)
        self.conv2 = conv("conv2", self.kernel_sizes[1], 1, seed + 1)
        if normalization == "batch":
            self.norm1 = batch_normalization("norm1", self.dtype_policy)
            self.norm2 = batch_normalization("norm2", self.dtype_policy)

    def build(self, input_shape):
        _, height, width, channels = input_shape
        if channels > self.filters:
            raise ValueError(
                f"A block's filters must be at least the channels of its input, {channels}. "
                f"Received: filters={self.filters}"
            )
        if any(size is not None and size % self.strides for size in (height, width)):
            raise ValueError(
                f"The height and width of a block's input must be multiples of its strides, {self.strides}. "
                f"Received: input_shape={tuple(input_shape)}"
            )
        extra = self.filters - channels
        self.channel_padding = (extra // 2, extra - extra // 2)
        self.conv1.build(input_shape)
        hidden_shape = self.compute_output_shape(input_shape)
        self.conv2.build(hidden_shape)
        if self.normalization == "batch":
            self.norm1.build(hidden_shape)
            self.norm2.build(hidden_shape)

    def call(self, x, training=None):
        y = cpu.convolve(self.conv1, x, training)
        y = self.norm1(y, training=training) if self.normalization else y
        y = cpu.convolve(self.conv2, self.activation(y), training)
        y = self.norm2(y, training=training) if self.normalization else y
        return self.reshaped(x) + y if self.shortcut else y

    def reshaped(self, x):
        """Returns x in the shape of the block's output, which the identity is where nothing changes."""
        if self.strides > 1:
            x = ops.average_pool(x, self.strides, self.strides, padding="valid", data_format="channels_last")
        return ops.pad(x, [(0, 0), (0, 0), (0, 0), self.channel_padding]) if any(self.channel_padding) else x

    def compute_output_shape(self, input_shape):
        n, height, width, _ = input_shape
        return (n, height and height // self.strides, width and width // self.strides, self.filters)

    def get_config(self):
        return {
            **super().get_config(),
            "filters": self.filters,
            "strides": self.strides,
            "activation": keras.activations.serialize(self.activation),
            "use_bias": self.use_bias,
            "normalization": self.normalization,
            "initialization": keras.saving.serialize_keras_object(self.initialization),
            "seed": self.seed,
            "shortcut": self.shortcut,
            "kernel_sizes": list(self.kernel_sizes),
        }

    @classmethod
    def from_config(cls, config):
        return cls(
            **{
                **config,
                "activation": keras.activations.deserialize(config["activation"]),
                "initialization": keras.saving.deserialize_keras_object(config["initialization"]),
            }
        )


@keras.saving.register_keras_serializable(package="allconv_resnet")
class RandomProjection(layers.Layer):
    """A random linear map that training leaves as it is (Hardt & Ma, section 4: the "random projection" top layer).

    The entries are normal with standard deviation `1 / sqrt(inputs)`. They are drawn once from `seed`, and are saved
    with the model.

    Args:
        units: Integer, number of outputs.
        seed: Integer.
        trainable: True makes it an ordinary last layer without bias (an ablation).
        **kwargs: Of `keras.layers.Layer`.

    Call arguments:
        x: Float tensor `[n, inputs]`.

    Returns:
        Float tensor `[n, units]`.
    """

    def __init__(self, units, seed=0, trainable=False, **kwargs):
        super().__init__(trainable=trainable, **kwargs)
        self.units, self.seed = units, seed

    def build(self, input_shape):
        normal = keras.initializers.RandomNormal(stddev=input_shape[-1] ** -0.5, seed=self.seed)
        self.kernel = self.add_weight(
            name="kernel", shape=(input_shape[-1], self.units), initializer=normal, trainable=self.trainable
        )

    def call(self, x):
        return ops.matmul(x, self.kernel)

    def compute_output_shape(self, input_shape):
        return (*input_shape[:-1], self.units)

    def get_config(self):
        return {**super().get_config(), "units": self.units, "seed": self.seed}


@keras.saving.register_keras_serializable(package="allconv_resnet")
class WithMirrorImages(layers.Layer):
    """In inference, adds the mirror image of each image, left to right: `MeanOverMirrorImages` ends what this begins.

    Call arguments:
        images: Tensor `[n, h, w, c]`.

    Returns:
        Tensor `[2 n, h, w, c]`, the images first; in training, the images.
    """

    def call(self, images, training=False):
        return images if training else ops.concatenate([images, ops.flip(images, axis=2)])

    def compute_output_shape(self, input_shape):
        return (None, *input_shape[1:])  # twice as many, but for training


@keras.saving.register_keras_serializable(package="allconv_resnet")
class MeanOverMirrorImages(layers.Layer):
    """In inference, the mean over each image and its mirror image, see `WithMirrorImages`.

    Call arguments:
        x: Float tensor `[2 n, units]`.

    Returns:
        Float tensor `[n, units]`; in training, x.
    """

    def call(self, x, training=False):
        return x if training else ops.mean(ops.reshape(x, (2, -1, x.shape[-1])), axis=0)

    def compute_output_shape(self, input_shape):
        return (None, *input_shape[1:])  # half as many, but for training


def convolution(filters, kernel_size, strides, use_bias, initialization, seed, **kwargs):
    """Returns a SAME-padded channels-last convolution whose kernel draws from `seed`."""
    return layers.Conv2D(
        filters,
        kernel_size,
        strides,
        padding="same",
        data_format="channels_last",
        use_bias=use_bias,
        kernel_initializer=initializers.for_kernel(initialization, seed),
        **kwargs,
    )


def batch_normalization(name, dtype):
    """Returns the normalization of the paper's comparison, with the constants of the 2016 TensorFlow model."""
    return layers.BatchNormalization(momentum=0.9, epsilon=1e-3, name=name, dtype=dtype)
