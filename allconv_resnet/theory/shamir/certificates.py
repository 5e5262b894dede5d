"""No residual network ends above the best linear predictor: Shamir's landscape (arXiv 1804.06739), as programs.

For p(x) = W (x + V f_theta(x)) and a convex loss, a point whose objective lies above a linear predictor's is no local
minimum: its gradient is bounded below by the difference, or, where W loses rank (w = 0 for one output), a direction of
negative curvature leads away. `certify` says which. Everything holds for every branch f_theta.

Derivation for several outputs: E[l' . (p - U x)] = <W - U, grad_W> + <W^+ U V, grad_V> if W W^+ = 1, and by convexity
the left side is at least F - F_lin(U).
"""

from typing import NamedTuple

import numpy as np

from allconv_resnet.errors import BadInput
from allconv_resnet.theory.linear_optimum import LinearOptimum, linear_optimum
from allconv_resnet.theory.linear_path import ResidualWithLinearPath
from allconv_resnet.theory.losses import LOSSES, Loss
from allconv_resnet.theory.predictors import Problem, features_of
from allconv_resnet.theory.regret import Regret, adversary, fit_projected, projected_sgd

__all__ = [
    "LOSSES",
    "Certificate",
    "Direction",
    "LinearOptimum",
    "Loss",
    "Problem",
    "Regret",
    "ResidualWithLinearPath",
    "adversary",
    "certify",
    "escape",
    "features_of",
    "fit_projected",
    "gradient_lower_bound",
    "linear_optimum",
    "negative_curvature",
    "projected_sgd",
]

RANK_TOLERANCE = 1e-10  # of the singular values of W, relative to the largest


class Direction(NamedTuple):
    """A unit direction in (W, V), along which F decreases to second order."""

    W: np.ndarray  # [m, d]
    V: np.ndarray  # [d, k]
    curvature: float  # second derivative of F along it, negative
    slope: float  # first derivative along it, zero or negative


class Certificate(NamedTuple):
    """What `certify` says of a point."""

    verdict: str  # "at least as good as linear", "gradient too large to be stationary", "escapes along a direction"
    objective: float  # F at the point
    linear: float  # F_lin of the predictor compared with
    gradient_norm: float  # |grad_{W,V} F|
    gradient_bound: float  # its lower bound
    excess_bound: float  # F - F_lin is at most this, from the gradient that the point has
    direction: Direction | None


def gradient_lower_bound(problem, W, V, features, U, form="tight"):
    """Returns a lower bound of |grad_{W,V} F|, from the excess over the linear predictor `U` (Shamir, theorem 1).

    It is (F - F_lin(U)) / sqrt(|W-U|^2 + |W^+ U V|^2), zero if the point is at least as good. The paper's form, for
    one output, has the larger denominator sqrt(2|w|^2 + |u|^2 (2 + |V|^2/|w|^2)).

    Args:
        problem: `Problem`.
        W: Array `[m, d]` of full row rank, or `[d]` for one output.
        V: Array `[d, k]`.
        features: Array `[n, k]`, f_theta(x).
        U: Array `[m, d]`, any linear predictor.
        form: `"tight"` or `"paper"`; norms of matrices in the latter are Frobenius norms, |V| the spectral one.

    Returns:
        Float; 0 if W has not full row rank.

    Raises:
        BadInput: if a shape does not fit, or the paper's form is asked for with several outputs.

    Example:

    >>> problem = Problem([[1.0], [2.0]], [2.0, 4.0])
    >>> f = np.array([[1.0], [-1.0]])
    >>> bound = gradient_lower_bound(problem, [[1.0]], [[0.5]], f, linear_optimum(problem).U)
    >>> gradients = problem.gradient(np.array([[1.0]]), np.array([[0.5]]), f)
    >>> bool(0 < bound <= np.sqrt(sum(np.sum(g**2) for g in gradients)))
    True
    """
    W, V, features = problem.checked(W, V, features)
    U = _checked_predictor(problem, U)
    excess = problem.objective(W, V, features) - problem.linear(U)
    return max(excess, 0.0) / _distance(problem, W, V, U, form)


def _distance(problem, W, V, U, form="tight"):
    if _rank(W)[0] < problem.outputs:
        return np.inf
    if form == "tight":
        return np.sqrt(np.sum((W - U) ** 2) + np.sum((np.linalg.pinv(W) @ U @ V) ** 2))
    if form != "paper" or problem.outputs != 1:
        raise BadInput(
            f'form must be "tight", or "paper" for one output. Received: form={form!r} with {problem.outputs} outputs'
        )
    ww, uu = np.sum(W * W), np.sum(U * U)
    return np.sqrt(2 * ww + uu * (2 + np.linalg.norm(V, 2) ** 2 / ww))


