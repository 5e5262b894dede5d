"""Convolutional residual networks at initialization as products of matrices, in float64 NumPy.

The blocks are those of `allconv_resnet.blocks.ResidualBlock` with ReLU, `h -> h + gain N2(C2 ReLU(N1(C1 h)))`, and the
kernels come from the same initializers. Every 3x3 convolution on small maps is written as a matrix, so that Jacobians
are products of matrices, which take milliseconds. N1 and N2 are the identity, or batch normalization with the
statistics of one batch, which are then fixed as in inference.
"""

from dataclasses import dataclass
from typing import Literal

import keras
import numpy as np
from numpy.typing import ArrayLike

from allconv_resnet import initializers
from allconv_resnet.errors import BadInput
from allconv_resnet.theory.checks import positive_integer

VARIANTS: tuple[str, ...] = ("near_identity", "standard", "he", "fixup", "skipinit", "plain")
_EPSILON = 1e-3  # of Keras's batch normalization


@dataclass
class Block:
    """One block: two convolutions as matrices `[n, n]` with `n = size^2 channels`, and what happens between them."""

    first: np.ndarray
    second: np.ndarray
    gain: float
    identity: bool
    shifts: list[np.ndarray]  # means that batch normalization subtracts, two arrays [n]
    scales: list[np.ndarray]  # factors by which it multiplies, two arrays [n]

    def forward(self, h):
        """Returns the output for a batch `[b, n]`, the hidden activations, and which neurons are active."""
        inner = (h @ self.first.T - self.shifts[0]) * self.scales[0]
        active = inner > 0
        hidden = inner * active
        branch = (hidden @ self.second.T - self.shifts[1]) * self.scales[1]
        return self.identity * h + self.gain * branch, hidden, active

    def backward(self, gradient, active):
        """Returns the gradients of the input, of the output of the first matrix, and of the second one."""
        after = self.gain * gradient * self.scales[1]
        before = (after @ self.second) * active * self.scales[0]
        return self.identity * gradient + before @ self.first, before, after

    def push(self, J, active):
        """Returns the Jacobian of the network up to this block, from that up to the block before."""
        if self.gain == 0 or not self.second.any():
            return J if self.identity else np.zeros_like(J)
        branch = self.second @ ((active * self.scales[0])[:, None] * (self.first @ J))
        return self.identity * J + self.gain * self.scales[1][:, None] * branch


def initial_blocks(
    variant: str, depth: int, h: ArrayLike, size: int, normalization: Literal["batch"] | None = None, seed: int = 0
) -> list[Block]:
    """Returns the blocks of a network at initialization.

    Args:
        variant: `"near_identity"` (Hardt & Ma: standard deviation `1/(k^2 c)`), `"standard"` (`1/(k sqrt(c))`), `"he"`
            (`sqrt(2)/(k sqrt(c))`), `"fixup"` (Zhang, Dauphin & Ma, arXiv 1901.09321: He's times `depth^(-1/2)` for the
            first convolution of a block, and zeros for the second one), `"skipinit"` (De & Smith, arXiv 2002.10444:
            He's, and a gain of 0 after N2) or `"plain"` (He's, without the identity).
        depth: Positive integer, number of blocks.
        h: `[b, size * size * channels]`, the inputs of the first block, with channels last.
        size: Positive integer, height and width of the maps.
        normalization: None, or `"batch"` for batch normalization with the statistics of the batch h.
        seed: Integer.

    Returns:
        List of `Block`.

    Raises:
        BadInput: if an argument is out of range.

    Example:

    >>> h = np.random.default_rng(0).normal(size=(5, 2 * 2 * 3))
    >>> blocks = initial_blocks("fixup", 4, h, size=2)
    >>> bool(np.all(blocks[0].forward(h)[0] == h))  # the identity
    True
    """
    if variant not in VARIANTS:
        raise BadInput(f"variant must be one of {', '.join(VARIANTS)}. Received: variant={variant!r}")
    if normalization not in (None, "batch"):
        raise BadInput(f'normalization must be None or "batch". Received: normalization={normalization!r}')
    depth, size = positive_integer(depth, "depth"), positive_integer(size, "size")
    h = np.asarray(h, np.float64)
    channels, rest = divmod(h.shape[1], size * size)
    if rest:
        raise BadInput(f"h must have a multiple of {size * size} columns. Received: shape {list(h.shape)}")
    shape = (3, 3, channels, channels)
    name = variant if variant in ("near_identity", "standard") else "he"
    blocks = []
    for b in range(depth):
        kernels = [
            keras.ops.convert_to_numpy(initializers.for_kernel(name, 10_000 * seed + 2 * b + i)(shape, "float32"))
            for i in (0, 1)
        ]
        if variant == "fixup":
            kernels = [kernels[0] * depth**-0.5, np.zeros(shape)]
        first, second = (convolution_matrix(kernel, size) for kernel in kernels)
        none, ones = np.zeros(h.shape[1]), np.ones(h.shape[1])
        gain = 0.0 if variant == "skipinit" else 1.0
        block = Block(first, second, gain, variant != "plain", [none, none], [ones, ones])
        if normalization:
            block.shifts[0], block.scales[0] = _statistics(h @ first.T, channels)
            block.shifts[1], block.scales[1] = _statistics(block.forward(h)[1] @ second.T, channels)
        h = block.forward(h)[0]
        blocks.append(block)
    return blocks


