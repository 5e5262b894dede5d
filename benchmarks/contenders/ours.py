"""This project, with the train step of `training.loop` and the frozen network of `serving.server`."""

import functools

import tensorflow as tf

import allconv_resnet as acr
from allconv_resnet.serving import freezing
from allconv_resnet.training.engines import steps

from . import networks
from .keras_network import build


class Contender:
    def __init__(self, task, batch, precision, weights):
        self.model = build(task, precision, weights)
        optimizer = acr.Momentum(networks.LEARNING_RATE, networks.MOMENTUM, networks.WEIGHT_DECAY)
        optimizer.build(self.model.trainable_variables)
        strategy = tf.distribute.get_strategy()
        self.step = steps.make_train_step(strategy, self.model, optimizer, steps.Totals(), batch)
        self.images, self.labels = (tf.constant(part) for part in networks.batch(task, batch))
        self.optimizer = optimizer

    def train(self, count):
        for _ in range(count):
            self.step(self.images, self.labels)
        self.optimizer.iterations.numpy()

    def infer(self, count):
        served = self.served(self.images)
        for _ in range(count):
            served(self.images).numpy()

    def logits(self, images):
        return self.served(tf.constant(images))(tf.constant(images)).numpy()

    @functools.cache  # noqa: B019 - there is one contender in a process
    def _function(self, spec):
        forward = tf.function(lambda images: self.model(images, training=False))
        return freezing.freeze(forward.get_concrete_function(spec))

    def served(self, images):
        """Returns the function that the server calls for a batch."""
        return self._function(tf.TensorSpec(images.shape, images.dtype))
