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


class UniversalLaw:
    """The law in the limit of infinite width and depth.

    Args:
        c: Positive float, effective cumulant.

    Attributes:
        log_edges: Pair of floats, the logarithms of the ends of the bulk.
        log_mean: Float, the logarithm of the mean.

    Raises:
        BadInput: if `c` is so large that the upper edge overflows.

    Example:

    >>> np.exp(UniversalLaw(1.0).log_edges).round(4)
    array([ 0.0474, 21.0944])
    """

    def __init__(self, c):
        s = math.sqrt(1 + 2 / c)
        # (s+1)/(s-1) = (s+1)^2 c/2
        edge = 2 * math.log1p(s) + math.log(c / 2) + c * s
        if edge > 700:
            raise BadInput(f"c must be so small that the upper edge of the spectrum is below exp(700). Received: c={c}")
        self.c, self.log_edges, self.log_mean = c, (-edge, edge), c
        self._top = _largest_b(c)

    def density_of_log(self, t):
        """Returns the density of log lambda at values `t` inside the bulk."""
        return self._solve(np.abs(t))[1] / (2 * np.pi)

    def distribution_of_log(self, t):
        """Returns the probability that log lambda is at most `t`, for values inside the bulk."""
        upper = self._above_median(*self._solve(np.abs(t)))
        return np.where(t >= 0, upper, 1 - upper)

    def quantile_of_log(self, probability):
        """Returns the quantiles of log lambda."""
        above = np.maximum(probability, 1 - probability)

        def falls_short(angle):
            b = self._top * np.sin(angle)
            return self._above_median(self._real_part(b), b) > above  # the distribution increases as b decreases

        b = self._top * np.sin(_bisect(falls_short, above.shape))
        middle = np.where(above == 0.5, 0.0, self._log_lambda(self._real_part(b), b))
        return np.copysign(np.where(above == 1, self.log_edges[1], middle), probability - 0.5)

    def _solve(self, t):
        """Returns a >= 0 and b of s = a - ib at log lambda = t >= 0; -t has the same ones."""

        def falls_short(angle):
            b = self._top * np.sin(angle)
            return self._log_lambda(self._real_part(b), b) > t  # log lambda increases as b decreases

        b = self._top * np.sin(_bisect(falls_short, t.shape))
        s = self._real_part(b) - 1j * b
        # Near the median, a suffers from cancellation; two Newton steps restore its precision.
        for _ in range(2):
            residual = np.log((s + 1) / (s - 1)) + self.c * s - t
            slope = self.c - 2 / (s * s - 1)
            better = s - residual / np.where(np.abs(slope) > 1e-6 * self.c, slope, np.inf)
            s = np.where(better.imag < 0, better, s)
        return np.maximum(s.real, 0.0), -s.imag

    def _real_part(self, b):
        x = self.c * b
        with np.errstate(divide="ignore", invalid="ignore"):
            x_cot = np.where(x < 1e-8, 1.0, x / np.tan(x))
        return np.sqrt(np.maximum(1 - b * b + 2 / self.c * x_cot, 0.0))

    def _log_lambda(self, a, b):
        return 0.5 * np.log(((a + 1) ** 2 + b * b) / ((a - 1) ** 2 + b * b)) + self.c * a

    def _above_median(self, a, b):
        # For lambda >= 1, the integral of s/2 d(log lambda) is -log(s^2 - 1)/2 + c s^2/4.
        return 1 + (np.arctan2(-2 * a * b, a * a - b * b - 1) + self.c * a * b) / (2 * np.pi)


def _bisect(too_low, shape):
    low, high = np.zeros(shape), np.full(shape, np.pi / 2)
    for _ in range(64):
        middle = (low + high) / 2
        up = too_low(middle)
        low, high = np.where(up, middle, low), np.where(up, high, middle)
    return (low + high) / 2


def _largest_b(c):
    # The largest b is at a = 0, where 1 - b^2 + 2 b cot(cb) changes sign once before cb = pi. The factor sin(cb)/b
    # keeps the function finite.
    def crossing(x):
        b = x / c
        return (1 - b * b) * math.sin(x) / b + 2 * math.cos(x)

    return brentq(crossing, 1e-12, math.pi, xtol=1e-16, rtol=1e-15) / c
