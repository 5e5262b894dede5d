"""Simulation of random residual networks and of products of random matrices, to compare with the laws."""

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from allconv_resnet.errors import BadInput
from allconv_resnet.theory.checks import positive_integer
from allconv_resnet.theory.tarnowski import activations
from allconv_resnet.theory.tarnowski.activations import ActivationLike
from allconv_resnet.theory.tarnowski.mean_field import check_cumulant
from allconv_resnet.theory.tarnowski.spectrum import spectral_distribution


class Simulation(NamedTuple):
    """The result of `simulate_network`, in float64.

    Attributes:
        q: Float64 array `[L]`, mean squares of the pre-activations of the layers.
        squared_singular_values: Float64 array or None `[N]`, squared singular values of the Jacobian, descending.
    """

    q: np.ndarray
    squared_singular_values: np.ndarray | None


def simulate_network(
    activation: ActivationLike,
    weight_scale: float,
    bias_scale: float,
    depth: int,
    width: int,
    seed: int | np.random.Generator = 0,
    input_mean_square: float = 1.0,
    input_mean: float = 0.0,
    jacobian: bool = True,
    skip: float = 1.0,
    mixed: bool = False,
) -> Simulation:
    """Returns the variances of a random residual network at a random input, and the spectrum of its Jacobian.

    Args:
        activation: Name in `ACTIVATIONS`, callable written with `keras.ops`, or `Activation`.
        weight_scale: Positive float; the entries of each W have variance `weight_scale^2 / (width * depth)`.
        bias_scale: Nonnegative float, standard deviation of the biases.
        depth: Positive integer, number of residual layers.
        width: Integer N, at least 2. With the Jacobian, the time is of order `depth * width^3`.
        seed: Integer or `numpy.random.Generator`.
        input_mean_square: Positive float, the exact mean square of the entries of the input.
        input_mean: Float, the exact mean of the entries of the input.
        jacobian: Whether to compute the singular values of the Jacobian.
        skip: Float, the factor of the identity.
        mixed: Whether a square Gaussian matrix of variance `1 / width` follows the activation.

    Returns:
        `Simulation`.

    Raises:
        BadInput: if the depth, the width or `input_mean_square` is too small, or if the activation is not finite.

    Example:

    >>> simulation = simulate_network("tanh", 1.0, 0.5, depth=40, width=100)
    >>> kolmogorov_smirnov(simulation.squared_singular_values, c=0.6461) < 0.1
    True
    """
    activation = activations.get(activation)
    depth = positive_integer(depth, "depth")
    if width < 2:
        raise BadInput(f"width must be at least 2. Received: width={width}")
    if not (np.isfinite(input_mean_square) and 0 < input_mean_square >= input_mean**2):
        raise BadInput(
            "input_mean_square must be positive and at least input_mean^2. "
            f"Received: input_mean_square={input_mean_square}, input_mean={input_mean}"
        )
    random = np.random.default_rng(seed)
    x = random.standard_normal(width)
    x = (x - x.mean()) / x.std() * np.sqrt(input_mean_square - input_mean**2) + input_mean
    product = np.eye(width) if jacobian else None
    q = []
    for _ in range(depth):
        weights = random.standard_normal((width, width)) * (weight_scale / np.sqrt(width * depth))
        h = weights @ x + bias_scale * random.standard_normal(width)
        phi, slope = activation(h)
        after = random.standard_normal((width, width)) / np.sqrt(width) if mixed else None
        x = skip * x + (after @ phi if mixed else phi)
        q.append(np.mean(h * h))
        if jacobian:
            branch = slope[:, None] * (weights @ product)
            product = skip * product + (after @ branch if mixed else branch)
    squares = np.linalg.svd(product, compute_uv=False) ** 2 if jacobian else None
    return Simulation(np.array(q), squares)


def simulate_matrix_product(
    c: float, width: int, depth: int, seed: int | np.random.Generator = 0, inner: float | None = None, skip: float = 1.0
) -> np.ndarray:
    """Returns the squared singular values of a (1 + X[L]) ... a (1 + X[1]) with independent random X.

    Args:
        c: Positive float, effective cumulant.
        width: Integer N, at least 2.
        depth: Positive integer L.
        seed: Integer or `numpy.random.Generator`.
        inner: None for Gaussian X of variance `c / (width depth)`, or positive float: X is then the product of a
            `[width, m]` and an `[m, width]` Gaussian matrix, m = inner * width, with the same mean square.
        skip: Float, the factor a.

    Returns:
        Float64 array `[width]`, descending.

    Raises:
        BadInput: if `c` or `depth` is not positive, if `width` is below 2, or if there are no inner neurons.

    Example:

    >>> simulate_matrix_product(1.0, width=20, depth=50).shape
    (20,)
    """
    check_cumulant(c)
    depth = positive_integer(depth, "depth")
    if positive_integer(width, "width") < 2:
        raise BadInput(f"width must be at least 2. Received: width={width}")
    if inner is not None and not (np.isfinite(inner) and round(inner * width) >= 1):
        raise BadInput(f"inner * width must be at least 1. Received: inner={inner}, width={width}")
    random = np.random.default_rng(seed)
    product, deviation = np.eye(width), np.sqrt(c / (width * depth))
    m = None if inner is None else round(inner * width)
    for _ in range(depth):
        if m is None:
            branch = random.standard_normal((width, width)) @ product
        else:
            branch = random.standard_normal((width, m)) @ (random.standard_normal((m, width)) @ product) / np.sqrt(m)
        product = skip * (product + deviation * branch)
    return np.linalg.svd(product, compute_uv=False) ** 2


def kolmogorov_smirnov(
    squared_singular_values: ArrayLike,
    c: float,
    depth: int | None = None,
    inner: float | None = None,
    active: float | None = None,
    skip: float = 1.0,
) -> float:
    """Returns the Kolmogorov-Smirnov distance between squared singular values and their law.

    Args:
        squared_singular_values: Float array `[n]`. Remove outliers first, since they do not belong to the law.
        c: Positive float, effective cumulant.
        depth: As in `spectral_edges`, and so are the others; None for the universal law.
        inner: None or positive float.
        active: None or positive float.
        skip: Positive float.

    Returns:
        Float in [0, 1].

    Raises:
        BadInput: as in `spectral_distribution`, and if there are no values.

    Example:

    >>> kolmogorov_smirnov([1.0], c=1.0)
    0.5
    """
    values = np.sort(np.ravel(squared_singular_values))
    if not values.size:
        raise BadInput("A Kolmogorov-Smirnov distance needs at least one value. Received: an empty array")
    law = spectral_distribution(values, c, depth, inner, active, skip)
    n = values.size
    return float(max(np.max(np.arange(1, n + 1) / n - law), np.max(law - np.arange(n) / n)))
