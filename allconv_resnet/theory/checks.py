"""What the matrix arguments of the linear theory must be: finite, square and, for a covariance, semidefinite."""

import numbers

import numpy as np

from allconv_resnet.errors import BadInput


def square(matrix, name="R"):
    """Returns `matrix` as a float64 array of shape `[d, d]`, `d >= 1`, with finite entries; otherwise `BadInput`."""
    matrix = _real(matrix, name)
    if matrix.ndim != 2 or matrix.shape[0] != matrix.shape[1] or matrix.size == 0:
        raise BadInput(f"{name} must be a square matrix [d, d] with d >= 1. Received: shape {list(matrix.shape)}.")
    return matrix


def covariance(matrix, dimension, name="cov"):
    """Returns `matrix` as a symmetric positive semidefinite float64 array `[d, d]`; otherwise `BadInput`."""
    matrix = square(matrix, name)
    if matrix.shape[0] != dimension:
        raise BadInput(f"{name} must be [{dimension}, {dimension}] like R. Received: shape {list(matrix.shape)}.")
    size = np.abs(matrix).max()
    asymmetry = np.abs(matrix - matrix.T).max()
    if asymmetry > 1e-12 * size:
        raise BadInput(
            f"{name} must be symmetric. Received: a matrix that differs from its transpose by {asymmetry:g}."
        )
    matrix = (matrix + matrix.T) / 2
    smallest = np.linalg.eigvalsh(matrix)[0]
    if smallest < -1e-12 * dimension * size:
        raise BadInput(f"{name} must be positive semidefinite. Received: a matrix with the eigenvalue {smallest:g}.")
    return matrix


def factors(A, dimension, name="A"):
    """Returns `A` as a float64 array of shape `[depth, d, d]` with `depth >= 1` and finite entries; else `BadInput`."""
    A = _real(A, name)
    if A.ndim != 3 or A.shape[0] == 0 or A.shape[1:] != (dimension, dimension):
        raise BadInput(
            f"{name} must be [depth, {dimension}, {dimension}] with depth >= 1. Received: shape {list(A.shape)}."
        )
    return A


def positive_integer(value, name):
    """Returns `value` as an int of at least 1; otherwise `BadInput`."""
    if isinstance(value, bool | np.bool_) or not isinstance(value, numbers.Integral) or value < 1:
        raise BadInput(f"{name} must be an integer of at least 1. Received: {value!r}.")
    return int(value)


def _real(array, name):
    try:
        array = np.asarray(array)
        if np.iscomplexobj(array):
            raise TypeError
        array = array.astype(np.float64)
    except (TypeError, ValueError):
        raise BadInput(f"{name} must be an array of real numbers. Received: {array!r:.80}.") from None
    if not np.isfinite(array).all():
        raise BadInput(
            f"{name} must be finite. Received: {np.count_nonzero(~np.isfinite(array))} NaN or infinite entries."
        )
    return array
