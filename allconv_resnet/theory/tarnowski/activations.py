"""Activations, their derivatives, and the means of both over Gaussian inputs (Tarnowski et al., arXiv 1809.08848).

Gauss-Hermite quadrature converges fast only for smooth activations. At a kink of phi the error of E[phi'^2] decreases
like 1/sqrt(n): 201 nodes give 0.4559 for ReLU, whose true value is 1/2. And if h has a large deviation, there may be
no node where phi has its slope. Gauss-Legendre quadrature is therefore used, on panels that become narrower towards h
= 0, are split at the kinks, and are halved until the results agree.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cache
from typing import Any, NamedTuple

import numpy as np
from keras import ops
from numpy.polynomial.legendre import leggauss
from numpy.typing import ArrayLike

from allconv_resnet.errors import BadInput
from allconv_resnet.theory import autodiff

# Relative tolerance of the means. Keras on JAX computes some operations in float32, whatever the dtype of the input.
TOLERANCE = {"float64": 1e-10, "float32": 1e-5}
MOST_PANELS = 100_000  # of the quadrature at once
REACH = 13.0  # limit of the integrals in standard deviations, beyond which the probability is 1e-38


@dataclass(frozen=True, eq=False)
class Activation:
    """An elementwise function written with `keras.ops`, and the points where its derivative jumps.

    Args:
        name: String, for messages and tables.
        function: Callable from a float tensor to a float tensor of the same shape.
        kinks: Set of floats, points where the derivative jumps. Missing ones are added when a mean is computed.

    Example:

    >>> square = Activation("square", keras.ops.square)
    >>> value, slope = square(np.array([3.0]))
    >>> value.item(), slope.item()
    (9.0, 6.0)
    """

    name: str
    function: Callable[..., Any]
    kinks: set[float] = field(default_factory=set)

    def __call__(self, h: ArrayLike) -> tuple[np.ndarray, np.ndarray]:
        """Returns the values and the derivatives.

        Args:
            h: Array of real numbers.

        Returns:
            Two arrays of the shape of `h`.

        Raises:
            BadInput: if a value or a derivative is not finite.
        """
        h = np.asarray(h, np.float64)
        # JAX compiles the function for every new shape; padding to powers of two keeps the number of shapes small.
        padded = np.resize(h, 2 ** math.ceil(math.log2(max(h.size, 1))))
        value, slope = (a[: h.size].reshape(h.shape) for a in autodiff.value_and_gradient(self.function, padded))
        bad = ~(np.isfinite(value) & np.isfinite(slope))
        if bad.any():
            i = np.flatnonzero(bad)[0]
            raise BadInput(
                f"An activation and its derivative must be finite on Gaussian inputs. Received: {self.name}, whose "
                f"value at {h.flat[i]:.6g} is {value.flat[i]} and whose derivative is {slope.flat[i]}"
            )
        return value, slope


ActivationLike = str | Callable[..., Any] | Activation
"""A name in `ACTIVATIONS`, a function written with `keras.ops`, or an `Activation`."""

ACTIVATIONS: dict[str, Activation] = {
    "linear": Activation("linear", lambda h: 1.0 * h),
    "relu": Activation("relu", ops.relu, {0.0}),
    "leaky_relu": Activation(
        "leaky_relu", lambda h: ops.leaky_relu(h, 0.25), {0.0}
    ),  # the slope of the paper, not that of Keras
    "tanh": Activation("tanh", lambda h: 2.0 * ops.sigmoid(2.0 * h) - 1.0),  # ops.tanh computes in float32 on JAX
    "hard_tanh": Activation("hard_tanh", ops.hard_tanh, {-1.0, 1.0}),
    "sigmoid": Activation("sigmoid", ops.sigmoid),
    "selu": Activation("selu", ops.selu, {0.0}),
    "elu": Activation("elu", ops.elu, {0.0}),
    # On TensorFlow ops.gelu contains a float32 constant, with an error of 4e-9.
    "gelu": Activation("gelu", lambda h: h * (0.5 + 0.5 * ops.erf(math.sqrt(0.5) * h))),
    "softplus": Activation("softplus", ops.softplus),
}


def get(activation):
    """Returns an `Activation`.

    Args:
        activation: Name in `ACTIVATIONS`, callable written with `keras.ops`, or `Activation`.

    Raises:
        BadInput: if the argument is none of these.

    Example:

    >>> value, slope = get("tanh")([0.0])
    >>> value.item(), slope.item()
    (0.0, 1.0)
    >>> get(lambda h: h * h)([3.0])[1].item()
    6.0
    """
    if isinstance(activation, Activation):
        return activation
    if isinstance(activation, str) and activation in ACTIVATIONS:
        return ACTIVATIONS[activation]
    if callable(activation):
        return Activation(getattr(activation, "__name__", type(activation).__name__), activation)
    raise BadInput(
        f"activation must be a callable or one of {', '.join(ACTIVATIONS)}. Received: activation={activation!r}"
    )


class GaussianMeans(NamedTuple):
    """The result of `gaussian_means`: means over h ~ N(0, variance) of phi = phi(h), d = phi'(h) and their products.

    Attributes:
        phi: Float, E[phi(h)].
        phi_phi: Float, E[phi(h)^2].
        d_d: Float, E[phi'(h)^2].
        h_d: Float, E[h phi'(h)].
        hh_dd: Float, E[h^2 phi'(h)^2].
        h_phi_d: Float, E[h phi(h) phi'(h)].
    """

    phi: float
    phi_phi: float
    d_d: float
    h_d: float
    hh_dd: float
    h_phi_d: float


def gaussian_means(activation: ActivationLike, variance: float) -> GaussianMeans:
    """Returns means of an activation and its derivative over a Gaussian input, with a relative error of about 1e-10.

    Args:
        activation: Name in `ACTIVATIONS`, callable written with `keras.ops`, or `Activation`.
        variance: Positive float, variance of the input.

    Returns:
        `GaussianMeans`.

    Raises:
        BadInput: if the activation or its derivative is not finite, or if a mean does not exist.

    Example:

    >>> round(gaussian_means("relu", 1.0).d_d, 9)
    0.5
    """
    activation = get(activation)
    if not (np.isfinite(variance) and variance > 0):
        raise BadInput(f"variance must be positive and finite. Received: variance={variance}")
    return GaussianMeans(*_panel_means(activation, np.sqrt(variance)).tolist())


def _terms(activation, h):
    phi, d = activation(h)
    tolerance = TOLERANCE.get(str(phi.dtype), 1e-2)
    phi, d = phi.astype(np.float64), d.astype(np.float64)
    with np.errstate(over="ignore"):  # the infinity shows up in the means
        return np.stack([phi, phi * phi, d * d, h * d, h * h * d * d, h * phi * d]), tolerance


def _panel_means(activation, deviation):
    kinks = np.array(sorted(activation.kinks)) / deviation
    # Panels that become narrower towards h = 0 see what happens there at any scale of h.
    near = 2.0 ** np.arange(-20, 64) / deviation
    near = near[near < 1]
    edges = np.unique(np.concatenate([np.linspace(-REACH, REACH, 27), near, -near, kinks[np.abs(kinks) < REACH]]))
    left, right = edges[:-1], edges[1:]
    done, size = 0.0, None
    for _ in range(60):
        middle = (left + right) / 2
        whole, scale, tolerance = _integrate(activation, deviation, left, right)
        halves = _integrate(activation, deviation, np.append(left, middle), np.append(middle, right))[0]
        halves = halves.reshape(len(whole), 2, -1).sum(axis=1)
        size = scale.sum(axis=1, keepdims=True) if size is None else size
        open_ = (np.abs(whole - halves) > tolerance / 27 * size + 1e-300).any(axis=0)
        done = done + halves[:, ~open_].sum(axis=1)
        narrow = open_ & (right - left < 1e-7)
        activation.kinks.update((deviation * middle[narrow]).tolist())
        left, right = np.append(left[open_], middle[open_]), np.append(middle[open_], right[open_])
        if not left.size:
            return done
        if left.size > MOST_PANELS:
            break
    raise BadInput(
        f"An activation and its derivative must have finite mean squares on Gaussian inputs. "
        f"Received: {activation.name}, whose integrals do not converge near {deviation * left[0]:.6g}"
    )


def _integrate(activation, deviation, left, right):
    """Returns the integrals over panels and those of the absolute values, each `[6, panels]`, and the tolerance."""
    nodes, weights = _legendre(16)
    half = (right - left) / 2
    z = (left + right)[:, None] / 2 + half[:, None] * nodes
    density = half[:, None] * weights * np.exp(-z * z / 2) / np.sqrt(2 * np.pi)
    terms, tolerance = _terms(activation, (deviation * z).ravel())
    terms = terms.reshape(-1, *z.shape)
    return (terms * density).sum(axis=-1), (np.abs(terms) * density).sum(axis=-1), tolerance


_legendre = cache(leggauss)
