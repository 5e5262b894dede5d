"""Gradient descent on a deep linear network whose factors are `I + A_i` or `A_i` (Hardt & Ma, section 2)."""

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike

from allconv_resnet.errors import BadInput, RunFailed
from allconv_resnet.theory import checks

PARAMETERIZATIONS = ("residual", "standard")
INITIALIZATIONS = ("identity", "near_identity", "zero_asymmetric", "standard")


@dataclass(frozen=True)
class LinearTraining:
    """The result of `train_linear`. Entry 0 of `risk` and of `gradient_norm` belongs to the starting point.

    Attributes:
        A: Float64 array `[depth, d, d]`, the final weights.
        risk: Float64 array `[steps + 1]`, the excess risk ||(P - R) cov^(1/2)||_F^2.
        gradient_norm: Float64 array `[steps + 1]`, Frobenius norm over all weights.
        learning_rate: Float, the learning rate of every step.
    """

    A: np.ndarray
    risk: np.ndarray
    gradient_norm: np.ndarray
    learning_rate: float


def train_linear(
    R: ArrayLike,
    cov: ArrayLike,
    depth: int,
    parameterization: Literal["residual", "standard"] = "residual",
    *,
    steps: int = 200,
    learning_rate: float | None = None,
    deviation: float = 0.0,
    seed: int = 0,
) -> LinearTraining:
    """Minimizes the risk of a deep linear network by gradient descent, in one of two parameterizations.

    With `"residual"` the factors are `I + A_i`, with `"standard"` they are `A_i`; for the same seed both start from
    the same weights. At `A = 0` the residual gradient is `2 (I - R) cov` in every factor. The standard gradient is zero
    there at any depth above 1: gradient descent never leaves this critical point, which is not a minimum. From small
    weights of standard deviation e it leaves at a rate of order e^(depth-1). Depth therefore slows down the standard
    parameterization and not the residual one.

    Args:
        R: `[d, d]`, the matrix of the targets.
        cov: `[d, d]`, symmetric positive semidefinite and not zero, `E[x x^T]`.
        depth: Integer, at least 1.
        parameterization: `"residual"` or `"standard"`.
        steps: Positive integer, number of steps of gradient descent.
        learning_rate: Positive float, or None for `1 / (4 depth smax(cov) max(1, smax(R))^2)`, half of the
            inverse curvature at a balanced optimum.
        deviation: Nonnegative float, standard deviation of the initial entries of `A`; 0 starts at `A = 0`.
        seed: Integer, seed of the initial weights.

    Returns:
        A `LinearTraining`.

    Raises:
        BadInput: if a matrix, `depth`, `steps`, `learning_rate`, `deviation` or `parameterization` is out of range.
        RunFailed: if the risk stops being finite.

    Example:

    >>> R = np.diag([2.0, 0.5])
    >>> bool(train_linear(R, np.eye(2), depth=4).risk[-1] < 1e-6)
    True
    >>> float(train_linear(R, np.eye(2), depth=4, parameterization="standard").gradient_norm[-1])
    0.0
    """
    R = checks.square_matrix(R)
    cov = checks.covariance_matrix(cov, len(R))
    depth = checks.positive_integer(depth, "depth")
    steps = checks.positive_integer(steps, "steps")
    if parameterization not in PARAMETERIZATIONS:
        raise BadInput(
            f"parameterization must be one of {', '.join(PARAMETERIZATIONS)}. "
            f"Received: parameterization={parameterization!r}"
        )
    largest = np.linalg.norm(cov, 2)
    if learning_rate is None:
        if largest == 0:
            raise BadInput("cov must not be zero, since the risk would be constant. Received: a matrix of zeros")
        learning_rate = 1 / (4 * depth * largest * max(1.0, np.linalg.norm(R, 2)) ** 2)
    if not (np.isfinite(learning_rate) and learning_rate > 0):
        raise BadInput(f"learning_rate must be a finite number above 0. Received: learning_rate={learning_rate}")
    if not (np.isfinite(deviation) and deviation >= 0):
        raise BadInput(f"deviation must be a finite number of at least 0. Received: deviation={deviation}")

    A = deviation * np.random.default_rng(seed).standard_normal((depth, *R.shape))
    offset = np.eye(len(R)) if parameterization == "residual" else np.zeros_like(R)
    risks, norms = np.empty(steps + 1), np.empty(steps + 1)
    states = descend(offset + A, R, cov, learning_rate)
    for step, (factors, value, slope) in zip(range(steps + 1), states, strict=False):
        if not np.isfinite(value):
            raise RunFailed(
                f"The risk is no longer finite at step {step}, since the learning rate {learning_rate:g} is too large."
            )
        A = factors - offset
        with np.errstate(over="ignore"):
            risks[step], norms[step] = value, np.linalg.norm(slope)
    return LinearTraining(A, risks, norms, float(learning_rate))


