"""The all-convolutional residual networks of Hardt & Ma (arXiv 1611.04231, section 4), each as a table of numbers.

stem -> stages of residual blocks -> global average pooling -> fixed random projection
"""

import contextlib
import functools
import inspect
import itertools
import zipfile
from collections.abc import Callable, Sequence
from typing import Any, Literal, Self, TypeVar, cast

import keras
import numpy as np
from keras import layers, ops

from allconv_resnet import pretrained
from allconv_resnet.architectures import (
    CIFAR_STAGES,
    CIFAR_STEM,
    IMAGENET_WIDTHS,
    Stage,
    Stem,
    imagenet_stages,
    imagenet_stem,
)
from allconv_resnet.blocks import BLOCKS, batch_normalization
from allconv_resnet.errors import BadInput
from allconv_resnet.initializers import patch_whitening
from allconv_resnet.layers import (
    RandomProjection,
    activation_layer,
    argument_names,
    convolution,
    from_config,
    frozen_config,
    serialized,
    standardize,
    wide_dtype,
)
from allconv_resnet.mirror import PoolingOverMirrorImages, WithMirrorImages
from allconv_resnet.transfer import take_weights
from allconv_resnet.types import Activation, Config, Shape, StrPath

Constructor = TypeVar("Constructor", bound=Callable[..., None])


def _with_arguments_of_weights(init: Constructor) -> Constructor:
    """Returns a constructor whose arguments are by default those of the network that `weights` names."""
    signature = inspect.signature(init)

    @functools.wraps(init)
    def construct(self, *args, **kwargs):
        given = signature.bind(self, *args, **kwargs).arguments
        given.update(given.pop("block_arguments", {}))
        if given.get("weights") in pretrained.names():
            given = {**pretrained.read_arguments(pretrained.find(given["weights"])), **given}
        init(**given)

    # Keras looks at constructors with and without the functions that they wrap, and expects the same arguments.
    del construct.__wrapped__
    construct.__signature__ = signature
    return cast(Constructor, construct)


