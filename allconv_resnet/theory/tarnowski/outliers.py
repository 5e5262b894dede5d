"""The singular values that an activation separates from the bulk of the spectrum, from mean-field theory.

This is not in Tarnowski et al. (arXiv 1809.08848); the tests compare it with simulations.

Given the pre-activations, D W = D W' + k x^T / |x|^2 with independent noise W' and k = phi'(h) (h - b). Thus every
layer adds a rank-one term to its noise. These terms are aligned, since all k share the direction (1, ..., 1) / sqrt(N)
with weight E[phi'(h) h], and all x share x[0] and their mean. The noise alone, with the contributions c[l] of the
layers to the effective cumulant, acts on a vector as

    u[l] = u[l-1] + c[l] chi[l] v[l],   v[l-1] = v[l] + c[l] psi[l] u[l-1],   v[L] = u[L], v[0] = lambda u[0].

Here u is the forward and v the backward image of a singular vector with squared singular value lambda, and chi and psi
are the self-consistent responses, of u[l-1] to a source of v[l-1] and of v[l] to a source of u[l]. With y and r[l] of
`finite_depth_law`, y = r + c r (1 + r), A = 1 + c r and B = 1 + c (1 + r), its two solutions are

    u[l] / u[l-1] = B[l],   v[l] / v[l-1] = 1 / A[l],   v[0] = lambda u[0]               on the side of the input,
    u[l] / u[l-1] = A[l],   v[l] / v[l-1] = 1 / B[l],   v[0] = lambda y / (1 + y) u[0]   on the side of the output,

and v[L] = u[L] of the latter is the law lambda = (1 + y)/y A[1] B[1] ... A[L] B[L]. Outside the bulk y is real: above
the bulk y > 0, and below it y < -1. The rank-one terms have an eigenvector with squared singular value lambda where
det(1 - M(lambda)) = 0. The 2L x 2L matrix M describes how one rank-one term contributes to another one through the
noise.

In a mixed block x + V phi(W x + b), the rank-one terms are V k x^T / |x|^2. Since each V is independent of all others,
no direction is common to the V k.
"""

import math

import numpy as np
from scipy.optimize import brentq

from allconv_resnet.theory.tarnowski.activations import ActivationLike
from allconv_resnet.theory.tarnowski.mean_field import mean_field

FINE = 16  # determinants over the first factor of four from the edge of the bulk; beyond it, one per factor of two


def outliers(
    activation: ActivationLike,
    weight_scale: float,
    bias_scale: float,
    depth: int,
    input_mean_square: float = 1.0,
    input_mean: float = 0.0,
    mixed: bool = False,
) -> np.ndarray:
    """Returns the squared singular values that lie outside the bulk.

    There are none if E[phi'(h) h] = 0 at all variances of h, which holds where phi is an odd function plus a constant,
    and none in mixed blocks. Other activations have one above the bulk if E[phi'(h) h] accumulates fast enough. One
    appears below the bulk if the mean of the input opposes the drift of the activations.

    Args:
        activation: Name in `ACTIVATIONS`, callable written with `keras.ops`, or `Activation`.
        weight_scale: Positive float; the entries of each W have variance `weight_scale^2 / (width * depth)`.
        bias_scale: Nonnegative float, standard deviation of the biases.
        depth: Positive integer, number of residual layers. The time is of order `depth^3`.
        input_mean_square: Positive float, mean square of the entries of the input.
        input_mean: Float, their mean.
        mixed: Whether a square Gaussian matrix of variance `1 / width` follows the activation. The noise of a layer is
            then treated as if it were a Gaussian matrix, which it is in the limit of c/depth -> 0.

    Returns:
        Float64 array, ascending, in the limit of infinite width. It is empty if there is none.

    Raises:
        BadInput: as in `mean_field`.

    Example:

    >>> outliers("relu", 1.0, 0.0, depth=40).round(1)  # the bulk ends at 7.82
    array([97.4])
    >>> outliers("relu", 1.0, 0.0, depth=30, input_mean=-1.0).round(4)  # the bulk is from 0.1212 to 7.7813
    array([0.0231, 7.7829])
    >>> outliers("relu", 1.0, 0.0, depth=40, mixed=True)
    array([], dtype=float64)
    """
    field = mean_field(activation, weight_scale, bias_scale, depth, input_mean_square, input_mean, mixed=mixed)
    overlaps, c = _overlaps(field, bias_scale, mixed), field.cumulants
    found = []
    for sign, edge in zip((-1, 1), _edges(c), strict=True):
        if edge is None:
            continue

        def determinant(log_distance, sign=sign):
            y, log_lambda, A, B = _solutions(math.exp(log_distance), sign, c)
            return np.linalg.slogdet(np.eye(2 * depth) - _feedback(y, log_lambda, A, B, field, *overlaps))

        for distance in _roots(determinant, math.log(edge)):
            found.append(math.exp(_solutions(distance, sign, c)[1]))
    return np.sort(found)


