"""Projected gradient descent on the linear path, and its regret bound (Shamir, arXiv 1804.06739, section 4).

F(w, v, theta) is convex in a = (w, v) for each theta. For any a* in a ball of radius b, gradients g_t, nonincreasing
learning rates eta_t, any T and any sequence theta_1, theta_2, ...,

    sum_t F_t(a_t) - F_t(a*) <= (2b)^2 / (2 eta_T) + 1/2 sum_t eta_t |g_t|^2

(Zinkevich 2003). For a* = (u, 0), the objectives F_t(a*) = F_lin(u) do not depend on theta.
"""

from collections.abc import Callable, Sequence
from typing import Any, Literal, NamedTuple

import numpy as np

from allconv_resnet.errors import BadInput
from allconv_resnet.theory import autodiff
from allconv_resnet.theory.checks import positive_integer
from allconv_resnet.theory.shamir.linear_optimum import LinearOptimum, linear_optimum
from allconv_resnet.theory.shamir.linear_path import ResidualWithLinearPath
from allconv_resnet.theory.shamir.predictors import Problem, features_of


class Regret(NamedTuple):
    """The result of `projected_sgd`. The theorem states `average <= linear + bound` at every step.

    Attributes:
        average: Float64 array `[T]`, running mean of F(w_t, v_t, theta_t) on the examples of each step.
        linear: Float64 array `[T]`, running mean of the best linear predictor of the ball, on the same examples.
        bound: Float64 array `[T]`, the regret bound, divided by the number of steps.
        objective: Float64 array `[T]`, F at each step.
        W: Float64 array `[m, d]`, last iterate.
        V: Float64 array `[m, k]`, last iterate.
    """

    average: np.ndarray
    linear: np.ndarray
    bound: np.ndarray
    objective: np.ndarray
    W: np.ndarray
    V: np.ndarray


Features = Callable[[int, Any, Any, np.ndarray], np.ndarray]
"""A function `(t, W, V, rows) -> [len(rows), k]`, the features of the branch at step t on some of the examples."""


def projected_sgd(
    problem: Problem,
    features: Features,
    steps: int,
    radius: float,
    batch_size: int | None = None,
    learning_rate: float | None = None,
    seed: int = 0,
    best: LinearOptimum | None = None,
) -> Regret:
    """Runs projected (stochastic) gradient descent on (w, v) and computes the regret bound at every step.

    Args:
        problem: `Problem`.
        features: Callable `(t, W, V, rows) -> [len(rows), k]`, the features f_theta_t at the examples `rows`. It may
            use the current W `[m, d]` and V `[m, k]`, and V is None at t = 0.
        steps: Positive integer T.
        radius: Positive float b. The iterates are projected to the ball in which (W, V) has Frobenius norm at most b.
        batch_size: Positive integer, number of examples that are drawn with replacement at each step; None for all
            examples. With batches, the averages are those of the drawn examples; the bound holds for every run.
        learning_rate: Positive float, a constant learning rate; None for 2b / sqrt(2 sum |g|^2), which needs no tuning.
        seed: Integer, seed of the batches.
        best: `LinearOptimum` in the ball; None to compute it.

    Returns:
        `Regret`.

    Raises:
        BadInput: if `steps`, `radius`, `batch_size` or `learning_rate` is not positive, if `best` lies outside the
            ball, or if the features are not finite or do not have the right shape.

    Example:

    >>> from allconv_resnet.theory.landscape import Problem
    >>> problem = Problem([[1.0], [-2.0]], [1.0, 3.0])
    >>> run = projected_sgd(problem, lambda t, W, V, rows: np.sin(t * problem.x[rows]), steps=1000, radius=2.0)
    >>> bool(np.all(run.average <= run.linear + run.bound))
    True
    """
    steps = positive_integer(steps, "steps")
    if learning_rate is not None and not (np.isfinite(learning_rate) and learning_rate > 0):
        raise BadInput(f"learning_rate must be positive and finite, or None. Received: learning_rate={learning_rate}")
    if not (np.isfinite(radius) and radius > 0):
        raise BadInput(f"radius must be positive and finite. Received: radius={radius}")
    batch_size = None if batch_size is None else positive_integer(batch_size, "batch_size")
    best = linear_optimum(problem, radius) if best is None else best
    if np.linalg.norm(best.U) > radius * (1 + 1e-9):
        raise BadInput(
            f"best must lie in the ball of the radius, {radius}. Received: a predictor of norm {np.linalg.norm(best.U)}"
        )
    random = np.random.default_rng(seed)
    rows, everything = np.arange(problem.n), problem.linear(best.U)
    V = None
    W = np.zeros((problem.outputs, problem.d))
    squares = weighted = 0.0
    objective, linear, bound = (np.empty(steps) for _ in range(3))
    for t in range(steps):
        if batch_size is not None:
            rows = random.integers(problem.n, size=batch_size)
        f = np.asarray(features(t, W, V, rows), np.float64)
        k = f.shape[-1] if V is None else V.shape[1]
        if f.shape != (len(rows), k) or not np.isfinite(f).all():
            raise BadInput(
                f"Features must be a finite array [{len(rows)}, {k}]. Received: shape {list(f.shape)} at step {t}"
            )
        if V is None:
            A = np.zeros((problem.outputs, problem.d + k))
        inputs, targets = np.concatenate([problem.x[rows], f], axis=1), problem.y[rows]
        predictions = inputs @ A.T
        objective[t] = problem.loss.value(predictions, targets).mean()
        sampled = batch_size is not None
        linear[t] = problem.loss.value(problem.x[rows] @ best.U.T, targets).mean() if sampled else everything
        gradient = problem.loss.gradient(predictions, targets).T @ inputs / len(rows)
        squares += np.sum(gradient**2)
        step = learning_rate if learning_rate is not None else 2 * radius / np.sqrt(2 * max(squares, 1e-300))
        weighted += step * np.sum(gradient**2)
        bound[t] = ((2 * radius) ** 2 / (2 * step) + weighted / 2) / (t + 1)
        A = A - step * gradient
        A *= min(1.0, radius / max(np.linalg.norm(A), 1e-300))
        W, V = A[:, : problem.d], A[:, problem.d :]
    count = np.arange(1, steps + 1)
    return Regret(np.cumsum(objective) / count, np.cumsum(linear) / count, bound, objective, W, V)


