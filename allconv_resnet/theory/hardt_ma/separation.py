"""Residual blocks that map every point to the surrogate vector of its class: theorem 3.2 without lemma B.1.

The points `z_i` are sorted by decreasing norm, and each gets one neuron with input weights `u_i = z_i / |z_i|`. For
every later distinct point, `<u_i, z_j> < |z_i|` by the Cauchy-Schwarz inequality, since `|z_j| <= |z_i|`. With a
threshold half-way between `|z_i|` and the largest `<u_i, z_j>`, the neuron is therefore inactive on all later points.
This argument replaces the assumption of the paper that all norms are close to 1. A block consists of the neurons of
`width` consecutive points. On these points the matrix of activations is triangular, so solving a triangular system
gives the output weights that map each point exactly to its surrogate. Surrogates have small norms, so points that have
reached theirs activate no later neuron.
"""

from dataclasses import dataclass

import numpy as np
from scipy.linalg.blas import dtrsm

from allconv_resnet.theory.hardt_ma.embedding import Inseparable, chunks


@dataclass(frozen=True)
class Blocks:
    """The residual blocks and the readout in the precision of the network, and their margins."""

    U: np.ndarray  # [blocks, neurons, width]
    s: np.ndarray  # [blocks, neurons]
    V: np.ndarray  # [blocks, width, neurons]
    readout: np.ndarray  # [width, classes]
    readout_bias: np.ndarray  # [classes]
    surrogates: np.ndarray  # [classes, width], where the points of each class end
    apart: float  # the smallest distance between two surrogates; every point ends within an eighth of it
    smallest_margin: float  # see `MemorizationReport`
    rounding: float  # upper bound of the distance of a point to its surrogate, relative to the allowed distance


def surrogates(num_classes, width):
    """Returns one vector for each class, far apart from one another, and the smallest distance between two of them.

    The vectors are signed unit vectors if there are enough of them, and points of a grid otherwise.

    Args:
        num_classes: Positive integer.
        width: Positive integer.

    Returns:
        Float64 array `[num_classes, width]` of vectors with norm at most 1, and a float.
    """
    if num_classes <= 2 * width:
        vectors = np.concatenate([np.eye(width), -np.eye(width)])[:num_classes]
        return vectors, np.inf if num_classes == 1 else np.sqrt(2) if width > 1 else 2.0
    levels = next(m for m in range(2, num_classes + 1) if m**width >= num_classes)
    axes = next(a for a in range(1, width + 1) if levels**a >= num_classes)
    vectors, rest = np.zeros((num_classes, width)), np.arange(num_classes)
    for axis in range(axes):
        vectors[:, axis] = (2 * (rest % levels) / (levels - 1) - 1) / np.sqrt(axes)
        rest = rest // levels
    return vectors, 2 / ((levels - 1) * np.sqrt(axes))