@keras.saving.register_keras_serializable(package="allconv_resnet")
class AllConvResNet(keras.Model):
    """An all-convolutional residual network without normalization (Hardt & Ma, section 4).

    Args:
        input_shape: `(height, width, channels)` of the images. Height and width may be None.
        num_classes: Integer, the number of logits.
        stem: `Stem`, or its numbers `(filters, kernel_size, strides, pool)`.
        stages: Sequence of `Stage`, or of their numbers `(blocks, filters, strides)`.
        block: Name of the block type, a key of `blocks.BLOCKS`.
        final_activation: Name, callable, layer or None, applied between the last block and the pooling. The paper has
            none; the 2016 TensorFlow model from which its networks derive had a ReLU.
        use_bias: Whether convolutions have biases. The paper's have none.
        normalization: None, or `"batch"` for batch normalization after each convolution.
        initialization: Initializer of the residual kernels: `"near_identity"` (standard deviation `1/(k^2 c)`, the
            paper's), `"standard"` (`1/(k sqrt(c))`), `"he"`, or any Keras initializer.
        trainable_head: Whether the last layer is trained. The paper's is a fixed random projection. To assign
            `trainable = True` to the model or to that layer trains it too.
        trainable_stem: Whether the first convolution is trained, as the paper's is. If not, see `whiten_stem`.
        mirror_average: Whether the logits in inference are the mean over an image and its mirror image, left to right,
            see `mirror`. The paper's are not. The maps before the pooling are then those of the n images and, after
            them, of their n mirror images.
        seed: Integer. It determines every initial weight, including the projection.
        dtype: Dtype policy of the layers, for instance `"mixed_bfloat16"`. The logits are at least float32.
        name: String, the name of the model.
        weights: None for initial weights, or the weights of a trained network: the path of a `.weights.h5` or `.keras`
            file of the same network, or the name of one that comes with the package (`pretrained.names()`). With a
            name, arguments that are not given are those of that network; with another number of classes its last layer
            is new.
        **block_arguments: Further arguments of the blocks. `ResidualBlock` has `activation`, `shortcut` and
            `kernel_sizes`.

    Call arguments:
        images: Float tensor `[n, height, width, channels]`, standardized per image.

    Returns:
        Logits, a float tensor `[n, num_classes]`.

    Raises:
        BadInput: if there is no such argument, if a number of the table is not positive, if a stage is narrower than
            the one before it, if a stride does not divide the image, or if `weights` do not fit the network.

    Example:

    >>> model = acr.AllConvResNet((32, 32, 3), 10, stem=acr.Stem(16), stages=[acr.Stage(1, 16), acr.Stage(1, 32, 2)])
    >>> model.compile(acr.Momentum(0.05), keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    >>> model.predict(np.zeros((2, 32, 32, 3)), verbose=0).shape
    (2, 10)
    """

    @_with_arguments_of_weights
    def __init__(
        self,
        input_shape: Shape = (32, 32, 3),
        num_classes: int = 10,
        stem: Stem | Sequence[int] = CIFAR_STEM,
        stages: Sequence[Stage | Sequence[int]] = CIFAR_STAGES,
        block: str = "residual",
        final_activation: Activation | None = None,
        use_bias: bool = False,
        normalization: Literal["batch"] | None = None,
        initialization: Any = "near_identity",
        trainable_head: bool = False,
        trainable_stem: bool = True,
        mirror_average: bool = False,
        seed: int = 0,
        dtype: Any = None,
        name: str = "allconv_resnet",
        weights: StrPath | None = None,
        **block_arguments: Any,
    ) -> None:
        arguments = {key: value for key, value in locals().items() if key in _OWN_ARGUMENTS} | block_arguments
        del arguments["weights"]  # a configuration describes the network, and not its weights
        _check_arguments(block, block_arguments)
        stem, stages = _checked_table(input_shape, stem, stages, num_classes, seed)
        policy = keras.dtype_policies.get(dtype)
        seeds = itertools.count(seed * 10_000, step=2)  # a block uses two

        images = x = keras.Input(input_shape, name="images")
        if mirror_average:
            x = WithMirrorImages(name="with_mirror_images", dtype=policy)(x)
        stem_arguments = {"name": "stem", "trainable": trainable_stem, "dtype": policy}
        x = convolution(*stem[:3], use_bias, "standard", next(seeds), **stem_arguments)(x)
        if normalization == "batch":
            x = batch_normalization("stem_norm", policy)(x)
        if stem.pool > 1:
            x = layers.AveragePooling2D(stem.pool, data_format="channels_last", name="stem_pool", dtype=policy)(x)
        for s, stage in enumerate(stages, start=1):
            for b in range(stage.blocks):
                x = BLOCKS[block](
                    filters=stage.filters,
                    strides=stage.strides if b == 0 else 1,
                    use_bias=use_bias,
                    normalization=normalization,
                    initialization=initialization,
                    seed=next(seeds),
                    name=f"stage{s}_block{b + 1}",
                    dtype=policy,
                    **block_arguments,
                )(x)
        if final_activation is not None:
            x = activation_layer(final_activation, "final_activation", policy)(x)
        pooling = PoolingOverMirrorImages if mirror_average else layers.GlobalAveragePooling2D
        wide = wide_dtype(policy)  # the mean and the projection cost little
        x = pooling(data_format="channels_last", name="pool", dtype=wide)(x)
        x = RandomProjection(num_classes, next(seeds), trainable_head, name="projection", dtype=wide)(x)
        super().__init__(inputs=images, outputs=x, name=name)
        self.dtype_policy = policy  # `compile` scales the loss if it is mixed_float16
        self._config = serialized({**arguments, "stem": stem, "stages": stages, "dtype": policy})
        if weights is not None:
            _load_weights(self, weights)

    def save(self, filepath: StrPath, overwrite: bool = True, zipped: bool | None = None, **kwargs: Any) -> None:
        """Saves the network as a `.keras` file, see `keras.Model.save`. HDF5, which would not be read, is refused."""
        if str(filepath).endswith((".h5", ".hdf5")):
            raise BadInput(
                f"A network is saved as a .keras file, and not as HDF5. Received: filepath={str(filepath)!r}"
            )
        super().save(filepath, overwrite=overwrite, zipped=zipped, **kwargs)

    def get_config(self) -> Config:
        return {**self._config, **frozen_config(self)}

    @classmethod
    def from_config(cls, config: Config, custom_objects: dict[str, Any] | None = None) -> Self:
        return from_config(cls, config, custom_objects)


