"""The law of the squared singular values of a residual Jacobian: universal, or of a given depth and kind of block.

The law of Tarnowski et al. (arXiv 1809.08848) is `universal_law`, for networks of infinite depth. With `depth`, these
functions are those of `finite_depth_law`, which `inner` makes that of blocks with two matrices.
"""

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from allconv_resnet.errors import BadInput
from allconv_resnet.theory.tarnowski.finite_depth_law import FiniteDepthLaw, finite_depth_law
from allconv_resnet.theory.tarnowski.mean_field import check_cumulant
from allconv_resnet.theory.tarnowski.universal_law import UniversalLaw


def spectral_edges(
    c: float, depth: int | None = None, inner: float | None = None, active: float | None = None, skip: float = 1.0
) -> tuple[float, float]:
    """Returns the smallest and the largest squared singular value of the bulk.

    For infinite depth they are 1/lambda_+ and lambda_+ = (s+1)/(s-1) exp(c s) with s = sqrt(1 + 2/c). For finite depth
    the lower edge is 0 if c/depth >= 1.

    Args:
        c: Positive float, effective cumulant.
        depth: Positive integer, number of residual layers, or None for the universal law of infinite depth.
        inner: For blocks x + V phi(U x), where phi is the ReLU or linear, positive float: the number of active inner
            neurons over the width, which is 1/2 for a ReLU and a square U.
        active: For layers x + phi(W x + b), where phi is the ReLU, the share of active neurons, which is 1/2 without
            biases. If neither `inner` nor `active` is given, the branches are Gaussian matrices W; at finite depth the
            law is that of linear layers, and other activations follow it up to terms of order c/depth. The universal
            law depends on neither.
        skip: Positive float, the factor a of the identity in layers a x + phi(W x + b). If it is not 1, `depth` must be
            given, since the law is that of c scaled by a^(2 depth).

    Returns:
        Pair of floats.

    Raises:
        BadInput: if `c` is not positive; if `c` or `skip` is so large that the edge overflows; if `depth`, `inner`,
            `active` or `skip` is not in its range; if one of the latter three is given without `depth`.

    Example:

    >>> [round(edge, 4) for edge in spectral_edges(1.0)]
    [0.0474, 21.0944]
    >>> [round(edge, 4) for edge in spectral_edges(1.0, depth=8)]
    [0.036, 16.7881]
    """
    law = _law(c, depth, inner, active, skip)
    low, high = (math.exp(edge + law.shift) for edge in law.of.log_edges)
    return low, high


def spectral_density(
    lam: ArrayLike,
    c: float,
    depth: int | None = None,
    inner: float | None = None,
    active: float | None = None,
    skip: float = 1.0,
) -> np.ndarray:
    """Returns the density of the squared singular values of the Jacobian, which is zero outside the edges.

    Args:
        lam: Float or array of squared singular values.
        c: Positive float, effective cumulant.
        depth: As in `spectral_edges`.
        inner: As in `spectral_edges`.
        active: As in `spectral_edges`.
        skip: As in `spectral_edges`.

    Returns:
        Float64 array of the shape of `lam`. The universal law has mean exp(c) and median 1.

    Raises:
        BadInput: as in `spectral_edges`, and if a squared singular value is NaN.

    Example:

    >>> spectral_density([0.01, 1.0], 1.0).round(4).tolist()
    [0.0, 0.2079]
    """
    law = _law(c, depth, inner, active, skip)
    lam, t, inside, _ = _places(lam, law)
    return np.where(inside, law.of.density_of_log(t), 0.0) / np.where(inside, lam, 1.0)


