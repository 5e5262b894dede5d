"""Keras layers of the memorizing network: a stack of many small residual blocks, and a centered projection."""

import keras
from keras import ops


@keras.saving.register_keras_serializable(package="allconv_resnet")
class StackedResidualBlocks(keras.layers.Layer):
    """Applies the residual blocks `h -> h + V[b] ReLU(U[b] h + s[b])` for b = 0, 1, ... (Hardt & Ma, equation 3.1).

    One layer holds the weights of all blocks in three variables, and its graph has one block in a loop, so that
    thousands of blocks build quickly and need the memory of one batch. Inside the loop the points are columns, because
    the small matrix products are fastest that way. A new layer is the identity, since `V` is initialized with zeros.

    Args:
        blocks: Positive integer, number of blocks.
        hidden: Positive integer, number of neurons of a block; None for the width of the input.

    Call arguments:
        inputs: Float tensor `[batch, width]`.

    Returns:
        Float tensor `[batch, width]`.

    Attributes:
        U: Weight `[blocks, hidden, width]`.
        s: Weight `[blocks, hidden]`.
        V: Weight `[blocks, width, hidden]`.

    Example:

    >>> layer = StackedResidualBlocks(blocks=1000)
    >>> layer(np.ones((5, 4), "float32")).shape
    TensorShape([5, 4])
    """

    def __init__(self, blocks, hidden=None, **kwargs):
        super().__init__(**kwargs)
        self.blocks = blocks
        self.hidden = hidden
        if keras.backend.backend() == "tensorflow":
            self.supports_jit = False  # XLA compiles the loop slowly and does not run it faster

    def build(self, input_shape):
        width = input_shape[-1]
        hidden = self.hidden or width
        deviation = keras.initializers.RandomNormal(stddev=width**-0.5)
        self.U = self.add_weight(shape=(self.blocks, hidden, width), initializer=deviation, name="U")
        self.s = self.add_weight(shape=(self.blocks, hidden), initializer="zeros", name="s")
        self.V = self.add_weight(shape=(self.blocks, width, hidden), initializer="zeros", name="V")

    def call(self, inputs):
        U, s, V = (ops.convert_to_tensor(weight) for weight in (self.U, self.s, self.V))

        def block(b, h):
            return h + ops.matmul(V[b], ops.relu(ops.matmul(U[b], h) + s[b][:, None]))

        return ops.transpose(ops.fori_loop(0, self.blocks, block, ops.transpose(inputs)))

    def compute_output_shape(self, input_shape):
        return input_shape

    def get_config(self):
        return {**super().get_config(), "blocks": self.blocks, "hidden": self.hidden}


@keras.saving.register_keras_serializable(package="allconv_resnet")
class CenteredProjection(keras.layers.Layer):
    """Maps `x` to `(x - center) kernel + bias`.

    Unlike `keras.layers.Dense`, the layer keeps its precision if the data are far from zero.

    Args:
        width: Positive integer, dimension of the result.

    Call arguments:
        inputs: Float tensor `[batch, d]`.

    Returns:
        Float tensor `[batch, width]`.

    Attributes:
        center: Weight `[d]`.
        kernel: Weight `[d, width]`.
        bias: Weight `[width]`.

    Example:

    >>> CenteredProjection(width=3)(np.ones((5, 4), "float32")).shape
    TensorShape([5, 3])
    """

    def __init__(self, width, **kwargs):
        super().__init__(**kwargs)
        self.width = width

    def build(self, input_shape):
        d = input_shape[-1]
        self.center = self.add_weight(shape=(d,), initializer="zeros", name="center")
        self.kernel = self.add_weight(shape=(d, self.width), initializer="glorot_uniform", name="kernel")
        self.bias = self.add_weight(shape=(self.width,), initializer="zeros", name="bias")

    def call(self, inputs):
        return ops.matmul(inputs - self.center, self.kernel) + self.bias

    def compute_output_shape(self, input_shape):
        return (*input_shape[:-1], self.width)

    def get_config(self):
        return {**super().get_config(), "width": self.width}
