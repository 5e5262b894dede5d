"""The best linear predictor of a sample, in a ball or among all, with a certificate of optimality."""

from typing import NamedTuple

import numpy as np
from scipy.optimize import brentq
from scipy.sparse.linalg import LinearOperator, cg

from allconv_resnet.errors import BadInput
from allconv_resnet.theory.shamir.losses import SQUARED
from allconv_resnet.theory.shamir.predictors import Problem


class LinearOptimum(NamedTuple):
    """The result of `linear_optimum`.

    Attributes:
        U: Float64 array `[m, d]`.
        value: Float, F_lin(U).
        gap: Float, upper bound of F_lin(U) - minimum of F_lin over the ball |U|_F <= radius.
        radius: Float, the radius that was asked for; without one, 2 |U|_F.
    """

    U: np.ndarray
    value: float
    gap: float
    radius: float


def linear_optimum(problem: Problem, radius: float | None = None, tolerance: float = 1e-10) -> LinearOptimum:
    """Returns the linear predictor with the smallest average loss.

    For the squared loss the method is the singular value decomposition of x. For other losses it is Newton's, with
    conjugate gradients that are preconditioned by the second moments of x. If the unconstrained optimum lies outside
    the ball, a root finder determines the multiplier of the constraint. The result does not depend on the units of x,
    nor of y for the squared loss. The `gap` is the Frank-Wolfe certificate <grad, U> + radius |grad|: by convexity, no
    predictor in the ball improves the objective by more.

    Args:
        problem: `Problem`.
        radius: Positive float, radius of the ball in the Frobenius norm; None for all linear predictors. If the infimum
            over all predictors is not attained, as for separable classes, U is a point with a small gradient.
        tolerance: Positive float, tolerance for the norm of the gradient in preconditioned coordinates, relative to
            that of U = 0.

    Returns:
        `LinearOptimum`.

    Raises:
        BadInput: if `radius` is not positive.

    Example:

    >>> from allconv_resnet.theory.landscape import Problem
    >>> best = linear_optimum(Problem([[1.0], [2.0]], [2.0, 4.0]))
    >>> best.U.round(6).tolist(), round(best.value, 6)
    ([[2.0]], 0.0)
    """
    if radius is not None and not (np.isfinite(radius) and radius > 0):
        raise BadInput(f"radius must be positive and finite, or None. Received: radius={radius}")
    left, scales, basis = np.linalg.svd(problem.x / np.sqrt(problem.n), full_matrices=False)
    kept = scales > 1e-12 * scales[0]
    decomposition = left[:, kept], scales[kept], basis[kept]
    U = _ridge(problem, 0.0, decomposition, np.zeros((problem.outputs, problem.d)), tolerance)
    if radius is not None and np.linalg.norm(U) > radius:
        U = _on_the_sphere(problem, radius, decomposition, U, tolerance)
    size = np.linalg.norm(U)
    reach = radius if radius is not None else 2 * size
    gradient = problem.linear_gradient(U)
    gap = np.sum(gradient * U) + reach * np.linalg.norm(gradient)
    return LinearOptimum(U, problem.linear(U), float(max(gap, 0.0)), float(reach))


def _on_the_sphere(problem, radius, decomposition, free, tolerance):
    # |U(multiplier)| <= |grad F_lin(0)| / multiplier, so U lies in the ball at `highest`.
    highest = np.linalg.norm(problem.linear_gradient(np.zeros_like(free))) / radius
    known = {}  # log(multiplier / highest) -> U

    def solution(logarithm):
        if logarithm not in known:
            # Newton's method is slow from the free optimum if the ball is small.
            nearest = known[min(known, key=lambda other: abs(other - logarithm))] if known else free
            start = nearest * min(1.0, radius / np.linalg.norm(nearest))
            known[logarithm] = _ridge(problem, highest * np.exp(logarithm), decomposition, start, tolerance)
        return known[logarithm]

    def excess(logarithm):
        return np.log(np.linalg.norm(solution(logarithm)) / radius)

    low = -3.0
    while excess(low) <= 0 and low > -40:
        low -= 3.0
    U = solution(brentq(excess, low, 1.0, xtol=1e-10, disp=False) if excess(low) > 0 else low)
    return U * min(1.0, radius / np.linalg.norm(U))


def _ridge(problem, multiplier, decomposition, start, tolerance):
    """Returns the U that minimizes F_lin(U) + multiplier/2 |U|^2."""
    left, scales, basis = decomposition
    if problem.loss is SQUARED:
        return (problem.y.T @ left / np.sqrt(problem.n) * (scales / (scales**2 + multiplier))) @ basis
    zero = np.zeros((problem.n, problem.outputs))
    probe = np.ones_like(zero)
    curvature = np.mean(np.sum(probe * problem.loss.hessian_product(zero, problem.y, probe), axis=1)) / problem.outputs
    # In the coordinates A of U = A diag(factor) basis, the Hessian is close to the identity.
    factor = 1 / np.sqrt((curvature if curvature > 0 else 1.0) * scales**2 + multiplier)
    inputs = (problem.x @ basis.T) * factor
    ridge = multiplier * factor**2
    A = (start @ basis.T) / factor

    def value(A):
        return problem.loss.value(inputs @ A.T, problem.y).mean() + 0.5 * np.sum(ridge * A * A)

    slopes = problem.loss.gradient(zero, problem.y)
    unit = max(np.linalg.norm(slopes.T @ inputs) / problem.n, np.finfo(float).tiny)
    now = value(A)
    for _ in range(200):
        predictions = inputs @ A.T
        gradient = problem.loss.gradient(predictions, problem.y).T @ inputs / problem.n + ridge * A
        size = np.linalg.norm(gradient) / unit
        if size <= tolerance:
            break

        def product(v, predictions=predictions, size=size, shape=A.shape):
            v = v.reshape(shape)
            curved = problem.loss.hessian_product(predictions, problem.y, inputs @ v.T)
            # Damping proportional to the gradient keeps the Newton steps finite where the loss is flat.
            return (curved.T @ inputs / problem.n + (ridge + 1e-4 * min(1.0, size)) * v).ravel()

        operator = LinearOperator((A.size, A.size), matvec=product, dtype=np.float64)
        step = cg(operator, -gradient.ravel(), rtol=min(0.1, np.sqrt(size)), maxiter=500)[0].reshape(A.shape)
        decrease, length = -np.sum(gradient * step), 1.0
        # The term 1e-15 accepts the full step near the optimum, where differences of values are rounding errors.
        while (trial := value(A + length * step)) > now - 1e-4 * length * decrease + 1e-15 * abs(now):
            length /= 2
            if length < 1e-12:
                return (A * factor) @ basis
        A, now = A + length * step, trial
    return (A * factor) @ basis
