"""The universal law of the squared singular values of a residual Jacobian (Tarnowski et al., arXiv 1809.08848).

The paper defines the Green's function G by y/(1+y) exp(-c(1+2y)) = 1/lambda, y = lambda G - 1. With s = 1 + 2y this is

    log lambda = log (s+1)/(s-1) + c s,   density of log lambda = -Im s / (2 pi).

Inside the bulk s = a - ib, and the imaginary part of the equation gives a^2 = 1 - b^2 + 2 b cot(cb). Thus b
parametrizes the law, from 0 at an edge to its largest value at the median 1, and all quantities are closed forms in b.
"""

import math

import numpy as np
from scipy.optimize import brentq

from allconv_resnet.errors import BadInput
from allconv_resnet.theory.tarnowski.mean_field import check_cumulant


def spectral_edges(c):
    """Returns the smallest and the largest squared singular value of the bulk, `(1/lambda_+, lambda_+)`.

    The upper edge is lambda_+ = (s+1)/(s-1) exp(c s) with s = sqrt(1 + 2/c).

    Args:
        c: Positive float, effective cumulant.

    Returns:
        Pair of floats.

    Raises:
        BadInput: if `c` is not positive, or so large that the edge overflows.

    Example:

    >>> [round(edge, 4) for edge in spectral_edges(1.0)]
    [0.0474, 21.0944]
    """
    edge = math.exp(_log_edge(c))
    return 1 / edge, edge


def spectral_density(lam, c):
    """Returns the density of the squared singular values of the Jacobian, which is zero outside the edges.

    Args:
        lam: Float or array of squared singular values.
        c: Positive float, effective cumulant.

    Returns:
        Float64 array of the shape of `lam`. The law has mean exp(c) and median 1.

    Raises:
        BadInput: if `c` is not positive.

    Example:

    >>> spectral_density([0.01, 1.0], 1.0).round(4).tolist()
    [0.0, 0.2079]
    """
    lam = np.asarray(lam, np.float64)
    inside, _, b = _solve(lam, c)
    return np.where(inside, b / (2 * np.pi), 0.0) / np.where(inside, lam, 1.0)


def spectral_distribution(lam, c):
    """Returns the probability that a squared singular value is at most `lam`, in closed form.

    Args:
        lam: Float or array of squared singular values.
        c: Positive float, effective cumulant.

    Returns:
        Float64 array of the shape of `lam`.

    Raises:
        BadInput: if `c` is not positive.

    Example:

    >>> spectral_distribution([0.0, 1.0, 100.0], c=0.3).tolist()
    [0.0, 0.5, 1.0]
    """
    lam = np.asarray(lam, np.float64)
    inside, a, b = _solve(lam, c)
    upper = _distribution(a, b, c)
    return np.where(inside, np.where(lam >= 1, upper, 1 - upper), lam > 1).astype(np.float64)


def spectral_quantile(probability, c):
    """Returns the quantiles of the squared singular values.

    Args:
        probability: Float or array in [0, 1].
        c: Positive float, effective cumulant.

    Returns:
        Float64 array of the shape of `probability`.

    Raises:
        BadInput: if `c` is not positive or a probability is outside [0, 1].

    Example:

    >>> spectral_quantile([0.0, 0.5, 1.0], 1.0).round(4).tolist()
    [0.0474, 1.0, 21.0944]
    """
    probability = np.asarray(probability, np.float64)
    if not np.all((probability >= 0) & (probability <= 1)):
        raise BadInput(f"probability must lie in [0, 1]. Received: probability={probability}")
    _log_edge(c)
    top = _largest_b(c)
    above = np.maximum(probability, 1 - probability)

    def falls_short(angle):
        b = top * np.sin(angle)
        return _distribution(_real_part(b, c), b, c) > above  # the distribution increases as b decreases

    b = top * np.sin(_bisect(falls_short, above.shape))
    logarithm = np.where(above == 1, _log_edge(c), np.where(above == 0.5, 0.0, _log_lambda(_real_part(b, c), b, c)))
    return np.exp(np.copysign(logarithm, probability - 0.5))


def _solve(lam, c):
    """Returns whether `lam` lies in the bulk, and a >= 0 and b of s = a - ib, which `lam` and 1/`lam` share."""
    edge = _log_edge(c)
    if np.any(np.isnan(lam)):
        raise BadInput("Squared singular values must not be NaN. Received: an array with nan")
    with np.errstate(divide="ignore", invalid="ignore"):
        t = np.abs(np.log(lam))
    inside = (lam > 0) & (t < edge)
    t = np.where(inside, t, 0.0)
    top = _largest_b(c)

    def falls_short(angle):
        b = top * np.sin(angle)
        return _log_lambda(_real_part(b, c), b, c) > t  # log lambda increases as b decreases

    b = top * np.sin(_bisect(falls_short, t.shape))
    s = _real_part(b, c) - 1j * b
    # Near the median, a suffers from cancellation; two Newton steps restore its precision.
    for _ in range(2):
        residual = np.log((s + 1) / (s - 1)) + c * s - t
        slope = c - 2 / (s * s - 1)
        better = s - residual / np.where(np.abs(slope) > 1e-6 * c, slope, np.inf)
        s = np.where(better.imag < 0, better, s)
    return inside, np.maximum(s.real, 0.0), -s.imag


def _bisect(too_low, shape):
    low, high = np.zeros(shape), np.full(shape, np.pi / 2)
    for _ in range(64):
        middle = (low + high) / 2
        up = too_low(middle)
        low, high = np.where(up, middle, low), np.where(up, high, middle)
    return (low + high) / 2


def _real_part(b, c):
    x = c * b
    with np.errstate(divide="ignore", invalid="ignore"):
        x_cot = np.where(x < 1e-8, 1.0, x / np.tan(x))
    return np.sqrt(np.maximum(1 - b * b + 2 / c * x_cot, 0.0))


def _log_lambda(a, b, c):
    return 0.5 * np.log(((a + 1) ** 2 + b * b) / ((a - 1) ** 2 + b * b)) + c * a


def _distribution(a, b, c):
    # For lambda >= 1, the integral of s/2 d(log lambda) is -log(s^2 - 1)/2 + c s^2/4.
    return 1 + (np.arctan2(-2 * a * b, a * a - b * b - 1) + c * a * b) / (2 * np.pi)


def _largest_b(c):
    # The largest b is at a = 0, where 1 - b^2 + 2 b cot(cb) changes sign once before cb = pi. The factor sin(cb)/b
    # keeps the function finite.
    def crossing(x):
        b = x / c
        return (1 - b * b) * math.sin(x) / b + 2 * math.cos(x)

    return brentq(crossing, 1e-12, math.pi, xtol=1e-16, rtol=1e-15) / c


def _log_edge(c):
    check_cumulant(c)
    s = math.sqrt(1 + 2 / c)
    # (s+1)/(s-1) = (s+1)^2 c/2
    edge = 2 * math.log1p(s) + math.log(c / 2) + c * s
    if edge > 700:
        raise BadInput(f"c must be so small that the upper edge of the spectrum is below exp(700). Received: c={c}")
    return edge
