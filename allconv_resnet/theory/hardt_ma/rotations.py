"""Rotations as planes and angles, from the real Schur form, and their fractional powers."""

import numpy as np
import scipy


def invariant_planes(Q):
    """Returns the planes that a rotation leaves invariant, and the angles of the rotation in them.

    Args:
        Q: `[d, d]`, orthogonal with determinant 1.

    Returns:
        An orthogonal matrix Z, `[d, d]`, and `angles`. Columns 2j and 2j+1 of Z span a plane that Q rotates by
        `angles[j]`; Q leaves the remaining columns fixed.

    Example:

    >>> Z, angles = invariant_planes(-np.eye(2))
    >>> angles.round(4).tolist()
    [3.1416]
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
    pairs = list(zip(flipped[::2], flipped[1::2], strict=True))  # det Q > 0, so their number is even
    order = [column for plane in planes + pairs for column in plane] + fixed
    return Z[:, order], np.array(angles + [np.pi] * len(pairs))


def rotation_power(angles, powers, dimension):
    """Returns `Q^p - I` in the basis of `invariant_planes`, for several powers p.

    Args:
        angles: Array of the angles of Q.
        powers: Float or array of powers p.
        dimension: Integer d.

    Returns:
        Float64 array `[*powers.shape, d, d]`.

    Example:

    >>> rotation_power(np.array([np.pi]), 0.5, 2).round(4).tolist()
    [[-1.0, -1.0], [1.0, -1.0]]
    """
    turned = np.multiply.outer(np.asarray(powers, np.float64), angles)
    result = np.zeros((*turned.shape[:-1], dimension, dimension))
    even = np.arange(0, 2 * len(angles), 2)
    result[..., even, even] = result[..., even + 1, even + 1] = (
        -2 * np.sin(turned / 2) ** 2
    )  # cos - 1 without cancellation
    result[..., even + 1, even] = np.sin(turned)
    result[..., even, even + 1] = -np.sin(turned)
    return result
