"""The numbers of Hardt & Ma's networks (arXiv 1611.04231, table 1 and section 4.2).

This module does not import Keras, so that the command line can show recipes and help at once.
"""

from typing import NamedTuple

from allconv_resnet.errors import BadInput


class Stem(NamedTuple):
    """The first convolution of a network, and the average pooling after it.

    Args:
        filters: Integer, the number of output channels.
        kernel_size: Integer, in pixels.
        strides: Integer, in pixels.
        pool: Integer, the size and stride of the average pooling; 1 means none.

    Example: the first layers of the ImageNet network, a 7x7 convolution and an average pooling, both of stride 2.

    >>> acr.Stem(96, kernel_size=7, strides=2, pool=2)
    Stem(filters=96, kernel_size=7, strides=2, pool=2)
    """

    filters: int
    kernel_size: int = 3
    strides: int = 1
    pool: int = 1


class Stage(NamedTuple):
    """A sequence of residual blocks of one width, the first of which may reduce the image.

    Args:
        blocks: Integer, the number of blocks.
        filters: Integer, the number of output channels of each block.
        strides: Integer, the stride of the first block.

    Example: the second stage of table 1.

    >>> acr.Stage(9, 128, strides=2)
    Stage(blocks=9, filters=128, strides=2)
    """

    blocks: int
    filters: int
    strides: int = 1


CIFAR_STEM = Stem(16)
CIFAR_STAGES = (Stage(9, 64), Stage(9, 128, 2), Stage(9, 256, 2))  # table 1

# Section 4.2 gives 34 layers and 35.7M parameters, but no widths. The widths of the 34-layer network of He et al.,
# 64-128-256-512, give 21.1M; 1.3 times as wide, rounded to multiples of 16 for the hardware, they give 35,673,120.
IMAGENET_WIDTHS = (96, 176, 336, 656)  # inferred
PLAIN_IMAGENET_WIDTHS = (64, 128, 256, 512)


def imagenet_stem(width=IMAGENET_WIDTHS[0]):
    """Returns the stem of section 4.2: a 7x7 convolution and an average pooling, both of stride 2."""
    return Stem(width, 7, 2, pool=2)


def imagenet_stages(widths=IMAGENET_WIDTHS, blocks=(3, 4, 6, 3)):
    """Returns the four stages of section 4.2, with the given widths and numbers of blocks."""
    if len(widths) != len(blocks):
        raise BadInput(f"widths must be {len(blocks)} integers. Received: widths={tuple(widths)}")
    return tuple(Stage(*stage) for stage in zip(blocks, widths, (1, 2, 2, 2), strict=True))
