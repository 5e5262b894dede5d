"""The all-convolutional residual networks of Hardt & Ma (arXiv 1611.04231, section 4): a table of numbers each.

stem -> stages of residual blocks -> global average pool -> fixed random projection
"""

import itertools
from typing import NamedTuple

import keras
import numpy as np
from keras import layers

from allconv_resnet.initializers import patch_whitening
from allconv_resnet.layers import (
    MeanOverMirrorImages,
    RandomProjection,
    ResidualBlock,
    WithMirrorImages,
    batch_normalization,
    convolution,
)


class Stem(NamedTuple):
    """The first convolution."""

    filters: int
    kernel_size: int = 3
    strides: int = 1
    pool: int = 1  # size and stride of an average pooling after it; 1 is none


class Stage(NamedTuple):
    """Residual blocks of one width, the first of which may reduce the image."""

    blocks: int
    filters: int
    strides: int = 1


CIFAR_STEM = Stem(16)
CIFAR_STAGES = (Stage(9, 64), Stage(9, 128, 2), Stage(9, 256, 2))  # table 1

# Section 4.2 gives 34 layers and 35.7M parameters, but no widths. 64-128-256-512, those of the 34-layer network of
# He et al., have 21.1M; 1.3 times as wide, rounded to multiples of 16 for the hardware, they have 35,673,120.
IMAGENET_WIDTHS = (96, 176, 336, 656)  # inferred
PLAIN_IMAGENET_WIDTHS = (64, 128, 256, 512)


@keras.saving.register_keras_serializable(package="allconv_resnet")
class AllConvResNet(keras.Model):
    """An all-convolutional residual network without normalization (Hardt & Ma, section 4).

    Args:
        input_shape: `(height, width, channels)` of the images.
        num_classes: Integer, number of logits.
        stem: `Stem`, or its numbers `(filters, kernel_size, strides, pool)`.
        stages: Sequence of `Stage`, or of their numbers `(blocks, filters, strides)`.
        activation: The one nonlinearity of a block, name or callable.
        final_activation: Name, callable or None: applied between the last block and the pooling. The paper has none,
            the 2016 TensorFlow model it derives from had a ReLU.
        use_bias: Whether convolutions have biases. The paper's have none.
        trainable_head: Whether the last layer is trained. The paper's is a fixed random projection.
        trainable_stem: Whether the first convolution is trained, as the paper's is. Where not, see `whiten_stem`.
        initialization: Of the residual kernels: `"near_identity"` (deviation `1/(k^2 c)`, the paper's), `"standard"`
            (`1/(k sqrt(c))`), `"he"`, or any Keras initializer.
        normalization: None, or `"batch"` for batch normalization after each convolution.
        shortcut: `"identity"`, or None for blocks that are nothing but their two convolutions.
        kernel_sizes: Two integers, of the two convolutions of a block. The paper's are 3x3.
        mirror_average: Whether the logits of inference are the mean over an image and its mirror image, left to right,
            for twice the work. The paper's are not.
        seed: Integer. Fixes every initial weight, the projection included.
        dtype: Precision policy of the layers, for instance `"mixed_bfloat16"`; logits are never narrower than float32.
        name: Name of the model.

    Call arguments:
        images: Float tensor `[n, height, width, channels]`, standardized per image.

    Returns:
        Logits, float tensor `[n, num_classes]`.

    Raises:
        ValueError: if a stage is narrower than the one before it, or a stride does not divide the image.

    Example:

    >>> model = AllConvResNet((32, 32, 3), 10, stem=Stem(16), stages=[Stage(1, 16), Stage(1, 32, 2)])
    >>> model.compile(Momentum(0.05), keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    """

    def __init__(
        self,
        input_shape=(32, 32, 3),
        num_classes=10,
        stem=CIFAR_STEM,
        stages=CIFAR_STAGES,
        activation="relu",
        final_activation=None,
        use_bias=False,
        trainable_head=False,
        trainable_stem=True,
        initialization="near_identity",
        normalization=None,
        shortcut="identity",
        kernel_sizes=(3, 3),
        mirror_average=False,
        seed=0,
        dtype=None,
        name="allconv_resnet",
        **kwargs,
    ):
        stem, stages = Stem(*stem), tuple(Stage(*stage) for stage in stages)
        policy = keras.dtype_policies.get(dtype)
        seeds = itertools.count(seed * 10_000, step=2)  # a block draws from two

        images = x = keras.Input(input_shape, name="images")
        if mirror_average:
            x = WithMirrorImages(name="with_mirror_images", dtype=policy)(x)
        x = convolution(
            *stem[:3], use_bias, "standard", next(seeds), name="stem", trainable=trainable_stem, dtype=policy
        )(x)
        if normalization == "batch":
            x = batch_normalization("stem_norm", policy)(x)
        if stem.pool > 1:
            x = layers.AveragePooling2D(stem.pool, data_format="channels_last", name="stem_pool", dtype=policy)(x)
        for s, stage in enumerate(stages, start=1):
            for b in range(stage.blocks):
                x = ResidualBlock(
                    stage.filters,
                    stage.strides if b == 0 else 1,
                    activation,
                    use_bias,
                    normalization,
                    initialization,
                    seed=next(seeds),
                    shortcut=shortcut,
                    kernel_sizes=kernel_sizes,
                    name=f"stage{s}_block{b + 1}",
                    dtype=policy,
                )(x)
        if final_activation is not None:
            x = layers.Activation(final_activation, name="final_activation", dtype=policy)(x)
        x = layers.GlobalAveragePooling2D(data_format="channels_last", name="pool", dtype=policy)(x)
        # In bfloat16 the logits would keep three digits; the projection costs nothing in float32.
        wide = policy.variable_dtype
        x = RandomProjection(num_classes, next(seeds), trainable_head, name="projection", dtype=wide)(x)
        if mirror_average:
            x = MeanOverMirrorImages(name="mean_over_mirror_images", dtype=wide)(x)
        super().__init__(inputs=images, outputs=x, name=name, **kwargs)
        self._config = {
            "input_shape": list(input_shape),
            "num_classes": num_classes,
            "stem": list(stem),
            "stages": [list(stage) for stage in stages],
            "activation": keras.saving.serialize_keras_object(activation),
            "final_activation": keras.saving.serialize_keras_object(final_activation),
            "use_bias": use_bias,
            "trainable_head": trainable_head,
            "trainable_stem": trainable_stem,
            "initialization": keras.saving.serialize_keras_object(initialization),
            "normalization": normalization,
            "shortcut": shortcut,
            "kernel_sizes": list(kernel_sizes),
            "mirror_average": mirror_average,
            "seed": seed,
            "dtype": keras.saving.serialize_keras_object(policy),
            "name": name,
        }

    def get_config(self):
        return dict(self._config)

    @classmethod
    def from_config(cls, config, custom_objects=None):
        objects = ("activation", "final_activation", "initialization", "dtype")
        loaded = {key: keras.saving.deserialize_keras_object(config[key], custom_objects) for key in objects}
        return cls(**{**config, **loaded})


