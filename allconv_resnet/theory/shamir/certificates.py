"""Certificates that a point is not a bad local minimum of a residual network (Shamir, arXiv 1804.06739, section 3).

For p(x) = W (x + V f_theta(x)), a convex loss and any linear predictor U, convexity gives

    F - F_lin(U) <= E[l' . (p - U x)] = <W - U, grad_W F> + <U V, G>,    G = E[l' f_theta(x)^T].

Since grad_V F = W^T G, the second term is bounded by the gradient where W has full row rank, and a nonzero G gives a
direction of negative curvature (curvature.py). So a point above all linear predictors is not a local minimum, whatever
the branch f_theta is. `certify` tells what shows it. The paper has one output. For several ones W^+ stands for w/|w|^2;
directions of the output on which the loss does not depend are taken out first (`Problem.directions`).
"""

from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from allconv_resnet.errors import BadInput
from allconv_resnet.theory.shamir.curvature import ROUNDING, Direction, negative_curvature, root_mean_square
from allconv_resnet.theory.shamir.linear_optimum import LinearOptimum, linear_optimum
from allconv_resnet.theory.shamir.predictors import Problem

GOOD, ESCAPES = "at least as good as linear", "escapes along a direction"
MOVING, RESTING = "gradient too large to be stationary", "nearly stationary"


class Certificate(NamedTuple):
    """The result of `certify`.

    Attributes:
        verdict: String, see `certify`.
        objective: Float, F at the point.
        linear: Float, F_lin of the linear predictor.
        gradient_norm: Float, norm of the gradient of F in (W, V).
        relative_gradient: Float, the same, divided by the largest norm that slopes and features of this size can have.
        gradient_bound: Float, lower bound of the norm, `gradient_lower_bound`.
        excess_bound: Float, upper bound of F - F_lin that follows from the gradient, and from G where W loses rank.
        direction: `Direction` of negative curvature, or None.
    """

    verdict: str
    objective: float
    linear: float
    gradient_norm: float
    relative_gradient: float
    gradient_bound: float
    excess_bound: float
    direction: Direction | None


def gradient_lower_bound(
    problem: Problem,
    W: ArrayLike,
    V: ArrayLike,
    features: ArrayLike,
    U: ArrayLike,
    form: Literal["tight", "paper"] = "tight",
) -> float:
    """Returns a lower bound of the norm of the gradient of F in (W, V), from the excess over `U` (Shamir, theorem 1).

    Let s_i and u_i be the singular values and left singular vectors of W, c_i = u_i^T U V and g_i = u_i^T G. For any
    number q of singular values, the bound is

        (F - F_lin(U) - sum_{i > q} c_i . g_i) / sqrt(|W - U|^2 + sum_{i <= q} |c_i|^2 / s_i^2),

    and the largest one over all q is returned: no tolerance decides which rank W has. With q = m it is
    (F - F_lin(U)) / sqrt(|W - U|^2 + |W^+ U V|^2). The form in the paper, for one output, has the larger denominator
    sqrt(2|w|^2 + |u|^2 (2 + |V|^2/|w|^2)).

    Args:
        problem: `Problem`.
        W: Array `[m, d]`, or `[d]` for one output.
        V: Array `[d, k]`.
        features: Array `[n, k]`, f_theta(x).
        U: Array `[m, d]`, any linear predictor.
        form: `"tight"`, or `"paper"` for one output. Norms are Frobenius norms, except for the spectral norm |V| in
            the form of the paper.

    Returns:
        Nonnegative float.

    Raises:
        BadInput: if a shape does not fit, or if `form` is `"paper"` and there are several outputs.

    Example:

    >>> from allconv_resnet.theory.landscape import Problem
    >>> problem = Problem([[1.0], [2.0]], [2.0, 4.0])
    >>> f = np.array([[1.0], [-1.0]])
    >>> bound = gradient_lower_bound(problem, [[1.0]], [[0.5]], f, linear_optimum(problem).U)
    >>> gradients = problem.gradient(np.array([[1.0]]), np.array([[0.5]]), f)
    >>> bool(0 < bound <= np.sqrt(sum(np.sum(g**2) for g in gradients)))
    True
    """
    W, V, features = problem.checked(W, V, features)
    U = check_predictor(problem, U)
    excess = problem.objective(W, V, features) - problem.linear(U)
    if form == "paper" and problem.outputs == 1:
        ww, uu = np.sum(W * W), np.sum(U * U)
        return max(excess, 0.0) / np.sqrt(2 * ww + uu * (2 + np.linalg.norm(V, 2) ** 2 / ww)) if ww else 0.0
    if form != "tight":
        raise BadInput(
            f'form must be "tight", or "paper" for one output. Received: form={form!r}, outputs={problem.outputs}'
        )
    return _largest_bound(excess, *_splits(problem, W, V, features, U))


def _largest_bound(excess, distances, rests, rounding):
    """Returns the largest of the bounds. At a distance of zero, only rounding errors keep the excess above the rest."""
    room = np.maximum(excess - rests - rounding, 0.0)
    return float(np.max(np.divide(room, distances, out=np.zeros_like(room), where=distances > 0)))


