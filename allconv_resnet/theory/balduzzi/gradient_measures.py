"""Gradient norms, Jacobian spectra and correlations of gradients of a network at initialization."""

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike

from allconv_resnet.errors import BadInput
from allconv_resnet.theory.balduzzi.matrix_networks import initial_blocks, kernel_gradient


@dataclass(frozen=True)
class GradientMeasures:
    """The result of `measure_gradients` for one network.

    Attributes:
        backward_growth: Float, |dL/dh_0| / |dL/dh_depth|, by which the blocks change the norm of a gradient.
        weight_gradient: Float, norm of the gradient of the loss with respect to all kernels (and gains) of the blocks.
        largest: Float, the largest singular value of the Jacobian of the blocks at one input.
        median: Float, the median singular value.
        smallest: Float, the smallest singular value, 0 where it is within the rounding error of the largest one.
        correlation: Float, mean cosine of the input gradients of one output at pairs of close inputs. Gradients of 0,
            which have no direction, are left out; NaN if all are 0.
    """

    backward_growth: float
    weight_gradient: float
    largest: float
    median: float
    smallest: float
    correlation: float


def measure_gradients(
    variant: str,
    depth: int,
    h: ArrayLike,
    labels: ArrayLike,
    size: int,
    normalization: Literal["batch"] | None = None,
    distance: float = 0.1,
    seed: int = 0,
) -> GradientMeasures:
    """Returns gradient norms, Jacobian spectrum and correlation of gradients of a network at initialization.

    The loss L is the mean cross-entropy of a random projection of the channels' means, as in the networks of Hardt &
    Ma. The correlation is that of Balduzzi et al. (section 3): the gradient g of one random linear function of the
    outputs with respect to the input is compared at h and at `h + distance |h| n` with a random unit vector n. Where
    these gradients are uncorrelated ("shattered"), a step along one of them is of no use beside its own point.

    Args:
        variant: One of `VARIANTS`, see `initial_blocks`.
        depth: Positive integer, number of blocks.
        h: `[b, size * size * channels]`, inputs of the first block.
        labels: `[b]`, integers, the classes for the loss.
        size: Positive integer, height and width of the maps.
        normalization: None or `"batch"`.
        distance: Positive float.
        seed: Integer, of the kernels, the projection and the directions.

    Returns:
        `GradientMeasures`.

    Raises:
        BadInput: if `h` is not finite, if `labels` are not integers of at least 0 or all of them are 0, or as in
            `initial_blocks`.

    Example: blocks that are the identity keep gradients as they are.

    >>> h, labels = np.random.default_rng(0).normal(size=(5, 2 * 2 * 3)), np.arange(5)
    >>> found = measure_gradients("skipinit", 6, h, labels, size=2)
    >>> found.backward_growth, found.largest, found.smallest, round(found.correlation, 12)
    (1.0, 1.0, 1.0, 1.0)
    """
    h, labels = np.asarray(h, np.float64), np.asarray(labels)
    if h.ndim != 2 or not np.isfinite(h).all():
        raise BadInput(f"h must be a finite array [b, size * size * channels]. Received: h of shape {list(h.shape)}")
    if labels.shape != (len(h),) or labels.dtype.kind not in "iu" or labels.min() < 0 or labels.max() < 1:
        raise BadInput(
            f"labels must be {len(h)} integers of at least 0, and not all of them 0. "
            f"Received: labels={np.array2string(labels, threshold=6, edgeitems=2)}"
        )
    rng = np.random.default_rng(seed)
    blocks = initial_blocks(variant, depth, h, size, normalization, seed)
    channels, classes = h.shape[1] // size**2, int(labels.max()) + 1
    projection = rng.standard_normal((channels, classes)) / np.sqrt(channels)
    states = forward(blocks, h)
    logits = states[-1][0].reshape(len(h), -1, channels).mean(axis=1) @ projection
    odds = np.exp(logits - logits.max(axis=1, keepdims=True))
    errors = (odds / odds.sum(axis=1, keepdims=True) - np.eye(classes)[labels]) / len(h)
    last = np.tile(errors @ projection.T / size**2, size**2)
    first, weight_gradient = backward(blocks, states, last, size)

    direction = rng.standard_normal(h.shape)
    direction *= distance * np.linalg.norm(h, axis=1, keepdims=True) / np.linalg.norm(direction, axis=1, keepdims=True)
    output = np.tile(projection @ rng.standard_normal(classes), size**2) * np.ones((len(h), 1))
    here, there = (backward(blocks, forward(blocks, x), output)[0] for x in (h, h + direction))
    lengths = np.linalg.norm(here, axis=1) * np.linalg.norm(there, axis=1)
    kept = lengths > 0
    cosines = np.sum(here * there, axis=1)[kept] / lengths[kept]

    J = np.eye(h.shape[1])
    for block, (_, _, active) in zip(blocks, states[1:], strict=True):
        J = block.push(J, active[0])
    values = np.linalg.svd(J, compute_uv=False)
    return GradientMeasures(
        backward_growth=float(np.linalg.norm(first) / np.linalg.norm(last)),
        weight_gradient=weight_gradient,
        largest=float(values[0]),
        median=float(np.median(values)),
        smallest=float(values[-1]) if values[-1] > len(values) * np.finfo(np.float64).eps * values[0] else 0.0,
        correlation=float(np.mean(cosines)) if kept.any() else float("nan"),
    )


def forward(blocks, h):
    """Returns the states `(output, hidden, active)` of all blocks for a batch; the first one has the inputs alone."""
    states = [(h, None, None)]
    for block in blocks:
        states.append(block.forward(states[-1][0]))
    return states


def backward(blocks, states, gradient, size=None):
    """Returns the gradient of the inputs from that of the outputs, and the norm of the gradient of all weights.

    Args:
        blocks: List of `Block`.
        states: The result of `forward`.
        gradient: `[b, n]`, the gradient of the outputs of the last block.
        size: Integer, height and width of the maps, or None to leave out the weights.

    Returns:
        Array `[b, n]` and a float (0 if they are left out).
    """
    squares = 0.0
    for block, (h, _, _), (_, hidden, active) in zip(blocks[::-1], states[-2::-1], states[:0:-1], strict=True):
        outer = gradient
        gradient, before, after = block.backward(gradient, active)
        if size is not None:
            squares += np.sum(kernel_gradient(before.T @ h, size) ** 2)
            squares += np.sum(kernel_gradient(after.T @ hidden, size) ** 2)
            if block.gain == 0:  # SkipInit trains it
                branch = (hidden @ block.second.T - block.shifts[1]) * block.scales[1]
                squares += np.sum(outer * branch) ** 2
    return gradient, float(np.sqrt(squares))
