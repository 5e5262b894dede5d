"""Random residual networks and products of random matrices, whose singular values the theory predicts."""

from typing import NamedTuple

import numpy as np

from allconv_resnet.errors import BadInput
from allconv_resnet.theory import activations
from allconv_resnet.theory.mean_field import check_cumulant, check_depth
from allconv_resnet.theory.spectrum import spectral_distribution


class Simulation(NamedTuple):
    """One random network, float64."""

    q: np.ndarray  # [L] mean square of the pre-activations of each layer
    squared_singular_values: np.ndarray | None  # [N] of the Jacobian, descending


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
    """Draws a random residual network and an input, and returns its variances and the spectrum of its Jacobian.

    Args:
        activation: Name, callable or `activations.Activation`.
        weight_scale: Positive float; the entries of each W have variance `weight_scale^2 / (width * depth)`.
        bias_scale: Nonnegative float, standard deviation of the biases.
        depth: Positive integer, number of residual layers.
        width: Integer N of at least 2. Time is of order `depth * width^3` with the Jacobian.
        seed: Integer or `numpy.random.Generator`.
        input_mean_square: Positive float; the input has exactly this mean square.
        input_mean: Float; the input has exactly this mean.
        jacobian: Whether the Jacobian is wanted.

    Returns:
        `Simulation`.

    Raises:
        BadInput: for a depth or a width that is too small, or an activation that is not finite.

    Example:

    >>> simulation = simulate_network("tanh", 1.0, 0.5, depth=40, width=100)
    >>> kolmogorov_smirnov(simulation.squared_singular_values, c=0.6461) < 0.1
    True
    """
    activation = activations.get(activation)
    check_depth(depth)
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
    """Returns the squared singular values of (1 + X[L]) ... (1 + X[1]), X Gaussian of variance c / (width depth).

    Args:
        c: Positive float, effective cumulant.
        width: Integer N of at least 2.
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
    check_depth(depth)
    random = np.random.default_rng(seed)
    product = np.eye(width)
    for _ in range(depth):
        product += np.sqrt(c / (width * depth)) * (random.standard_normal((width, width)) @ product)
    return np.linalg.svd(product, compute_uv=False) ** 2


def kolmogorov_smirnov(squared_singular_values, c):
    """Returns the largest distance between the empirical distribution and the universal law's.

    Args:
        squared_singular_values: Float array `[n]`. Take an outlier away first: it is not of the law.
        c: Positive float, effective cumulant.

    Example:

    >>> kolmogorov_smirnov([1.0], c=1.0)
    0.5
    """
    values = np.sort(np.ravel(squared_singular_values))
    law = spectral_distribution(values, c)
    n = values.size
    return float(max(np.max(np.arange(1, n + 1) / n - law), np.max(law - np.arange(n) / n)))