def _splits(problem, W, V, features, U):
    """Returns arrays with F - F_lin(U) <= distance |grad F| + rest, one entry for each q in the docstring above.

    The third result is a float, an estimate of the rounding errors of both sides.
    """
    basis = problem.directions
    left, values, _ = np.linalg.svd(basis.T @ W, full_matrices=False)
    G = left.T @ basis.T @ (problem.slopes(W, V, features).T @ features) / problem.n
    C = left.T @ basis.T @ U @ V
    squares = np.sum(C**2, axis=1)
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        shares = np.where(squares > 0, squares / values**2, 0.0)
    distances = np.sqrt(np.sum((basis.T @ (W - U)) ** 2) + np.append(0.0, np.cumsum(shares)))
    terms = np.sum(C * G, axis=1)
    size = abs(problem.objective(W, V, features)) + abs(problem.linear(U)) + np.sum(np.abs(C * G))
    return distances, terms.sum() - np.append(0.0, np.cumsum(terms)), ROUNDING * size


def certify(
    problem: Problem,
    W: ArrayLike,
    V: ArrayLike,
    features: ArrayLike,
    best: LinearOptimum | None = None,
    tolerance: float = 1e-8,
    stationary: float = 1e-6,
    curved: float = 1e-6,
) -> Certificate:
    """Certifies that a point is as good as a linear predictor, is not stationary, or is a strict saddle.

    Args:
        problem: `Problem`.
        W: Array `[m, d]`, or `[d]` for one output.
        V: Array `[d, k]`.
        features: Array `[n, k]`, f_theta(x).
        best: `LinearOptimum` to compare with; None for the best of all linear predictors.
        tolerance: Nonnegative float. The excess over the linear predictor still counts as good if it is at most this
            share of the loss of the prediction 0.
        stationary: Nonnegative float. A `relative_gradient` of at most this number counts as zero.
        curved: Nonnegative float. A direction counts if its `relative_curvature` is at least this number.

    Returns:
        `Certificate`. Its verdict is the first of these that applies: "at least as good as linear"; "gradient too large
        to be stationary"; "escapes along a direction" of negative curvature; "nearly stationary", in which case
        `excess_bound` bounds what the point loses against the linear predictor.

    Raises:
        BadInput: if a shape does not fit or a number is not finite.

    Example:

    >>> from allconv_resnet.theory.landscape import Problem
    >>> problem = Problem([[1.0], [2.0]], [1.0, -0.5])  # 0 is the best linear predictor
    >>> certify(problem, [[0.0]], [[3.0]], np.array([[0.0], [0.0]])).verdict
    'at least as good as linear'
    >>> problem = Problem([[1.0], [2.0]], [2.0, 4.0])
    >>> certify(problem, [[0.0]], [[5.0]], np.array([[1.0], [-1.0]])).verdict  # V = -E[l' x] / E[l' f]
    'escapes along a direction'
    """
    W, V, features = problem.checked(W, V, features)
    best = linear_optimum(problem) if best is None else best
    objective = problem.objective(W, V, features)
    gradient = float(np.sqrt(sum(np.sum(part**2) for part in problem.gradient(W, V, features))))
    relative = gradient / max(_largest_gradient(problem, W, V, features), np.finfo(float).tiny)
    distances, rests, rounding = _splits(problem, W, V, features, best.U)
    finite = np.isfinite(distances)
    excess = objective - best.value
    bound = _largest_bound(excess, distances, rests, rounding)
    direction = negative_curvature(problem, W, V, features)
    if direction is not None and direction.relative_curvature < curved:
        direction = None
    if excess <= tolerance * abs(problem.linear(np.zeros_like(best.U))):
        verdict = GOOD
    elif relative > stationary:
        verdict = MOVING
    else:
        verdict = RESTING if direction is None else ESCAPES
    excess_bound = max(0.0, np.min(distances[finite] * gradient + rests[finite]))
    numbers = (objective, best.value, gradient, relative, bound, float(excess_bound))
    return Certificate(verdict, *numbers, direction)


def _largest_gradient(problem, W, V, features):
    """Returns the bound of the gradient norm that the inequality of Cauchy and Schwarz gives."""
    slopes = root_mean_square(problem.slopes(W, V, features))
    inputs = root_mean_square(problem.x + features @ V.T)
    return slopes * np.hypot(inputs, np.linalg.norm(W, 2) * root_mean_square(features))


def check_predictor(problem, U, name="U"):
    """Returns a linear predictor as a float64 array `[m, d]`, or raises `BadInput`."""
    U = np.asarray(U, np.float64)
    U = U[None] if U.ndim == 1 else U
    if U.shape != (problem.outputs, problem.d) or not np.isfinite(U).all():
        raise BadInput(
            f"{name} must be a finite array [{problem.outputs}, {problem.d}]. Received: shape {list(U.shape)}"
        )
    return U
