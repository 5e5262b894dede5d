"""What a type checker knows of the public names. `make lint` checks this file, and nothing runs it.

Where a comment says `pyright: ignore`, the line is wrong, and a checker that does not see it fails.
"""

from typing import Any, assert_type

import keras
import numpy as np

import allconv_resnet as acr
from allconv_resnet.data.source import Source
from allconv_resnet.recipes import Recipe
from allconv_resnet.theory.landscape import Certificate, Problem

model = acr.AllConvResNet((32, 32, 3), 10, stem=acr.Stem(16), stages=[acr.Stage(1, 16), (1, 32, 2)])
assert_type(acr.cifar_resnet(10, initialization="he"), acr.AllConvResNet)
model.compile(acr.Momentum(acr.StepDecay(0.05, [100], 0.1), weight_decay=1e-4), "sparse_categorical_crossentropy")
assert_type(acr.load("cifar10-fast"), keras.Model)
assert_type(acr.load_data("digits"), Source)
assert_type(acr.recipes.CIFAR10.replace(steps=10), Recipe)
assert_type(acr.recipes.CIFAR10.run.steps, int)
assert_type(acr.recipes.CIFAR10.to_dict(), dict[str, Any])
assert_type(acr.theory.linear.factorize(np.eye(2), depth=3, method="svd"), np.ndarray)
assert_type(acr.theory.isometry.effective_cumulant("relu", 1.0, 0.0, depth=10), float)
assert_type(acr.theory.isometry.spectral_edges(1.0), tuple[float, float])
problem = Problem(np.eye(2), np.ones(2))
assert_type(acr.theory.landscape.certify(problem, [[0.0, 0.0]], np.eye(2), np.eye(2)), Certificate)

acr.AllConvResNet(num_classes="ten")  # pyright: ignore[reportArgumentType]
acr.ResidualBlock("many")  # pyright: ignore[reportArgumentType]
acr.theory.linear.factorize(np.eye(2), depth=3, method="qr")  # pyright: ignore[reportArgumentType]
acr.load_data(5)  # pyright: ignore[reportArgumentType]
acr.Stage(1)  # pyright: ignore[reportCallIssue]
misspelt = acr.cifar_resnets  # pyright: ignore[reportAttributeAccessIssue]
