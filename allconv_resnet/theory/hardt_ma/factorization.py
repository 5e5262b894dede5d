"""Global optima of small norm: the construction of theorem 2.1 of Hardt & Ma (arXiv 1611.04231).

Every `R` with `det R > 0` is a product `(I + A_l) ... (I + A_1)` whose factors `A_i` have norm `O(1/l)`. The paper
builds a path from the identity to `R = U K V^T` in three legs, `V^T`, `K` and `U`, and divides each leg into equal
steps. A rotation is divided on its invariant planes, which are the blocks of its real Schur form; the eigenvalues -1,
whose number is even, are paired into planes that are rotated by pi. In the paper the number of steps of a leg is an
integer. Here it need not be: a step that reaches the end of one leg continues on the next one, so the legs share any
depth of at least 1 in exact proportion.
"""

from typing import Literal

import numpy as np
import scipy
from numpy.typing import ArrayLike

from allconv_resnet.errors import BadInput
from allconv_resnet.theory import checks
from allconv_resnet.theory.hardt_ma.rotations import invariant_planes, rotation_power

METHODS = ("polar", "svd")
_TOLERANCE = 1e-9


def product(A: np.ndarray) -> np.ndarray:
    """Returns the product `(I + A[-1]) ... (I + A[0])` of residual factors (section 2).

    Args:
        A: Float64 array `[depth, d, d]`, the residual weights; `A[0]` acts first.

    Returns:
        Float64 array `[d, d]`.

    Example:

    >>> product(np.ones((2, 1, 1)))  # (1 + 1) (1 + 1)
    array([[4.]])
    """
    P = np.eye(A.shape[-1])
    for factor in A:
        P = P + factor @ P
    return P


def norm(A: np.ndarray) -> float:
    """Returns the largest spectral norm of residual weights (section 2).

    Args:
        A: Float64 array `[depth, d, d]`, the residual weights.

    Returns:
        A nonnegative float.

    Example:

    >>> norm(np.array([[[0.5]], [[-2.0]]]))
    2.0
    """
    return float(np.linalg.norm(A, ord=2, axis=(-2, -1)).max())


def gamma(R: ArrayLike) -> float:
    """Returns `max(|log smax(R)|, |log smin(R)|)`, the gamma of theorem 2.1.

    Args:
        R: `[d, d]`, not singular.

    Returns:
        A nonnegative float.

    Raises:
        BadInput: if `R` is not square, not finite, or singular.

    Example:

    >>> gamma(np.diag([np.e, 1.0]))
    1.0
    """
    return _log_stretch(_singular_value_decomposition(R)[1])


def norm_bound(R: ArrayLike, depth: int) -> float:
    """Returns the bound on the norm of some global optimum, `2 (sqrt(pi) + sqrt(3 gamma))^2 / depth` (theorem 2.1).

    Args:
        R: `[d, d]` with positive determinant.
        depth: Integer, at least `3 gamma(R)`.

    Returns:
        A float. `norm(factorize(R, depth, method))` does not exceed it, for either method.

    Raises:
        BadInput: if `R` is not square, is not finite or has no positive determinant, or if `depth` is less than 1 or
            less than `3 gamma(R)`.

    Example:

    >>> round(norm_bound(np.eye(2), 10), 6)  # 2 pi / 10
    0.628319
    """
    depth = checks.positive_integer(depth, "depth")
    U, s, Vt = _singular_value_decomposition(R)
    if not _orientation(U, Vt) > 0:
        raise BadInput(
            "Theorem 2.1 needs det R > 0, which add_flipped_dimension(R) would have. Received: an R with det R < 0"
        )
    stretch = _log_stretch(s)
    if depth < 3 * stretch:
        raise BadInput(f"Theorem 2.1 needs depth >= 3 gamma(R) = {3 * stretch:g}. Received: depth={depth}")
    return float(2 * (np.sqrt(np.pi) + np.sqrt(3 * stretch)) ** 2 / depth)


def add_flipped_dimension(R: ArrayLike) -> np.ndarray:
    """Returns `diag(R, -1)`, which has a positive determinant and the same `gamma` if `det R < 0`.

    A network of this size computes `R` on its first `d` coordinates and flips the sign of the last one.

    Args:
        R: `[d, d]`.

    Returns:
        Float64 array `[d+1, d+1]`.

    Raises:
        BadInput: if `R` is not square or not finite.

    Example:

    >>> add_flipped_dimension([[-3.0]]).tolist()
    [[-3.0, 0.0], [0.0, -1.0]]
    """
    return scipy.linalg.block_diag(checks.square_matrix(R), -1.0)


