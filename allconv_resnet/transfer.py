"""Weights and layers by name: what one network takes over from another, and which layers are frozen.

Keras numbers layers without a name of their own, such as `conv2d_19`, through the whole program. Here they are numbered
within their network, in the order of its layers, so that the names of two networks of one kind are the same.
"""

import re
from typing import NamedTuple

from keras import layers, ops

from allconv_resnet.errors import BadInput


class Transfer(NamedTuple):
    """What a network has taken over from another one."""

    taken: tuple[str, ...]
    """Names of the weights that were taken over."""
    new: dict[str, str]
    """Why each of the other weights was not, by its name."""
    unused: tuple[str, ...]
    """Names of the other network's weights for which there is no weight of this name."""


def layers_by_name(model):
    """Returns the layers of a model, without those inside of blocks, by name.

    A `cpu.Convolution` without a name of its own is named as the `keras.layers.Conv2D` that it stands for.
    """
    counts, named = {}, {}
    for layer in model.layers:
        kind = _snake_case(type(layer).__name__)
        if re.fullmatch(rf"{kind}(_\d+)?", layer.name):
            kind = "conv2d" if kind == "convolution" else kind
            number = counts[kind] = counts.get(kind, -1) + 1
            named[f"{kind}_{number}" if number else kind] = layer
        else:
            named[layer.name] = layer
    return named


def weights_by_name(model):
    """Returns the weights of a model, trained or not, by names such as `stage1_block1/conv1/kernel`."""
    named = {}
    for name, layer in layers_by_name(model).items():
        for weight in layer.weights:
            own = weight.path.removeprefix(f"{layer.name}/")
            named[f"{name}/{own}"] = weight
    return named


def arrays_by_name(model):
    """Returns the values of the weights of a model as NumPy arrays by name, see `weights_by_name`."""
    return {name: ops.convert_to_numpy(weight) for name, weight in weights_by_name(model).items()}


def take_weights(model, arrays):
    """Gives a model the weights of another one that have the names and shapes of its own. The rest stays as it was.

    Args:
        model: Keras model.
        arrays: Dictionary of the other model's weights by name, as `arrays_by_name` returns it.

    Returns:
        `Transfer`.
    """
    taken, new = [], {}
    for name, weight in weights_by_name(model).items():
        if name not in arrays:
            new[name] = "there is none of this name"
        elif arrays[name].shape != tuple(weight.shape):
            new[name] = f"its shape is {arrays[name].shape} there and {tuple(weight.shape)} here"
        else:
            weight.assign(arrays[name])
            taken.append(name)
    return Transfer(tuple(taken), new, tuple(name for name in arrays if name not in (*taken, *new)))


def freeze(model, names):
    """Freezes layers of a model. Frozen batch normalization also stops updating its moving averages.

    Args:
        model: Keras model.
        names: Sequence of names of layers, such as `stem` or `stage1_block2`, or of their beginnings before an
            underscore: `stage1` means all blocks of the first stage.

    Raises:
        BadInput: if there is no such layer, or training does not change it, or nothing would be left to train.
    """
    named = layers_by_name(model)
    changing = [key for key, layer in named.items() if _changes_in_training(layer)]
    for name in names:
        inside = re.compile(rf"{re.escape(name)}(_(?!\d+$).+)?")  # conv2d_1 is not a part of conv2d
        if not any(inside.fullmatch(key) for key in changing):
            groups = dict.fromkeys(key.split("_block")[0] for key in changing)
            raise BadInput(f"freeze must name layers that are trained, such as {', '.join(groups)}. Received: {name!r}")
        for key, layer in named.items():
            if inside.fullmatch(key):
                layer.trainable = False
    if names and not model.trainable_variables:
        raise BadInput(f"freeze must leave a layer that is trained. Received: freeze={tuple(names)}")


def _changes_in_training(layer):
    parts = layer._flatten_layers()
    return bool(layer.trainable_weights) or any(isinstance(part, layers.BatchNormalization) for part in parts)


def _snake_case(name):
    return re.sub(r"([a-z])([A-Z])", r"\1_\2", re.sub(r"(.)([A-Z][a-z]+)", r"\1_\2", name)).lower()