def adversary(problem: Problem, bank: Sequence[np.ndarray]) -> Features:
    """Returns features for `projected_sgd` that maximize the objective at the current (W, V).

    Args:
        problem: `Problem`.
        bank: List of arrays `[n, k]`, the features of several branches, which are tried with both signs.

    Returns:
        Callable `(t, W, V, rows) -> [len(rows), k]`.

    Example:

    >>> from allconv_resnet.theory.landscape import Problem
    >>> problem = Problem([[1.0], [-2.0]], [1.0, 3.0])
    >>> run = projected_sgd(problem, adversary(problem, [np.ones((2, 1)), np.eye(2)[:, :1]]), 100, radius=2.0)
    >>> bool(np.all(run.average <= run.linear + run.bound))
    True
    """

    def features(t, W, V, rows):
        if V is None:
            return bank[0][rows]
        linear, targets = problem.x[rows] @ W.T, problem.y[rows]
        candidates = [sign * f[rows] for f in bank for sign in (-1, 1)]
        return max(candidates, key=lambda f: problem.loss.value(linear + f @ V.T, targets).mean())

    return features


def fit_projected(
    model: ResidualWithLinearPath,
    problem: Problem,
    steps: int,
    radius: float,
    theta: Literal["descend", "ascend", "fixed"] = "descend",
    theta_rate: float = 0.01,
    batch_size: int | None = None,
    seed: int = 0,
    best: LinearOptimum | None = None,
) -> Regret:
    """Trains a `ResidualWithLinearPath`: projected gradient descent on (w, v), plain gradient steps on theta.

    Args:
        model: `ResidualWithLinearPath`; its weights are overwritten.
        problem: `Problem`.
        steps: Positive integer.
        radius: Positive float, radius of the ball for (w, v).
        theta: `"descend"` to train the branch, `"ascend"` to train it against the objective, or `"fixed"`.
        theta_rate: Float, learning rate of theta.
        batch_size: Positive integer or None, see `projected_sgd`.
        seed: Integer, seed of the batches.
        best: `LinearOptimum` in the ball; None to compute it.

    Returns:
        `Regret`.

    Raises:
        BadInput: as in `projected_sgd`, for instance if the features of the branch stop being finite.

    Example:

    >>> import keras
    >>> from allconv_resnet.theory.landscape import Problem, ResidualWithLinearPath
    >>> model = ResidualWithLinearPath(keras.Sequential([keras.Input((1,)), keras.layers.Dense(3, "tanh")]))
    >>> run = fit_projected(model, Problem([[1.0], [-2.0]], [1.0, 3.0]), steps=20, radius=2.0, theta="ascend")
    >>> bool(np.all(run.average <= run.linear + run.bound))
    True
    """
    rates = {"descend": -theta_rate, "ascend": theta_rate, "fixed": 0.0}
    if theta not in rates:
        raise BadInput(f'theta must be "descend", "ascend" or "fixed". Received: theta={theta!r}')
    branch, shape = model.branch, model.branch.inputs[0].shape[1:]

    def features(t, W, V, rows):
        if V is None or theta == "fixed":
            return features_of(branch, problem.x[rows])
        outputs, pullback = autodiff.parameter_pullback(branch, problem.x[rows].reshape(-1, *shape))
        f = outputs.reshape(len(rows), -1).astype(np.float64)
        slopes = problem.loss.gradient(problem.x[rows] @ W.T + f @ V.T, problem.y[rows]) / len(rows)
        gradients = pullback((slopes @ V).reshape(outputs.shape))
        for variable, gradient in zip(branch.trainable_variables, gradients, strict=True):
            variable.assign(variable + rates[theta] * gradient)
        return f

    run = projected_sgd(problem, features, steps, radius, batch_size, seed=seed, best=best)
    model.get_layer("w").kernel.assign(run.W.T)
    model.get_layer("v").kernel.assign(run.V.T)
    return run
