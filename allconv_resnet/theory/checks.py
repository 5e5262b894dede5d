"""Validation of arguments that several theorems share: matrices, covariances, residual weights, positive integers."""

import numbers

import numpy as np

from allconv_resnet.errors import BadInput


def square_matrix(matrix, name="R"):
    """Returns a matrix as a float64 array `[d, d]`.

    Args:
        matrix: Array-like of real numbers.
        name: Name of the argument, for the message.

    Raises:
        BadInput: if the matrix is not square, is empty, or has an entry that is not real or not finite.
    """
    matrix = _real_array(matrix, name)
    if matrix.ndim != 2 or matrix.shape[0] != matrix.shape[1] or matrix.size == 0:
        raise BadInput(f"{name} must be a square matrix [d, d] with d >= 1. Received: shape {list(matrix.shape)}")
    return matrix


def covariance_matrix(matrix, dimension, name="cov"):
    """Returns a covariance matrix as a symmetric float64 array `[d, d]`.

    Args:
        matrix: Array-like of real numbers.
        dimension: Integer d.
        name: Name of the argument, for the message.

    Raises:
        BadInput: as in `square_matrix`, and if the matrix has another size, is not symmetric, or is not positive
            semidefinite, each up to a relative rounding error of 1e-12.
    """
    matrix = square_matrix(matrix, name)
    if matrix.shape[0] != dimension:
        raise BadInput(f"{name} must be [{dimension}, {dimension}] like R. Received: shape {list(matrix.shape)}")
    size = np.abs(matrix).max()
    asymmetry = np.abs(matrix - matrix.T).max()
    if asymmetry > 1e-12 * size:
        raise BadInput(f"{name} must be symmetric. Received: a matrix that differs from its transpose by {asymmetry:g}")
    matrix = (matrix + matrix.T) / 2
    smallest = np.linalg.eigvalsh(matrix)[0]
    if smallest < -1e-12 * dimension * size:
        raise BadInput(f"{name} must be positive semidefinite. Received: a matrix with the eigenvalue {smallest:g}")
    return matrix


def residual_weights(A, dimension, name="A"):
    """Returns the weights of a linear residual network as a float64 array `[depth, d, d]`.

    Args:
        A: Array-like of real numbers.
        dimension: Integer d.
        name: Name of the argument, for the message.

    Raises:
        BadInput: if the shape does not fit, the depth is 0, or an entry is not real or not finite.
    """
    A = _real_array(A, name)
    if A.ndim != 3 or A.shape[0] == 0 or A.shape[1:] != (dimension, dimension):
        raise BadInput(
            f"{name} must be [depth, {dimension}, {dimension}] with depth >= 1. Received: shape {list(A.shape)}"
        )
    return A


def positive_integer(value, name):
    """Returns a positive integer as an `int`.

    Args:
        value: Integer, of Python or NumPy.
        name: Name of the argument, for the message.

    Raises:
        BadInput: if the value is not an integer, is a boolean, or is less than 1.
    """
    if isinstance(value, bool | np.bool_) or not isinstance(value, numbers.Integral) or value < 1:
        raise BadInput(f"{name} must be an integer of at least 1. Received: {name}={value!r}")
    return int(value)


def _real_array(array, name):
    try:
        array = np.asarray(array)
        if np.iscomplexobj(array):
            raise TypeError
        array = array.astype(np.float64)
    except (TypeError, ValueError):
        raise BadInput(f"{name} must be an array of real numbers. Received: {array!r:.80}") from None
    if not np.isfinite(array).all():
        raise BadInput(
            f"{name} must be finite. Received: {np.count_nonzero(~np.isfinite(array))} NaN or infinite entries"
        )
    return array
