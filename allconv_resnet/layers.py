"""Layers whose configuration follows from their constructor: the fixed random projection and the standardization."""

import inspect
from typing import Any, Self

import keras
from keras import layers, ops

from allconv_resnet import initializers
from allconv_resnet.errors import BadInput
from allconv_resnet.types import Config, Shape, Tensor


class Configured(keras.layers.Layer):
    """Base class of layers whose configuration is their constructor's arguments.

    Every argument of the constructor is kept as an attribute of the same name. `get_config` and `from_config` follow
    from that, also for arguments that are themselves layers or initializers, and for sublayers that were frozen one by
    one. A subclass with a `**kwargs` argument inherits the arguments of its parent.

    Example:

    >>> from allconv_resnet.layers import Configured
    >>> @keras.saving.register_keras_serializable()
    ... class Scale(Configured):
    ...     def __init__(self, factor, **kwargs):
    ...         super().__init__(**kwargs)
    ...         self.factor = factor
    ...
    ...     def call(self, x):
    ...         return self.factor * x
    >>> Scale.from_config(Scale(0.5).get_config()).factor
    0.5
    """

    def get_config(self) -> Config:
        own = serialized({name: getattr(self, name) for name in argument_names(type(self))})
        return {**own, **super().get_config(), **frozen_config(self)}

    @classmethod
    def from_config(cls, config: Config) -> Self:
        return from_config(cls, config)


def argument_names(kind):
    """Returns the names of the arguments of a layer class: its own, and with `**kwargs` those of its parent classes.

    The arguments of `keras.layers.Layer` itself (`name`, `dtype`, `trainable`, ...) are not among them.
    """
    names = []
    for each in kind.__mro__[: kind.__mro__.index(layers.Layer)]:
        if "__init__" in vars(each):
            parameters = list(inspect.signature(each.__init__).parameters.values())[1:]
            names += [parameter.name for parameter in parameters if parameter.kind is not parameter.VAR_KEYWORD]
            if not any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters):
                break
    return names


def wide_dtype(policy):
    """Returns the dtype of a network's last layers, at least float32: in 16 bits the logits would have few digits."""
    return "float32" if policy.variable_dtype in ("float16", "bfloat16") else policy.variable_dtype


def serialized(arguments):
    """Returns arguments by name as they are in a configuration file, which has lists where Python has tuples."""
    return {name: keras.saving.serialize_keras_object(_as_lists(value)) for name, value in arguments.items()}


def _as_lists(value):
    return [_as_lists(item) for item in value] if isinstance(value, tuple | list) else value


def frozen_config(layer):
    """Returns the part of a configuration that says which sublayers are frozen; it is empty without sublayers."""
    by_path = dict(_layers_by_path(layer))
    return {"frozen": [path for path, each in by_path.items() if not each.trainable]} if len(by_path) > 1 else {}


def from_config(kind, config, custom_objects=None):
    """Returns a layer or model of the class `kind` from the serialized arguments of its constructor.

    Args:
        kind: Class.
        config: Dictionary, the result of `get_config`.
        custom_objects: Dictionary of classes and functions by name, as in `keras.saving`.
    """
    arguments = {key: keras.saving.deserialize_keras_object(value, custom_objects) for key, value in config.items()}
    frozen = arguments.pop("frozen", None)
    layer = kind(**arguments)
    if frozen is not None:
        for path, each in _layers_by_path(layer):  # parents come first, because setting one sets its sublayers
            each.trainable = path not in frozen
    return layer


def _layers_by_path(layer, path=""):
    yield path, layer
    for sublayer in layer._flatten_layers(recursive=False, include_self=False):
        yield from _layers_by_path(sublayer, f"{path}/{sublayer.name}")


@keras.saving.register_keras_serializable(package="allconv_resnet")
class RandomProjection(Configured):
    """A random linear map that is not trained (Hardt & Ma, section 4: the "random projection" top layer).

    The entries are normal with standard deviation `1 / sqrt(inputs)`. They are drawn once from `seed` and are saved
    with the model.

    Args:
        units: Integer, the number of outputs.
        seed: Integer.
        trainable: Boolean. True makes it an ordinary last layer without a bias (an ablation). Like that of every Keras
            layer, the attribute `trainable` can be changed later.
        **kwargs: Arguments of `keras.layers.Layer`: `name`, `dtype`, ...

    Call arguments:
        x: Float tensor `[n, inputs]`.

    Returns:
        Float tensor `[n, units]`.

    Example:

    >>> acr.RandomProjection(10)(np.ones((2, 256))).shape
    TensorShape([2, 10])
    """

    def __init__(self, units: int, seed: int = 0, trainable: bool = False, **kwargs: Any) -> None:
        super().__init__(trainable=trainable, **kwargs)
        self.units, self.seed = units, seed

    def build(self, input_shape: Shape) -> None:
        normal = keras.initializers.RandomNormal(stddev=input_shape[-1] ** -0.5, seed=self.seed)
        self.kernel = self.add_weight(name="kernel", shape=(input_shape[-1], self.units), initializer=normal)

    def call(self, x: Tensor) -> Tensor:
        return ops.matmul(x, self.kernel)

    def compute_output_shape(self, input_shape: Shape) -> Shape:
        return (*input_shape[:-1], self.units)


