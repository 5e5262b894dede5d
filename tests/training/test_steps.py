import keras
import numpy as np
import tensorflow as tf

from allconv_resnet.training.engines.steps import cross_entropy


def test_smoothed_labels_are_those_of_keras():
    draw = np.random.default_rng(0)
    labels, logits = draw.integers(10, size=32), draw.normal(scale=3, size=(32, 10)).astype("float32")
    for smoothing in (0.0, 0.1, 0.5):
        loss = keras.losses.CategoricalCrossentropy(from_logits=True, label_smoothing=smoothing, reduction=None)
        expected = loss(tf.one_hot(labels, 10), logits)
        np.testing.assert_allclose(cross_entropy(labels, logits, smoothing), expected, rtol=1e-5)
