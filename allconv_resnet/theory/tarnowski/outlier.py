"""The singular value that an activation pushes out of the bulk: where it lies, from mean-field theory.

Given the pre-activations, D W = D W' + k x^T / |x|^2 with fresh noise W' and k = phi'(h) (h - b): every layer adds to
its noise one rank-one term, and these terms line up, since all k share the direction (1, ..., 1) / sqrt(N) with weight
E[phi'(h) h] and all x share x[0] and their mean. Tarnowski et al. treat the noise alone; its effect on a vector is

    u[l] = u[l-1] + c[l] chi[l] v[l],   v[l-1] = v[l] + c[l] psi[l] u[l-1],   v[L] = u[L], v[0] = lambda u[0],

u forward and v backward of a singular vector with squared singular value lambda, chi and psi the self-consistent
responses: its solution with constant s = (r_- + r_+)/(r_- - r_+), r = v/u, is exactly the universal law
log lambda = log (s+1)/(s-1) + c s. Outside the bulk s is real and the Green's functions are exponentials; the
rank-one terms then have an eigenvector with squared singular value lambda where det(1 - M(lambda)) = 0, M being the
2L x 2L matrix of how a term feeds the next through the noise. Not in the paper; compared with simulations in the tests.
"""

import math

import numpy as np
from scipy.optimize import brentq

from allconv_resnet.theory.mean_field import mean_field


def outlier(activation, weight_scale, bias_scale, depth, input_mean_square=1.0, input_mean=0.0):
    """Returns the squared singular value that lies above the bulk, or None if there is none.

    An activation of zero mean makes none. Nor does every other: what counts is how fast E[phi'(h) h] accumulates.

    Args:
        activation: Name, callable or `activations.Activation`.
        weight_scale: Positive float; the entries of each W have variance `weight_scale^2 / (width * depth)`.
        bias_scale: Nonnegative float, standard deviation of the biases.
        depth: Positive integer, number of residual layers.
        input_mean_square: Positive float, mean square of the entries of the input.
        input_mean: Float, their mean.

    Returns:
        Float or None, the limit of infinite width.

    Raises:
        BadInput: see `mean_field.mean_field`.

    Example:

    >>> round(outlier("relu", 1.0, 0.0, depth=40), 2)  # the bulk ends at 8.01
    98.78
    """
    field = mean_field(activation, weight_scale, bias_scale, depth, input_mean_square, input_mean)
    c = field.cumulants.sum()
    edge = math.sqrt(1 + 2 / c)
    overlaps = _overlaps(field, bias_scale)

    def determinant(s):
        return np.linalg.det(np.eye(2 * depth) - _feedback(s, field, *overlaps))

    # s - 1 falls like exp(-c)/lambda; from far out to the edge, the first change of sign is the largest root.
    grid = 1 + (edge - 1) * np.concatenate([[1e-9], np.geomspace(1e-7, 1, 64)])
    sign = np.sign([determinant(s) for s in grid])
    change = np.flatnonzero(sign[:-1] * sign[1:] < 0)
    if not change.size:
        return None
    s = brentq(determinant, grid[change[0]], grid[change[0] + 1], xtol=1e-15)
    return (s + 1) / (s - 1) * math.exp(c * s)


def _overlaps(field, bias_scale):
    """Mean products over the neurons: x[j-1] x[l-1], x[j-1] k[l], k[j] k[l], arrays `[L, L]`."""
    depth = len(field.q)
    mean = {name: np.array([getattr(m, name) for m in field.means]) for name in field.means[0]._fields}
    share = 1 - bias_scale**2 / field.q  # of h that comes from W x: E[h - b | h] = share h
    k = share * mean["h_d"]
    p, m = field.p[:-1], field.m[:-1]
    j, l = np.ogrid[:depth, :depth]  # noqa: E741
    first = np.minimum(j, l)
    xx = p[first] + m[first] * (m[np.maximum(j, l)] - m[first])
    # x[j-1] contains phi(h[l]) if l < j
    xk = np.where(l < j, (m[j] - mean["phi"][l]) * k[l] + share[l] * mean["h_phi_d"][l], m[j] * k[l])
    kk = np.outer(k, k)
    np.fill_diagonal(kk, share**2 * mean["hh_dd"] + bias_scale**2 * share * mean["d_d"])
    return xx, xk, kk


def _feedback(s, field, xx, xk, kk):
    """M: what the terms at layer l (column) contribute to x.u/|x|^2 and k.v/|x|^2 at layer j (row)."""
    cumulants, p = field.cumulants, field.p[:-1, None]
    c = cumulants.sum()
    t = np.cumsum(cumulants) - cumulants / 2
    ratio = (s + 1) / (s - 1)
    lam = ratio * math.exp(c * s)
    # Solutions that satisfy the condition at the input (in) and at the output (out).
    u_in, v_in = np.exp(t * (s + 1) / 2), lam * np.exp(t * (1 - s) / 2)
    u_out, v_out = np.exp(t * (s - 1) / 2), lam / ratio * np.exp(-t * (s + 1) / 2)
    chi, psi = (s + 1) / 2 * u_in / v_in, (s - 1) / 2 * v_in / u_in
    j, l = np.ogrid[: len(t), : len(t)]  # noqa: E741
    # u just before layer j and v just after it, for a source in the equation of u or v at layer l
    u_from_u = np.where(j <= l, np.outer(u_in, psi / v_in), np.outer(u_out, psi / v_out))
    u_from_v = np.where(j <= l, np.outer(u_in, chi / u_in), np.outer(u_out, chi / u_out))
    v_from_u = np.where(j < l, np.outer(v_in, psi / v_in), np.outer(v_out, psi / v_out))
    v_from_v = np.where(j < l, np.outer(v_in, chi / u_in), np.outer(v_out, chi / u_out))
    # W' acts on what is orthogonal to x alone: hence the terms with cumulants * psi.
    return np.block(
        [
            [(xk * u_from_u - xx * u_from_v * (cumulants * psi)) / p, xx * u_from_v / p],
            [(kk * v_from_u - xk.T * v_from_v * (cumulants * psi)) / p, xk.T * v_from_v / p],
        ]
    )
