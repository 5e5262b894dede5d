"""The law of the squared singular values of a product of finitely many residual layers 1 + X.

This is not in Tarnowski et al. (arXiv 1809.08848), whose law is its limit of infinite depth. Each X is R-diagonal (its
law does not change if it is multiplied by rotations), with the mean square v = c/L of its singular values:

    X = W        Gaussian                               for layers x + W x,
    X = D W      with a diagonal D of zeros and ones    for layers x + phi(W x + b) with the ReLU phi,
    X = V D U    with Gaussian V and U                  for blocks x + V phi(U x) with phi the ReLU or linear.

1. The symmetrized singular values of 1 + X have the law (delta_1 + delta_-1)/2 [+] that of X (Haagerup and Schultz
   2007, proposition 3.5). R-transforms add, so that with t = g^2, g the Green's function of the sum, y = z G - 1 and
   Q(t) the series of the cumulants of X,

       z = (1 + y)^2 / t,   y = r + Q(t),   t = r (1 + r).

   Without the 1, r = 0 and Q^-1(y) = y (1 + y) S(y) with the S-transform of X X^T, in which those of the factors
   multiply. This gives Q = v t;  t = Q (1 + Q) active / (v (active + Q)) for D W;  Q = v t / (1 - v t / inner) for
   V D U, whose n-th cumulant v^n / inner^(n-1) is that of a sum of rank-one terms.
   The X are taken to be free. The D W of different layers are so up to joint moments of the masks, which commute: the
   difference grows as `active` falls (KS 0.04 at active = 0.3, depth 2, c = 16; below 0.01 at active = 0.5, depth 8).
2. The S-transform of |1 + X|^2 is t / (y (1 + y)), and the S-transforms of the L layers multiply:

       1/z = y/(1+y) (r (1+r) / (y (1+y)))^L,   that is   z = (1+r)/r A^(L+1) B^(L-1)

   with A = (1+y)/(1+r) = 1 + r Q/t and B = y/r = 1 + (1+r) Q/t.

Thus r parametrizes the law. The bulk is the curve in the lower half-plane on which z is real; it begins and ends where
dz/dr = 0. For v >= 1, it ends at z = 0. The density of log z is -Im y / pi, and its integral is a closed form in r.
"""

import math
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from scipy.interpolate import CubicSpline
from scipy.optimize import brentq

from allconv_resnet.errors import BadInput
from allconv_resnet.theory.checks import positive_integer

NODES = 257  # of the spline at least; Newton's method polishes its values
SHORTEST = 1e-8  # step of the angle, below which the curve counts as lost


@dataclass(frozen=True)
class GaussianBranch:
    """X = W, or X = V D U with a finite `inner`, the number of active inner neurons over the width."""

    v: float  # mean square of the singular values
    inner: float = math.inf

    @property
    def rank(self):
        return self.inner

    def ratio(self, t):
        """Returns Q/t and its derivative."""
        rest = 1 - self.v / self.inner * t
        return self.v / rest, self.v**2 / self.inner / rest**2

    def potential(self, t):
        """Returns Q and the integral of Q dt/t."""
        q = self.v * t / (1 - self.v / self.inner * t)
        return q, q if math.isinf(self.inner) else -self.inner * np.log(1 - self.v / self.inner * t)

    def largest(self):
        """Returns the largest r, where Q has a pole."""
        return math.inf if math.isinf(self.inner) else (math.sqrt(1 + 4 * self.inner / self.v) - 1) / 2

    def zero(self):
        """Returns the root r of 1 + y other than -1."""
        b = (1 / self.inner - 1) * self.v
        return -2 / (math.sqrt(b * b + 4 * self.v / self.inner) - b)


@dataclass(frozen=True)
class MaskedBranch:
    """X = D W, in which D keeps a share `active` of the rows."""

    v: float
    active: float

    @property
    def rank(self):
        return self.active

    def ratio(self, t):
        """Returns Q/t and its derivative."""
        k, s = self.active, self.v / self.active * t
        root = np.sqrt((1 - s) ** 2 + 4 * k * s)
        # two forms of the same, each without cancellation
        small = np.real(s) < 1
        ratio = np.where(small, 2 * self.v / np.where(small, 1 - s + root, 1.0), (s - 1 + root) / (2 * t))
        return ratio, ratio**2 / (2 * k) * (1 + (1 - s - 2 * k) / root)

    def potential(self, t):
        """Returns Q and the integral of Q dt/t."""
        q = t * self.ratio(t)[0]
        return q, q - np.log(1 + q) + self.active * np.log(1 + q / self.active)

    def largest(self):
        """Returns the largest r."""
        return math.inf

    def zero(self):
        """Returns the root r of 1 + y other than -1."""
        return self.active - 1 - self.active / self.v


