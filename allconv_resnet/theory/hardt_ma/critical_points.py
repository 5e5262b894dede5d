"""Theorem 2.2 of Hardt & Ma (arXiv 1611.04231) without its hypothesis: gradients and critical points of any norm.

The theorem needs `norm(A) < 1` only to keep every factor `I + A_j` away from singular matrices. Without it, the same
proof gives a bound in terms of the smallest singular values of the factors, which holds at every `A`.
"""

import numbers
from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike

from allconv_resnet.errors import BadInput
from allconv_resnet.theory import checks
from allconv_resnet.theory.hardt_ma.factorization import product
from allconv_resnet.theory.hardt_ma.linear_risk import gradient, risk


def gradient_lower_bound_anywhere(A: ArrayLike, R: ArrayLike, cov: ArrayLike) -> float:
    """Returns a lower bound of `||grad f(A)||_F^2` that holds for residual weights of any norm.

    The bound is `4 lambda f(A) sum_i prod_{j != i} smin(I + A_j)^2`, where `lambda` is the smallest eigenvalue of `cov`
    that is not zero. Proof: by lemma 2.4, `df/dA_i` is `2 E cov` multiplied by the transposed factors before and after
    i, so its norm is at least `2 ||E cov||_F prod_{j != i} smin(I + A_j)`; and `||E cov||_F^2 = tr(E cov^2 E^T) >=
    lambda tr(E cov E^T) = lambda f(A)`, since `cov^2 - lambda cov` is positive semidefinite.

    A critical point at which at most one factor is singular is therefore a global minimum. Where `norm(A) = t < 1`,
    every `smin(I + A_j)` is at least `1 - t`, and equation (2.3), corrected, is a special case.

    An eigenvalue of at most 1e-12 d times the largest one counts as zero, and the risk along its eigenvector is left
    out of f then, so that the bound holds for such `cov` as well.

    Args:
        A: `[depth, d, d]`, the residual weights, of any norm.
        R: `[d, d]`, the matrix of the targets.
        cov: `[d, d]`, symmetric positive semidefinite. It may be singular.

    Returns:
        A nonnegative float. It is 0 where the risk is 0, and where two or more factors are singular.

    Raises:
        BadInput: as in `risk`.

    Example: with one factor the bound is attained if all eigenvalues of `cov` are equal.

    >>> A, R, cov = np.full((1, 1, 1), 7.0), np.eye(1), 2 * np.eye(1)
    >>> gradient_lower_bound_anywhere(A, R, cov), float(np.sum(gradient(A, R, cov) ** 2))
    (784.0, 784.0)
    """
    smallest, value, _ = _split_risk(A, R, cov)
    return float(4 * smallest * value * clearance(A))


def certified_risk(A: ArrayLike, R: ArrayLike, cov: ArrayLike) -> float:
    """Returns an upper bound of the excess risk at `A` that needs nothing but the gradient and the factors.

    The bound is `||grad f(A)||_F^2` divided by `4 lambda sum_i prod_{j != i} smin(I + A_j)^2`, see
    `gradient_lower_bound_anywhere`. It certifies how far a point of small gradient is from a global minimum. The risk
    along eigenvectors of `cov` whose eigenvalue counts as zero is added.

    Args:
        A: `[depth, d, d]`, the residual weights, of any norm.
        R: `[d, d]`, the matrix of the targets.
        cov: `[d, d]`, symmetric positive semidefinite.

    Returns:
        A nonnegative float, infinite where two or more factors are singular, since there the gradient says nothing,
        and where a number overflows.

    Raises:
        BadInput: as in `risk`.

    Example:

    >>> certified_risk(np.full((1, 1, 1), 7.0), np.eye(1), np.eye(1))  # the risk itself, (8 - 1)^2
    49.0
    >>> certified_risk(-np.ones((2, 1, 1)), np.eye(1), np.eye(1))
    inf
    """
    with np.errstate(over="ignore", invalid="ignore"):
        slope = gradient(A, R, cov)
        largest = np.abs(slope).max()  # whose square may underflow
        smallest, value, rest = _split_risk(A, R, cov)
        room = 4 * smallest * clearance(A)
        if value == 0:
            return float(rest)
        if not 1e-290 < room < np.inf or largest == 0:  # the products are lost to under- or overflow
            return np.inf
        bound = rest + np.sum((slope / largest) ** 2) * (largest / np.sqrt(room)) ** 2
    return np.inf if np.isnan(bound) else float(bound)  # NaN where numbers overflow


