"""Plain Keras on the backend of KERAS_BACKEND: the same network with Keras's own SGD, trained by `fit`."""

import keras
import tensorflow as tf

from . import networks
from .keras_network import build


class Contender:
    def __init__(self, task, batch, precision, weights):
        self.model = build(task, precision, weights)
        self.model.compile(
            keras.optimizers.SGD(networks.LEARNING_RATE, networks.MOMENTUM),
            keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        )
        self.images, self.labels = networks.batch(task, batch)

    def train(self, count):
        self.model.fit(repeated(count, self.images, self.labels), verbose=0)

    def infer(self, count):
        self.model.predict(repeated(count, self.images), verbose=0)

    def logits(self, images):
        return self.model.predict(images, len(images), verbose=0)


def repeated(count, *batch):
    """Returns a dataset of one batch several times, which is not tuned: the end of a call would sleep, see NOTES.md."""
    options = tf.data.Options()
    options.autotune.enabled = False
    return tf.data.Dataset.from_tensors(batch).repeat(count).with_options(options)
