import keras
import numpy as np
import pytest
from keras import ops

import allconv_resnet as acr
from allconv_resnet.errors import BadInput
from allconv_resnet.optimizers import orthogonalized

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
    assert (again.momentum, again.own_weight_decay, again.nesterov, again.global_clipnorm) == (0.8, 1e-4, True, 2.0)


@pytest.mark.parametrize("kind", [acr.Momentum, acr.Muon])
@pytest.mark.parametrize("arguments", [{"momentum": 1.0}, {"momentum": -0.1}, {"weight_decay": -1e-4}])
def test_values_out_of_range_are_refused(kind, arguments):
    with pytest.raises(BadInput, match=next(iter(arguments))):
        kind(0.1, **arguments)


def quintic(s, steps=5):
    """What five steps of Newton and Schulz make of a singular value."""
    for _ in range(steps):
        s = 3.4445 * s - 4.7750 * s**3 + 2.0315 * s**5
    return s


@pytest.mark.parametrize("shape", [(300, 40), (40, 300), (27, 32), (7, 7), (1, 9)])
@pytest.mark.parametrize("decades", [0, 3])
def test_orthogonalized_keeps_the_singular_vectors(shape, decades):
    u, _, v = np.linalg.svd(RNG.standard_normal(shape), full_matrices=False)
    s = np.logspace(0, -decades, min(shape)) * 1e3
    result = ops.convert_to_numpy(orthogonalized(ops.convert_to_tensor((u * s @ v).astype("float32"))))
    s /= np.linalg.norm(s)
    np.testing.assert_allclose(result, u * quintic(s) @ v, atol=1e-3)
    found = np.linalg.svd(result, compute_uv=False)[: np.sum(s > 2e-3)]
    assert found.min() > 0.67
    assert found.max() < 1.21


@pytest.mark.parametrize("shape", [(300, 40), (40, 300), (40, 40)])
def test_orthogonalized_bears_the_rounding_of_tf32(shape):
    u, _, v = np.linalg.svd(RNG.standard_normal(shape), full_matrices=False)
    matrix = ops.convert_to_tensor((u * np.logspace(0, -3, 40) @ v).astype("float16"))  # of as many bits as TF32
    found = np.linalg.svd(ops.convert_to_numpy(orthogonalized(matrix)).astype("float32"), compute_uv=False)
    assert found.max() < 1.25  # 1.21 without rounding


def test_orthogonalized_zero_is_zero():
    assert not ops.convert_to_numpy(orthogonalized(ops.zeros((5, 3)))).any()


