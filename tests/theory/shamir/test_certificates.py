"""The bound on the gradient at random points, the curvature at w = 0, and certificates (Shamir)."""

import keras
import numpy as np
import pytest

from allconv_resnet.errors import BadInput
from allconv_resnet.theory import landscape
from allconv_resnet.theory.shamir.curvature import _null_space

N, D = 24, 9
OUTPUTS = {"squared": 2, "logistic": 1, "cross_entropy": 3}


def dense_branch():
    return keras.Sequential([keras.Input((D,)), keras.layers.Dense(8, "relu"), keras.layers.Dense(4)])


def convolutional_branch():
    conv = keras.layers.Conv2D(3, 2, activation="tanh")
    return keras.Sequential([keras.Input((3, 3, 1)), conv, keras.layers.Conv2D(4, 2), keras.layers.Flatten()])


BRANCHES = {"dense": dense_branch, "convolutional": convolutional_branch}


def random_problem(name, rng, outputs=None):
    m = outputs or OUTPUTS[name]
    x = rng.standard_normal((N, D)) * 10 ** rng.uniform(-1, 1)
    y = {
        "squared": lambda: rng.standard_normal((N, m)),
        "logistic": lambda: rng.choice([-1.0, 1.0], (N, m)),
        "cross_entropy": lambda: rng.integers(m, size=N),
    }[name]()
    return landscape.Problem(x, y, name, m)


def randomize(branch, rng):
    for variable in branch.trainable_variables:
        variable.assign(rng.standard_normal(variable.shape) * 10 ** rng.uniform(-1, 0.3))


def gradient_norm(problem, W, V, f):
    return np.sqrt(sum(np.sum(g**2) for g in problem.gradient(W, V, f)))


