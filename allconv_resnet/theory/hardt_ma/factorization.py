"""Global optima of small norm: theorem 2.1 of Hardt & Ma (arXiv 1611.04231) as a program.

Any `R` with `det R > 0` is a product `(I + A_l) ... (I + A_1)` whose factors have norm `O(1/l)`. The paper walks from
the identity to `R = U K V^T` in three legs, `V^T`, `K`, `U`, each cut into equal steps; a rotation is cut on its
invariant planes, the blocks of its real Schur form, with the eigenvalues -1, whose number is even, paired into planes
turned by pi. Numbers of steps are integers in the paper. Here they need not be: a step that reaches the end of one leg
spends its remainder on the next, so the legs share any depth from 1 up in exact proportion.
"""

import numpy as np
import scipy

from allconv_resnet.errors import BadInput
from allconv_resnet.theory import matrices

METHODS = ("polar", "svd")
_TOLERANCE = 1e-9


def product(A):
    """Returns `(I + A[-1]) ... (I + A[0])`, a `[d, d]` array, for `A` of shape `[depth, d, d]`."""
    P = np.eye(A.shape[-1])
    for factor in A:
        P = P + factor @ P
    return P


def norm(A):
    """Returns the paper's norm of `A`, `[depth, d, d]`: the largest spectral norm of a factor."""
    return float(np.linalg.norm(A, ord=2, axis=(-2, -1)).max())


def gamma(R):
    """Returns `max(|log smax(R)|, |log smin(R)|)`, how far `R` stretches or shrinks (theorem 2.1).

    Args:
        R: `[d, d]`, not singular.

    Raises:
        BadInput: if `R` is not square, not finite or singular.

    Example:
    >>> gamma(np.diag([np.e, 1.0]))
    1.0
    """
    return _gamma(_decomposed(R)[1])


def norm_bound(R, depth):
    """Returns the bound of theorem 2.1, `2 (sqrt(pi) + sqrt(3 gamma))^2 / depth`, on the norm of some global optimum.

    Args:
        R: `[d, d]` with positive determinant.
        depth: Integer, at least `3 gamma(R)`.

    Returns:
        A float. `norm(factorize(R, depth))` is never above it, with either method.

    Raises:
        BadInput: if `R` is not square, finite and of positive determinant, or `depth` is below 1 or `3 gamma(R)`.

    Example:
    >>> round(norm_bound(np.eye(2), 10), 6)  # 2 pi / 10
    0.628319
    """
    depth = matrices.positive_integer(depth, "depth")
    U, s, Vt = _decomposed(R)
    if not _orientation(U, Vt) > 0:
        raise BadInput("Theorem 2.1 needs det R > 0. Received: det R < 0; add_flipped_dimension(R) has det > 0.")
    g = _gamma(s)
    if depth < 3 * g:
        raise BadInput(f"Theorem 2.1 needs depth >= 3 gamma(R) = {3 * g:g}. Received: depth = {depth}.")
    return float(2 * (np.sqrt(np.pi) + np.sqrt(3 * g)) ** 2 / depth)


def add_flipped_dimension(R):
    """Returns `diag(R, -1)`, `[d+1, d+1]`: with `det R < 0` its determinant is positive and its `gamma` the same.

    A network of this size computes `R` on its first `d` coordinates; the last one only changes its sign.
    """
    return scipy.linalg.block_diag(matrices.square(R), -1.0)


def factorize(R, depth, method="polar", augment=False):
    """Returns a global optimum of small norm: residual weights whose product is `R` (theorem 2.1).

    `"polar"` writes `R = Q S`, a rotation and a positive definite matrix, and every factor turns and stretches at once:
    with `q = Q^(1/l)` and `s = S^(1/l)`, factor i is `q^i s q^-(i-1)`. The factors are conjugates of one another, so
    their norms are equal, at most `pi/l + exp(gamma/l) - 1`. `"svd"` is the paper's proof, `R = U K V^T`: rotations
    `V^T`, stretches `K`, rotations `U`. Its norm is at most the `x` that solves `(angle(U) + angle(V)) / x +
    gamma / log(1+x) = l`. Both are within `norm_bound` whenever that applies.

    Args:
        R: `[d, d]`, not singular, any `d >= 1`.
        depth: Integer, at least 1: the number `l` of factors.
        method: `"polar"` or `"svd"`.
        augment: Whether an `R` with negative determinant is replaced by `add_flipped_dimension(R)`, the paper's way
            out, so that the result is `[depth, d+1, d+1]`. An `R` with positive determinant is left as it is.

    Returns:
        `A` of shape `[depth, d, d]`, float64, with `product(A)` equal to `R` to a relative error below 1e-9.

    Raises:
        BadInput: if `R` is not square, not finite or singular; if its determinant is negative and `augment` is false;
            if `depth` is not a positive integer or too small for float64 to hold a tiny `R` as a product of `I + A_i`.

    Example:
    >>> A = factorize([[0.0, -1.0], [1.0, 0.0]], depth=4)  # a quarter turn in four steps
    >>> bool(np.isclose(norm(A), 2 * np.sin(np.pi / 16)))
    True
    """
    depth = matrices.positive_integer(depth, "depth")
    if method not in METHODS:
        raise BadInput(f"method must be one of {', '.join(METHODS)}. Received: {method!r}.")
    R = matrices.square(R)
    U, s, Vt = _decomposed(R)
    if _orientation(U, Vt) < 0:
        if not augment:
            raise BadInput(
                "R has a negative determinant, so no path of invertible matrices joins it to the identity; "
                "augment=True adds one dimension whose sign is flipped and factorizes diag(R, -1)."
            )
        R = add_flipped_dimension(R)
        U, s, Vt = _decomposed(R)
    A = (_polar if method == "polar" else _svd)(U, s, Vt, depth)
    error = np.linalg.norm(product(A) - R) / np.linalg.norm(R)
    if not error <= _TOLERANCE:
        # A_i = (I + A_i) - I loses what lies below 1e-16, so a factor has to stay well above that.
        raise BadInput(
            f"depth = {depth} is too small for an R of spectral norm {s[0]:.3g}: in float64 the product of I + A_i "
            f"is off by {error:.1g} of R. A depth of at least 3 gamma(R) = {3 * _gamma(s):.3g} serves."
        )
    return A


