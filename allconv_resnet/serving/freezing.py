"""Replaces the weights of a function by constants, which makes it faster in a process that calls it often."""

import tensorflow as tf
from tensorflow.python.framework.convert_to_constants import convert_variables_to_constants_v2


def freeze(function):
    """Returns a copy of a concrete function in which constants replace the variables.

    TensorFlow then converts the weights to bfloat16 and to oneDNN's layout once instead of at each call, which takes a
    third of the time of one CIFAR image in bfloat16.

    Args:
        function: `tf.types.experimental.ConcreteFunction`, with one argument.

    Returns:
        Function of one tensor.
    """
    frozen = convert_variables_to_constants_v2(function, lower_control_flow=False)
    structure = function.structured_outputs
    return lambda x: tf.nest.pack_sequence_as(structure, frozen(x))
