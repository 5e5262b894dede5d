"""The dense residual networks that are trained at equal c and at equal weight scale, and their training by SGD."""

import keras
import numpy as np

from allconv_resnet.layers import standardize
from allconv_resnet.theory.isometry import ACTIVATIONS, Activation

BATCH_SIZE, LEARNING_RATE = 128, 0.02
ARMS = ("same weight scale", "same c")
CENTERED = Activation(
    "sigmoid - 1/2", lambda h: keras.ops.sigmoid(h) - 0.5
)  # has the same c as the sigmoid, but no mean
NETWORKS = [*(ACTIVATIONS[n] for n in ("tanh", "hard_tanh", "selu", "elu", "relu", "leaky_relu", "sigmoid")), CENTERED]


def build_network(activation, width, depth, pixels, skip=1.0):
    """Returns a compiled network of a linear layer, `depth` layers a x + phi(W x + b), and a linear readout.

    The networks that were built before are freed.
    """
    keras.utils.clear_session()
    x = inputs = keras.Input((pixels,))
    x = keras.layers.Dense(width, use_bias=False, name="stem")(x)
    for layer in range(depth):
        h = keras.layers.Dense(width, name=f"layer{layer}")(x)
        x = keras.layers.Add()([x if skip == 1 else skip * x, keras.layers.Activation(activation.function)(h)])
    model = keras.Model(inputs, keras.layers.Dense(10, name="readout")(x))
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.SGD(LEARNING_RATE), loss, jit_compile=False)
    return model


def initialize(model, scale, width, depth, seed):
    """Sets random weights: residual layers at the weight scale, others with standard deviation 1 / sqrt(inputs)."""
    random = np.random.default_rng(seed)
    for layer in model.layers:
        if isinstance(layer, keras.layers.Dense):
            inputs, outputs = layer.kernel.shape
            residual = layer.name.startswith("layer")
            deviation = scale / np.sqrt(width * depth) if residual else 1 / np.sqrt(inputs)
            layer.kernel.assign(deviation * random.standard_normal((inputs, outputs)))
            if layer.use_bias:
                layer.bias.assign(np.zeros(outputs))


def train_with_sgd(model, images, labels, seed, steps, after_step=None):
    """Trains by SGD on batches that depend on the seed only, and returns the loss of each batch before its step.

    Args:
        model: Compiled Keras model.
        images: uint8 array `[n, height, width, channels]`.
        labels: Integer array `[n]`.
        seed: Integer.
        steps: Positive integer.
        after_step: Callable of the number of steps that were made, or None.

    Returns:
        Float64 array `[steps]`.
    """
    random = np.random.default_rng(1000 + seed)
    epochs = [random.permutation(len(images)) for _ in range(-(-steps * BATCH_SIZE // len(images)))]
    losses = np.empty(steps)
    for step, rows in enumerate(np.concatenate(epochs)[: steps * BATCH_SIZE].reshape(steps, BATCH_SIZE)):
        model.reset_metrics()
        losses[step] = model.train_on_batch(inputs_of(images[rows]), labels[rows])
        if after_step is not None:
            after_step(step + 1)
    return losses


def test_accuracy(model, images, labels):
    """Returns the share of images that the network classifies correctly."""
    parts = [inputs_of(images[i : i + 1000]) for i in range(0, len(images), 1000)]
    predicted = [keras.ops.convert_to_numpy(model(part, training=False)).argmax(axis=1) for part in parts]
    return float(np.mean(np.concatenate(predicted) == labels))


def inputs_of(images):
    """Returns standardized images as vectors. Only a batch at a time is converted, which takes little memory."""
    return keras.ops.reshape(standardize(images), (len(images), -1))