def whiten_stem(model, images, sample=5_000):
    """Sets the kernel of a network's first convolution to `initializers.patch_whitening`.

    Args:
        model: `AllConvResNet`.
        images: uint8 array `[n, h, w, c]`. The network will see such images standardized.
        sample: Integer: how many of them are looked at, evenly spread.

    Raises:
        ValueError: as `patch_whitening`.
    """
    stem = model.get_layer("stem")
    images = images[:: -(-len(images) // sample)].astype("float32")
    images -= images.mean(axis=(1, 2, 3), keepdims=True)
    images /= np.maximum(images.std(axis=(1, 2, 3), keepdims=True), images[0].size ** -0.5)
    stem.kernel.assign(patch_whitening(images, stem.kernel_size[0], stem.filters))


def cifar_resnet(num_classes=10, **kwargs):
    """Returns the network of table 1 for 32x32 images: 55 convolutions, 13,538,736 trainable parameters.

    Args:
        num_classes: Integer: 10, or 100 for CIFAR-100.
        **kwargs: Any argument of `AllConvResNet`, to depart from the table.

    Example:

    >>> model = cifar_resnet(10)
    >>> he = cifar_resnet(10, initialization="he")
    >>> trained_head = cifar_resnet(10, trainable_head=True)
    >>> twin = cifar_resnet(10, normalization="batch", initialization="he")
    """
    return AllConvResNet(**{"num_classes": num_classes, "name": "cifar_resnet", **kwargs})


def imagenet_resnet(num_classes=1000, widths=IMAGENET_WIDTHS, **kwargs):
    """Returns the 34-layer network of section 4.2 for 224x224 images: 35,673,120 trainable parameters.

    A 7x7 stem of stride 2, an average pooling of stride 2 where He et al. had a max pooling, and stages of 3, 4, 6 and
    3 blocks. The paper does not give the widths: the default ones are inferred from its count, "35.7M".

    Args:
        num_classes: Integer.
        widths: Channels of the four stages; the stem has those of the first. `(64, 128, 256, 512)`, the plain widths
            of He et al., give 21,095,616 parameters; `(83, 166, 333, 666)`, those times 1.3, 35,675,772.
        **kwargs: Any argument of `AllConvResNet`.

    Example:

    >>> model = imagenet_resnet(1000)
    >>> plain = imagenet_resnet(1000, widths=(64, 128, 256, 512))
    """
    strides = (1, 2, 2, 2)
    stages = [Stage(*stage) for stage in zip((3, 4, 6, 3), widths, strides, strict=True)]
    table = {"input_shape": (224, 224, 3), "stem": Stem(widths[0], 7, 2, pool=2), "stages": stages}
    return AllConvResNet(**{"num_classes": num_classes, "name": "imagenet_resnet", **table, **kwargs})
