"""Certificates that a point is not a bad local minimum of a residual network (Shamir, arXiv 1804.06739, section 3).

For p(x) = W (x + V f_theta(x)) and a convex loss, a point whose objective exceeds that of a linear predictor is not a
local minimum. Either its gradient is at least proportional to the excess, or W does not have full row rank (w = 0 for
one output) and there is a direction of negative curvature. `certify` tells which. Everything holds for every branch
f_theta.

The paper has one output. For several outputs, E[l' . (p - U x)] = <W - U, grad_W> + <W^+ U V, grad_V> if W W^+ = 1, and
by convexity the left-hand side is at least F - F_lin(U).
"""

from typing import NamedTuple

import numpy as np

from allconv_resnet.errors import BadInput
from allconv_resnet.theory.shamir.linear_optimum import linear_optimum

RANK_TOLERANCE = 1e-10  # relative to the largest singular value of W


class Direction(NamedTuple):
    """A unit direction in (W, V) along which F decreases to second order."""

    W: np.ndarray  # [m, d]
    V: np.ndarray  # [d, k]
    curvature: float  # second derivative of F along it, negative
    slope: float  # first derivative of F along it, zero or negative


class Certificate(NamedTuple):
    """The result of `certify`."""

    verdict: str  # "at least as good as linear", "gradient too large to be stationary", "escapes along a direction"
    objective: float  # F at the point
    linear: float  # F_lin of the linear predictor
    gradient_norm: float  # norm of the gradient of F in (W, V)
    gradient_bound: float  # lower bound of the norm, `gradient_lower_bound`
    excess_bound: float  # upper bound of F - F_lin that follows from the gradient norm
    direction: Direction | None