def _polar(U, s, Vt, depth):
    Z, angles = _planes(U @ Vt)
    W = Z.T @ Vt.T  # eigenvectors of S in the rotation's basis
    stretch = (W * np.expm1(np.log(s) / depth)) @ W.T  # s - I
    turn = _turn(angles, 1 / depth, len(s))  # q - I
    step = turn + stretch + turn @ stretch  # q s - I
    bases = Z + Z @ _turn(angles, np.arange(depth) / depth, len(s))  # Z q^(i-1)
    return bases @ step @ bases.transpose(0, 2, 1)


def _svd(U, s, Vt, depth):
    if np.linalg.det(U) < 0:  # the determinants are equal, so one shared sign makes two rotations of them
        U, Vt = U * np.r_[-1.0, np.ones(len(s) - 1)], Vt * np.r_[-1.0, np.ones(len(s) - 1)][:, None]
    Zu, angles_u = _planes(U)
    Zv, angles_v = _planes(Vt)
    shares_v, shares_k, shares_u = _shares(_largest(angles_v), _gamma(s), _largest(angles_u), depth)
    first = Zv @ _turn(angles_v, shares_v, len(s)) @ Zv.T
    middle = np.eye(len(s)) * np.expm1(np.log(s) * shares_k[:, None])[:, None, :]
    last = Zu @ _turn(angles_u, shares_u, len(s)) @ Zu.T
    both = first + middle + middle @ first
    return both + last + last @ both


def _shares(angle_v, g, angle_u, depth):
    """Returns, for each of the legs V^T, K and U, which part of it each of the `depth` steps does: `[3, depth]`.

    A whole step turns by an angle x or stretches by 1 + x, with the x for which the legs take `depth` steps together;
    part f of a stretch adds (1+x)^f - 1 <= f x, so a step that straddles two legs has norm at most x as well.
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
    done[:, -1] = 1.0  # the last leg ends with the last step, whatever was rounded
    return np.diff(done, axis=1)


def _planes(Q):
    """Returns `(Z, angles)`: columns 2j and 2j+1 of the orthogonal Z span a plane that Q turns by angles[j].

    Q is a rotation, `[d, d]`; it leaves the columns after those planes in place.
    """
    T, Z = scipy.linalg.schur(Q, output="real")
    planes, angles, flipped, fixed = [], [], [], []
    i = 0
    while i < len(Q):
        if i + 1 < len(Q) and T[i + 1, i] != 0:
            planes.append((i, i + 1))
            angles.append(np.arctan2((T[i + 1, i] - T[i, i + 1]) / 2, (T[i, i] + T[i + 1, i + 1]) / 2))
            i += 2
        else:
            (fixed if T[i, i] > 0 else flipped).append(i)
            i += 1
    pairs = list(zip(flipped[::2], flipped[1::2], strict=True))  # det Q > 0: their number is even
    order = [column for plane in planes + pairs for column in plane] + fixed
    return Z[:, order], np.array(angles + [np.pi] * len(pairs))


def _turn(angles, powers, dimension):
    """Returns `Q^p - I` in the basis of `_planes`, `[*powers.shape, d, d]`, for each p in `powers`."""
    turned = np.multiply.outer(np.asarray(powers, np.float64), angles)
    result = np.zeros((*turned.shape[:-1], dimension, dimension))
    even = np.arange(0, 2 * len(angles), 2)
    result[..., even, even] = result[..., even + 1, even + 1] = -2 * np.sin(turned / 2) ** 2  # cos - 1, no cancellation
    result[..., even + 1, even] = np.sin(turned)
    result[..., even, even + 1] = -np.sin(turned)
    return result


def _decomposed(R):
    R = matrices.square(R)
    U, s, Vt = np.linalg.svd(R)
    if not s[-1] > len(s) * np.finfo(np.float64).eps * s[0]:
        raise BadInput(f"R must not be singular. Received: singular values from {s[0]:g} down to {s[-1]:g}.")
    return U, s, Vt


def _orientation(U, Vt):
    return np.linalg.det(U) * np.linalg.det(Vt)  # the sign of det R, immune to a determinant that underflows


def _gamma(s):
    return float(np.abs(np.log(s[[0, -1]])).max())


def _largest(angles):
    return float(np.abs(angles).max(initial=0.0))
