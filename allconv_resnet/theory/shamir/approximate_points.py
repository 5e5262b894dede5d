"""How good approximate stationary points are (Shamir, arXiv 1804.06739, theorems 2 and 3), with all constants.

Theorem 3 of the paper is about points (w, V) with |w|, |V| <= b at which |grad F| <= eps and the smallest eigenvalue of
the Hessian in (w, V) is at least -sqrt(mu eps), where the Hessian is mu-Lipschitz, and F and its gradient are Lipschitz
as well: F exceeds the best linear predictor with |u| <= r by at most (eps + eps^(1/4)) times a polynomial of b, r and
the Lipschitz constants, which is not given.

Here the statement is one about single points, with all constants and for several outputs. No derivative has to be
Lipschitz, but x must have more entries than there are outputs on which the loss depends, so that W b = 0 for a unit
vector b. Let G = E[l' f^T], with the largest singular value |G| and its left singular vector a. By certificates.py and
curvature.py,

    F - F_lin(U) <= |W - U| |grad_W F| + |U V|_* |G|    and    |G|^2 <= s^2 + s kappa,

where |.|_* is the sum of the singular values, -s <= 0 is at most the smallest eigenvalue of the Hessian in (W, V), and
kappa = E[(b . h)^2 a^T l'' a]. For: in the two directions of curvature.py the Hessian is [[kappa, |G|], [|G|, 0]], its
smallest eigenvalue -t has |G|^2 = t^2 + t kappa (lemma 2 of the paper), and t <= s.
"""

import numpy as np
from numpy.typing import ArrayLike

from allconv_resnet.errors import BadInput
from allconv_resnet.theory.shamir.certificates import check_predictor
from allconv_resnet.theory.shamir.curvature import coupling
from allconv_resnet.theory.shamir.eigenvalues import ExtremeEigenvalues, extreme_eigenvalues
from allconv_resnet.theory.shamir.predictors import Problem


def smallest_eigenvalue(
    problem: Problem, W: ArrayLike, V: ArrayLike, features: ArrayLike, seed: int = 0
) -> ExtremeEigenvalues:
    """Returns the ends of the spectrum of the Hessian of F in (W, V), by products of the Hessian with vectors.

    Args:
        problem: `Problem`.
        W: Array `[m, d]`, or `[d]` for one output.
        V: Array `[d, k]`.
        features: Array `[n, k]`, f_theta(x).
        seed: Integer, seed of the first vector.

    Returns:
        `ExtremeEigenvalues`.

    Raises:
        BadInput: if a shape does not fit, or if the method does not converge.

    Example:

    >>> from allconv_resnet.theory.landscape import Problem
    >>> problem = Problem([[1.0], [2.0]], [2.0, 4.0])
    >>> smallest_eigenvalue(problem, [[0.0]], [[0.0, 0.0]], np.eye(2)).smallest < 0
    True
    """
    W, V, features = problem.checked(W, V, features)

    def product(vector):
        directions = vector[: W.size].reshape(W.shape), vector[W.size :].reshape(V.shape)
        return np.concatenate([part.ravel() for part in problem.hessian_product(W, V, features, directions)])

    return extreme_eigenvalues(product, W.size + V.size, seed=seed)


def excess_of_point(
    problem: Problem, W: ArrayLike, V: ArrayLike, features: ArrayLike, U: ArrayLike, smallest: float
) -> float:
    """Returns an upper bound of F - F_lin(U) from the gradient and the smallest eigenvalue of the Hessian at a point.

    Args:
        problem: `Problem` whose loss depends on fewer directions of the output than x has entries.
        W: Array `[m, d]`, or `[d]` for one output.
        V: Array `[d, k]`.
        features: Array `[n, k]`, f_theta(x).
        U: Array `[m, d]`, any linear predictor.
        smallest: Float, the smallest eigenvalue of the Hessian in (W, V), or a lower bound of it. What an iteration
            finds lies above it. `found.smallest - found.residual` of `smallest_eigenvalue` is an estimate, and a lower
            bound only if no eigenvalue is smaller than the one nearest to `found.smallest`.

    Returns:
        Float. It is at least F - F_lin(U), and nonnegative.

    Raises:
        BadInput: if a shape does not fit, or if x has too few entries.

    Example: a minimum of F is at least as good as any linear predictor.

    >>> from allconv_resnet.theory.landscape import Problem
    >>> problem = Problem([[1.0, 0.0], [2.0, 1.0]], [2.0, 4.0])
    >>> excess_of_point(problem, [[2.0, 0.0]], np.zeros((2, 1)), np.ones((2, 1)), [[2.0, 0.0]], 0.0)
    0.0
    """
    W, V, features = problem.checked(W, V, features)
    U = check_predictor(problem, U)
    basis = problem.directions
    if problem.d <= basis.shape[1]:
        raise BadInput(f"x must have more than {basis.shape[1]} entries. Received: x with {problem.d} entries")
    gradient_W, _ = problem.gradient(W, V, features)
    *_, kappa, _ = coupling(problem, W, V, features)
    s = max(0.0, -float(smallest))
    G = np.sqrt(s**2 + s * kappa)
    near = np.linalg.norm(basis.T @ (W - U)) * np.linalg.norm(gradient_W)
    return float(near + np.linalg.norm(basis.T @ U @ V, "nuc") * G)


def excess_of_points(
    epsilon: float | np.ndarray, mu: float, size: int, radius: float, kappa: float, outputs: int = 1
) -> float | np.ndarray:
    """Returns the bound of theorem 3 with its constants, for all points that are stationary up to epsilon.

    At every point with |grad F| <= epsilon, a smallest eigenvalue of at least -sqrt(mu epsilon), |W|_F <= size,
    |V| <= size and kappa as above, F exceeds the best linear predictor with |U|_F <= radius by at most

        (size + radius) epsilon + sqrt(outputs) size radius sqrt(mu epsilon + kappa sqrt(mu epsilon)),

    which is O(epsilon^(1/4)) for small epsilon.

    Args:
        epsilon: Nonnegative float or array.
        mu: Positive float, the Lipschitz constant of the Hessian in the paper.
        size: Nonnegative float, bound of the Frobenius norm of W and of the spectral norm of V.
        radius: Nonnegative float, bound of the Frobenius norm of the linear predictor U.
        kappa: Nonnegative float, for instance a bound of the Hessian's norm.
        outputs: Positive integer, the number of outputs.

    Returns:
        Float or array.

    Example:

    >>> bounds = excess_of_points(np.array([1e-8, 1e-12]), mu=1.0, size=1.0, radius=1.0, kappa=1.0)
    >>> round(float(bounds[0] / bounds[1]), 1)  # 10,000^(1/4)
    10.0
    """
    root = np.sqrt(mu * epsilon)
    return (size + radius) * epsilon + np.sqrt(outputs) * size * radius * np.sqrt(root**2 + kappa * root)
