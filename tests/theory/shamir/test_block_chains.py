"""Chains of blocks: derivatives against differences, the bounds against dense Hessians, and both hypotheses."""

import numpy as np
import pytest
from scipy.optimize import minimize
from theory.shamir.test_certificates import OUTPUTS, D, random_problem

from allconv_resnet.errors import BadInput
from allconv_resnet.theory import landscape


def random_chain(problem, rng, hidden=(4, 2, 3), activation="tanh"):
    W = rng.standard_normal((problem.outputs, D)) * 10 ** rng.uniform(-4, 0.5)
    shapes = [(D, k) for k in hidden]
    V = [rng.standard_normal(shape) * 10 ** rng.uniform(-2, 0.5) for shape in shapes]
    A = [rng.standard_normal(shape[::-1]) * 10 ** rng.uniform(-1, 0) for shape in shapes]
    return landscape.BlockChain(problem, W, list(zip(V, A, strict=True)), activation)


def parameters(chain):
    return [chain.W, *(V for V, _ in chain.blocks)]


def moved(chain, parts):
    W, *Vs = (a + b for a, b in zip(parameters(chain), parts, strict=True))
    blocks = [(V, A) for V, (_, A) in zip(Vs, chain.blocks, strict=True)]
    return landscape.BlockChain(chain.problem, W, blocks, chain.activation)


def split(chain, vector):
    ends = np.cumsum([part.size for part in parameters(chain)])
    parts = np.split(vector, ends[:-1])
    return [part.reshape(like.shape) for part, like in zip(parts, parameters(chain), strict=True)]


def flat(parts):
    return np.concatenate([part.ravel() for part in parts])


def dense_hessian(chain):
    size = sum(part.size for part in parameters(chain))
    return np.stack([flat(chain.hessian_product(split(chain, row))) for row in np.eye(size)])


@pytest.mark.parametrize("activation", ["tanh", "relu"])
@pytest.mark.parametrize("loss", OUTPUTS)
def test_derivatives_agree_with_differences(loss, activation):
    rng = np.random.default_rng(0)
    chain = random_chain(random_problem(loss, rng), rng, activation=activation)
    size, step = sum(part.size for part in parameters(chain)), 1e-6
    for _ in range(3):
        direction = split(chain, rng.standard_normal(size))
        ahead, behind = (moved(chain, [sign * step * part for part in direction]) for sign in (1, -1))
        slope = (ahead.objective() - behind.objective()) / (2 * step)
        assert slope == pytest.approx(flat(chain.gradient()) @ flat(direction), rel=1e-5, abs=1e-7)
        change = (flat(ahead.gradient()) - flat(behind.gradient())) / (2 * step)
        product = flat(chain.hessian_product(direction))
        assert np.linalg.norm(change - product) < 1e-5 * np.linalg.norm(product)
    hessian = dense_hessian(chain)
    assert np.allclose(hessian, hessian.T, atol=1e-10 * np.abs(hessian).max())
    found = chain.smallest_eigenvalue()
    values = np.linalg.eigvalsh(hessian)
    assert found.smallest == pytest.approx(values[0], abs=1e-5 * np.abs(values).max())


@pytest.mark.parametrize("activation", ["tanh", "relu"])
@pytest.mark.parametrize("loss", OUTPUTS)
def test_the_excess_over_predictors_is_bounded(loss, activation):
    rng = np.random.default_rng(1)
    above = 0
    for _ in range(20):
        problem = random_problem(loss, rng)
        chain = random_chain(problem, rng, activation=activation)
        assert all(covered.curvature for covered in chain.coverage())
        smallest = np.linalg.eigvalsh(dense_hessian(chain))[0]
        U = landscape.linear_optimum(problem, 10 ** rng.uniform(-1, 1)).U
        bound = chain.excess_bound(U, smallest)
        excess = chain.objective() - problem.linear(U)
        assert excess <= bound * (1 + 1e-6) + 1e-12 and bound <= chain.excess_bound(U) * (1 + 1e-9)
        above += excess > 0

        R = [rng.standard_normal((problem.outputs, A.shape[0])) for _, A in chain.blocks]
        _, activations = chain.features()
        predictions = problem.x @ U.T + sum(a @ part.T for a, part in zip(activations, R, strict=True))
        other = problem.loss.value(predictions, problem.y).mean()
        assert chain.objective() - other <= chain.excess_bound(U, smallest, R) * (1 + 1e-6) + 1e-12
    assert above > 5