def negative_curvature(problem, W, V, features):
    """Returns a direction of negative curvature where W loses rank, or None: the certificate that there is none.

    For a with a^T W = 0, b with W b = 0 and g = E[(a . l') f(x)], the direction (W, V) = (alpha a b^T, beta b g^T) has
    the second derivative alpha^2 E[(b . (x + V f))^2 l''] + 2 alpha beta |g|^2: negative for a suitable ratio unless
    g = 0. At w = 0 (one output) b and the ratio that are chosen give the smallest eigenvalue of the Hessian in (w, V).
    If g = 0 for all a, and the gradient vanishes, F = min F_lin.

    Args:
        problem: `Problem`.
        W: Array `[m, d]`, or `[d]` for one output. Singular values below 1e-10 of the largest count as zero.
        V: Array `[d, k]`.
        features: Array `[n, k]`, f_theta(x).

    Returns:
        `Direction`, or None if g = 0 within rounding or W has full row rank.

    Raises:
        BadInput: if a shape does not fit.

    Example:

    >>> problem = Problem([[1.0], [2.0]], [2.0, 4.0])
    >>> negative_curvature(problem, [[0.0]], [[0.0]], np.array([[1.0], [-1.0]])).curvature < 0
    True
    """
    W, V, features = problem.checked(W, V, features)
    rank, left, right = _rank(W)
    if rank == problem.outputs:
        return None
    predictions = problem.predictions(W, V, features)
    slopes = problem.loss.gradient(predictions, problem.y)
    # The largest |g| over the unit vectors a of the left null space, and its a and g / |g|.
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
    # [[values[0], size], [size, 0]] in (alpha, beta): its smaller eigenvalue and eigenvector.
    curvature = (values[0] - np.hypot(values[0], 2 * size)) / 2
    alpha, beta = np.array([curvature, size]) / np.hypot(curvature, size)
    direction_W, direction_V = alpha * np.outer(a, b), beta * np.outer(b, g)
    gradient_W, gradient_V = problem.gradient(W, V, features)
    slope = np.sum(gradient_W * direction_W) + np.sum(gradient_V * direction_V)
    sign = -1.0 if slope > 0 else 1.0
    return Direction(sign * direction_W, sign * direction_V, float(curvature), -abs(float(slope)))


def escape(problem, W, V, features, direction, step=1.0):
    """Returns a step along a direction of negative curvature that lowers F by at least curvature step^2 / 4.

    Args:
        problem: `Problem`.
        W: Array `[m, d]`.
        V: Array `[d, k]`.
        features: Array `[n, k]`, f_theta(x).
        direction: `Direction`.
        step: Positive float, the first length tried; it is halved until the decrease is there.

    Returns:
        `W`, `V`, the step and the decrease of F (positive).

    Raises:
        BadInput: if no step down to 1e-9 decreases F so much: the direction is not one of negative curvature here.
    """
    W, V, features = problem.checked(W, V, features)
    start = problem.objective(W, V, features)
    while step > 1e-9:
        trial = W + step * direction.W, V + step * direction.V
        decrease = start - problem.objective(*trial, features)
        if decrease >= -direction.curvature * step**2 / 4:
            return *trial, step, decrease
        step /= 2
    raise BadInput(f"F must fall along the direction. Received: a direction with curvature {direction.curvature:.3g}")


def certify(problem, W, V, features, best=None, tolerance=0.0):
    """Says why a point is not a bad local minimum: as good as linear, not stationary, or a saddle with a way out.

    Args:
        problem: `Problem`.
        W: Array `[m, d]`, or `[d]` for one output.
        V: Array `[d, k]`.
        features: Array `[n, k]`, f_theta(x).
        best: `LinearOptimum` to compare with; by default over everything.
        tolerance: Float, how far above the linear predictor still counts as good.

    Returns:
        `Certificate`.

    Raises:
        BadInput: if a shape does not fit or a number is not finite.

    Example:

    >>> problem = Problem([[1.0], [2.0]], [2.0, 4.0])
    >>> certify(problem, [[0.0]], [[0.0]], np.array([[1.0], [-1.0]])).verdict
    'escapes along a direction'
    """
    W, V, features = problem.checked(W, V, features)
    best = linear_optimum(problem) if best is None else best
    objective = problem.objective(W, V, features)
    gradient = np.sqrt(sum(np.sum(part**2) for part in problem.gradient(W, V, features)))
    distance = _distance(problem, W, V, best.U)
    direction = None
    if np.isinf(distance):
        direction = negative_curvature(problem, W, V, features)
        if direction is None:  # E[l' f] = 0 on the null space of W: the term in V drops out of the identity
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


def _rank(W):
    """The rank of W, and orthonormal bases (columns) of its left and right null spaces."""
    left, values, right = np.linalg.svd(W)
    rank = int(np.sum(values > RANK_TOLERANCE * values[0])) if values[0] > 0 else 0
    return rank, left[:, rank:], right[rank:].T


def _checked_predictor(problem, U):
    U = np.asarray(U, np.float64)
    U = U[None] if U.ndim == 1 else U
    if U.shape != (problem.outputs, problem.d) or not np.isfinite(U).all():
        raise BadInput(f"U must be a finite array [{problem.outputs}, {problem.d}]. Received: U of shape {U.shape}")
    return U
