"""A frozen function computes what the function computes, with convolutions that oneDNN can fuse."""

import keras
import numpy as np
import pytest
import tensorflow as tf

import allconv_resnet as acr
from allconv_resnet.serving import freezing

SIZE = (8, 8, 3)


def concrete(model):
    function = tf.function(lambda images: {"logits": model(images, training=False)})
    return function.get_concrete_function(tf.TensorSpec((None, *SIZE), tf.float32))


def network(dtype, **changes):
    stages = [(1, 16, 1), (2, 32, 2)]
    return acr.AllConvResNet(SIZE, 4, (16, 3, 1, 1), stages, initialization="he", dtype=dtype, **changes)


@pytest.mark.parametrize(("dtype", "rounding"), [("float32", 1e-6), ("mixed_bfloat16", 0.05)])
@pytest.mark.parametrize("changes", [{}, {"use_bias": True}, {"normalization": "batch"}], ids=str)
def test_answers_are_those_of_the_function(dtype, rounding, changes):
    function = concrete(network(dtype, **changes))
    images = np.random.default_rng(0).normal(size=(5, *SIZE)).astype("float32")
    expected = function(tf.constant(images))["logits"].numpy()
    found = freezing.freeze(function)(tf.constant(images))
    assert found.keys() == {"logits"}
    np.testing.assert_allclose(found["logits"], expected, atol=rounding * np.abs(expected).max())


@pytest.mark.parametrize("use_bias", [False, True])
def test_each_convolution_has_one_bias(use_bias, monkeypatch):
    frozen, add_biases = [], freezing._with_fusable_biases
    monkeypatch.setattr(freezing, "_with_fusable_biases", lambda *each: frozen.append(add_biases(*each)) or frozen[0])
    model = network("float32", use_bias=use_bias)
    freezing.freeze(concrete(model))
    count = [node.op for node in frozen[0].graph.as_graph_def().node].count
    convolutions = sum(isinstance(layer, keras.layers.Conv2D) for layer in model._flatten_layers())
    assert count("Conv2D") == count("BiasAdd") == convolutions == 7


def test_the_batch_size_of_the_function_stays_free():
    function = freezing.freeze(concrete(network("float32")))
    assert [function(tf.zeros((count, *SIZE)))["logits"].shape for count in (1, 3)] == [(1, 4), (3, 4)]
