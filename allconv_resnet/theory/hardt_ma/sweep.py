"""Residual blocks of two neurons that fit `width` points each: theorem 3.2 with 4 weights a point.

The blocks read the embedded points z and write to one more coordinate a, which starts at 0. In the end, a is the
centered label of every point. Let p be the first coordinate of z. The points are swept in the order of decreasing p,
in groups of consecutive points, and each group has a block of two neurons with one number b between the group and the
later points:

    A = ReLU(M (p - b) + <v, z> + c),    B = ReLU(M (p - b)),    a <- a + A - B,    p <- p - K B

Here v does not read p. The claim is that the block adds the label y to a on its group and changes no other point:

- On the group, v and c solve the linear equations `<v, z_i> + c = y_i`. They have a solution for up to `width` points
  that are affinely independent without p, and always for one point (v = 0). With `M (p_i - b) >= |y_i|` both neurons
  are active, and A - B is `y_i` exactly.
- On later points p < b. With `M (b - p_j) >= <v, z_j> + c` both neurons are inactive.
- Earlier points have been moved to `p - K B`, so far below all others that both neurons are inactive as well.

All conditions hold for large M and K. If the points differ in p, then n points need at most n blocks of two neurons,
and `ceil(n / width)` if every group of `width` consecutive points is affinely independent. A block has `4 width + 6`
weights here, which are about 4 for each point. The construction of `separation` needs `2 width + 1` for each point, and
that of theorem 3.2 needs `2 log n + 1`.

In floating point M cannot be arbitrarily large: A - B has a rounding error of about `eps M |p|`. The group is therefore
chosen as large as the error bound allows, which prefers wide gaps in p. It has fewer than `width` points for the same
reason: the solution v of a square system is large.
"""

import numpy as np

from allconv_resnet.theory.hardt_ma.embedding import Inseparable
from allconv_resnet.theory.hardt_ma.separation import Blocks

_ALLOWED = 0.125  # of the distance of two labels, so that labels and `unit_outputs` tolerate it
_NEAR = 64  # later points with which the candidates for a group are compared first


def sweep(embedding, labels, num_classes, dtype, progress):
    """Returns residual blocks that write the label of every point to an additional last coordinate.

    Args:
        embedding: `Embedding` of n points in `width` dimensions.
        labels: `[n]`, integers in `[0, num_classes)`.
        num_classes: Positive integer.
        dtype: `"float32"` or `"float64"`, the precision in which the network computes.
        progress: Callable `(stage, done, total)`.

    Returns:
        A `Blocks` with `width + 1` coordinates and 2 neurons a block.

    Raises:
        Inseparable: if the gaps are too small for the precision.
    """
    z = embedding.z
    n, width = z.shape
    order = np.argsort(-z[:, 0], kind="stable")
    targets, errors = labels[order] - (num_classes - 1) / 2, (embedding.error[order], embedding.first_error[order])
    group = _Groups(z[order], targets, *errors, dtype)
    U, s, V, first = [], [], [], 0
    while first < n:
        size, block = group.largest(first)
        if block is None:
            pair = (order[first], order[min(first + 1, n - 1)])
            raise Inseparable(pair, f"whose margin is too small for this construction in {dtype}")
        for stack, value in zip((U, s, V), block, strict=True):
            stack.append(value)
        first += size
        progress("blocks", first, n)
    values = np.arange(num_classes) - (num_classes - 1) / 2
    readout = np.zeros((width + 1, num_classes))
    readout[-1] = 2 * values
    return Blocks(
        U=np.array(U, dtype),
        s=np.array(s, dtype),
        V=np.array(V, dtype),
        readout=readout.astype(dtype),
        readout_bias=(-(values**2)).astype(dtype),
        surrogates=np.concatenate([np.zeros((num_classes, width)), values[:, None]], axis=1),
        apart=1.0 if num_classes > 1 else np.inf,
        smallest_margin=float(group.smallest_gap / np.abs(z[:, 0]).max()),
        rounding=float(group.worst / 0.5),
    )


class _Groups:
    """The points in the order of the sweep, and what earlier blocks have done to them."""

    def __init__(self, z, y, error, first_error, dtype):
        self.y, self.error, self.first_error, self.dtype = y, error, first_error, dtype
        self.p, self.rest = z[:, 0].copy(), np.concatenate([z[:, 1:], np.ones((len(z), 1))], axis=1)
        self.lengths = np.linalg.norm(self.rest, axis=1)
        self.floor = -3 * np.abs(self.p).max() - 1  # earlier points are moved below it
        self.worst, self.smallest_gap = 0.0, np.inf

    def largest(self, first):
        """Returns the size of the largest group from `first` on that the error bound allows, and its block, or None."""
        n, width = self.rest.shape
        for size in range(min(width, n - first), 0, -1):
            near = self._fit(first, size, slice(first + size, min(n, first + size + _NEAR)))
            if near is None:
                continue
            fitted = self._fit(first, size, slice(None))
            if fitted is not None:
                return size, self._block(first, size, *fitted)
        return 0, None

    def _fit(self, first, size, others):
        """Returns b, (v, c), M and the error bound for a group, compared with some of the other points, or None."""
        last, n = first + size, len(self.p)
        eps = np.finfo(self.dtype).eps / 2
        rows = slice(first, last)
        following = self.p[last] if last < n else self.p[last - 1] - 1
        b = float(np.dtype(self.dtype).type((self.p[last - 1] + following) / 2))
        v = np.linalg.lstsq(self.rest[rows], self.y[rows], rcond=None)[0].astype(self.dtype).astype(np.float64)
        missed = np.abs(self.rest[rows] @ v - self.y[rows]).max()
        if not missed < _ALLOWED / 2:
            return None
        size_v = np.linalg.norm(v)
        noise = self.first_error + 4 * eps * (np.abs(self.p) + abs(b))  # of p - b
        inside = self.p[rows] - b - noise[rows]
        outside = b - self.p[others] - noise[others]
        value = np.abs(self.rest[others] @ v) + size_v * (self.error[others] + 8 * eps * self.lengths[others])
        if others == slice(None):
            outside, value = np.delete(outside, np.r_[rows]), np.delete(value, np.r_[rows])
        if not (inside.min() > 0 and outside.min(initial=np.inf) > 0):
            return None
        M = max(((np.abs(self.y[rows]) + 1) / inside).max(), (value / outside).max(initial=0.0)) * 1.01
        reach = np.abs(self.p[rows]).max() + abs(b)
        # The inputs of both neurons are sums of M p, of <v, z> and of their bias, and so are their rounding errors.
        rounding = 4 * eps * M * reach + size_v * (self.error[rows] + 8 * eps * self.lengths[rows]).max() + missed
        return (b, v, M, rounding) if rounding <= _ALLOWED else None

    def _block(self, first, size, b, v, M, rounding):
        rows, width = slice(first, first + size), self.rest.shape[1]
        active = M * (self.p[rows] - b)
        K = (self.p[rows] - self.floor).max() / active.min()
        self.worst = max(self.worst, rounding)
        if first + size < len(self.p):
            self.smallest_gap = min(self.smallest_gap, self.p[first + size - 1] - b)
        self.p[rows] -= K * active
        self.first_error[rows] *= 1 + K * M
        U, V = np.zeros((2, width + 1)), np.zeros((width + 1, 2))
        U[:, 0] = M
        U[0, 1:-1] = v[:-1]
        V[0, 1], V[-1] = -K, (1, -1)
        return U, np.array([v[-1] - M * b, -M * b]), V