def spectral_distribution(
    lam: ArrayLike,
    c: float,
    depth: int | None = None,
    inner: float | None = None,
    active: float | None = None,
    skip: float = 1.0,
) -> np.ndarray:
    """Returns the probability that a squared singular value is at most `lam`, in closed form.

    Args:
        lam: Float or array of squared singular values.
        c: Positive float, effective cumulant.
        depth: As in `spectral_edges`.
        inner: As in `spectral_edges`.
        active: As in `spectral_edges`.
        skip: As in `spectral_edges`.

    Returns:
        Float64 array of the shape of `lam`.

    Raises:
        BadInput: as in `spectral_density`.

    Example:

    >>> spectral_distribution([0.0, 1.0, 100.0], c=0.3).tolist()
    [0.0, 0.5, 1.0]
    """
    law = _law(c, depth, inner, active, skip)
    _, t, inside, above = _places(lam, law)
    return np.where(inside, law.of.distribution_of_log(t), above).astype(np.float64)


def spectral_quantile(
    probability: ArrayLike,
    c: float,
    depth: int | None = None,
    inner: float | None = None,
    active: float | None = None,
    skip: float = 1.0,
) -> np.ndarray:
    """Returns the quantiles of the squared singular values.

    Args:
        probability: Float or array in [0, 1].
        c: Positive float, effective cumulant.
        depth: As in `spectral_edges`.
        inner: As in `spectral_edges`.
        active: As in `spectral_edges`.
        skip: As in `spectral_edges`.

    Returns:
        Float64 array of the shape of `probability`.

    Raises:
        BadInput: as in `spectral_edges`, and if a probability is outside [0, 1].

    Example:

    >>> spectral_quantile([0.0, 0.5, 1.0], 1.0).round(4).tolist()
    [0.0474, 1.0, 21.0944]
    """
    probability = np.asarray(probability, np.float64)
    if not np.all((probability >= 0) & (probability <= 1)):
        raise BadInput(f"probability must lie in [0, 1]. Received: probability={probability}")
    law = _law(c, depth, inner, active, skip)
    return np.exp(law.of.quantile_of_log(probability) + law.shift)


def spectral_mean(
    c: float, depth: int | None = None, inner: float | None = None, active: float | None = None, skip: float = 1.0
) -> float:
    """Returns the mean of the squared singular values: exp(c), or skip^(2 depth) (1 + c/depth)^depth.

    Args:
        c: Positive float, effective cumulant.
        depth: As in `spectral_edges`.
        inner: As in `spectral_edges`. The mean does not depend on it.
        active: As in `spectral_edges`. The mean does not depend on it.
        skip: As in `spectral_edges`.

    Returns:
        Float.

    Raises:
        BadInput: as in `spectral_edges`.

    Example:

    >>> spectral_mean(1.0, depth=2)
    2.25
    """
    law = _law(c, depth, inner, active, skip)
    return math.exp(law.of.log_mean + law.shift)


class _Law(NamedTuple):
    of: UniversalLaw | FiniteDepthLaw
    shift: float  # logarithm of the factor of the squared singular values


def _law(c, depth, inner, active, skip):
    check_cumulant(c)
    c = float(c)  # with NumPy's float32 the root finder of the edges fails
    if not (math.isfinite(skip) and skip > 0):
        raise BadInput(f"skip must be positive and finite. Received: skip={skip}")
    if depth is None:
        if inner is not None or active is not None or skip != 1:
            raise BadInput(
                "depth must be given if inner, active or skip is. "
                f"Received: depth=None, inner={inner}, active={active}, skip={skip}"
            )
        return _Law(UniversalLaw(c), 0.0)
    law = _Law(finite_depth_law(c, depth, inner, active), 2 * depth * math.log(skip))
    if law.of.log_edges[1] + law.shift > 700:
        raise BadInput(
            "skip must be so small that the upper edge of the spectrum is below exp(700). "
            f"Received: skip={skip}, depth={depth}"
        )
    return law


def _places(lam, law):
    """Returns `lam` as an array, log lambda without the factor of `skip`, and where it is in and above the bulk."""
    lam = np.asarray(lam, np.float64)
    if np.any(np.isnan(lam)):
        raise BadInput("Squared singular values must not be NaN. Received: an array with nan")
    with np.errstate(divide="ignore", invalid="ignore"):
        t = np.where(lam > 0, np.log(lam), -np.inf) - law.shift
    low, high = law.of.log_edges
    inside = (low < t) & (t < high)
    return lam, np.where(inside, t, high / 2), inside, t >= high
