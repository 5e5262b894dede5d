"""Directions of negative curvature of a residual predictor, and steps along them (Shamir, arXiv 1804.06739, section 3).

Let p = W h with h = x + V f(x), G = E[l' f(x)^T], and W b = 0 for a unit vector b. Along (W, V) = (alpha a b^T, beta b
c^T) with unit vectors a and c, the second derivative of F is

    alpha^2 kappa + 2 alpha beta a^T G c    with    kappa = E[(b . h)^2 a^T l'' a],

and the smallest eigenvalue of this quadratic form is negative unless a^T G c = 0. There is such a vector b at every
point if the loss depends on fewer outputs than x has entries. Shamir's theorem 2 is the case W = 0 of one output.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from allconv_resnet.errors import BadInput
from allconv_resnet.theory.shamir.predictors import Problem

ROUNDING = 1e-14  # |a^T G c| below this share of rms(l') rms(f) is zero up to rounding


class Direction(NamedTuple):
    """The result of `negative_curvature`: a unit direction in (W, V) along which F decreases to second order.

    Attributes:
        W: Float64 array `[m, d]`.
        V: Float64 array `[d, k]`.
        curvature: Float, second derivative of F along it, negative.
        slope: Float, first derivative of F along it, zero or negative.
        relative_curvature: Float, |curvature| divided by a bound of the second derivatives along such directions.
    """

    W: np.ndarray
    V: np.ndarray
    curvature: float
    slope: float
    relative_curvature: float


def negative_curvature(problem: Problem, W: ArrayLike, V: ArrayLike, features: ArrayLike) -> Direction | None:
    """Returns a direction of negative curvature at a point, or None if there is none of the form above.

    The direction exists at every point with E[l' f(x)^T] != 0 at which W b = 0 for some b, up to directions of the
    output on which the loss does not depend. Among these b the one with the smallest kappa is taken. If W is square and
    invertible, b is the right singular vector of its smallest singular value, and the quadratic form has the terms that
    this adds. For one output, at w = 0, the curvature is the smallest eigenvalue of the Hessian in (w, V).

    Args:
        problem: `Problem`.
        W: Array `[m, d]`, or `[d]` for one output.
        V: Array `[d, k]`.
        features: Array `[n, k]`, f_theta(x).

    Returns:
        `Direction`, or None if E[l' f(x)^T] = 0 up to rounding or the form is not negative.

    Raises:
        BadInput: if a shape does not fit.

    Example:

    >>> from allconv_resnet.theory.landscape import Problem
    >>> problem = Problem([[1.0], [2.0]], [2.0, 4.0])
    >>> negative_curvature(problem, [[0.0]], [[0.0]], np.array([[1.0], [-1.0]])).curvature < 0
    True
    """
    W, V, features = problem.checked(W, V, features)
    a, b, c, size, kappa, kappa_largest = coupling(problem, W, V, features)
    largest = root_mean_square(problem.slopes(W, V, features)) * root_mean_square(features)
    if not size > ROUNDING * largest:
        return None
    # The terms with W b are zero up to rounding, except for a square W.
    moved = (features @ c)[:, None] * (W @ b)
    product = problem.loss.hessian_product(problem.predictions(W, V, features), problem.y, moved)
    cross = size + np.mean(((problem.x + features @ V.T) @ b) * (product @ a))
    curvature, (alpha, beta) = _smallest_eigenvalue(kappa, cross, np.mean(np.sum(moved * product, axis=1)))
    if curvature >= 0:
        return None
    direction_W, direction_V = alpha * np.outer(a, b), beta * np.outer(b, c)
    gradient_W, gradient_V = problem.gradient(W, V, features)
    slope = np.sum(gradient_W * direction_W) + np.sum(gradient_V * direction_V)
    sign = -1.0 if slope > 0 else 1.0
    relative = -curvature / np.hypot(kappa_largest, 2 * largest)
    return Direction(sign * direction_W, sign * direction_V, float(curvature), -abs(float(slope)), float(relative))


def coupling(problem, W, V, features):
    """Returns what determines the quadratic form above: unit vectors, and the numbers that belong to them.

    Args:
        problem: `Problem`.
        W: Array `[m, d]`.
        V: Array `[d, k]`.
        features: Array `[n, k]`, f_theta(x).

    Returns:
        Unit vectors a `[m]` and c `[k]` that maximize a^T G c, and b `[d]` with W b = 0 that minimizes kappa, in the
        order a, b, c; the number a^T G c, which is the largest singular value of G; kappa, and its largest value for
        other b.
    """
    outputs, sizes, inputs = np.linalg.svd(problem.slopes(W, V, features).T @ features / problem.n)
    a = outputs[:, 0]
    along = np.broadcast_to(a, (problem.n, len(a)))
    predictions = problem.predictions(W, V, features)
    curved = np.sum(along * problem.loss.hessian_product(predictions, problem.y, along), axis=1)
    basis = _null_space(problem.directions.T @ W)
    projected = (problem.x + features @ V.T) @ basis
    values, vectors = np.linalg.eigh((projected.T * curved) @ projected / problem.n)
    return a, basis @ vectors[:, 0], inputs[0], sizes[0], max(values[0], 0.0), max(values[-1], 0.0)


def escape(
    problem: Problem, W: ArrayLike, V: ArrayLike, features: ArrayLike, direction: Direction, step: float = 1.0
) -> tuple[np.ndarray, np.ndarray, float, float]:
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
        BadInput: if no step longer than 1e-9 decreases F enough, which rounding prevents if the curvature is tiny.

    Example: from the saddle at zero.

    >>> from allconv_resnet.theory.landscape import Problem
    >>> problem, features = Problem([[1.0], [2.0]], [2.0, 4.0]), np.array([[1.0], [-1.0]])
    >>> direction = negative_curvature(problem, [[0.0]], [[0.0]], features)
    >>> W, V, step, decrease = escape(problem, np.zeros((1, 1)), np.zeros((1, 1)), features, direction)
    >>> decrease > 0
    True
    """
    W, V, features = problem.checked(W, V, features)
    start = problem.objective(W, V, features)
    while step > 1e-9:
        trial = W + step * direction.W, V + step * direction.V
        decrease = start - problem.objective(*trial, features)
        if decrease >= -direction.curvature * step**2 / 4 > 0:
            return *trial, step, decrease
        step /= 2
    raise BadInput(
        f"F must decrease along the direction by more than its rounding errors. "
        f"Received: direction.curvature={direction.curvature:.3g}"
    )


def root_mean_square(rows):
    """Returns the root of the mean squared norm of the rows of an array."""
    return float(np.sqrt(np.mean(np.sum(rows**2, axis=1))))


def _null_space(W):
    """Returns an orthonormal basis (columns) of the vectors that W maps to zero, or the one that it shortens most."""
    _, _, right = np.linalg.svd(W)
    return right[min(np.linalg.matrix_rank(W), len(right) - 1) :].T if W.any() else np.eye(W.shape[1])


def _smallest_eigenvalue(first, cross, last):
    """Returns the smallest eigenvalue of [[first, cross], [cross, last]] without cancellation, and its eigenvector."""
    determinant, trace = first * last - cross**2, first + last
    if determinant >= 0:
        return 0.0, (0.0, 0.0)
    eigenvalue = 2 * determinant / (trace + np.hypot(first - last, 2 * cross))
    vector = np.array([cross, eigenvalue - first])
    return eigenvalue, vector / np.linalg.norm(vector)