def convolution_matrix(kernel, size):
    """Returns the matrix of a convolution with SAME borders on maps of `size x size`, with channels last.

    Args:
        kernel: `[3, 3, inputs, outputs]`.
        size: Positive integer.

    Returns:
        Float64 array `[size * size * outputs, size * size * inputs]`.

    Example:

    >>> kernel = np.arange(9.0).reshape(3, 3, 1, 1)
    >>> convolution_matrix(kernel, 1).tolist()  # the center
    [[4.0]]
    """
    inputs, outputs = kernel.shape[2:]
    matrix = np.zeros((size, size, outputs, size, size, inputs))
    for (dy, dx), (y, x) in _offsets(size):
        matrix[y, x, :, y + dy, x + dx] = kernel[dy + 1, dx + 1].T
    return matrix.reshape(size * size * outputs, size * size * inputs)


def kernel_gradient(matrix_gradient, size):
    """Returns the gradient of the kernel of `convolution_matrix` from that of the matrix.

    Args:
        matrix_gradient: `[size * size * outputs, size * size * inputs]`.
        size: Positive integer.

    Returns:
        Float64 array `[3, 3, inputs, outputs]`.
    """
    outputs, inputs = (n // (size * size) for n in matrix_gradient.shape)
    matrix = matrix_gradient.reshape(size, size, outputs, size, size, inputs)
    result = np.zeros((3, 3, inputs, outputs))
    for (dy, dx), (y, x) in _offsets(size):
        result[dy + 1, dx + 1] = matrix[y, x, :, y + dy, x + dx].sum(axis=0).T
    return result


def _offsets(size):
    """Yields each offset of a 3x3 kernel with the positions `(y, x)` at which it stays inside of the map."""
    y, x = (axis.ravel() for axis in np.mgrid[:size, :size])
    for dy in (-1, 0, 1):
        for dx in (-1, 0, 1):
            inside = (y + dy >= 0) & (y + dy < size) & (x + dx >= 0) & (x + dx < size)
            yield (dy, dx), (y[inside], x[inside])


def _statistics(values, channels):
    """Returns the means and the factors of batch normalization, for every neuron."""
    by_channel = values.reshape(-1, channels)
    repeats = values.shape[1] // channels
    factors = 1 / np.sqrt(by_channel.var(axis=0) + _EPSILON)
    return np.tile(by_channel.mean(axis=0), repeats), np.tile(factors, repeats)
