"""The architecture with a linear path, and the regret bound of projected gradient descent at every step."""

import keras
import numpy as np
import pytest

from allconv_resnet.errors import BadInput
from allconv_resnet.theory import landscape

RNG = np.random.default_rng(0)
N, D = 60, 5
X = RNG.standard_normal((N, D))
TARGETS = {
    "squared": (X[:, :1] + RNG.standard_normal((N, 1)), 1),
    "logistic": (np.sign(X[:, :1] + RNG.standard_normal((N, 1))), 1),
    "cross_entropy": (np.argmax(X[:, :3] + RNG.standard_normal((N, 3)), axis=1), 3),
}


def problem(name):
    return landscape.Problem(X, TARGETS[name][0], name, TARGETS[name][1])


BANK = [np.tanh(X @ RNG.standard_normal((D, 3)) * scale) for scale in (0.3, 1, 3, 10)]


@pytest.mark.parametrize("batch_size", [None, 4])
@pytest.mark.parametrize("name", TARGETS)
def test_average_objective_stays_under_the_bound_at_every_step(name, batch_size):
    p = problem(name)
    for features in (landscape.adversary(p, BANK), lambda t, W, V, rows: BANK[t % 4][rows]):
        run = landscape.projected_sgd(p, features, 500, radius=2.0, batch_size=batch_size)
        assert np.all(run.average <= run.linear + run.bound)
        assert np.linalg.norm(np.concatenate([run.W, run.V], axis=1)) <= 2.0 + 1e-9
        assert run.bound[-1] < 0.3 * run.bound[10]  # the bound tends to zero


@pytest.mark.slow
@pytest.mark.parametrize("name", TARGETS)
def test_bound_holds_at_every_step_up_to_10000_against_an_adversary(name):
    p = problem(name)
    for batch_size in (None, 4):
        run = landscape.projected_sgd(p, landscape.adversary(p, BANK), 10_000, radius=2.0, batch_size=batch_size)
        slack = run.linear + run.bound - run.average
        print(name, batch_size, "average", run.average[-1], "linear", run.linear[-1], "bound", run.bound[-1])
        assert slack.min() >= 0


def test_bound_is_below_the_best_predictor_of_the_samples_too():
    """The theorem holds for any comparator, so also for the best predictor of the examples that were drawn."""
    p, drawn = problem("logistic"), []

    def features(t, W, V, rows):
        drawn.append(rows)
        return BANK[t % 4][rows]

    run = landscape.projected_sgd(p, features, 400, radius=1.0, batch_size=2, seed=5)
    for T in (1, 10, 100, 400):
        rows = np.concatenate(drawn[:T])
        hindsight = landscape.linear_optimum(landscape.Problem(X[rows], p.y[rows], "logistic"), radius=1.0)
        assert run.average[T - 1] <= hindsight.value + run.bound[T - 1]


def test_constant_learning_rate():
    run = landscape.projected_sgd(
        problem("logistic"), landscape.adversary(problem("logistic"), BANK), 500, 1.0, learning_rate=0.05
    )
    assert np.all(run.average <= run.linear + run.bound)


def branch():
    keras.utils.set_random_seed(1)
    return keras.Sequential([keras.Input((D,)), keras.layers.Dense(8, "relu"), keras.layers.Dense(3, "tanh")])


@pytest.mark.parametrize("theta", ["descend", "ascend", "fixed"])
def test_fit_projected_trains_a_keras_model(theta):
    p = problem("cross_entropy")
    model = landscape.ResidualWithLinearPath(branch(), outputs=3)
    before = [np.array(w) for w in model.branch.get_weights()]
    run = landscape.fit_projected(model, p, 20, radius=3.0, theta=theta, theta_rate=0.5)
    assert np.all(run.average <= run.linear + run.bound)
    predictions = keras.ops.convert_to_numpy(model(X.astype("float32")))
    expected = X @ run.W.T + landscape.features_of(model.branch, X) @ run.V.T
    np.testing.assert_allclose(predictions, expected, atol=1e-5)
    moved = any(np.any(a != b) for a, b in zip(before, model.branch.get_weights(), strict=True))
    assert moved == (theta != "fixed")


def test_training_the_branch_helps_and_an_adversary_hurts():
    p, ends = landscape.Problem(X, 2 * np.abs(X[:, :1])), {}  # no linear predictor has a chance
    for theta in ("descend", "ascend", "fixed"):
        model = landscape.ResidualWithLinearPath(branch())
        ends[theta] = landscape.fit_projected(model, p, 60, radius=3.0, theta=theta, theta_rate=0.5).objective[-1]
    assert ends["descend"] < ends["fixed"] < ends["ascend"]


def test_model_round_trips(tmp_path):
    model = landscape.ResidualWithLinearPath(branch(), outputs=2)
    model.get_layer("w").kernel.assign(np.ones((D, 2)))
    model.get_layer("v").kernel.assign(2 * np.ones((3, 2)))
    x = X.astype("float32")
    expected = keras.ops.convert_to_numpy(model(x))
    path = tmp_path / "model.keras"
    model.save(path)
    np.testing.assert_array_equal(keras.ops.convert_to_numpy(keras.saving.load_model(path)(x)), expected)


def test_model_trains_with_fit():
    model = landscape.ResidualWithLinearPath(branch())
    model.compile(keras.optimizers.SGD(0.1), "mse")
    history = model.fit(X.astype("float32"), TARGETS["squared"][0], epochs=5, verbose=0).history["loss"]
    assert history[-1] < history[0]


def test_bad_input_is_refused():
    p = problem("squared")
    for arguments, message in [
        ((p, landscape.adversary(p, BANK), 0, 1.0), "steps"),
        ((p, landscape.adversary(p, BANK), 10, -1.0), "radius"),
        ((p, lambda t, W, V, rows: np.full((N, 2), np.nan), 10, 1.0), "finite"),
        ((p, lambda t, W, V, rows: np.zeros((N, 2 + t)), 10, 1.0), "Features"),
    ]:
        with pytest.raises(BadInput, match=message):
            landscape.projected_sgd(*arguments)
    best = landscape.linear_optimum(p, 2.0)
    for options, message in [
        ({"radius": -1.0, "best": best}, "radius"),
        ({"radius": np.linalg.norm(best.U) / 2, "best": best}, "best must lie"),
        ({"radius": 1.0, "batch_size": 0}, "batch_size"),
    ]:
        with pytest.raises(BadInput, match=message):
            landscape.projected_sgd(p, landscape.adversary(p, BANK), 10, **options)
    with pytest.raises(BadInput, match="theta"):
        landscape.fit_projected(landscape.ResidualWithLinearPath(branch()), p, 10, 1.0, theta="wander")
    a, b = keras.Input((D,)), keras.Input((D,))
    with pytest.raises(BadInput, match="one input"):
        landscape.ResidualWithLinearPath(keras.Model([a, b], keras.layers.Add()([a, b])))
