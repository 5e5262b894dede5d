"""The network part of a recipe: the paper's network, or one that the paper compares it with."""

import dataclasses
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, ClassVar

from allconv_resnet.architectures import CIFAR_STAGES, CIFAR_STEM
from allconv_resnet.errors import BadInput
from allconv_resnet.part import Count, Fraction, Natural, NotNegative, Size, part

if TYPE_CHECKING:
    import keras
    import numpy as np

    from allconv_resnet.recipes.parts.data import Images


@part
class Network:
    """Base class of the networks. A subclass has fields and a method `build` that returns the Keras model."""


@part
class AllConv(Network):
    """The all-convolutional residual network of Hardt & Ma (table 1).

    Example:

    >>> network = acr.recipes.AllConv(stages=((1, 16, 1), (1, 32, 2)))
    >>> network.build(acr.recipes.Arrays(), seed=0).output_shape
    (None, 10)
    """

    stem: tuple[Size, Size, Size, Size] = tuple(CIFAR_STEM)
    """First convolution: filters, kernel size, stride, and size of the average pooling after it (1 means none)."""
    stages: tuple[tuple[Count, Size, Size], ...] = tuple(map(tuple, CIFAR_STAGES))
    """Stages: number of residual blocks, filters, and stride of the first block of each."""
    block: str = "residual"
    """Type of the blocks, by its name in `blocks.BLOCKS`."""
    kernel_sizes: tuple[Size, Size] = (3, 3)
    """Kernel sizes of the two convolutions of a block."""
    gain: NotNegative | None = None
    """Initial value of the trained scalar of each `scaled` block. None means the default of the block."""
    activation: str = "relu"
    """Activation between the two convolutions of a block (section 4)."""
    final_activation: str | None = None
    """Activation between the last block and the pooling. Table 1 has none."""
    use_bias: bool = False
    """Whether convolutions have biases. In the paper they have none."""
    whitened_stem: bool = False
    """Whether the first convolution whitens the patches of the training images and is not trained. The paper trains
    it."""
    trainable_head: bool = False
    """Whether the last layer is trained. The paper keeps a random projection (section 4)."""
    initialization: str = "near_identity"
    """Initialization of the residual kernels: `near_identity`, standard deviation 1/(k^2 c) (section 4.1), `standard`,
    1/(k sqrt(c)), `he`, or the name of a Keras initializer."""
    normalization: str | None = None
    """Normalization: None (section 4), or `batch` after each convolution."""
    shortcut: str | None = "identity"
    """Shortcut of the residual blocks: `identity` (section 4), or None."""
    mirror_average: bool = False
    """Whether inference averages the logits over an image and its mirror image. The paper does not."""

    kind: ClassVar[str] = "allconv_resnet"

    def __post_init__(self) -> None:
        if not self.stages:
            raise BadInput(f"stages must not be empty. Received: stages={self.stages}")

    def fits(self, length: int) -> bool:
        """Returns whether the strides divide what is left of a height or width of `length` pixels at each stage."""
        *_, stride, pool = self.stem
        length = -(-length // stride) // pool
        for *_, stride in self.stages:
            if length < 1 or length % stride:
                return False
            length //= stride
        return True

    def require_size(self, image_size: Sequence[int]) -> None:
        """Raises `BadInput` with the nearest sizes that the strides divide if they do not divide `image_size`."""
        for length in image_size[:2]:
            if not self.fits(length):
                below, above = (
                    next((near for near in range(length, end, step) if self.fits(near)), None)
                    for end, step in ((0, -1), (2 * length + 2**10, 1))
                )
                sizes = " or ".join(str(near) for near in (below, above) if near)
                raise BadInput(
                    f"The strides of the network must divide the height and width of the images, for instance {sizes} "
                    f"in place of {length}. Received: image_size={tuple(image_size)}, stem={self.stem}, "
                    f"stages={self.stages}"
                )

    def build(
        self,
        data: "Images",
        seed: int,
        dtype: Any = None,
        name: str = "allconv_resnet",
        images: "np.ndarray | None" = None,
    ) -> "keras.Model":
        """Returns the network.

        Args:
            data: Data part of the recipe: its `image_size` and `num_classes` are used.
            seed: Integer that determines every initial weight.
            dtype: Dtype policy of Keras, or its name.
            name: Name of the model.
            images: uint8 array `[n, h, w, c]` of training images that determine a whitened stem, or None if the weights
                will be loaded.

        Returns:
            `AllConvResNet`.

        Raises:
            ValueError: if the fields do not describe a valid network.
        """
        from allconv_resnet.model import AllConvResNet, whiten_stem  # imports Keras, which --help does not need

        arguments = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        whitened = arguments.pop("whitened_stem")
        if self.gain is None:
            del arguments["gain"]  # it is an argument of some blocks alone
        try:
            model = AllConvResNet(
                data.image_size,
                data.num_classes,
                **arguments,
                trainable_stem=not whitened,
                seed=seed,
                dtype=dtype,
                name=name,
            )
        except BadInput:
            self.require_size(data.image_size)
            raise
        if whitened and images is not None:
            whiten_stem(model, images)
        return model


@part
class Baseline(Network):
    """Base class of the networks of other papers. Its fields are the arguments of one function."""

    function: ClassVar[str]
    """Name of the function in `baselines`."""
    smallest: ClassVar[int] = 1
    """Smallest height and width of the images, in pixels."""

    whitened_stem: ClassVar[bool] = False

    def build(
        self, data: "Images", seed: int, dtype: Any = None, name: str | None = None, images: "np.ndarray | None" = None
    ) -> "keras.Model":
        """Returns the network. The arguments are those of `AllConv.build`, and `name` is not used."""
        from allconv_resnet import baselines

        if min(data.image_size[:2]) < self.smallest:
            raise BadInput(
                f"{self.kind} needs images of at least {self.smallest} x {self.smallest} pixels. "
                f"Received: image_size={data.image_size}"
            )
        arguments = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        if self.whitened_stem:
            arguments["images"] = images
        function = getattr(baselines, self.function)
        return function(data.num_classes, input_shape=data.image_size, seed=seed, dtype=dtype, **arguments)


@part
class AllCnn(Baseline):
    """All-CNN-C of Springenberg et al. 2014 (arXiv 1412.6806).

    Example:

    >>> acr.recipes.AllCnn().build(acr.recipes.Arrays(), seed=0).output_shape
    (None, 10)
    """

    dropout: tuple[Fraction, Fraction] = (0.2, 0.5)
    """Dropout rates at the input and after each convolution of stride 2."""

    kind: ClassVar[str] = "all_cnn_c"
    smallest: ClassVar[int] = 9
    function: ClassVar[str] = "all_cnn_c"


@part
class ResNet(Baseline):
    """The CIFAR ResNet of He et al. 2015 (arXiv 1512.03385).

    Example:

    >>> acr.recipes.ResNet(depth=20).build(acr.recipes.Arrays(), seed=0).output_shape
    (None, 10)
    """

    depth: Count = 20
    """Number of layers, of the form 6 n + 2, such as 20, 32, 44, 56 or 110."""
    normalization: str | None = "batch"
    """Normalization: `batch` after each convolution, or None."""

    kind: ClassVar[str] = "resnet"
    function: ClassVar[str] = "resnet"


@part
class DenseNet(Baseline):
    """DenseNet-BC of Huang et al. 2016 (arXiv 1608.06993).

    Example:

    >>> acr.recipes.DenseNet(depth=22).build(acr.recipes.Arrays(), seed=0).output_shape
    (None, 10)
    """

    depth: Count = 100
    """Number of layers, of the form 6 n + 4."""
    growth: Natural = 12
    """Number of channels that each layer adds."""

    kind: ClassVar[str] = "densenet_bc"
    smallest: ClassVar[int] = 4
    function: ClassVar[str] = "densenet_bc"


@part
class Airbench(Baseline):
    """The batch-normalized network of Jordan 2024 (arXiv 2404.00498).

    Example:

    >>> acr.recipes.Airbench().build(acr.recipes.Arrays(), seed=0).output_shape
    (None, 10)
    """

    widths: tuple[Size, Size, Size] = (64, 256, 256)
    """Channels of the three groups of convolutions."""
    mirror_average: bool = True
    """Whether inference averages the logits over an image and its mirror image."""

    kind: ClassVar[str] = "airbench"
    function: ClassVar[str] = "airbench"
    whitened_stem: ClassVar[bool] = True


NETWORKS = {
    "allconv_resnet": AllConv(),
    "all_cnn_c": AllCnn(),
    "resnet": ResNet(),
    "resnet20": ResNet(),
    "resnet20_plain": ResNet(normalization=None),
    "resnet110": ResNet(depth=110),
    "densenet_bc": DenseNet(),
    "airbench": Airbench(),
}
"""Kinds of networks by name, as in `--network NAME`."""