def factorize(R: ArrayLike, depth: int, method: Literal["polar", "svd"] = "polar", augment: bool = False) -> np.ndarray:
    """Returns residual weights of small norm whose product is `R`, a global optimum (theorem 2.1).

    The method `"polar"` decomposes `R = Q S` into a rotation and a positive definite matrix, and every factor rotates
    and stretches at once: with `q = Q^(1/l)` and `s = S^(1/l)`, factor i is `q^i s q^-(i-1)`. The factors are
    conjugates of one another, so their norms are equal, and at most `pi/l + exp(gamma/l) - 1`. The method `"svd"` is
    the proof in the paper, `R = U K V^T`: first the rotations of `V^T`, then the stretches of `K`, then the rotations
    of `U`. Its norm is at most the solution `x` of `(angle(U) + angle(V)) / x + gamma / log(1+x) = l`. Both norms are
    at most `norm_bound` wherever that bound applies.

    Args:
        R: `[d, d]` with `d >= 1`, not singular.
        depth: Positive integer, the number `l` of factors.
        method: `"polar"` or `"svd"`.
        augment: Whether to replace an `R` of negative determinant by `add_flipped_dimension(R)`, as the paper suggests,
            so that the result is `[depth, d+1, d+1]`. An `R` of positive determinant is used unchanged.

    Returns:
        Float64 array `A`, `[depth, d, d]`; `product(A)` equals `R` up to a relative error of 1e-9.

    Raises:
        BadInput: if `R` is not square, not finite, or singular; if its determinant is negative and `augment` is false;
            if `depth` is not a positive integer, or too small to represent a tiny `R` as a product of `I + A_i` in
            float64.

    Example:

    >>> A = factorize([[0.0, -1.0], [1.0, 0.0]], depth=4)  # a quarter turn in four steps
    >>> bool(np.isclose(norm(A), 2 * np.sin(np.pi / 16)))
    True
    """
    depth = checks.positive_integer(depth, "depth")
    if method not in METHODS:
        raise BadInput(f"method must be one of {', '.join(METHODS)}. Received: method={method!r}")
    R = checks.square_matrix(R)
    U, s, Vt = _singular_value_decomposition(R)
    if _orientation(U, Vt) < 0:
        if not augment:
            raise BadInput(
                "An R with a negative determinant needs augment=True, which factorizes diag(R, -1), since no path of "
                "invertible matrices joins it to the identity. Received: augment=False"
            )
        R = add_flipped_dimension(R)
        U, s, Vt = _singular_value_decomposition(R)
    A = (_polar_factors if method == "polar" else _svd_factors)(U, s, Vt, depth)
    size = np.abs(R).max()  # whose square may overflow, or underflow to zero
    error = np.linalg.norm((product(A) - R) / size) / np.linalg.norm(R / size)
    if not error <= _TOLERANCE:
        # A_i = (I + A_i) - I loses everything below 1e-16, so the factors I + A_i must stay well above that.
        raise BadInput(
            f"depth = {depth} is too small for an R of spectral norm {s[0]:.3g}: in float64 the product of I + A_i "
            f"has a relative error of {error:.1g}. A depth of at least 3 gamma(R) = {3 * _log_stretch(s):.3g} suffices."
        )
    return A


def _polar_factors(U, s, Vt, depth):
    Z, angles = invariant_planes(U @ Vt)
    W = Z.T @ Vt.T  # eigenvectors of S in the basis of the rotation
    stretch = (W * np.expm1(np.log(s) / depth)) @ W.T  # s - I
    turn = rotation_power(angles, 1 / depth, len(s))  # q - I
    step = turn + stretch + turn @ stretch  # q s - I
    bases = Z + Z @ rotation_power(angles, np.arange(depth) / depth, len(s))  # Z q^(i-1)
    return bases @ step @ bases.transpose(0, 2, 1)


def _svd_factors(U, s, Vt, depth):
    if np.linalg.det(U) < 0:  # Both determinants are -1, so flipping one shared sign makes both matrices rotations.
        U, Vt = U * np.r_[-1.0, np.ones(len(s) - 1)], Vt * np.r_[-1.0, np.ones(len(s) - 1)][:, None]
    Zu, angles_u = invariant_planes(U)
    Zv, angles_v = invariant_planes(Vt)
    shares_v, shares_k, shares_u = _shares_of_legs(_largest(angles_v), _log_stretch(s), _largest(angles_u), depth)
    first = Zv @ rotation_power(angles_v, shares_v, len(s)) @ Zv.T
    middle = np.eye(len(s)) * np.expm1(np.log(s) * shares_k[:, None])[:, None, :]
    last = Zu @ rotation_power(angles_u, shares_u, len(s)) @ Zu.T
    both = first + middle + middle @ first
    return both + last + last @ both


def _shares_of_legs(angle_v, g, angle_u, depth):
    """Returns which share of each of the legs V^T, K and U each of the `depth` steps covers, `[3, depth]`.

    A whole step rotates by an angle x or stretches by 1 + x, where x is such that the legs take `depth` steps in total.
    A share f of a stretch adds (1+x)^f - 1 <= f x, so the norm of a step that belongs to two legs is at most x as well.
    """

    def steps(y):  # y = log(1 + x)
        return np.array([angle_v / np.expm1(y), g / y, angle_u / np.expm1(y)])

    if angle_v + g + angle_u == 0:
        return np.zeros((3, depth))
    angle = angle_v + angle_u
    low, high = max(np.log1p(angle / depth), g / depth) / 2, 2 * (np.log1p(2 * angle / depth) + g / depth)
    with np.errstate(over="ignore"):
        legs = steps(scipy.optimize.brentq(lambda y: steps(y).sum() - depth, low, high, xtol=1e-300, rtol=1e-14))
    ends = np.cumsum(legs)
    ends *= depth / ends[-1]
    starts = np.r_[0.0, ends[:-1]]
    time = np.arange(depth + 1)[None, :]
    done = np.clip((time - starts[:, None]) / np.maximum(ends - starts, 1e-300)[:, None], 0.0, 1.0)
    done[:, -1] = 1.0  # rounding must not leave a rest of the last leg
    return np.diff(done, axis=1)


def _singular_value_decomposition(R):
    R = checks.square_matrix(R)
    U, s, Vt = np.linalg.svd(R)
    if not s[-1] > len(s) * np.finfo(np.float64).eps * s[0]:
        raise BadInput(f"R must not be singular. Received: singular values from {s[0]:g} down to {s[-1]:g}")
    return U, s, Vt


def _orientation(U, Vt):
    return np.linalg.det(U) * np.linalg.det(Vt)  # has the sign of det R, which itself may underflow


def _log_stretch(s):
    return float(np.abs(np.log(s[[0, -1]])).max())


def _largest(angles):
    return float(np.abs(angles).max(initial=0.0))
