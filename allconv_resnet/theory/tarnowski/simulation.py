"""Simulation of random residual networks and of products of random matrices, to compare with the universal law."""

from typing import NamedTuple

import numpy as np

from allconv_resnet.errors import BadInput
from allconv_resnet.theory.checks import positive_integer
from allconv_resnet.theory.tarnowski import activations
from allconv_resnet.theory.tarnowski.mean_field import check_cumulant
from allconv_resnet.theory.tarnowski.spectrum import spectral_distribution


class Simulation(NamedTuple):
    """The result of `simulate_network`, in float64."""

    q: np.ndarray  # [L] mean squares of the pre-activations of the layers
    squared_singular_values: np.ndarray | None  # [N] squared singular values of the Jacobian, descending


def simulate_network(
    activation,
    weight_scale,
    bias_scale,
    depth,
    width,
    seed=0,
    input_mean_square=1.0,
    input_mean=0.0,
    jacobian=True,
):
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

    Returns:
        `Simulation`.

    Raises:
        BadInput: if the depth or the width is too small, or if the activation is not finite.

    Example:

    >>> simulation = simulate_network("tanh", 1.0, 0.5, depth=40, width=100)
    >>> kolmogorov_smirnov(simulation.squared_singular_values, c=0.6461) < 0.1
    True
    """
    activation = activations.get(activation)
    depth = positive_integer(depth, "depth")
    if width < 2:
        raise BadInput(f"width must be at least 2. Received: width={width}")
    random = np.random.default_rng(seed)
    x = random.standard_normal(width)
    x = (x - x.mean()) / x.std() * np.sqrt(input_mean_square - input_mean**2) + input_mean
    product = np.eye(width) if jacobian else None
    q = []
    for _ in range(depth):
        weights = random.standard_normal((width, width)) * (weight_scale / np.sqrt(width * depth))
        h = weights @ x + bias_scale * random.standard_normal(width)
        phi, slope = activation(h)
        x = x + phi
        q.append(np.mean(h * h))
        if jacobian:
            product += slope[:, None] * (weights @ product)
    squares = np.linalg.svd(product, compute_uv=False) ** 2 if jacobian else None
    return Simulation(np.array(q), squares)


def simulate_matrix_product(c, width, depth, seed=0):
    """Returns the squared singular values of (1 + X[L]) ... (1 + X[1]) with Gaussian X of variance c / (width depth).

    Args:
        c: Positive float, effective cumulant.
        width: Integer N, at least 2.
        depth: Positive integer L.
        seed: Integer or `numpy.random.Generator`.

    Returns:
        Float64 array `[width]`, descending.

    Raises:
        BadInput: if `c` or `depth` is not positive.

    Example:

    >>> simulate_matrix_product(1.0, width=20, depth=50).shape
    (20,)
    """
    check_cumulant(c)
    depth = positive_integer(depth, "depth")
    random = np.random.default_rng(seed)
    product = np.eye(width)
    for _ in range(depth):
        product += np.sqrt(c / (width * depth)) * (random.standard_normal((width, width)) @ product)
    return np.linalg.svd(product, compute_uv=False) ** 2


def kolmogorov_smirnov(squared_singular_values, c):
    """Returns the Kolmogorov-Smirnov distance between squared singular values and the universal law.

    Args:
        squared_singular_values: Float array `[n]`. Remove the outlier first, since it does not belong to the law.
        c: Positive float, effective cumulant.

    Returns:
        Float in [0, 1].

    Example:

    >>> kolmogorov_smirnov([1.0], c=1.0)
    0.5
    """
    values = np.sort(np.ravel(squared_singular_values))
    law = spectral_distribution(values, c)
    n = values.size
    return float(max(np.max(np.arange(1, n + 1) / n - law), np.max(law - np.arange(n) / n)))
