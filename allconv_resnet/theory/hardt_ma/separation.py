"""Residual blocks that carry every point to its class's surrogate vector: the proof of theorem 3.2 without lemma B.1.

The points `z_i`, largest norm first, get one neuron each, along `u_i = z_i / |z_i|`. For every later distinct point
`<u_i, z_j> < |z_i|` (Cauchy-Schwarz, as `|z_j| <= |z_i|`), so a threshold half-way between `|z_i|` and the largest
`<u_i, z_j>` leaves the neuron silent on all that come after; that replaces the paper's nearly unit norms. A block holds
the neurons of `width` points in a row. Seen from its own points its activations are triangular, so a triangular system
gives the outgoing weights that take each point exactly to its surrogate. Surrogates are short, so finished points wake
no neuron again.
"""

from dataclasses import dataclass

import numpy as np
from scipy.linalg.blas import dtrsm

from allconv_resnet.theory.embedding import Inseparable, chunks


@dataclass(frozen=True)
class Blocks:
    """The residual blocks and the readout, in the precision of the network, and what was measured on the way."""

    U: np.ndarray  # [blocks, width, width]
    s: np.ndarray  # [blocks, width]
    V: np.ndarray  # [blocks, width, width]
    readout: np.ndarray  # [width, classes]
    readout_bias: np.ndarray  # [classes]
    smallest_margin: float  # least (|z_i| - largest <u_i, later point>) / |z_i|
    rounding: float  # bound of the distance from a surrogate at which points end, over the distance that is allowed


def surrogates(num_classes, width):
    """Returns `(vectors, distance)`: one vector of norm at most 1 for each class, `[num_classes, width]`, far apart.

    Signed unit vectors where there are enough of them, else the points of a grid. `distance` is the least between two.
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
    """Builds the blocks.

    Args:
        z: `[n, width]`, float64, the embedded points.
        labels: `[n]`, integers in `[0, num_classes)`.
        num_classes: Integer.
        dtype: `"float32"` or `"float64"`, in which the network computes.
        error: `[n]`, bounds of the rounding error of z in the network.
        fewer: Whether a block may have fewer than `width` neurons, where more would let the rounding errors grow.
        progress: Function of `(stage, done, total)`.

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
        raise Inseparable((order[-1], order[-1]), "it lies at the center of the others")
    q, apart = surrogates(num_classes, width)
    q, apart = (radius * q).astype(dtype).astype(np.float64), radius * apart
    # logits_c = (2 <q_c, h> - |q_c|^2) / radius^2 are rounded too, by at most 3 (width + 2) eps
    allowed = apart / 2 - 3 * (width + 2) * eps * radius**2 / apart
    # of a neuron's input, on its own and on later points
    noise = np.maximum.accumulate(error[::-1])[::-1] + 2 * (width + 3) * eps * norms

    u = (z / norms[:, None]).astype(dtype).astype(np.float64)
    own = np.sum(u * z, axis=1)
    rival = np.empty(n)
    for rows, found in _rivals(u, z, q):
        rival[rows] = found
        room = own[rows] - found - 4 * noise[rows]
        if not room.min() > 0:
            first = rows.start + room.argmin()
            raise Inseparable((order[first], order[_nearest(u, z, first)]), f"too close for {dtype}")
        progress("margins", rows.stop, n)
    threshold = ((own + rival) / 2).astype(dtype).astype(np.float64)

    U, s, V, worst, first = [], [], [], 0.0, 0
    while first < n:
        size = min(width, n - first)
        while True:
            rows = slice(first, first + size)
            active = np.triu(np.maximum(z[rows] @ u[rows].T - threshold[rows], 0))  # [point, neuron]
            outgoing = dtrsm(1.0, active, q[labels[rows]] - z[rows])  # LAPACK's solver starts threads for so little
            lengths = np.linalg.norm(outgoing, axis=1)
            missed = error[rows] + noise[first] * np.cumsum(lengths[::-1])[::-1]
            missed = missed + (width + 2) * eps * (own[rows] + active @ lengths)
            if missed.max() <= allowed / 4:  # then no finished point wakes a neuron either
                break
            if size == 1 or not fewer:
                raise Inseparable((order[first], order[_nearest(u, z, first)]), f"too close for {dtype}")
            size //= 2  # fewer neurons, less growth in the triangular system
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
        smallest_margin=float(np.min((own - rival) / own)),
        rounding=float(worst),
    )


def _rivals(u, z, q):
    """Yields `(rows, rival)`: the largest `<u_i, .>` over the later points and the surrogates, for a chunk of points.

    `O(n^2 width)` operations, but only a strip of the `n x n` products at a time.
    """
    for rows in chunks(len(z), 8 * len(z)):
        products = u[rows] @ z[rows.start :].T
        size = len(products)
        products[:, :size][np.tril_indices(size)] = -np.inf
        yield rows, np.maximum(products.max(axis=1), (u[rows] @ q.T).max(axis=1))


def _nearest(u, z, i):
    """Returns which later point neuron i would mistake for its own first; i itself if there is none."""
    return i + 1 + int(np.argmax(z[i + 1 :] @ u[i])) if i + 1 < len(z) else i


def _stacked(parts, shape, dtype):
    """Stacks arrays of up to `shape` into `[len(parts), *shape]`; zeros fill up blocks that have fewer neurons."""
    stack = np.zeros((len(parts), *shape), dtype)
    for row, part in zip(stack, parts, strict=True):
        row[tuple(slice(size) for size in part.shape)] = part
    return stack
