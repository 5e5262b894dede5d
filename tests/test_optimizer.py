import keras
import numpy as np
import pytest
from keras import ops

import allconv_resnet as acr

tf = pytest.importorskip("tensorflow")

RNG = np.random.default_rng(0)
X = RNG.standard_normal((64, 5)).astype("float32")
Y = RNG.standard_normal((64, 3)).astype("float32")
W = RNG.standard_normal((5, 3)).astype("float32")
STEPS, BOUNDARY, DECAY = 50, 23, 0.1


def tensorflow_1(momentum, nesterov):
    """Weights and momentum after each step of `tf.compat.v1.train.MomentumOptimizer` with an L2 loss."""
    states = []
    with tf.Graph().as_default():
        w = tf.compat.v1.get_variable("w", initializer=W)
        step = tf.compat.v1.train.get_or_create_global_step()
        rate = tf.where(step < BOUNDARY, 0.05, 0.005)
        loss = 0.5 * tf.reduce_sum(tf.square(X @ w - Y)) / 64 + 0.5 * DECAY * tf.reduce_sum(tf.square(w))
        optimizer = tf.compat.v1.train.MomentumOptimizer(rate, momentum, use_nesterov=nesterov)
        train = optimizer.minimize(loss, global_step=step)
        slot = optimizer.get_slot(w, "momentum")
        with tf.compat.v1.Session() as session:
            session.run(tf.compat.v1.global_variables_initializer())
            for _ in range(STEPS):
                session.run(train)
                states.append(session.run([w, slot]))
    return states


@pytest.mark.parametrize("momentum, nesterov", [(0.9, False), (0.0, False), (0.9, True)])
def test_equals_the_momentum_optimizer_of_tensorflow_1_across_a_drop(momentum, nesterov):
    w = keras.Variable(W)
    optimizer = acr.Momentum(acr.StepDecay(0.05, [BOUNDARY], 0.1), momentum, DECAY, nesterov)
    optimizer.build([w])
    for expected_w, expected_v in tensorflow_1(momentum, nesterov):
        residual = X @ ops.convert_to_numpy(w) - Y
        optimizer.apply([ops.convert_to_tensor(X.T @ residual / 64)], [w])
        np.testing.assert_allclose(ops.convert_to_numpy(w), expected_w, rtol=1e-6, atol=1e-6)
        np.testing.assert_allclose(ops.convert_to_numpy(optimizer.velocities[0]), expected_v, rtol=1e-6, atol=1e-6)
    assert int(optimizer.iterations) == STEPS


def test_golden_values():
    # g = (1, 1); v = 1 + 0.5 * 2 = 2, then 0.9 * 2 + 1 + 0.5 * 1.8 = 3.7: by hand.
    w = keras.Variable(np.array([2.0, 2.0], "float32"))
    optimizer = acr.Momentum(0.1, momentum=0.9, weight_decay=0.5)
    for expected in (1.8, 1.43):
        optimizer.apply([ops.ones(2)], [w])
        np.testing.assert_allclose(ops.convert_to_numpy(w), [expected, expected], rtol=1e-6)


def test_excluded_variables_do_not_decay():
    kernel, bias = (
        keras.Variable(np.ones(2, "float32"), name="kernel"),
        keras.Variable(np.ones(2, "float32"), name="bias"),
    )
    optimizer = acr.Momentum(1.0, weight_decay=0.25)
    optimizer.exclude_from_weight_decay(var_names=["bias"])
    optimizer.apply([ops.zeros(2), ops.zeros(2)], [kernel, bias])
    np.testing.assert_allclose(ops.convert_to_numpy(kernel), 0.75)
    np.testing.assert_allclose(ops.convert_to_numpy(bias), 1.0)


def test_config_round_trip():
    optimizer = acr.Momentum(
        acr.StepDecay(0.05, [3, 5], 0.1), momentum=0.8, weight_decay=1e-4, nesterov=True, global_clipnorm=2.0
    )
    again = keras.optimizers.deserialize(keras.optimizers.serialize(optimizer))
    assert isinstance(again, acr.Momentum)
    assert again.get_config() == optimizer.get_config()
    assert (again.momentum, again.coupled_weight_decay, again.nesterov, again.global_clipnorm) == (0.8, 1e-4, True, 2.0)


@pytest.mark.parametrize("arguments", [{"momentum": 1.0}, {"momentum": -0.1}, {"weight_decay": -1e-4}])
def test_values_out_of_range_are_refused(arguments):
    with pytest.raises(ValueError, match=next(iter(arguments))):
        acr.Momentum(0.1, **arguments)