def _solutions(distance, sign, c):
    """Returns y, log lambda, and log A and log B of all layers, where y = distance > 0 or y = -1 - distance < -1."""
    y, y1 = (distance, 1 + distance) if sign > 0 else (-1 - distance, -distance)  # y1 = 1 + y without cancellation
    r = 2 * y / (1 + c + np.sqrt(np.maximum((1 + c) ** 2 + 4 * c * y, 0.0)))
    A, B = np.log1p(c * r), np.log1p(c * (1 + r))
    return (y, y1), math.log(y1 / y) + np.sum(A + B), A, B


def _edges(c):
    """Returns the distances of y from -1 and from 0 at the lower and the upper edge of the bulk.

    The former is None if the bulk begins at zero.
    """

    def slope(y):
        """Returns d(log lambda)/dy."""
        root = np.sqrt(np.maximum((1 + c) ** 2 + 4 * c * y, 1e-300))
        r = 2 * y / (1 + c + root)
        return -1 / (y * (1 + y)) + np.sum(c / root * (1 / (1 + c * r) + 1 / (1 + c + c * r)))

    above = brentq(slope, 1e-12, 1e6 * (1 + 1 / math.sqrt(c.sum())))
    if c.max() >= 1 - 1e-4:  # as in `FiniteDepthLaw`: the lower edge is below 1e-12
        return None, above
    return -1 - brentq(slope, -((1 + c.max()) ** 2) / (4 * c.max()), -1 - 1e-12), above


def _roots(determinant, edge):
    """Returns the distances of all sign changes of a determinant from the edge of the bulk to the limit of zero."""
    logs = [edge - i * math.log(4) / FINE for i in range(FINE + 1)]
    values = [determinant(x) for x in logs]
    # The determinant tends to a constant, and between its roots it is a power of the distance.
    while len(logs) < 1100 and not all(abs(values[-1][1] - value[1]) < 1e-3 for value in values[-4:-1]):
        logs.append(logs[-1] - math.log(2))
        values.append(determinant(logs[-1]))
    roots = []
    for i in range(len(logs) - 1):
        if values[i][0] * values[i + 1][0] < 0:
            scale = max(values[i][1], values[i + 1][1])

            def scaled(x, scale=scale):
                sign, log = determinant(x)
                return sign * math.exp(log - scale)

            roots.append(math.exp(brentq(scaled, logs[i + 1], logs[i], xtol=1e-9)))
    return roots


def _overlaps(field, bias_scale, mixed):
    """Returns the means over the neurons of x[j-1] x[l-1], x[j-1] k[l] and k[j] k[l], each `[L, L]`.

    In mixed blocks V k takes the place of k.
    """
    depth = len(field.q)
    mean = {name: np.array([getattr(m, name) for m in field.means]) for name in field.means[0]._fields}
    share = 1 - bias_scale**2 / field.q  # share of h that comes from W x, since E[h - b | h] = share h
    k = np.zeros(depth) if mixed else share * mean["h_d"]
    drift = 0.0 if mixed else mean["phi"]
    p, m = field.p[:-1], field.m[:-1]
    j, l = np.ogrid[:depth, :depth]  # noqa: E741
    first = np.minimum(j, l)
    xx = p[first] + m[first] * (m[np.maximum(j, l)] - m[first])
    # x[j-1] contains phi(h[l]) if l < j.
    xk = np.where(l < j, (m[:, None] - drift) * k + share * mean["h_phi_d"], m[:, None] * k)
    kk = np.outer(k, k)
    np.fill_diagonal(kk, share**2 * mean["hh_dd"] + bias_scale**2 * share * mean["d_d"])
    return xx, xk, kk


def _feedback(y, log_lambda, A, B, field, xx, xk, kk):
    """Returns M, the contributions of the terms at layer l (column) to x.u/|x|^2 and k.v/|x|^2 at layer j (row).

    The rows and columns of k.v are scaled by lambda^(-1/2) and its inverse, so that nothing overflows.
    """
    (y, y1), cumulants, p = y, field.cumulants, field.p[:-1, None]
    a, b = np.cumsum(A), np.cumsum(B)  # after a layer
    a0, b0 = a - A, b - B  # before it
    half, column = log_lambda / 2, np.s_[:, None]
    j, l = np.ogrid[: len(A), : len(A)]  # noqa: E741

    def pick(condition, factor, exponent, other_factor, other_exponent):
        chosen = np.where(condition, exponent, other_exponent)
        return np.where(condition, factor, other_factor) * np.exp(chosen)

    # u just before layer j and v just after it, for a source of u after layer l or of v before it.
    before, until = j <= l, j < l
    u_from_u = pick(before, y, b0[column] - b, y1, a0[column] - a)
    u_from_v = pick(before, y1, b0[column] + a0 - half, y1, a0[column] + b0 - half)
    v_from_u = pick(until, y, half - a[column] - b, y, half - b[column] - a)
    v_from_v = pick(until, y1, a0 - a[column], y, b0 - b[column])
    # W' acts only on the complement of x, which is a source of v with c psi.
    psi = cumulants * y * np.exp(half - a - b)
    return np.block(
        [
            [(xk * u_from_u - xx * u_from_v * psi) / p, xx * u_from_v / p],
            [(kk * v_from_u - xk.T * v_from_v * psi) / p, xk.T * v_from_v / p],
        ]
    )
