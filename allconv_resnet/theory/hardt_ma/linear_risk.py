"""Linear residual networks: risk, gradient and the bounds of section 2 of Hardt & Ma (arXiv 1611.04231), in float64.

The network is the product `P(A) = (I + A[-1]) ... (I + A[0])` and its targets are `y = R x + noise`. With
`cov = E[x x^T]` the risk, less the noise's constant, is `f(A) = ||(P(A) - R) cov^(1/2)||_F^2` (claim 2.3), so the
least risk is 0. The norm of `A` is the largest spectral norm of a factor, `norm(A) = max_i ||A[i]||`.

Everything about section 2 is reached from here: `factorize`, `norm_bound` and their kin live in
`allconv_resnet.theory.factorization`, `train_linear` in `allconv_resnet.theory.linear_training`.
"""

import numpy as np

from allconv_resnet.errors import BadInput
from allconv_resnet.theory import matrices
from allconv_resnet.theory.factorization import add_flipped_dimension, factorize, gamma, norm, norm_bound, product
from allconv_resnet.theory.linear_training import LinearTraining, product_gradient, train_linear

__all__ = [
    "LinearTraining",
    "add_flipped_dimension",
    "factorize",
    "gamma",
    "gradient",
    "gradient_lower_bound",
    "gradient_lower_bound_as_printed",
    "norm",
    "norm_bound",
    "product",
    "risk",
    "train_linear",
]


def risk(A, R, cov):
    """Returns the risk `f(A) = ||(P(A) - R) cov^(1/2)||_F^2` of a linear residual network (claim 2.3).

    Args:
        A: `[depth, d, d]`, the residual weights; `A[0]` acts first.
        R: `[d, d]`, the matrix that the targets come from.
        cov: `[d, d]`, symmetric positive semidefinite, `E[x x^T]`.

    Returns:
        A float, at least 0: the excess over the noise's own variance.

    Raises:
        BadInput: if a shape does not fit, an entry is not finite or `cov` is not symmetric positive semidefinite.

    Example:
    >>> risk(np.zeros((3, 2, 2)), 2 * np.eye(2), np.eye(2))  # the zero weights are the identity
    2.0
    """
    return float(_risk(*_checked(A, R, cov)))


def gradient(A, R, cov):
    """Returns the gradient of `risk` in every factor (lemma 2.4).

    `df/dA_i = 2 ((I+A_l) ... (I+A_{i+1}))^T E cov ((I+A_{i-1}) ... (I+A_1))^T` with `E = P(A) - R`. All of them take
    `O(depth d^3)` together, from the products of the factors before and after each one.

    Args:
        A: `[depth, d, d]`, the residual weights.
        R: `[d, d]`.
        cov: `[d, d]`, symmetric positive semidefinite.

    Returns:
        `[depth, d, d]`.

    Raises:
        BadInput: as in `risk`.

    Example:
    >>> gradient(np.zeros((1, 1, 1)), [[3.0]], [[1.0]])  # d/da (1 + a - 3)^2 at a = 0
    array([[[-4.]]])
    """
    A, R, cov = _checked(A, R, cov)
    return product_gradient(np.eye(len(R)) + A, R, cov)


def gradient_lower_bound(A, R, cov):
    """Returns a lower bound of `||grad f(A)||_F^2` where `norm(A) < 1`: equation (2.3), corrected.

    The bound is `4 l (1-t)^(2(l-1)) smin(cov) f(A)` with `l` the depth and `t = norm(A)`. It is what the paper's proof
    gives: `df/dA_i` is `2 E cov` between two products whose smallest singular values are at least `(1-t)^(l-i)` and
    `(1-t)^(i-1)`, and `||E cov||_F^2 >= smin(cov) ||E cov^(1/2)||_F^2`. At `A_i = -t I`, `cov = I` it is an equality.
    As it is positive wherever the risk is, a critical point with norm below 1 is a global minimum (theorem 2.2).

    Args:
        A: `[depth, d, d]` with norm below 1.
        R: `[d, d]`.
        cov: `[d, d]`, symmetric positive semidefinite.

    Returns:
        A float, at least 0.

    Raises:
        BadInput: as in `risk`, and if `norm(A)` is 1 or more, where nothing is claimed.

    Example:
    >>> A, R, cov = np.full((3, 1, 1), -0.5), np.eye(1), np.eye(1)
    >>> bool(np.isclose(gradient_lower_bound(A, R, cov), np.sum(gradient(A, R, cov) ** 2)))
    True
    """
    A, R, cov = _checked(A, R, cov)
    depth = len(A)
    return float(4 * depth * _shrinkage(A) ** (2 * (depth - 1)) * _smallest_eigenvalue(cov) * _risk(A, R, cov))


def gradient_lower_bound_as_printed(A, R, cov):
    """Returns the right-hand side of equation (2.3) as the paper prints it, **which is not a bound**.

    `4 l (1-t)^(l-1) smin(cov)^2 f(A)`: the power of `1-t` is half of what it should be, and that of `smin(cov)` twice.
    At `A_i = -t I`, `cov = I` it exceeds `||grad f||^2` by the factor `(1-t)^-(l-1)`, whatever `R` is; at `cov = s I`
    with `s > 1` by the factor `s` more. Here for comparison; use `gradient_lower_bound`.

    Args:
        A: `[depth, d, d]` with norm below 1.
        R: `[d, d]`.
        cov: `[d, d]`, symmetric positive semidefinite.

    Returns:
        A float, at least 0.

    Raises:
        BadInput: as in `gradient_lower_bound`.
    """
    A, R, cov = _checked(A, R, cov)
    depth = len(A)
    return float(4 * depth * _shrinkage(A) ** (depth - 1) * _smallest_eigenvalue(cov) ** 2 * _risk(A, R, cov))


def _checked(A, R, cov):
    R = matrices.square(R)
    return matrices.factors(A, len(R)), R, matrices.covariance(cov, len(R))


def _risk(A, R, cov):
    error = product(A) - R
    return max(0.0, np.sum((error @ cov) * error))


def _smallest_eigenvalue(cov):
    return max(0.0, np.linalg.eigvalsh(cov)[0])


def _shrinkage(A):
    t = norm(A)
    if t >= 1:
        raise BadInput(f"A must have norm (largest spectral norm of a factor) below 1. Received: norm(A) = {t:g}.")
    return 1 - t
