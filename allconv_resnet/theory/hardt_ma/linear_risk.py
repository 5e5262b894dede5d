"""Risk and gradient of a linear residual network, and the bound of theorem 2.2 (Hardt & Ma, arXiv 1611.04231).

The network is the product `P(A) = (I + A[-1]) ... (I + A[0])`, and its targets are `y = R x + noise`. With
`cov = E[x x^T]`, the risk minus the constant contribution of the noise is `f(A) = ||(P(A) - R) cov^(1/2)||_F^2`
(claim 2.3), so the smallest possible value is 0. The norm of `A` is the largest spectral norm of its residual weights,
`norm(A) = max_i ||A[i]||`.
"""

import numpy as np
from numpy.typing import ArrayLike

from allconv_resnet.errors import BadInput
from allconv_resnet.theory import checks
from allconv_resnet.theory.hardt_ma.factorization import norm, product
from allconv_resnet.theory.hardt_ma.linear_training import product_gradient


def risk(A: ArrayLike, R: ArrayLike, cov: ArrayLike) -> float:
    """Returns the risk `f(A) = ||(P(A) - R) cov^(1/2)||_F^2` of a linear residual network (claim 2.3).

    Args:
        A: `[depth, d, d]`, the residual weights; `A[0]` acts first.
        R: `[d, d]`, the matrix of the targets `y = R x + noise`.
        cov: `[d, d]`, symmetric positive semidefinite, `E[x x^T]`.

    Returns:
        A nonnegative float, the excess over the variance of the noise.

    Raises:
        BadInput: if a shape does not fit, an entry is not finite or `cov` is not symmetric positive semidefinite.

    Example:

    >>> risk(np.zeros((3, 2, 2)), 2 * np.eye(2), np.eye(2))  # the zero weights are the identity
    2.0
    """
    return float(_excess_risk(*_check_arguments(A, R, cov)))


def gradient(A: ArrayLike, R: ArrayLike, cov: ArrayLike) -> np.ndarray:
    """Returns the gradient of `risk` with respect to every factor (lemma 2.4).

    `df/dA_i = 2 ((I+A_l) ... (I+A_{i+1}))^T E cov ((I+A_{i-1}) ... (I+A_1))^T` with `E = P(A) - R`. The products
    of the factors before and after each one are shared, so all gradients together take `O(depth d^3)` operations.

    Args:
        A: `[depth, d, d]`, the residual weights.
        R: `[d, d]`, the matrix of the targets.
        cov: `[d, d]`, symmetric positive semidefinite, `E[x x^T]`.

    Returns:
        Float64 array `[depth, d, d]`.

    Raises:
        BadInput: as in `risk`.

    Example:

    >>> gradient(np.zeros((1, 1, 1)), [[3.0]], [[1.0]])  # d/da (1 + a - 3)^2 at a = 0
    array([[[-4.]]])
    """
    A, R, cov = _check_arguments(A, R, cov)
    return product_gradient(np.eye(len(R)) + A, R, cov)


def gradient_lower_bound(A: ArrayLike, R: ArrayLike, cov: ArrayLike) -> float:
    """Returns a lower bound of `||grad f(A)||_F^2` for `norm(A) < 1`: equation (2.3), corrected.

    The bound is `4 l (1-t)^(2(l-1)) smin(cov) f(A)` with `l` the depth and `t = norm(A)`. The
    paper's proof gives this bound: `df/dA_i` is `2 E cov` multiplied on both sides by products whose smallest singular
    values are at least `(1-t)^(l-i)` and `(1-t)^(i-1)`, and `||E cov||_F^2 >= smin(cov) ||E cov^(1/2)||_F^2`. Equality
    holds at `A_i = -t I`, `cov = I`. If `cov` is not singular, the bound is positive wherever the risk is, so a
    critical point with norm below 1 is a global minimum (theorem 2.2).

    Args:
        A: `[depth, d, d]` with norm below 1.
        R: `[d, d]`, the matrix of the targets.
        cov: `[d, d]`, symmetric positive semidefinite, `E[x x^T]`.

    Returns:
        A nonnegative float.

    Raises:
        BadInput: as in `risk`, and if `norm(A)` is 1 or more, where the theorem makes no statement.

    Example:

    >>> A, R, cov = np.full((3, 1, 1), -0.5), np.eye(1), np.eye(1)
    >>> bool(np.isclose(gradient_lower_bound(A, R, cov), np.sum(gradient(A, R, cov) ** 2)))
    True
    """
    A, R, cov = _check_arguments(A, R, cov)
    depth = len(A)
    return float(4 * depth * _shrinkage(A) ** (2 * (depth - 1)) * _smallest_eigenvalue(cov) * _excess_risk(A, R, cov))


def gradient_lower_bound_as_printed(A: ArrayLike, R: ArrayLike, cov: ArrayLike) -> float:
    """Returns the right-hand side of equation (2.3) as the paper prints it, **which is not a bound**.

    The paper prints `4 l (1-t)^(l-1) smin(cov)^2 f(A)`. The exponent of `1-t` is half of the correct one, and that of
    `smin(cov)` twice the correct one. At `A_i = -t I`, `cov = I` the expression exceeds `||grad f||^2` by the factor
    `(1-t)^-(l-1)` for every `R`; at `cov = s I` with `s > 1` it exceeds it by another factor `s`. The function exists
    for comparison; use `gradient_lower_bound`.

    Args:
        A: `[depth, d, d]` with norm below 1.
        R: `[d, d]`, the matrix of the targets.
        cov: `[d, d]`, symmetric positive semidefinite, `E[x x^T]`.

    Returns:
        A nonnegative float.

    Raises:
        BadInput: as in `gradient_lower_bound`.

    Example: the gradient is smaller than the printed bound.

    >>> A, R, cov = np.full((3, 1, 1), -0.5), np.eye(1), np.eye(1)
    >>> printed, squared_norm = gradient_lower_bound_as_printed(A, R, cov), np.sum(gradient(A, R, cov) ** 2)
    >>> round(float(printed / squared_norm), 6)
    4.0
    """
    A, R, cov = _check_arguments(A, R, cov)
    depth = len(A)
    return float(4 * depth * _shrinkage(A) ** (depth - 1) * _smallest_eigenvalue(cov) ** 2 * _excess_risk(A, R, cov))


def _check_arguments(A, R, cov):
    R = checks.square_matrix(R)
    return checks.residual_weights(A, len(R)), R, checks.covariance_matrix(cov, len(R))


def _excess_risk(A, R, cov):
    with np.errstate(over="ignore", invalid="ignore"):
        error = product(A) - R
        value = np.sum((error @ cov) * error)
    return max(0.0, value) if np.isfinite(value) else np.inf


def _smallest_eigenvalue(cov):
    return max(0.0, np.linalg.eigvalsh(cov)[0])


def _shrinkage(A):
    t = norm(A)
    if t >= 1:
        raise BadInput(f"A must have norm (largest spectral norm of a factor) below 1. Received: norm(A) = {t:g}")
    return 1 - t