_OWN_ARGUMENTS = tuple(inspect.signature(AllConvResNet.__init__).parameters)[1:-1]


def _check_arguments(block, block_arguments):
    if block not in BLOCKS:
        raise BadInput(f"block must be one of {', '.join(BLOCKS)}. Received: block={block!r}")
    known = [name for name in argument_names(BLOCKS[block]) if name not in (*_OWN_ARGUMENTS, "filters", "strides")]
    for name in block_arguments.keys() - set(known):
        raise BadInput(
            f"The arguments of AllConvResNet are {', '.join(_OWN_ARGUMENTS)}, and those of its block={block!r} are "
            f"{', '.join(known) or 'none'}. Received: {name}={block_arguments[name]!r}"
        )


def _checked_table(input_shape, stem, stages, num_classes, seed):
    """Returns the `Stem` and the tuple of `Stage`, whose numbers are positive integers."""
    if len(input_shape) != 3 or input_shape[2] is None:
        raise BadInput(
            f"input_shape must be (height, width, channels), with known channels. Received: input_shape={input_shape}"
        )
    try:
        stem, stages = Stem(*stem), tuple(Stage(*stage) for stage in stages)
    except TypeError as error:
        raise BadInput(
            "stem must be (filters, kernel_size, strides, pool), and stages a sequence of (blocks, filters, strides). "
            f"Received: stem={stem}, stages={stages}"
        ) from error
    numbers = {"num_classes": [num_classes], "stem": stem, "stages": itertools.chain(*stages)}
    for name, values in numbers.items():
        for value in values:
            if not (isinstance(value, (int, np.integer)) and value >= 1):
                raise BadInput(f"{name} must have positive integers. Received: {value!r}")
    if not isinstance(seed, (int, np.integer)):
        raise BadInput(f"seed must be an integer. Received: seed={seed!r}")
    return stem, stages


def _load_weights(model, weights):
    if weights in pretrained.names():
        transfer = take_weights(model, pretrained.read_weights(pretrained.find(weights)))
        for name, reason in (transfer.new | dict.fromkeys(transfer.unused, "there is no place in it")).items():
            if not name.startswith("projection/"):
                raise BadInput(f"weights must fit the network, but for {name} {reason}. Received: weights={weights!r}")
    elif str(weights).endswith((".weights.h5", ".keras")):
        try:
            kept = _count_variables(weights)
            # Keras would ignore what is too much. Some variables are no weights, such as the state of a generator of
            # random numbers, and need not be in the file.
            if not len(model.weights) <= kept <= len(model.variables):
                raise BadInput(f"the file has {kept} variables, and the network has {len(model.weights)}")
            model.load_weights(weights)
        except (OSError, ValueError, KeyError, zipfile.BadZipFile) as error:
            lines = [line.strip() for line in str(error).splitlines() if line.strip()] or [type(error).__name__]
            reason = " ".join(lines[: 2 if lines[0].endswith(":") else 1])
            raise BadInput(f"The weights in {weights} cannot be loaded into the network: {reason}") from error
    else:
        raise BadInput(
            f"weights must be None, the path of a .weights.h5 or .keras file, or the name of a network. "
            f"{pretrained.available()}. Received: weights={weights!r}"
        )


