"""Keras layers for thousands of equal residual blocks: one stack of weights and a loop (Hardt & Ma, section 3)."""

import keras
from keras import ops


@keras.saving.register_keras_serializable(package="allconv_resnet")
class StackedResidualBlocks(keras.layers.Layer):
    """Applies `h -> h + V[b] ReLU(U[b] h + s[b])` for b = 0, 1, ..., one after another (section 3, equation 3.1).

    As one layer, thousands of blocks take three weights and a graph of one block; memory is that of one batch. The
    points are the columns inside the loop, where the small matrix products are fastest.

    Args:
        blocks: Integer, the number of blocks, at least 1.
        hidden: Integer, the neurons of a block; None means as many as the width of the input.

    Call with `[batch, width]`; returns the same shape. `U` is `[blocks, hidden, width]`, `s` `[blocks, hidden]` and `V`
    `[blocks, width, hidden]`. A fresh layer is the identity, as `V` starts at zero.

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
            self.supports_jit = False  # XLA takes longer to compile the loop, and its products are no faster

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
    """Maps `x` to `(x - center) kernel + bias`: a dense layer that keeps its digits where the data are far from zero.

    Args:
        width: Integer, the dimension of the result.

    Call with `[batch, d]`; returns `[batch, width]`. `center` is `[d]`, `kernel` `[d, width]`, `bias` `[width]`.

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