@keras.saving.register_keras_serializable(package="allconv_resnet")
class Standardization(Configured):
    """A layer that gives each image mean 0 and standard deviation 1 over its pixels and channels.

    It applies `standardize`, which the input pipelines of training and evaluation also use. It computes in float32 and
    returns float32 under every dtype policy.

    Args:
        **kwargs: Arguments of `keras.layers.Layer`: `name`, ...

    Call arguments:
        images: Tensor `[n, h, w, c]`, integer or floating.

    Returns:
        float32 tensor `[n, h, w, c]`.

    Example: a network that takes the pixels of files.

    >>> pixels = keras.Input((32, 32, 3), dtype="uint8")
    >>> network = acr.AllConvResNet(stages=[acr.Stage(1, 16, 2)])
    >>> model = keras.Model(pixels, network(acr.Standardization()(pixels)))
    >>> model(np.zeros((1, 32, 32, 3), "uint8")).shape
    TensorShape([1, 10])
    """

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(autocast=False, **kwargs)  # bfloat16 has too few digits for pixels that were resized

    def call(self, images: Tensor) -> Tensor:
        return standardize(images)


def standardize(images: Tensor) -> Tensor:
    """Gives each image mean 0 and standard deviation 1 over its pixels and channels.

    The standard deviation is taken as at least `1 / sqrt(h w c)`, as `tf.image.per_image_standardization` does.

    Args:
        images: Tensor or array `[n, h, w, c]`, or list of images `[h, w, c]`, integer or floating. Tensors of
            TensorFlow are also accepted where Keras runs on another backend, so that the function works inside
            `tf.data` everywhere.

    Returns:
        float32 tensor `[n, h, w, c]`.

    Raises:
        BadInput: if the images do not have four axes.

    Example:

    >>> images = acr.standardize(np.arange(12, dtype="uint8").reshape(1, 2, 2, 3))
    >>> round(float(keras.ops.mean(images)), 6), round(float(keras.ops.std(images)), 6)
    (0.0, 1.0)
    """
    if not hasattr(images, "shape"):
        images = ops.convert_to_tensor(images)
    axes = images.shape.rank if hasattr(images.shape, "rank") else len(images.shape)
    if axes not in (4, None):  # None is an unknown number in a graph of TensorFlow
        raise BadInput(
            f"images must have four axes, [n, h, w, c]. A single image needs images[None]. Received: {images.shape}"
        )
    if keras.backend.backend() != "tensorflow" and type(images).__module__.partition(".")[0] == "tensorflow":
        import tensorflow as tf

        cast, mean, square, shape = tf.cast, tf.reduce_mean, tf.square, tf.shape
        maximum, rsqrt = tf.maximum, tf.math.rsqrt
    else:
        cast, mean, square, shape, maximum, rsqrt = ops.cast, ops.mean, ops.square, ops.shape, ops.maximum, ops.rsqrt
    images = cast(images, "float32")
    images = images - mean(images, axis=(1, 2, 3), keepdims=True)
    variance = mean(square(images), axis=(1, 2, 3), keepdims=True)
    sizes = shape(images)
    floor = 1 / cast(sizes[1] * sizes[2] * sizes[3], "float32")
    return images * rsqrt(maximum(variance, floor))


def convolution(
    filters, kernel_size, strides, use_bias, initialization, seed, kind=layers.Conv2D, padding="same", **kwargs
):
    """Returns a channels-last convolution whose kernel is drawn from `seed`.

    Args:
        filters: Integer, the number of output channels.
        kernel_size: Integer.
        strides: Integer.
        use_bias: Boolean.
        initialization: Initializer of the kernel, see `initializers.for_kernel`.
        seed: Integer.
        kind: `keras.layers.Conv2D` or a subclass of it, such as `cpu.Convolution`.
        padding: `"same"` or `"valid"`.
        **kwargs: Further arguments of `kind`: `name`, `dtype`, ...

    Returns:
        The layer.
    """
    return kind(
        filters,
        kernel_size,
        strides,
        padding=padding,
        data_format="channels_last",
        use_bias=use_bias,
        kernel_initializer=initializers.for_kernel(initialization, seed),
        **kwargs,
    )


def own_activation(activation, name):
    """Returns the function that an activation names, or if it is a layer, a new one of the same configuration.

    Args:
        activation: Name, callable or layer.
        name: String, the name of the new layer.
    """
    if isinstance(activation, layers.Layer):
        return type(activation).from_config({**activation.get_config(), "name": name})
    return keras.activations.get(activation)


def activation_layer(activation, name, dtype):
    """Returns a layer that applies a name, callable or layer; a given layer is copied and keeps its dtype policy."""
    own = own_activation(activation, name)
    return own if isinstance(own, layers.Layer) else layers.Activation(own, name=name, dtype=dtype)
