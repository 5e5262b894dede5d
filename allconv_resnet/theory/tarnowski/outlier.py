"""The singular value that an activation separates from the bulk of the spectrum, from mean-field theory.

This is not in Tarnowski et al. (arXiv 1809.08848); the tests compare it with simulations.

Given the pre-activations, D W = D W' + k x^T / |x|^2 with independent noise W' and k = phi'(h) (h - b). Thus every
layer adds a rank-one term to its noise. These terms are aligned, since all k share the direction (1, ..., 1) / sqrt(N)
with weight E[phi'(h) h], and all x share x[0] and their mean. The paper treats the noise alone, whose effect on a
vector is

    u[l] = u[l-1] + c[l] chi[l] v[l],   v[l-1] = v[l] + c[l] psi[l] u[l-1],   v[L] = u[L], v[0] = lambda u[0].

Here u is the forward and v the backward image of a singular vector with squared singular value lambda, and chi and psi
are the self-consistent responses. The solution with constant s = (r_- + r_+)/(r_- - r_+), r = v/u, is the universal law
log lambda = log (s+1)/(s-1) + c s. Outside the bulk, s is real and the Green's functions are exponentials. The
rank-one terms have an eigenvector with squared singular value lambda where det(1 - M(lambda)) = 0. The 2L x 2L matrix M
describes how one rank-one term contributes to another one through the noise.
"""

import math

import numpy as np
from scipy.optimize import brentq

from allconv_resnet.theory.tarnowski.mean_field import mean_field


def outlier(activation, weight_scale, bias_scale, depth, input_mean_square=1.0, input_mean=0.0):
    """Returns the squared singular value that lies above the bulk, or None if there is none.

    Activations with zero mean have no outlier, and others have one only if E[phi'(h) h] accumulates fast enough.

    Args:
        activation: Name in `ACTIVATIONS`, callable written with `keras.ops`, or `Activation`.
        weight_scale: Positive float; the entries of each W have variance `weight_scale^2 / (width * depth)`.
        bias_scale: Nonnegative float, standard deviation of the biases.
        depth: Positive integer, number of residual layers.
        input_mean_square: Positive float, mean square of the entries of the input.
        input_mean: Float, their mean.

    Returns:
        Float, the limit of infinite width, or None.

    Raises:
        BadInput: as in `mean_field`.

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

    # s - 1 decreases like exp(-c)/lambda. From large lambda to the edge, the first sign change is the largest root.
    grid = 1 + (edge - 1) * np.concatenate([[1e-9], np.geomspace(1e-7, 1, 64)])
    sign = np.sign([determinant(s) for s in grid])
    change = np.flatnonzero(sign[:-1] * sign[1:] < 0)
    if not change.size:
        return None
    s = brentq(determinant, grid[change[0]], grid[change[0] + 1], xtol=1e-15)
    return (s + 1) / (s - 1) * math.exp(c * s)


def _overlaps(field, bias_scale):
    """Returns the means over the neurons of x[j-1] x[l-1], x[j-1] k[l] and k[j] k[l], each `[L, L]`."""
    depth = len(field.q)
    mean = {name: np.array([getattr(m, name) for m in field.means]) for name in field.means[0]._fields}
    share = 1 - bias_scale**2 / field.q  # share of h that comes from W x, since E[h - b | h] = share h
    k = share * mean["h_d"]
    p, m = field.p[:-1], field.m[:-1]
    j, l = np.ogrid[:depth, :depth]  # noqa: E741
    first = np.minimum(j, l)
    xx = p[first] + m[first] * (m[np.maximum(j, l)] - m[first])
    # x[j-1] contains phi(h[l]) if l < j.
    xk = np.where(l < j, (m[j] - mean["phi"][l]) * k[l] + share[l] * mean["h_phi_d"][l], m[j] * k[l])
    kk = np.outer(k, k)
    np.fill_diagonal(kk, share**2 * mean["hh_dd"] + bias_scale**2 * share * mean["d_d"])
    return xx, xk, kk


def _feedback(s, field, xx, xk, kk):
    """Returns M, the contributions of the terms at layer l (column) to x.u/|x|^2 and k.v/|x|^2 at layer j (row)."""
    cumulants, p = field.cumulants, field.p[:-1, None]
    c = cumulants.sum()
    t = np.cumsum(cumulants) - cumulants / 2
    ratio = (s + 1) / (s - 1)
    lam = ratio * math.exp(c * s)
    # The solutions that satisfy the boundary condition at the input (in) and at the output (out).
    u_in, v_in = np.exp(t * (s + 1) / 2), lam * np.exp(t * (1 - s) / 2)
    u_out, v_out = np.exp(t * (s - 1) / 2), lam / ratio * np.exp(-t * (s + 1) / 2)
    chi, psi = (s + 1) / 2 * u_in / v_in, (s - 1) / 2 * v_in / u_in
    j, l = np.ogrid[: len(t), : len(t)]  # noqa: E741
    # u just before layer j and v just after it, for a source in the equation of u or v at layer l.
    u_from_u = np.where(j <= l, np.outer(u_in, psi / v_in), np.outer(u_out, psi / v_out))
    u_from_v = np.where(j <= l, np.outer(u_in, chi / u_in), np.outer(u_out, chi / u_out))
    v_from_u = np.where(j < l, np.outer(v_in, psi / v_in), np.outer(v_out, psi / v_out))
    v_from_v = np.where(j < l, np.outer(v_in, chi / u_in), np.outer(v_out, chi / u_out))
    # W' acts only on the complement of x, which gives the terms with cumulants * psi.
    return np.block(
        [
            [(xk * u_from_u - xx * u_from_v * (cumulants * psi)) / p, xx * u_from_v / p],
            [(kk * v_from_u - xk.T * v_from_v * (cumulants * psi)) / p, xk.T * v_from_v / p],
        ]
    )