def violations(loss, branch, points, seed, per_draw):
    """Returns the number of violations of the bound, the number of points above linear, and the smallest ratio."""
    rng = np.random.default_rng(seed)
    bad, above, ratios = 0, 0, []
    for _ in range(points // per_draw):
        problem = random_problem(loss, rng)
        randomize(branch, rng)
        f = landscape.features_of(branch, problem.x)
        best = landscape.linear_optimum(problem, 10 ** rng.uniform(-1, 1)).U
        for _ in range(per_draw):
            W = rng.standard_normal((problem.outputs, D)) * 10 ** rng.uniform(-3, 1)
            V = rng.standard_normal((D, f.shape[1])) * 10 ** rng.uniform(-3, 1)
            U = best if rng.uniform() < 0.5 else best + 0.3 * rng.standard_normal(best.shape)
            bound = landscape.gradient_lower_bound(problem, W, V, f, U)
            if problem.outputs == 1:
                paper = landscape.gradient_lower_bound(problem, W, V, f, U, "paper")
                bad += paper > bound * (1 + 1e-9)
            size = gradient_norm(problem, W, V, f)
            bad += bound > size * (1 + 1e-9) + 1e-12
            above += bound > 0
            if bound > 0:
                ratios.append(size / bound)
    return bad, above, min(ratios)


@pytest.mark.parametrize("branch", BRANCHES)
@pytest.mark.parametrize("loss", OUTPUTS)
def test_gradient_bound_holds(loss, branch):
    """Each of the six combinations of loss and branch gets about a sixth of 10,000 points."""
    bad, above, ratio = violations(loss, BRANCHES[branch](), 1_700, seed=0, per_draw=170)
    assert bad == 0
    assert above > 850  # at most points the bound says something
    assert ratio < 20  # and something sharp


@pytest.mark.parametrize("loss", OUTPUTS)
@pytest.mark.parametrize("size", [0.0, 1e-12, 1.0])
def test_bound_at_and_beside_the_linear_predictor(loss, size):
    """At W = U and V = 0 the excess is zero up to rounding, and so is what it is divided by."""
    rng = np.random.default_rng(20)
    for scale in (1e-6, 1.0, 1e6):
        problem = random_problem(loss, rng)
        problem = landscape.Problem(scale * problem.x, problem.y, loss, problem.outputs)
        best = landscape.linear_optimum(problem)
        f, V = rng.standard_normal((N, 4)), np.zeros((D, 4))
        W = best.U * (1 + size * rng.standard_normal(best.U.shape))
        with np.errstate(all="raise", under="ignore"):
            bound = landscape.gradient_lower_bound(problem, W, V, f, best.U)
            certificate = landscape.certify(problem, W, V, f, best)
        limit = gradient_norm(problem, W, V, f) * (1 + 1e-9)
        assert bound <= limit and certificate.gradient_bound == bound


def test_bound_is_attained():
    """For a linear loss and f = 0 the bound is an equality; for the squared loss it is half of the gradient norm."""
    problem = landscape.Problem([[1.0]], [0.0])
    W, V, f, U = np.array([[2.0]]), np.array([[0.0]]), np.zeros((1, 1)), np.array([[1e-9]])
    bound = landscape.gradient_lower_bound(problem, W, V, f, U)
    assert gradient_norm(problem, W, V, f) == pytest.approx(2 * bound, rel=1e-6)  # 2: squared loss is strictly convex
    line = landscape.Problem([[1.0]], [0.0], lambda p, y: p[:, 0])
    assert landscape.gradient_lower_bound(line, W, V, f, U) == pytest.approx(gradient_norm(line, W, V, f), rel=1e-6)


def dense_hessian(problem, W, V, f, e=1e-5):
    z = np.concatenate([W.ravel(), V.ravel()])

    def gradient(z):
        return np.concatenate(
            [g.ravel() for g in problem.gradient(z[: W.size].reshape(W.shape), z[W.size :].reshape(V.shape), f)]
        )

    H = np.array([(gradient(z + e * u) - gradient(z - e * u)) / (2 * e) for u in np.eye(z.size)])
    return (H + H.T) / 2


@pytest.mark.parametrize("loss", OUTPUTS)
def test_curvature_at_zero_is_the_smallest_eigenvalue_of_the_hessian(loss):
    rng = np.random.default_rng(3)
    outputs = 1 if loss != "cross_entropy" else 2
    problem = random_problem(loss, rng, outputs)
    f = rng.standard_normal((N, 4))
    W, V = np.zeros((outputs, D)), rng.standard_normal((D, 4))
    direction = landscape.negative_curvature(problem, W, V, f)
    H = dense_hessian(problem, W, V, f)
    flat = np.concatenate([direction.W.ravel(), direction.V.ravel()])
    assert np.linalg.norm(flat) == pytest.approx(1)
    assert flat @ H @ flat == pytest.approx(direction.curvature, rel=1e-6)
    smallest = np.linalg.eigvalsh(H)[0]
    assert direction.curvature >= smallest - 1e-6
    if outputs == 1:
        assert direction.curvature == pytest.approx(smallest, rel=1e-5)


@pytest.mark.parametrize("branch", BRANCHES)
@pytest.mark.parametrize("loss", OUTPUTS)
def test_direction_at_zero_lowers_the_objective_to_second_order(loss, branch):
    """At 1,000 points in total, F decreases by at least |curvature| step^2 / 4."""
    rng = np.random.default_rng(4)
    model = BRANCHES[branch]()
    for point in range(167):
        if point % 10 == 0:
            randomize(model, rng)
            problem = random_problem(loss, rng)
            f = landscape.features_of(model, problem.x)
        W, V = np.zeros((problem.outputs, D)), rng.standard_normal((D, f.shape[1])) * 10 ** rng.uniform(-2, 1)
        direction = landscape.negative_curvature(problem, W, V, f)
        assert direction.curvature < 0 and direction.slope <= 0
        *_, step, decrease = landscape.escape(problem, W, V, f, direction, step=0.1)
        assert decrease >= -direction.curvature * step**2 / 4 > 0
        if point % 20 == 0:  # w = 0 predicts zero: any better linear predictor will do to compare with
            better = landscape.linear_optimum(problem, radius=0.1)
            assert landscape.certify(problem, W, V, f, better).direction is not None


def test_no_direction_if_the_branch_is_dead():
    """If g = 0, there is no negative curvature at w = 0, and the certificate follows from the gradient in w."""
    problem = random_problem("squared", np.random.default_rng(5))
    W, V, f = np.zeros((2, D)), np.ones((D, 4)), np.zeros((N, 4))
    assert landscape.negative_curvature(problem, W, V, f) is None
    certificate = landscape.certify(problem, W, V, f)
    assert certificate.verdict == "gradient too large to be stationary"
    assert 0 < certificate.gradient_bound <= certificate.gradient_norm


def test_stationary_point_with_dead_branch_at_zero_is_the_best_linear_predictor():
    rng = np.random.default_rng(6)
    x = rng.standard_normal((N, D))
    y = rng.standard_normal((N, 1))
    y -= x @ np.linalg.lstsq(x, y, rcond=None)[0]  # no linear predictor does better than zero
    problem = landscape.Problem(x, y)
    certificate = landscape.certify(problem, np.zeros((1, D)), np.ones((D, 2)), np.zeros((N, 2)), tolerance=1e-12)
    assert certificate.verdict == "at least as good as linear"
    assert certificate.gradient_norm < 1e-12


def test_strict_saddle_at_zero_is_certified_and_left():
    """With V E[l' f] = -E[l' x], every derivative at w = 0 vanishes while F exceeds the best linear predictor."""
    rng = np.random.default_rng(7)
    problem = random_problem("logistic", rng)
    f = rng.standard_normal((N, 4))
    slopes = problem.loss.gradient(np.zeros((N, 1)), problem.y) / N
    g = slopes.T @ f
    V = -(slopes.T @ problem.x).T @ g / np.sum(g * g)
    certificate = landscape.certify(problem, np.zeros((1, D)), V, f)
    assert certificate.gradient_norm < 1e-12 and certificate.objective > certificate.linear
    assert certificate.verdict == "escapes along a direction"
    *_, decrease = landscape.escape(problem, np.zeros((1, D)), V, f, certificate.direction)
    assert decrease > 0


def test_weights_of_deficient_rank_have_a_way_out():
    rng = np.random.default_rng(8)
    problem = random_problem("cross_entropy", rng)
    f = rng.standard_normal((N, 4))
    W, V = rng.standard_normal((3, D)), rng.standard_normal((D, 4))
    W[2] = W[0] - 2 * W[1]
    direction = landscape.negative_curvature(problem, W, V, f)
    flat = np.concatenate([direction.W.ravel(), direction.V.ravel()])
    assert flat @ dense_hessian(problem, W, V, f) @ flat == pytest.approx(direction.curvature, rel=1e-5)
    *_, decrease = landscape.escape(problem, W, V, f, direction)
    assert decrease > 0


@pytest.mark.parametrize("loss", OUTPUTS)
@pytest.mark.parametrize("square", [False, True])
def test_every_point_with_an_active_branch_has_negative_curvature(loss, square):
    """Far from W = 0, and also where W is square, if the form is negative there."""
    rng = np.random.default_rng(11)
    outputs = {"squared": 2, "logistic": 1, "cross_entropy": 3}[loss]
    problem = random_problem(loss, rng, outputs)
    if square:
        problem = landscape.Problem(problem.x[:, :outputs], problem.y, loss, outputs)
    seen = 0
    for _ in range(10):
        W, V = rng.standard_normal((outputs, problem.d)), rng.standard_normal((problem.d, 4))
        f = rng.standard_normal((N, 4))
        direction = landscape.negative_curvature(problem, W, V, f)
        if direction is None:
            assert square and loss != "cross_entropy"
            continue
        seen += 1
        flat = np.concatenate([direction.W.ravel(), direction.V.ravel()])
        H = dense_hessian(problem, W, V, f)
        assert flat @ H @ flat == pytest.approx(direction.curvature, rel=1e-4, abs=1e-6 * np.abs(H).max())
        assert np.linalg.norm(flat) == pytest.approx(1) and direction.curvature < 0 < direction.relative_curvature <= 1
    assert seen == 10 or square


def separable_classes(rng):
    """Three classes that a linear predictor separates."""
    x = rng.standard_normal((60, 12))
    return landscape.Problem(x, np.argmax(x[:, :3] + 0.1 * x[:, 3:6], axis=1), "cross_entropy", 3)


def test_cross_entropy_ignores_what_the_logits_have_in_common():
    """Training from W = 0 keeps the rows of W summing to zero, so that W never has full row rank."""
    rng = np.random.default_rng(12)
    problem = separable_classes(rng)
    U = landscape.linear_optimum(problem, radius=5.0).U
    for _ in range(20):
        W, V, f = rng.standard_normal((3, 12)), rng.standard_normal((12, 4)), rng.standard_normal((60, 4))
        W -= W.mean(axis=0)
        bound = landscape.gradient_lower_bound(problem, W, V, f, U)
        certificate = landscape.certify(problem, W, V, f, landscape.linear_optimum(problem, radius=5.0))
        assert 0 < bound <= gradient_norm(problem, W, V, f)
        assert certificate.gradient_bound == pytest.approx(bound)
        shift = rng.standard_normal((1, 12))
        for shifted in ((W + shift, U), (W, U - 3 * shift)):
            other = landscape.gradient_lower_bound(problem, shifted[0], V, f, shifted[1])
            assert other == pytest.approx(bound, rel=1e-9)


def test_the_directions_of_a_loss_of_the_user_are_found():
    x = np.random.default_rng(13).standard_normal((20, 5))
    difference = landscape.Problem(x, 1e8 * x[:, 0], lambda p, y: (p[:, 0] - p[:, 1] - y) ** 2, outputs=3)
    np.testing.assert_allclose(np.abs(difference.directions.ravel()), [0.5**0.5, 0.5**0.5, 0], atol=1e-8)
    assert landscape.Problem(x, 1e8 * np.ones((20, 2)), "squared", 2).directions.shape == (2, 2)
    assert landscape.Problem(x, x[:, 0], lambda p, y: p[:, 1], outputs=2).directions.shape == (2, 1)


@pytest.mark.parametrize("size", [1e-3, 1e-6, 1e-12, 0.0])
@pytest.mark.parametrize("loss", OUTPUTS)
def test_the_curvature_of_the_nearest_saddle_is_found(loss, size):
    """Beside the saddle at W = 0 the gradient is as small as |W|, while F exceeds the best linear predictor."""
    rng = np.random.default_rng(14)
    problem = random_problem(loss, rng)
    m, f = problem.outputs, rng.standard_normal((N, 4))
    slopes = problem.loss.gradient(np.zeros((N, m)), problem.y) / N
    V = -np.linalg.lstsq(slopes.T @ f, slopes.T @ problem.x, rcond=None)[0].T
    W = size * rng.standard_normal((m, D)) / np.linalg.norm(problem.x)
    certificate = landscape.certify(problem, W, V, f)
    assert certificate.objective > certificate.linear + 0.01 * certificate.objective
    assert certificate.gradient_bound <= certificate.gradient_norm * (1 + 1e-9) + 1e-14
    assert certificate.direction.relative_curvature > 1e-3
    near = certificate.relative_gradient <= 1e-6
    assert certificate.verdict == ("escapes along a direction" if near else "gradient too large to be stationary")
    assert near == (size < 1e-4)
    *_, decrease = landscape.escape(problem, W, V, f, certificate.direction)
    assert decrease > 1e-6 * certificate.objective


def test_a_converged_dead_branch_is_as_good_as_linear():
    rng = np.random.default_rng(15)
    problem = random_problem("cross_entropy", rng)
    best = landscape.linear_optimum(problem)
    W = best.U + 1e-6 * rng.standard_normal(best.U.shape) / np.linalg.norm(problem.x)
    certificate = landscape.certify(problem, W, np.ones((D, 4)), np.zeros((N, 4)), best)
    assert certificate.verdict == "at least as good as linear" and certificate.objective > best.value
    W += 0.1 * rng.standard_normal(best.U.shape)
    certificate = landscape.certify(problem, W, np.ones((D, 4)), np.zeros((N, 4)), best)
    assert certificate.verdict == "gradient too large to be stationary"
    assert 0 < certificate.gradient_bound <= certificate.gradient_norm


def test_a_point_that_is_nearly_stationary_has_a_bound_of_its_excess():
    rng = np.random.default_rng(16)
    problem = random_problem("squared", rng)
    best = landscape.linear_optimum(problem)
    W = best.U + 1e-3 * rng.standard_normal(best.U.shape)
    certificate = landscape.certify(problem, W, np.ones((D, 4)), np.zeros((N, 4)), best, stationary=1.0)
    assert certificate.verdict == "nearly stationary"
    assert 0 < certificate.objective - best.value <= certificate.excess_bound


def test_excess_bound_certifies_every_point():
    rng = np.random.default_rng(9)
    problem = random_problem("cross_entropy", rng)
    best = landscape.linear_optimum(problem)
    for _ in range(50):
        W, V, f = rng.standard_normal((3, D)), rng.standard_normal((D, 4)), rng.standard_normal((N, 4))
        certificate = landscape.certify(problem, W, V, f, best)
        assert certificate.objective <= certificate.linear + certificate.excess_bound


def test_bad_input_is_refused():
    problem = random_problem("logistic", np.random.default_rng(10))
    W, V, f, U = np.ones((1, D)), np.ones((D, 2)), np.ones((N, 2)), np.ones((1, D))
    for bad in [(W[:, 1:], V, f), (W, V[:, 1:], f), (W, V, f[1:]), (W, V * np.nan, f)]:
        with pytest.raises(BadInput, match="W, V and the features"):
            landscape.certify(problem, *bad)
    with pytest.raises(BadInput, match="U must"):
        landscape.gradient_lower_bound(problem, W, V, f, U[:, 1:])
    with pytest.raises(BadInput, match="form"):
        landscape.gradient_lower_bound(problem, W, V, f, U, form="loose")
    a, b = keras.Input((D,)), keras.Input((D,))
    with pytest.raises(BadInput, match="2 inputs"):
        landscape.features_of(keras.Model([a, b], keras.layers.Add()([a, b])), problem.x)
    branch = keras.Sequential([keras.Input((1,)), keras.layers.Dense(2)])
    assert landscape.features_of(branch, [[1.0], [2.0]]).shape == (2, 2)
    with pytest.raises(BadInput, match="numbers of one input"):
        landscape.features_of(branch, [1.0, 2.0])
    with pytest.raises(BadInput, match="numbers of one input"):
        landscape.features_of(dense_branch(), problem.x[:, 1:])


def test_the_directions_that_a_singular_matrix_ignores():
    W = np.array([[1.0, 0, 0, 0], [0, 0, 0, 0]])
    assert _null_space(W).shape == (4, 3) and not (W @ _null_space(W)).any()
    assert _null_space(np.eye(2)).shape == (2, 1)  # there are none, so that it is the one that is shortened most