def initial_factors(initialization: str, depth: int, d: int, seed: int = 0, deviation: float = 0.01) -> np.ndarray:
    """Returns the factors of a linear network from which gradient descent starts.

    Gradient descent on `A_i` is the same as on the factors `I + A_i`, so that only the start distinguishes residual
    networks from others.

    Args:
        initialization: `"identity"` (`A = 0`, Hardt & Ma; Bartlett, Helmbold & Long, arXiv 1802.06093),
            `"near_identity"` (small random A, as the networks of this project start),
            `"zero_asymmetric"` (the identity in every factor but the last one, which is 0; Wu, Wang & Ma,
            arXiv 1911.00645) or `"standard"` (entries of the factors of standard deviation `1/sqrt(d)`).
        depth: Positive integer.
        d: Positive integer.
        seed: Integer.
        deviation: Float, the standard deviation of the entries of A for `"near_identity"`.

    Returns:
        Float64 array `[depth, d, d]`.

    Raises:
        BadInput: if there is no such initialization, or `depth` or `d` is not a positive integer.

    Example:

    >>> initial_factors("zero_asymmetric", depth=2, d=1).tolist()
    [[[1.0]], [[0.0]]]
    """
    shape = (checks.positive_integer(depth, "depth"), checks.positive_integer(d, "d"), d)
    noise = np.random.default_rng(seed).standard_normal(shape)
    identity = np.tile(np.eye(d), (depth, 1, 1))
    if initialization == "identity":
        return identity
    if initialization == "near_identity":
        return identity + deviation * noise
    if initialization == "zero_asymmetric":
        identity[-1] = 0
        return identity
    if initialization == "standard":
        return noise / np.sqrt(d)
    raise BadInput(
        f"initialization must be one of {', '.join(INITIALIZATIONS)}. Received: initialization={initialization!r}"
    )


def descend(factors, R, cov, learning_rate):
    """Yields `(factors, risk, gradient)` before every step of gradient descent, without end, for one or many networks.

    Args:
        factors: `[depth, ..., d, d]`, the factors `F_i` at the start; axes in between hold several networks.
        R: `[..., d, d]`, the matrices of the targets.
        cov: `[d, d]`, symmetric.
        learning_rate: Float, or array that broadcasts against the factors.

    Yields:
        The factors, the excess risks `[...]` (infinite if a product is not finite) and the gradients
        `[depth, ..., d, d]`.
    """
    while True:
        with np.errstate(over="ignore", invalid="ignore"):
            slope, error = product_gradient(factors, R, cov, with_error=True)
            risk = np.maximum(0.0, np.sum((error @ cov) * error, axis=(-2, -1)))
        yield factors, np.where(np.isfinite(risk), risk, np.inf), slope
        with np.errstate(over="ignore", invalid="ignore"):
            factors = factors - learning_rate * slope


def product_gradient(factors, R, cov, with_error=False):
    """Returns the gradient of `||(F_l ... F_1 - R) cov^(1/2)||_F^2` with respect to each factor `F_i` (lemma 2.4).

    Args:
        factors: `[depth, ..., d, d]`; `factors[0]` acts first.
        R: `[..., d, d]`, the matrices of the targets.
        cov: `[d, d]`, symmetric.
        with_error: Whether to return the pair `(gradient, F_l ... F_1 - R)`.

    Returns:
        Float64 array `[depth, ..., d, d]`, or the pair.
    """
    depth, *_, d = factors.shape
    before, after = np.empty((depth + 1, *factors.shape[1:])), np.empty((depth + 1, *factors.shape[1:]))
    before[0] = after[depth] = np.eye(d)
    for i in range(depth):
        before[i + 1] = factors[i] @ before[i]
        after[depth - 1 - i] = after[depth - i] @ factors[depth - 1 - i]
    error = before[depth] - R
    slope = 2 * np.swapaxes(after[1:], -1, -2) @ (error @ cov) @ np.swapaxes(before[:-1], -1, -2)
    return (slope, error) if with_error else slope