def singular_critical_point(R: ArrayLike, kept: Sequence[int], depth: int) -> np.ndarray:
    """Returns a critical point with two singular factors.

    It is a global minimum only if `kept` has all singular values that are not zero. With `R = U diag(s) V^T` and D
    the projection to the coordinates in `kept`, the first factor is `V D V^T`, the last one is `U D diag(s) V^T`,
    and all others are the identity. Their product keeps the singular values in `kept` and sets the others to 0. For
    `cov = I` the gradient vanishes: both factors annihilate the error `E = P - R` from their side. The excess risk
    is the sum of the squares of the singular values that are not kept. Two singular factors are thus enough for the
    conclusion of theorem 2.2 to fail, which shows that one factor in `gradient_lower_bound_anywhere` is the most
    that can be allowed.

    Args:
        R: `[d, d]`, the matrix of the targets.
        kept: Sequence of indices of singular values of R, in decreasing order of the values.
        depth: Integer, at least 2.

    Returns:
        Float64 array `[depth, d, d]`, the residual weights.

    Raises:
        BadInput: if `R` is not square or not finite, `depth` is less than 2, or `kept` has an index outside of [0, d).

    Example:

    >>> A = singular_critical_point(np.diag([3.0, 2.0]), [0], depth=4)
    >>> float(np.abs(gradient(A, np.diag([3.0, 2.0]), np.eye(2))).max()), risk(A, np.diag([3.0, 2.0]), np.eye(2))
    (0.0, 4.0)
    """
    R = checks.square_matrix(R)
    if checks.positive_integer(depth, "depth") < 2:
        raise BadInput(f"depth must be at least 2, one for each singular factor. Received: depth={depth}")
    mask = np.zeros(len(R))
    for index in kept:
        if not (isinstance(index, numbers.Integral) and 0 <= index < len(R)):
            raise BadInput(f"kept must have indices in [0, {len(R)}). Received: kept={list(kept)}")
        mask[index] = 1
    U, s, Vt = np.linalg.svd(R)
    factors = np.tile(np.eye(len(R)), (depth, 1, 1))
    factors[0] = Vt.T * mask @ Vt
    factors[-1] = U * (mask * s) @ Vt
    return factors - np.eye(len(R))


def clearance(A):
    """Returns `sum_i prod_{j != i} smin(I + A_j)^2`, which is 0 where two or more factors are singular.

    A factor counts as singular if its smallest singular value is within the rounding error of its largest one.

    Args:
        A: `[depth, d, d]`, the residual weights.

    Example:

    >>> clearance(np.zeros((5, 2, 2)))  # at the identity
    5.0
    """
    A = np.asarray(A, np.float64)
    values = np.linalg.svd(np.eye(A.shape[-1]) + A, compute_uv=False)
    rounding = A.shape[-1] * np.finfo(np.float64).eps * values[:, 0]
    smallest = np.where(values[:, -1] > rounding, values[:, -1], 0.0) ** 2
    return float(sum(np.prod(np.delete(smallest, i)) for i in range(len(smallest))))


def _split_risk(A, R, cov):
    """Returns the smallest eigenvalue of `cov` that is not zero, the risk along such eigenvectors, and its rest."""
    risk(A, R, cov)  # which checks the arguments
    values, vectors = np.linalg.eigh(np.asarray(cov, np.float64))
    error = product(np.asarray(A, np.float64)) - np.asarray(R, np.float64)
    parts = np.sum((error @ vectors) ** 2, axis=0) * np.maximum(values, 0.0)
    kept = values > 1e-12 * len(values) * values[-1]  # the tolerance of `checks.covariance_matrix`
    return (values[kept][0] if kept.any() else 0.0), np.sum(parts[kept]), np.sum(parts[~kept])
