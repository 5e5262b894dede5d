"""The layer of many small residual blocks."""

import keras
import numpy as np

from allconv_resnet.theory.hardt_ma.stacked_blocks import StackedResidualBlocks


def test_stacked_blocks_are_the_formula_and_train():
    layer = StackedResidualBlocks(5, hidden=3)
    h = np.random.default_rng(0).normal(size=(7, 4)).astype(np.float32)
    np.testing.assert_array_equal(layer(h), h)  # V starts at zero
    U, s, V = (np.random.default_rng(i).normal(size=w.shape).astype(np.float32) for i, w in enumerate(layer.weights))
    layer.set_weights([U, s, V])
    expected = h
    for b in range(5):
        expected = expected + np.maximum(expected @ U[b].T + s[b], 0) @ V[b].T
    np.testing.assert_allclose(layer(h), expected, rtol=1e-4)

    model = keras.Sequential([keras.Input((4,)), StackedResidualBlocks(3), keras.layers.Dense(1)])
    model.compile(keras.optimizers.SGD(0.01), "mse")
    before = model.get_weights()
    model.fit(h, np.ones(7), verbose=0)
    assert np.any(model.get_weights()[2] != before[2])
