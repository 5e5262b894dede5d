"""Two layers that make inference average over an image and its mirror image, left to right.

The first layer adds the mirror images to the batch, and the pooling averages the two halves. The projection after the
pooling is linear, so the logits are averages too. The layers between the two see twice as many images in inference.
"""

import keras
from keras import layers, ops

from allconv_resnet.layers import Configured


@keras.saving.register_keras_serializable(package="allconv_resnet")
class WithMirrorImages(Configured):
    """A layer that in inference adds the mirror image of each image to the batch.

    Use it with `PoolingOverMirrorImages`, which averages the two halves.

    Call arguments:
        images: Tensor `[n, h, w, c]`.

    Returns:
        Tensor `[2 n, h, w, c]`, the images first; in training, the images.
    """

    def call(self, images, training=False):
        return images if training else ops.concatenate([images, ops.flip(images, axis=2)])

    def compute_output_shape(self, input_shape):
        return (None, *input_shape[1:])  # 2 n in inference, n in training


@keras.saving.register_keras_serializable(package="allconv_resnet")
class PoolingOverMirrorImages(layers.GlobalAveragePooling2D):
    """A global average pooling that in inference also averages over each image and its mirror image.

    Args:
        **kwargs: Arguments of `keras.layers.GlobalAveragePooling2D`.

    Call arguments:
        x: Float tensor `[2 n, h, w, c]`, from images that `WithMirrorImages` doubled; in training `[n, h, w, c]`.

    Returns:
        Float tensor `[n, c]`, of the dtype of the layer's variables, because an average in bfloat16 would lose digits.

    Example:

    >>> x = WithMirrorImages()(np.ones((5, 8, 8, 3)))
    >>> x.shape, PoolingOverMirrorImages()(x).shape
    ((10, 8, 8, 3), (5, 3))
    """

    def call(self, x, training=False):
        x = ops.cast(super().call(x), self.variable_dtype)
        return x if training else ops.mean(ops.reshape(x, (2, -1, *x.shape[1:])), axis=0)

    def compute_output_spec(self, x, training=False):
        return keras.KerasTensor((None, *self.compute_output_shape(x.shape)[1:]), self.variable_dtype)
