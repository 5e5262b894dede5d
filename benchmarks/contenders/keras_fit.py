"""Plain Keras on the backend of KERAS_BACKEND: the same network with Keras's own SGD, trained by `fit`."""

import keras
import numpy as np

from . import networks
from .keras_network import build


class Contender:
    def __init__(self, task, batch, precision, weights):
        self.model = build(task, precision, weights)
        self.model.compile(
            keras.optimizers.SGD(networks.LEARNING_RATE, networks.MOMENTUM),
            keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        )
        self.batch = batch
        self.images, self.labels = networks.batch(task, batch)

    def train(self, count):
        images, labels = (np.concatenate([part] * count) for part in (self.images, self.labels))
        self.model.fit(images, labels, self.batch, verbose=0, shuffle=False)

    def infer(self, count):
        self.model.predict(np.concatenate([self.images] * count), self.batch, verbose=0)

    def logits(self, images):
        return self.model.predict(images, len(images), verbose=0)