@lru_cache(maxsize=64)
def finite_depth_law(c, depth, inner=None, active=None):
    """Returns the `FiniteDepthLaw` of Gaussian branches, of V D U if `inner` is given, or of D W if `active` is."""
    depth = positive_integer(depth, "depth")
    if inner is not None and active is not None:
        raise BadInput(f"inner and active must not both be given. Received: inner={inner}, active={active}")
    if active is None:
        return FiniteDepthLaw(GaussianBranch(c / depth, math.inf if inner is None else inner), depth)
    if not active <= 1:
        raise BadInput(f"active must be a share of at most 1. Received: active={active}")
    if active == 1:  # Q is v t, of which `MaskedBranch` would compute another root on the left of a branch point
        return FiniteDepthLaw(GaussianBranch(c / depth), depth)
    return FiniteDepthLaw(MaskedBranch(c / depth, active), depth)


class FiniteDepthLaw:
    """The law at infinite width and finite depth. It has the members of `UniversalLaw`.

    Args:
        branch: `GaussianBranch` or `MaskedBranch`, whose rank is above 1 / (2 L), since otherwise some directions are
            in the kernel of each X and of its transpose.
        depth: Positive integer, number of layers L.

    Raises:
        BadInput: if the arguments are outside these ranges, if the upper edge overflows, or if the curve cannot be
            followed: at depth 1, a branch point of Q for D W may be in the way.

    Example:

    >>> np.exp(finite_depth_law(1.0, depth=8).log_edges).round(4)
    array([ 0.036 , 16.7881])
    """

    def __init__(self, branch, depth):
        self.depth, self.branch, v = depth, branch, branch.v
        if not branch.rank > 1 / (2 * depth):
            raise BadInput(
                f"inner or active must be larger than 1 / (2 depth). Received: {branch.rank} and depth={depth}"
            )
        self.log_mean = depth * math.log1p(v)
        end = min(1e6 * (1 + 1 / math.sqrt(v)), branch.largest() * (1 - 1e-13))
        top = brentq(self._slope, 1e-9, end, xtol=1e-300, rtol=1e-15)
        if v < 1 - 1e-4:  # above it the lower edge is below 1e-12
            margin = 1e-9 * (-1 - branch.zero())
            bottom = brentq(self._slope, branch.zero() + margin, -1 - margin, xtol=1e-300, rtol=1e-15)
            self._low = abs(self._root(bottom + 0j))
        else:
            bottom, self._low = max(branch.zero(), -1.0), 0.0
        self._high = abs(self._root(top + 0j))
        edge = (depth + 1) * math.log(self._high)
        if edge > 700:
            raise BadInput(
                f"c must be so small that the upper edge of the spectrum is below exp(700). Received: c={v * depth}"
            )
        self.log_edges = ((depth + 1) * math.log(self._low) if self._low else -math.inf, edge)
        with np.errstate(all="ignore"):  # a step of Newton's method that leaves the domain is refused afterwards
            angles, r = self._trace(top, bottom)
            self._spline = CubicSpline(angles, r)
            self._check_curve(angles)

    def density_of_log(self, t):
        """Returns the density of log lambda at values `t` inside the bulk."""
        r = self._solve(self._angle(t))
        return -(r * self._factors(r)[1]).imag / np.pi

    def distribution_of_log(self, t):
        """Returns the probability that log lambda is at most `t`, for values inside the bulk."""
        return self._distribution(self._angle(t))

    def quantile_of_log(self, probability):
        """Returns the quantiles of log lambda."""
        low, high = np.zeros(probability.shape), np.full(probability.shape, np.pi)
        for _ in range(60):
            middle = (low + high) / 2
            above = self._distribution(middle) > probability  # the distribution decreases with the angle
            low, high = np.where(above, middle, low), np.where(above, high, middle)
        with np.errstate(divide="ignore"):
            inside = (self.depth + 1) * np.log(self._at((low + high) / 2))
        return np.where(probability == 0, self.log_edges[0], np.where(probability == 1, self.log_edges[1], inside))

    # Near an edge r is smooth in the square root of the distance to it, and near z = 0 in z^(1/(L+1)). It is therefore
    # a smooth function of the angle, where z^(1/(L+1)) = low + (high - low) (1 + cos(angle)) / 2.
    def _at(self, angle):
        return self._low + (self._high - self._low) * np.cos(angle / 2) ** 2

    def _angle(self, t):
        share = (np.exp(t / (self.depth + 1)) - self._low) / (self._high - self._low)
        return 2 * np.arccos(np.sqrt(np.clip(share, 0.0, 1.0)))

    def _solve(self, angle):
        angle = np.clip(angle, 1e-7, np.pi - 1e-7)  # dz/dr = 0 at the ends
        r = self._newton(self._spline(angle), self._at(angle), 3)
        return r.real - 1j * np.abs(r.imag)

    def _distribution(self, angle):
        r = self._solve(angle)
        q, potential = self.branch.potential(r * (1 + r))
        A, _ = self._factors(r)
        # the integral of y d(log z)
        integral = self.depth * (2 * q - potential) - np.log(1 + r) - (self.depth + 1) * np.log(A)
        return np.clip(1 - integral.imag / np.pi, 0.0, 1.0)

    def _factors(self, r):
        """Returns A and B."""
        ratio, _ = self.branch.ratio(r * (1 + r))
        return 1 + r * ratio, 1 + (1 + r) * ratio

    def _root(self, r):
        """Returns z^(1/(L+1))."""
        A, B = self._factors(r)
        return A * np.exp((np.log((1 + r) / r) + (self.depth - 1) * np.log(B)) / (self.depth + 1))

    def _slope(self, r):
        """Returns the derivative of log z^(1/(L+1))."""
        A, B = self._factors(r)
        ratio, change = self.branch.ratio(r * (1 + r))
        dA, dB = (ratio + factor * (1 + 2 * r) * change for factor in (r, 1 + r))
        return dA / A + ((self.depth - 1) * dB / B - 1 / (r * (1 + r))) / (self.depth + 1)

    def _newton(self, r, target, steps):
        for _ in range(steps):
            root = self._root(r)
            r = r - (root - target) / (root * self._slope(r))
        return r

    def _trace(self, top, bottom):
        """Returns increasing angles and the values of r on the curve, from the upper to the lower edge."""
        grid = np.linspace(0, np.pi, NODES)
        first, step = grid[1] / 64, 1e-5 * top
        curvature = self._high * (self._slope(top + step) - self._slope(top - step)) / (2 * step)
        start = top - 1j * math.sqrt(2 * (self._high - self._at(first)) / curvature)
        angles, r, step = [0.0, first], [top, self._newton(start, self._at(first), 30)], first
        for stop in grid[1:-1]:
            while angles[-1] < stop:
                angle = min(angles[-1] + step, stop)
                guess = _extrapolated(angles[-3:], r[-3:], angle)
                found = self._newton(guess, self._at(angle), 8)
                # Newton's method must not jump to another root, and the other roots are not near the extrapolation.
                near = abs(found - guess) <= 0.2 * abs(found - r[-1])
                if near and found.imag < 0 and self._solved(found, angle):
                    angles.append(angle)
                    r.append(found)
                    step *= 2
                elif step > SHORTEST:
                    step /= 2
                else:
                    raise self._untraceable()
        return np.array([*angles, np.pi]), np.array([*r, bottom])

    def _check_curve(self, angles):
        """Checks the curve at the angles of the spline and between them."""
        angles = np.sort([*angles[1:-1], *(angles[1:] + angles[:-1]) / 2])
        solved = self._solved(self._solve(angles), angles).all()
        if not (solved and np.all(np.diff(self._distribution(angles)) <= 1e-9)):
            raise self._untraceable()

    def _solved(self, r, angle):
        return abs(self._root(r) - self._at(angle)) < 1e-9 * self._at(angle)

    def _untraceable(self):
        return BadInput(
            "The law cannot be computed for these arguments; a smaller c or a larger depth may do. "
            f"Received: c={self.branch.v * self.depth}, depth={self.depth} and {self.branch.rank} for inner or active"
        )


def _extrapolated(x, y, at):
    """Returns the value at `at` of the polynomial through two or three points."""
    return sum(
        value * math.prod((at - other) / (own - other) for other in x if other != own)
        for own, value in zip(x, y, strict=True)
    )