def _count_variables(path):
    """Returns the number of variables in a `.weights.h5` or `.keras` file, without those of an optimizer."""
    import h5py  # a dependency of Keras

    count = 0

    def visit(name, value):
        nonlocal count
        count += isinstance(value, h5py.Dataset) and not name.startswith("optimizer/")

    with contextlib.ExitStack() as stack:
        file = path
        if str(path).endswith(".keras"):
            file = stack.enter_context(stack.enter_context(zipfile.ZipFile(path)).open("model.weights.h5"))
        stack.enter_context(h5py.File(file, "r")).visititems(visit)
    return count


def whiten_stem(model: AllConvResNet, images: np.ndarray, sample: int = 5_000) -> None:
    """Sets the kernel of a network's first convolution to `initializers.patch_whitening`.

    Args:
        model: `AllConvResNet`.
        images: uint8 array `[n, h, w, c]`. The network sees such images standardized.
        sample: Integer, the number of images, evenly spaced, that are used.

    Raises:
        BadInput: as `patch_whitening`, and if the network takes images of another number of channels.

    Example:

    >>> images, _ = acr.load_data("digits").arrays("train")
    >>> model = acr.AllConvResNet(stem=(9, 3, 1, 1), stages=[(1, 16, 2)], trainable_stem=False)
    >>> acr.whiten_stem(model, images)
    """
    stem = model.get_layer("stem")
    if images.shape[-1] != stem.kernel.shape[2]:
        raise BadInput(f"images must have {stem.kernel.shape[2]} channels. Received: shape={images.shape}")
    images = ops.convert_to_numpy(standardize(images[:: max(1, -(-len(images) // sample))]))
    stem.kernel.assign(patch_whitening(images, stem.kernel_size[0], stem.filters))


def cifar_resnet(num_classes: int = 10, **kwargs: Any) -> AllConvResNet:
    """Returns the network of table 1 for 32x32 images: 55 convolutions, 13,538,736 trainable parameters.

    Args:
        num_classes: Integer, 10, or 100 for CIFAR-100.
        **kwargs: Any argument of `AllConvResNet`, to depart from the table.

    Returns:
        `AllConvResNet`.

    Example:

    >>> acr.cifar_resnet(10).count_params()
    13541296
    >>> he = acr.cifar_resnet(10, initialization="he")
    >>> trained_head = acr.cifar_resnet(10, trainable_head=True)
    >>> twin = acr.cifar_resnet(10, normalization="batch", initialization="he")
    """
    return AllConvResNet(**{"num_classes": num_classes, "name": "cifar_resnet", **kwargs})


def imagenet_resnet(num_classes: int = 1000, widths: Sequence[int] = IMAGENET_WIDTHS, **kwargs: Any) -> AllConvResNet:
    """Returns the 34-layer network of section 4.2 for 224x224 images: 35,673,120 trainable parameters.

    It has a 7x7 stem of stride 2, an average pooling of stride 2 where He et al. have a max pooling, and stages of 3,
    4, 6 and 3 blocks. The paper does not give the widths; the default ones are inferred from its count, "35.7M".

    Args:
        num_classes: Integer.
        widths: Four integers, the channels of the stages; the stem has those of the first. `(64, 128, 256, 512)`, the
            widths of He et al., give 21,095,616 parameters; `(83, 166, 333, 666)`, 1.3 times those, give 35,675,772.
        **kwargs: Any argument of `AllConvResNet`.

    Returns:
        `AllConvResNet`.

    Example:

    >>> model = acr.imagenet_resnet(1000)
    >>> plain = acr.imagenet_resnet(1000, widths=(64, 128, 256, 512))
    >>> sum(int(np.prod(weight.shape)) for weight in plain.trainable_weights)
    21095616
    """
    table = {"input_shape": (224, 224, 3), "stem": imagenet_stem(widths[0]), "stages": imagenet_stages(widths)}
    return AllConvResNet(**{"num_classes": num_classes, "name": "imagenet_resnet", **table, **kwargs})