@pytest.mark.parametrize("loss", OUTPUTS)
def test_minima_are_as_good_as_the_best_linear_predictor_of_inputs_and_hidden_neurons(loss):
    rng = np.random.default_rng(2)
    problem = random_problem(loss, rng)
    problem = landscape.Problem(problem.x / np.abs(problem.x).max(), problem.y, loss, problem.outputs)
    A = [rng.standard_normal((k, D)) for k in (3, 2)]
    W = 0.1 * rng.standard_normal((problem.outputs, D))
    start = landscape.BlockChain(problem, W, [(0.1 * rng.standard_normal(a.shape[::-1]), a) for a in A])

    def at(vector):
        return moved(start, split(start, vector))

    found = minimize(
        lambda z: at(z).objective(),
        np.zeros(sum(part.size for part in parameters(start))),
        jac=lambda z: flat(at(z).gradient()),
        hess=lambda z: dense_hessian(at(z)),
        method="trust-exact",
        options={"gtol": 1e-9},
    )
    end = at(found.x)
    joint = landscape.Problem(np.hstack([problem.x, *end.features()[1]]), problem.y, loss, problem.outputs)
    best = landscape.linear_optimum(joint, 3.0)
    U, *R = np.split(best.U, np.cumsum([D, 3]), axis=1)
    smallest = end.smallest_eigenvalue()
    bound = end.excess_bound(U, min(smallest.smallest, 0) - smallest.residual, R)
    assert end.objective() - best.value <= bound and bound < 1e-2 * problem.linear(np.zeros_like(U))


def test_at_a_saddle_only_the_curvature_shows_the_way_down():
    rng = np.random.default_rng(3)
    problem = random_problem("squared", rng)
    chain = random_chain(problem, rng, (3, 2))
    slopes = problem.loss.gradient(np.zeros((problem.n, problem.outputs)), problem.y)
    (_, A1), (_, A2) = chain.blocks
    features = np.tanh(problem.x @ A2.T)
    V2 = -np.linalg.lstsq(slopes.T @ features, slopes.T @ problem.x, rcond=None)[0].T
    W = np.zeros((problem.outputs, D))
    saddle = landscape.BlockChain(problem, W, [(np.zeros((D, 3)), A1), (V2, A2)])
    assert np.linalg.norm(flat(saddle.gradient())) < 1e-10
    U = landscape.linear_optimum(problem, 1.0).U
    smallest = np.linalg.eigvalsh(dense_hessian(saddle))[0]
    assert smallest < 0 < saddle.objective() - problem.linear(U) <= saddle.excess_bound(U, smallest) < np.inf
    assert saddle.excess_bound(U) == np.inf


def test_one_block_is_shamirs_predictor():
    rng = np.random.default_rng(4)
    problem = random_problem("squared", rng)
    chain = random_chain(problem, rng, (5,))
    ((V, _),) = chain.blocks
    (features,) = chain.features()[1]
    assert chain.objective() == pytest.approx(problem.objective(chain.W, V, features), rel=1e-12)
    gradients = problem.gradient(chain.W, V, features)
    assert all(np.allclose(a, b, rtol=1e-10) for a, b in zip(chain.gradient(), gradients, strict=True))
    U = landscape.linear_optimum(problem, 1.0).U
    theirs = landscape.excess_of_point(problem, chain.W, V, features, U, -0.1)
    assert chain.excess_bound(U, -0.1) <= theirs
    at_zero = landscape.BlockChain(problem, 0 * chain.W, chain.blocks)  # only the curvature says something of G
    theirs = landscape.excess_of_point(problem, at_zero.W, V, features, U, -0.1)
    assert at_zero.excess_bound(U, -0.1) == pytest.approx(theirs, rel=1e-9)


def test_blocks_that_see_everything_fulfil_no_hypothesis():
    rng = np.random.default_rng(5)
    problem = random_problem("squared", rng)
    chain = random_chain(problem, rng, (4, D))
    first, last = chain.coverage()
    assert first == (0, 0, 2, False, False) and last == (D, 2, 2, True, True)
    assert chain.excess_bound(np.ones((2, D)), -1.0) == np.inf
    narrow = random_chain(problem, rng, (4, D - 2))  # two free directions: W has rank 2 on them
    assert narrow.coverage()[0] == (2, 2, 2, True, False)
    assert narrow.excess_bound(np.ones((2, D))) < np.inf


def test_bad_input_is_refused():
    problem = landscape.Problem(np.eye(3), np.eye(3), "squared", 3)
    block = np.ones((3, 2)), np.ones((2, 3))
    with pytest.raises(BadInput, match="at least one block"):
        landscape.BlockChain(problem, np.eye(3), [])
    with pytest.raises(BadInput, match=r"shapes \[3, 2\] and \[3, 2\]"):
        landscape.BlockChain(problem, np.eye(3), [(block[0], block[0])])
    with pytest.raises(BadInput, match="must be finite"):
        landscape.BlockChain(problem, np.eye(3), [(np.nan * block[0], block[1])])
    with pytest.raises(BadInput, match=r"W must be a finite array \[3, 3\]"):
        landscape.BlockChain(problem, np.eye(2), [block])
    with pytest.raises(BadInput, match="activation must be one of tanh, relu"):
        landscape.BlockChain(problem, np.eye(3), [block], "swish")
    with pytest.raises(BadInput, match="one array"):
        landscape.BlockChain(problem, np.eye(3), [block]).excess_bound(np.eye(3), R=[np.eye(3)])
