"""Extreme singular values of a linear operator by block Golub-Kahan-Lanczos bidiagonalization."""

from typing import Literal, Protocol

import numpy as np

from allconv_resnet.errors import BadInput, RunFailed
from allconv_resnet.types import Progress

ENTRIES = 10**8  # of the two bases, 0.8 GB in float64


class Operator(Protocol):
    """A linear operator that `lanczos_singular_values` takes, such as `JacobianOperator`."""

    @property
    def shape(self) -> tuple[int, int]:
        """Pair `(outputs, inputs)`."""
        ...

    def forward(self, vectors: np.ndarray) -> np.ndarray:
        """Returns the products of the operator with vectors `[b, inputs]`, an array `[b, outputs]`."""
        ...

    def backward(self, vectors: np.ndarray) -> np.ndarray:
        """Returns the products of the transposed operator with vectors `[b, outputs]`, an array `[b, inputs]`."""
        ...


def lanczos_singular_values(
    operator: Operator,
    k: int,
    which: Literal["largest", "smallest", "both"] = "both",
    tolerance: float = 1e-7,
    seed: int = 0,
    progress: Progress | None = None,
    limit: int | None = None,
) -> np.ndarray:
    """Returns the extreme singular values of a linear operator, from products with it alone.

    A Krylov space of one vector contains only one copy of a repeated singular value. This one is of a random block of
    `k` vectors, and therefore contains all copies that can be among the `k` largest or the `k` smallest values. Both
    bases are kept fully orthogonal. With the orthonormal bases U and V, A V = U T, and the residual of a singular value
    of T bounds its distance to a singular value of A.

    Args:
        operator: Object with `shape`, `forward` and `backward` as in `JacobianOperator`.
        k: Positive integer, number of singular values at an end of the spectrum.
        which: `"largest"`, `"smallest"` or `"both"`.
        tolerance: Positive float, largest residual relative to the largest singular value.
        seed: Integer, seed of the first block.
        progress: Callable `(done, total)`, where `total` is the largest possible number of products, or None.
        limit: Integer, largest number of products with the operator; None for what fits into 0.8 GB.

    Returns:
        Float64 array, descending: the `k` at one end, or the `k` largest and the `k` smallest, `[2k]` (all of them if
        there are fewer than `2k`). All have converged.

    Raises:
        BadInput: if `k` is not between 1 and the number of singular values.
        RunFailed: if some of them have not converged within the limit.

    Example:

    >>> class Diagonal:
    ...     shape = (6, 6)
    ...
    ...     def forward(self, vectors):
    ...         return vectors * [2, 2, 2, 1, 1, 0]
    ...
    ...     backward = forward
    >>> lanczos_singular_values(Diagonal(), 2).round(6).tolist()
    [2.0, 2.0, 1.0, 0.0]
    """
    n, m = min(operator.shape), max(operator.shape)
    if not 1 <= k <= n:
        raise BadInput(f"k must lie between 1 and the number of singular values, {n}. Received: k={k}")
    forward, backward = operator.forward, operator.backward
    if operator.shape[1] > operator.shape[0]:  # so that the right vectors are the shorter ones
        forward, backward = backward, forward
    limit = min(n, ENTRIES // (n + m) if limit is None else limit)
    random = np.random.default_rng(seed)
    V, U, T = np.empty((0, n)), np.empty((0, m)), np.empty((0, 0))
    block, checked = random.standard_normal((k, n)), 0
    while True:
        V, new = _extend(V, block[: n - len(V)], random)
        images = forward(new)
        U, left = _extend(U, images, random)
        T = np.pad(T, ((0, len(new)), (0, len(new))))
        T[:, -len(new) :] = U @ images.T
        block = _projected(backward(left), V)
        done = len(V)
        if progress is not None:
            progress(done, n)
        if done < min(n, limit) and done < max(2 * k, checked + max(10, checked // 8)):
            continue
        checked = done
        x, values, _ = np.linalg.svd(T)
        if done == n:
            return ends(values, k, which)
        residuals = ends(np.linalg.norm(block.T @ x[-len(new) :], axis=0), k, which)
        open_ = np.count_nonzero(residuals > tolerance * values[0])
        if not open_ and done >= 2 * k:
            return ends(values, k, which)
        if done >= limit:
            raise RunFailed(
                f"{open_} of {len(residuals)} singular values have not converged after {done} of {n} products. "
                f"The largest residual is {residuals.max():.2g} of {values[0]:.6g}, the largest singular value"
            )


def ends(values, k, which):
    """Returns the `k` largest, the `k` smallest, or both of descending values, and all if there are fewer than `2k`."""
    if which == "both":
        return values if 2 * k >= len(values) else np.append(values[:k], values[-k:])
    return values[:k] if which == "largest" else values[-k:]


def _extend(basis, vectors, random):
    """Returns an orthonormal basis, by rows, with as many more vectors as there are, and these new ones.

    Vectors in the span of the basis are replaced by random ones.
    """
    old = len(basis)
    basis = np.concatenate([basis, np.empty_like(vectors, np.float64)])
    for i, vector in enumerate(vectors, start=old):
        scale = np.linalg.norm(vector)
        vector = _projected(vector, basis[:i])
        while np.linalg.norm(vector) <= 1e-12 * scale:
            vector = random.standard_normal(vector.size)
            scale = np.linalg.norm(vector)
            vector = _projected(vector, basis[:i])
        basis[i] = vector / np.linalg.norm(vector)
    return basis, basis[old:]


def _projected(vectors, basis):
    for _ in range(2):  # two passes are enough (Kahan)
        vectors = vectors - (vectors @ basis.T) @ basis
    return vectors