@pytest.mark.parametrize("nesterov", [False, True])
def test_muon_is_momentum_orthogonalized_and_decays_apart(nesterov):
    shape = (3, 3, 4, 6)
    kernel = keras.Variable(RNG.standard_normal(shape).astype("float32"), name="kernel")
    bias = keras.Variable(RNG.standard_normal(6).astype("float32"), name="bias")
    optimizer = acr.Muon(acr.StepDecay(0.1, [2], 0.1), 0.8, weight_decay=0.5, nesterov=nesterov)
    optimizer.exclude_from_weight_decay(var_names=["bias"])
    expected = [ops.convert_to_numpy(kernel), ops.convert_to_numpy(bias)]
    velocities = [0.0, 0.0]
    for step in range(4):
        gradients = [RNG.standard_normal(w.shape).astype("float32") for w in expected]
        optimizer.apply([ops.convert_to_tensor(g) for g in gradients], [kernel, bias])
        rate = 0.1 if step < 2 else 0.01
        for i, decay in enumerate((0.5, 0.0)):
            velocities[i] = 0.8 * velocities[i] + gradients[i]
            update = (gradients[i] + 0.8 * velocities[i] if nesterov else velocities[i]).reshape(-1, 6)
            u, s, v = np.linalg.svd(update if i == 0 else update.T, full_matrices=False)
            update = (u * quintic(s / np.linalg.norm(s)) @ v).reshape(expected[i].shape)
            expected[i] = (1 - rate * decay) * expected[i] - rate * update
    np.testing.assert_allclose(ops.convert_to_numpy(kernel), expected[0], rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(ops.convert_to_numpy(bias), expected[1], rtol=1e-4, atol=1e-5)


def test_muon_can_fix_the_norm_of_kernels_and_scale_the_updates_of_vectors():
    kernel = keras.Variable(RNG.standard_normal((3, 3, 4, 6)).astype("float32"), name="kernel")
    gain = keras.Variable(np.full(1, 0.4, "float32"), name="gain")
    optimizer = acr.Muon(0.1, kernel_norm=1.4, vector_scale=0.25)
    before = ops.convert_to_numpy(kernel)
    gradients = [RNG.standard_normal(v.shape).astype("float32") for v in (kernel, gain)]
    optimizer.apply([ops.convert_to_tensor(g) for g in gradients], [kernel, gain])
    u, s, v = np.linalg.svd(gradients[0].reshape(-1, 6), full_matrices=False)
    moved = before - 0.1 * (u * quintic(s / np.linalg.norm(s)) @ v).reshape(before.shape)
    expected = moved * 1.4 * 6**0.5 / np.linalg.norm(moved)
    np.testing.assert_allclose(ops.convert_to_numpy(kernel), expected, rtol=1e-4, atol=1e-5)
    step = 0.1 * 0.25 * quintic(np.ones(1)) * np.sign(gradients[1])
    np.testing.assert_allclose(ops.convert_to_numpy(gain), 0.4 - step, rtol=1e-4)


def test_muon_updates_a_scalar_as_a_vector_of_one():
    scalar, vector = (keras.Variable(np.full(shape, 0.4, "float32"), name="gain") for shape in ((), (1,)))
    optimizer = acr.Muon(0.1, weight_decay=0.01, kernel_norm=1.4, vector_scale=0.25)
    for _ in range(2):
        optimizer.apply([-3 * ops.ones(()), -3 * ops.ones(1)], [scalar, vector])
    assert scalar.shape == ()
    assert float(ops.convert_to_numpy(vector)[0]) > 0.4
    np.testing.assert_allclose(ops.convert_to_numpy(scalar), ops.convert_to_numpy(vector)[0], rtol=1e-6)


def test_muon_config_round_trip():
    optimizer = acr.Muon(
        acr.LinearDecay(0.02, 10), momentum=0.8, weight_decay=0.1, nesterov=False, kernel_norm=1.4, vector_scale=0.3
    )
    again = keras.optimizers.deserialize(keras.optimizers.serialize(optimizer))
    assert isinstance(again, acr.Muon)
    assert again.get_config() == optimizer.get_config()
    assert (again.momentum, again.own_weight_decay, again.nesterov) == (0.8, 0.1, False)
    assert (again.kernel_norm, again.vector_scale) == (1.4, 0.3)


def test_a_schedule_sees_every_batch_under_gradient_accumulation():
    """It is how Keras counts, and the docstring of `Momentum` says so."""
    w = keras.Variable([0.0])
    optimizer = acr.Momentum(acr.StepDecay(1.0, [4], 0.1), momentum=0.0, gradient_accumulation_steps=2)
    optimizer.build([w])
    found = []
    for _ in range(8):
        optimizer.apply([ops.ones(1)], [w])
        found.append(float(ops.convert_to_numpy(w)[0]))
    assert found == pytest.approx([0, -1, -1, -2, -2, -2.1, -2.1, -2.2])  # boundary 4 is that of the second update
    assert int(optimizer.iterations) == 4


def test_a_fixed_norm_leaves_a_kernel_of_zeros():
    kernel = keras.Variable(np.zeros((3, 3, 4, 6), "float32"), name="kernel")
    acr.Muon(0.1, kernel_norm=1.0).apply([ops.zeros((3, 3, 4, 6))], [kernel])
    assert not ops.convert_to_numpy(kernel).any()
