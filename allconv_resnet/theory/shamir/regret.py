"""Projected gradient descent on the linear path, and the bound on its average objective (Shamir, section 4).

F(w, v, theta) is convex in a = (w, v) for each theta. Against any a* in a ball of radius b, gradients g_t and
nonincreasing steps eta_t give, for every T and every sequence theta_1, theta_2, ...,

    sum_t F_t(a_t) - F_t(a*) <= (2b)^2 / (2 eta_T) + 1/2 sum_t eta_t |g_t|^2

(Zinkevich 2003). With a* = (u, 0) the objectives F_t(a*) = F_lin(u) no longer depend on theta.
"""

from typing import NamedTuple

import numpy as np

from allconv_resnet.errors import BadInput
from allconv_resnet.theory import autodiff
from allconv_resnet.theory.linear_optimum import linear_optimum
from allconv_resnet.theory.predictors import features_of


class Regret(NamedTuple):
    """One run; the theorem says `average <= linear + bound` at every step."""

    average: np.ndarray  # [T] mean over the steps so far of F(w_t, v_t, theta_t), on the examples of each step
    linear: np.ndarray  # [T] the same for the best linear predictor of the ball, on the same examples
    bound: np.ndarray  # [T] the regret bound, divided by the number of steps
    objective: np.ndarray  # [T] F at each step
    W: np.ndarray  # [m, d] last iterate
    V: np.ndarray  # [m, k] last iterate


def projected_sgd(problem, features, steps, radius, batch_size=None, learning_rate=None, seed=0, best=None):
    """Runs projected (stochastic) gradient descent on (w, v) and evaluates its regret bound at every step.

    Args:
        problem: `predictors.Problem`.
        features: Callable `(t, W, V, rows) -> [len(rows), k]`, f_theta_t at the examples `rows`: any sequence, chosen
            in knowledge of the current W `[m, d]` and V `[m, k]` (None at t = 0) if it likes.
        steps: Positive integer T.
        radius: Positive float b; the Frobenius norm of (W, V) stays at most b.
        batch_size: Integer, examples a step drawn with replacement; None for all of them. With a sample, the averages
            are over the samples (in expectation they are F's); the bound holds in every run all the same.
        learning_rate: Positive float for a constant step; None for 2b / sqrt(2 sum |g|^2), which needs no tuning.
        seed: Integer, of the samples.
        best: `LinearOptimum` over the ball; computed if None.

    Returns:
        `Regret`.

    Raises:
        BadInput: if `steps` is not positive, or the features are not finite or not of the right shape.

    Example:

    >>> from allconv_resnet.theory.predictors import Problem
    >>> problem = Problem([[1.0], [-2.0]], [1.0, 3.0])
    >>> run = projected_sgd(problem, lambda t, W, V, rows: np.sin(t * problem.x[rows]), steps=1000, radius=2.0)
    >>> bool(np.all(run.average <= run.linear + run.bound))
    True
    """
    if isinstance(steps, bool) or not isinstance(steps, int | np.integer) or steps < 1:
        raise BadInput(f"steps must be a positive integer. Received: steps={steps!r}")
    if learning_rate is not None and not (np.isfinite(learning_rate) and learning_rate > 0):
        raise BadInput(f"learning_rate must be positive and finite, or None. Received: {learning_rate}")
    best = linear_optimum(problem, radius) if best is None else best
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
            raise BadInput(f"Features must be a finite array [{len(rows)}, {k}]. Received: shape {f.shape} at step {t}")
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


def adversary(problem, bank):
    """Returns features for `projected_sgd` that are chosen, in knowledge of (W, V), to make the objective largest.

    Args:
        problem: `predictors.Problem`.
        bank: List of arrays `[n, k]`, features of as many branches; each may also appear with its sign flipped.

    Example:

    >>> from allconv_resnet.theory.predictors import Problem
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


def fit_projected(model, problem, steps, radius, theta="descend", theta_rate=0.01, batch_size=None, seed=0, best=None):
    """Trains a `ResidualWithLinearPath`: projected gradient descent on (w, v), plain gradient steps on theta.

    Args:
        model: `linear_path.ResidualWithLinearPath`; its weights are set.
        problem: `predictors.Problem`.
        steps: Positive integer.
        radius: Positive float, of the ball for (w, v).
        theta: `"descend"`, to train the branch; `"ascend"`, an adversary; or `"fixed"`.
        theta_rate: Float, learning rate of theta.
        batch_size: Integer or None, see `projected_sgd`.
        seed: Integer, of the samples.
        best: `LinearOptimum` over the ball; computed if None.

    Returns:
        `Regret`.

    Raises:
        BadInput: see `projected_sgd`; also if the branch ceases to be finite.

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