def separate(z, labels, num_classes, dtype, error, fewer, progress):
    """Returns residual blocks that map every point to the surrogate of its class (theorem 3.2).

    Args:
        z: `[n, width]`, float64, the embedded points.
        labels: `[n]`, integers in `[0, num_classes)`.
        num_classes: Positive integer.
        dtype: `"float32"` or `"float64"`, the precision in which the network computes.
        error: `[n]`, upper bounds of the rounding errors of z in the network.
        fewer: Whether a block may have fewer than `width` neurons where rounding errors would otherwise grow too large.
        progress: Callable `(stage, done, total)`.

    Returns:
        A `Blocks`.

    Raises:
        Inseparable: if the margins are too small for the precision.
    """
    n, width = z.shape
    eps = np.finfo(dtype).eps / 2
    norms = np.linalg.norm(z, axis=1)
    order = np.argsort(-norms, kind="stable")
    z, labels, norms, error = z[order], labels[order], norms[order], error[order]
    radius = norms[-1] / 2
    if not radius > error[-1]:
        raise Inseparable((order[-1], order[-1]), "which lies at the center of the others")
    q, apart = surrogates(num_classes, width)
    q, apart = (radius * q).astype(dtype).astype(np.float64), radius * apart
    # The logits (2 <q_c, h> - |q_c|^2) / radius^2 also have a rounding error, of at most 3 (width + 2) eps.
    allowed = apart / 2 - 3 * (width + 2) * eps * radius**2 / apart
    # The rounding error of the input of a neuron, on its own point and on later ones.
    noise = np.maximum.accumulate(error[::-1])[::-1] + 2 * (width + 3) * eps * norms

    u = (z / norms[:, None]).astype(dtype).astype(np.float64)
    own = np.sum(u * z, axis=1)
    rival = np.empty(n)
    for rows, found in _rivals(u, z, q):
        rival[rows] = found
        room = own[rows] - found - 4 * noise[rows]
        if not room.min() > 0:
            first = rows.start + room.argmin()
            raise Inseparable(
                (order[first], order[_nearest(u, z, first)]),
                f"whose margin is too small for this construction in {dtype}",
            )
        progress("margins", rows.stop, n)
    threshold = ((own + rival) / 2).astype(dtype).astype(np.float64)

    U, s, V, worst, first = [], [], [], 0.0, 0
    while first < n:
        size = min(width, n - first)
        while True:
            rows = slice(first, first + size)
            active = np.triu(np.maximum(z[rows] @ u[rows].T - threshold[rows], 0))  # [point, neuron]
            # BLAS is called directly, since LAPACK's solver would start threads for this small system.
            outgoing = dtrsm(1.0, active, q[labels[rows]] - z[rows])
            lengths = np.linalg.norm(outgoing, axis=1)
            missed = error[rows] + noise[first] * np.cumsum(lengths[::-1])[::-1]
            missed = missed + (width + 2) * eps * (own[rows] + active @ lengths)
            if missed.max() <= allowed / 4:  # then mapped points activate no neuron either
                break
            if size == 1 or not fewer:
                raise Inseparable(
                    (order[first], order[_nearest(u, z, first)]),
                    f"whose margin is too small for this construction in {dtype}",
                )
            size //= 2  # with fewer neurons, errors grow less in the triangular system
        for stack, value in ((U, u[rows]), (s, -threshold[rows]), (V, outgoing.T)):
            stack.append(value)
        worst = max(worst, missed.max() / allowed)
        first += size
        progress("blocks", first, n)
    return Blocks(
        U=_stacked(U, (width, width), dtype),
        s=_stacked(s, (width,), dtype),
        V=_stacked(V, (width, width), dtype),
        readout=(2 * q.T / radius**2).astype(dtype),
        readout_bias=(-np.sum(q**2, axis=1) / radius**2).astype(dtype),
        surrogates=q,
        apart=apart,
        smallest_margin=float(np.min((own - rival) / own)),
        rounding=float(worst),
    )


def _rivals(u, z, q):
    """Yields `(rows, rival)`, the largest `<u_i, .>` over the later points and the surrogates, in chunks of points.

    This takes `O(n^2 width)` operations, but holds only a strip of the `n x n` products in memory.
    """
    for rows in chunks(len(z), 8 * len(z)):
        products = u[rows] @ z[rows.start :].T
        size = len(products)
        products[:, :size][np.tril_indices(size)] = -np.inf
        yield rows, np.maximum(products.max(axis=1), (u[rows] @ q.T).max(axis=1))


def _nearest(u, z, i):
    """Returns the later point with the largest `<u_i, .>`, or i itself if there is no later point."""
    return i + 1 + int(np.argmax(z[i + 1 :] @ u[i])) if i + 1 < len(z) else i


def _stacked(parts, shape, dtype):
    """Stacks arrays into `[len(parts), *shape]` and pads those of blocks with fewer neurons with zeros."""
    stack = np.zeros((len(parts), *shape), dtype)
    for row, part in zip(stack, parts, strict=True):
        row[tuple(slice(size) for size in part.shape)] = part
    return stack
