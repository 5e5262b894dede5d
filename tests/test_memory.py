"""What a recipe needs at least is estimated without allocating it, and compared with what there is."""

import math

import keras
import numpy as np
import pytest

from allconv_resnet import memory, recipes
from allconv_resnet.errors import BadInput


@pytest.mark.parametrize("name", ["digits", "all-cnn-c", "resnet20", "cifar10-fast", "small-4000-batch-norm"])
def test_sizes_are_those_of_the_network(name):
    recipe = recipes.RECIPES[name]
    weights, outputs = recipe.sizes()
    model = recipe.build_model()
    assert weights == sum(np.prod(variable.shape) for variable in model.variables)
    assert outputs == sum(math.prod(layer.output.shape[1:]) for layer in model.layers)


def test_an_estimate_leaves_no_variables_behind():
    """Keras would give values to them, and so allocate them, at the end of the next stateless call."""
    huge = recipes.DIGITS.replace(kernel_sizes=(60_000, 3))
    with pytest.raises(BadInput, match=r"of memory is needed \(weights"):
        huge.build_model()
    model = recipes.DIGITS.build_model()
    model.stateless_call(
        model.trainable_variables, model.non_trainable_variables, keras.ops.zeros((1, 32, 32, 3)), training=False
    )


def test_what_is_available(tmp_path):
    (tmp_path / "meminfo").write_text("MemTotal: 900 kB\nMemAvailable:    500 kB\n")
    assert memory.available(tmp_path / "meminfo", tmp_path) == 512_000
    (tmp_path / "memory.max").write_text("max\n")
    (tmp_path / "memory.current").write_text("1000\n")
    (tmp_path / "memory.stat").write_text("anon 5\ninactive_file 300\n")
    assert memory.available(tmp_path / "meminfo", tmp_path) == 512_000
    (tmp_path / "memory.max").write_text("3000\n")
    assert memory.available(tmp_path / "meminfo", tmp_path) == 2_300
    assert memory.available(tmp_path / "absent", tmp_path) is None


def test_every_recipe_fits_into_a_small_machine(monkeypatch):
    """What is counted is a lower bound: it must not refuse what would train."""
    monkeypatch.setattr(memory, "available", lambda: 8e9)
    for recipe in (recipes.DIGITS, recipes.CIFAR10, recipes.CIFAR10_FAST, recipes.IMAGENET_TINY):
        recipe.require_memory()
    monkeypatch.setattr(memory, "available", lambda: 1e6)
    with pytest.raises(BadInput, match=r"At least 4.84 MB of memory .*Received: batch_size=64"):
        recipes.DIGITS.require_memory()
    recipes.DIGITS.require_memory(accelerators=True)  # whose memory is not that of the machine
