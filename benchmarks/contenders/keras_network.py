"""This project's network with the shared weights, on any Keras backend."""

import allconv_resnet as acr

from . import networks


def build(task, precision, weights):
    """Returns the Keras model with the shared weights."""
    policy = {"float32": "float32", "bfloat16": "mixed_bfloat16"}[precision]
    make = {"cifar": acr.cifar_resnet, "imagenet": acr.imagenet_resnet}[task]
    model = make(networks.CLASSES[task], dtype=policy)
    model.set_weights(networks.load(weights))
    return model
