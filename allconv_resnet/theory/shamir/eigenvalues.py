"""The two ends of the spectrum of a Hessian from its products with vectors, by SciPy's Lanczos method, and checked."""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from scipy.sparse.linalg import ArpackError, LinearOperator, eigsh

from allconv_resnet.errors import BadInput

DENSE = 40  # smaller operators are written as matrices, since ARPACK needs room for its basis


class ExtremeEigenvalues(NamedTuple):
    """The result of `extreme_eigenvalues`.

    Attributes:
        smallest: Float, Rayleigh quotient v.Hv of `vector`, never below the smallest eigenvalue.
        residual: Float, |Hv - smallest v|: an eigenvalue lies within this distance of `smallest`, but nothing excludes
            that the iteration missed a smaller one.
        largest: Float, Rayleigh quotient at the other end, never above the largest eigenvalue.
        vector: Float64 array `[size]`, unit vector v.
    """

    smallest: float
    residual: float
    largest: float
    vector: np.ndarray


def extreme_eigenvalues(
    product: Callable[[np.ndarray], np.ndarray], size: int, tolerance: float = 1e-5, restarts: int = 300, seed: int = 0
) -> ExtremeEigenvalues:
    """Returns the smallest and the largest eigenvalue of a symmetric operator.

    The method is ARPACK's implicitly restarted Lanczos method (`scipy.sparse.linalg.eigsh`), first for the eigenvalue
    of largest magnitude, which is one end of the spectrum, and then for the one that is farthest from it, so that the
    accuracy does not depend on its distance from zero. Both values are computed again from the vectors, and the
    residual of the smallest one says how close it is to an eigenvalue.

    Args:
        product: Callable from a float64 vector `[size]` to its product with the operator.
        size: Positive integer.
        tolerance: Positive float. ARPACK stops at residuals of this share of the spectral norm.
        restarts: Positive integer, the largest number of restarts.
        seed: Integer, seed of the first vector.

    Returns:
        `ExtremeEigenvalues`.

    Raises:
        BadInput: if a product is not finite, or if the eigenvalues at both ends do not converge.

    Example:

    >>> diagonal = np.array([-2.0, 1.0, 1.0, 5.0])
    >>> found = extreme_eigenvalues(lambda v: diagonal * v, 4)
    >>> round(found.smallest, 6), round(found.largest, 6)
    (-2.0, 5.0)
    """
    start = np.random.default_rng(seed).standard_normal(size)
    operator = LinearOperator((size, size), matvec=product, dtype=np.float64)
    image = operator @ start
    if not np.isfinite(image).all():
        raise BadInput("The products with the operator must be finite. Received: NaN or infinity")
    if not np.any(image):  # ARPACK refuses the operator that is zero
        return ExtremeEigenvalues(0.0, 0.0, 0.0, start / np.linalg.norm(start))
    if size < DENSE:
        matrix = np.stack([operator @ unit for unit in np.eye(size)])
        vectors = np.linalg.eigh((matrix + matrix.T) / 2)[1][:, [0, -1]]
    else:
        options = {"k": 1, "which": "LM", "v0": start, "tol": tolerance, "maxiter": restarts, "ncv": DENSE}
        try:
            (first,), high = eigsh(operator, **options)
            rest = np.linalg.norm(first * start - image)
            if rest <= 1e-13 * np.linalg.norm(image):  # a multiple of the identity
                vectors = high
            else:
                shifted = LinearOperator((size, size), matvec=lambda v: first * v - operator @ v, dtype=np.float64)
                vectors = np.concatenate([high, eigsh(shifted, **options)[1]], axis=1)
        except ArpackError:
            raise BadInput(
                f"The eigenvalues at both ends must converge to the relative accuracy {tolerance:g}. "
                f"Received: one that does not within {restarts} restarts"
            ) from None
    products = np.stack([operator @ vector for vector in vectors.T])
    quotients = np.sum(products * vectors.T, axis=1)
    low, high = np.argmin(quotients), np.argmax(quotients)
    residual = np.linalg.norm(products[low] - quotients[low] * vectors[:, low])
    return ExtremeEigenvalues(float(quotients[low]), float(residual), float(quotients[high]), vectors[:, low])