def gradient_lower_bound(problem, W, V, features, U, form="tight"):
    """Returns a lower bound of the norm of the gradient of F in (W, V), from the excess over `U` (Shamir, theorem 1).

    The bound is (F - F_lin(U)) / sqrt(|W-U|^2 + |W^+ U V|^2), or zero if F is at most F_lin(U). The form in the paper,
    for one output, has the larger denominator sqrt(2|w|^2 + |u|^2 (2 + |V|^2/|w|^2)).

    Args:
        problem: `Problem`.
        W: Array `[m, d]`, or `[d]` for one output.
        V: Array `[d, k]`.
        features: Array `[n, k]`, f_theta(x).
        U: Array `[m, d]`, any linear predictor.
        form: `"tight"`, or `"paper"` for one output. Norms are Frobenius norms, except for the spectral norm |V| in
            the form of the paper.

    Returns:
        Nonnegative float; 0 if W does not have full row rank.

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
    U = _check_predictor(problem, U)
    excess = problem.objective(W, V, features) - problem.linear(U)
    return max(excess, 0.0) / _distance_in_bound(problem, W, V, U, form)


def _distance_in_bound(problem, W, V, U, form="tight"):
    if _rank_and_null_spaces(W)[0] < problem.outputs:
        return np.inf
    if form == "tight":
        return np.sqrt(np.sum((W - U) ** 2) + np.sum((np.linalg.pinv(W) @ U @ V) ** 2))
    if form != "paper" or problem.outputs != 1:
        raise BadInput(
            f'form must be "tight", or "paper" for one output. Received: form={form!r}, outputs={problem.outputs}'
        )
    ww, uu = np.sum(W * W), np.sum(U * U)
    return np.sqrt(2 * ww + uu * (2 + np.linalg.norm(V, 2) ** 2 / ww))


def negative_curvature(problem, W, V, features):
    """Returns a direction of negative curvature where W does not have full row rank, or None if there is none.

    Let a^T W = 0, W b = 0 and g = E[(a . l') f(x)]. Along the direction (W, V) = (alpha a b^T, beta b g^T) the second
    derivative is alpha^2 E[(b . (x + V f))^2 l''] + 2 alpha beta |g|^2, which is negative for a suitable ratio of alpha
    and beta unless g = 0. For one output, at w = 0, the chosen b and ratio give the smallest eigenvalue of the Hessian
    in (w, V). If g = 0 for all a and the gradient vanishes, then F = min F_lin.

    Args:
        problem: `Problem`.
        W: Array `[m, d]`, or `[d]` for one output. Singular values below 1e-10 of the largest one count as zero.
        V: Array `[d, k]`.
        features: Array `[n, k]`, f_theta(x).

    Returns:
        `Direction`, or None if W has full row rank or g = 0 up to rounding.

    Raises:
        BadInput: if a shape does not fit.

    Example:

    >>> from allconv_resnet.theory.landscape import Problem
    >>> problem = Problem([[1.0], [2.0]], [2.0, 4.0])
    >>> negative_curvature(problem, [[0.0]], [[0.0]], np.array([[1.0], [-1.0]])).curvature < 0
    True
    """
    W, V, features = problem.checked(W, V, features)
    rank, left, right = _rank_and_null_spaces(W)
    if rank == problem.outputs:
        return None
    predictions = problem.predictions(W, V, features)
    slopes = problem.loss.gradient(predictions, problem.y)
    # The unit vector a of the left null space that maximizes |g|.
    coefficients, sizes, rows = np.linalg.svd(left.T @ slopes.T @ features / problem.n)
    rounding = 1e-14 * np.sqrt(np.mean(np.sum(slopes**2, axis=1)) * np.mean(np.sum(features**2, axis=1)))
    if not sizes.size or sizes[0] <= rounding:
        return None
    a, g, size = left @ coefficients[:, 0], rows[0], sizes[0]
    along = np.broadcast_to(a, slopes.shape)
    curved = np.sum(along * problem.loss.hessian_product(predictions, problem.y, along), axis=1)
    inputs = (problem.x + features @ V.T) @ right
    values, vectors = np.linalg.eigh((inputs.T * curved) @ inputs / problem.n)
    b = right @ vectors[:, 0]
    # In (alpha, beta) the Hessian is [[values[0], size], [size, 0]]; take its smaller eigenvalue and the eigenvector.
    curvature = (values[0] - np.hypot(values[0], 2 * size)) / 2
    alpha, beta = np.array([curvature, size]) / np.hypot(curvature, size)
    direction_W, direction_V = alpha * np.outer(a, b), beta * np.outer(b, g)
    gradient_W, gradient_V = problem.gradient(W, V, features)
    slope = np.sum(gradient_W * direction_W) + np.sum(gradient_V * direction_V)
    sign = -1.0 if slope > 0 else 1.0
    return Direction(sign * direction_W, sign * direction_V, float(curvature), -abs(float(slope)))


def escape(problem, W, V, features, direction, step=1.0):
    """Takes a step along a direction of negative curvature that decreases F by at least |curvature| step^2 / 4.

    Args:
        problem: `Problem`.
        W: Array `[m, d]`.
        V: Array `[d, k]`.
        features: Array `[n, k]`, f_theta(x).
        direction: `Direction`.
        step: Positive float, the initial length, which is halved until F decreases enough.

    Returns:
        The new `W` and `V`, the length of the step, and the decrease of F, a positive float.

    Raises:
        BadInput: if no step longer than 1e-9 decreases F enough, since the direction has no negative curvature here.
    """
    W, V, features = problem.checked(W, V, features)
    start = problem.objective(W, V, features)
    while step > 1e-9:
        trial = W + step * direction.W, V + step * direction.V
        decrease = start - problem.objective(*trial, features)
        if decrease >= -direction.curvature * step**2 / 4:
            return *trial, step, decrease
        step /= 2
    raise BadInput(f"F must decrease along the direction. Received: direction.curvature={direction.curvature:.3g}")


def certify(problem, W, V, features, best=None, tolerance=0.0):
    """Certifies that a point is as good as a linear predictor, is not stationary, or is a strict saddle.

    Args:
        problem: `Problem`.
        W: Array `[m, d]`, or `[d]` for one output.
        V: Array `[d, k]`.
        features: Array `[n, k]`, f_theta(x).
        best: `LinearOptimum` to compare with; None for the best of all linear predictors.
        tolerance: Nonnegative float, the excess over the linear predictor that still counts as good.

    Returns:
        `Certificate`.

    Raises:
        BadInput: if a shape does not fit or a number is not finite.

    Example:

    >>> from allconv_resnet.theory.landscape import Problem
    >>> problem = Problem([[1.0], [2.0]], [2.0, 4.0])
    >>> certify(problem, [[0.0]], [[0.0]], np.array([[1.0], [-1.0]])).verdict
    'escapes along a direction'
    """
    W, V, features = problem.checked(W, V, features)
    best = linear_optimum(problem) if best is None else best
    objective = problem.objective(W, V, features)
    gradient = np.sqrt(sum(np.sum(part**2) for part in problem.gradient(W, V, features)))
    distance = _distance_in_bound(problem, W, V, best.U)
    direction = None
    if np.isinf(distance):
        direction = negative_curvature(problem, W, V, features)
        if direction is None:  # E[l' f] = 0 on the null space of W, so the term in V drops out of the identity
            distance = np.sqrt(np.sum((W - best.U) ** 2) + np.sum((np.linalg.pinv(W) @ best.U @ V) ** 2))
    bound = (objective - best.value) / distance if objective > best.value else 0.0
    if objective <= best.value + tolerance:
        verdict = "at least as good as linear"
    elif direction is not None:
        verdict = "escapes along a direction"
    else:
        verdict = "gradient too large to be stationary"
    excess = gradient * distance
    return Certificate(verdict, objective, best.value, float(gradient), float(bound), float(excess), direction)


def _rank_and_null_spaces(W):
    """Returns the rank of W, and orthonormal bases (columns) of its left and right null spaces."""
    left, values, right = np.linalg.svd(W)
    rank = int(np.sum(values > RANK_TOLERANCE * values[0])) if values[0] > 0 else 0
    return rank, left[:, rank:], right[rank:].T


def _check_predictor(problem, U):
    U = np.asarray(U, np.float64)
    U = U[None] if U.ndim == 1 else U
    if U.shape != (problem.outputs, problem.d) or not np.isfinite(U).all():
        raise BadInput(
            f"U must be a finite array [{problem.outputs}, {problem.d}]. Received: U of shape {list(U.shape)}"
        )
    return U
