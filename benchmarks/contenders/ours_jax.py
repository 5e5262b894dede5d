"""This project on JAX, with the steps of its JAX engine, which also draw, crop and mirror the images of each batch."""

import numpy as np

from allconv_resnet import recipes
from allconv_resnet.data.arrays import ArraySource
from allconv_resnet.training.engines.jax import JaxEngine
from allconv_resnet.training.stop_signal import StopSignal

from . import networks

EXAMPLES = 50_000


class Contender:
    def __init__(self, task, batch, precision, weights):
        if task != "cifar":
            raise SystemExit(f"The JAX engine reads images in memory, and those of {task} are read from records")
        images, labels = networks.batch(task, batch)
        pixels = np.clip(images * 64 + 128, 0, 255).astype("uint8")
        # As many images as CIFAR-10 has, so that a batch is drawn from them as in training.
        many = np.resize(pixels, (EXAMPLES, *pixels.shape[1:])), np.resize(labels, EXAMPLES)
        splits = {"train": lambda: many, "test": lambda: (pixels, labels)}
        source = ArraySource("random pixels", map(str, range(10)), splits)
        self.engine = JaxEngine("one")
        self.engine.build(recipes.CIFAR10.replace(batch_size=batch, precision=precision, steps=2**30), source)
        self.engine.model.set_weights(networks.load(weights))
        self.engine.push()
        self.engine.begin(0, StopSignal(None))
        self.step = 0

    def train(self, count):
        self.step = self.engine.advance(self.step, self.step + count)

    def infer(self, count):
        for _ in range(count):
            self.engine.test("test")

    def logits(self, images):
        return self.engine.model.predict(images, len(images), verbose=0)
