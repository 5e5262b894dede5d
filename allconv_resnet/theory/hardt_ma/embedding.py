"""From data in any number of dimensions to well-spread points in few: the first layer of `expressivity.memorize`.

A random orthonormal frame takes `x - mean` to `width` dimensions (the paper's random projection, section 3) and a
whitening in these dimensions equalizes their variances. Whitening widens the margins: on CIFAR-10 brightness dominates
a random frame alone, and whitened principal components leave a tenth of the margin that a whitened frame does.
"""

from dataclasses import dataclass

import numpy as np

_CHUNK_BYTES = 2**26


class Inseparable(Exception):
    """The construction fails at this precision. `points` are the indices of the points that are too close to call."""

    def __init__(self, points, reason):
        super().__init__(reason)
        self.points = points


@dataclass(frozen=True)
class Embedding:
    """The map `z = (x - center) kernel + bias`, in the precision `dtype` of its arrays, and how well it is known."""

    center: np.ndarray  # [d]
    kernel: np.ndarray  # [d, width]
    bias: np.ndarray  # [width]
    z: np.ndarray  # [n, width], float64, the images of the points under the rounded arrays
    error: np.ndarray  # [n], bound of |z computed in dtype - z|


def embed(x, width, input_dtype, dtype, seed, shift):
    """Embeds points in `width` dimensions, reading them chunk by chunk.

    Args:
        x: `[n, d]`, any real dtype.
        width: Integer.
        input_dtype: `"float32"` or `"float64"`, to which the network rounds x first.
        dtype: `"float32"` or `"float64"`, in which the network computes.
        seed: Integer.
        shift: Float; a bias of `shift` times the largest norm, in a random direction, is added to every point.

    Returns:
        An `Embedding`.

    Raises:
        Inseparable: if the points' spread is outside of the range of the precision.
    """
    rng = np.random.default_rng(seed)
    n, d = x.shape
    frame = np.linalg.qr(rng.standard_normal((d, min(d, width))))[0]
    center = _mean(x, input_dtype).astype(dtype)
    spread = 0.0
    for _, part in _centered(x, center, input_dtype):
        spread = np.maximum(spread, np.abs(part).max())  # unlike max(), keeps a NaN
    limits = np.finfo(input_dtype)
    if n == 1 and spread == 0:
        spread = 1.0
    if not limits.tiny * 1e4 < spread < limits.max * 1e-4:
        raise Inseparable((0, n - 1), f"a spread of {spread:.1g} around the mean is out of the range of {input_dtype}")

    raw, distance = np.empty((n, frame.shape[1])), np.empty(n)
    for rows, part in _centered(x, center, input_dtype):
        part /= spread
        raw[rows] = part @ frame
        distance[rows] = np.linalg.norm(part, axis=1)
    mean = raw.mean(axis=0)
    _, deviations, axes = np.linalg.svd(np.linalg.qr(raw - mean, mode="r"), full_matrices=False)
    deviations /= np.sqrt(n)
    eps = np.finfo(dtype).eps / 2
    largest = deviations.max(initial=0.0)
    # Below the drop there is rounding noise alone; between it and the floor, digits too few to be worth equal weight.
    kept = deviations > 100 * eps * largest
    whitening = axes[kept].T / np.maximum(deviations[kept], np.sqrt(eps) * largest)

    kernel = np.zeros((d, width))
    kernel[:, : kept.sum()] = frame @ whitening
    amplification = np.linalg.norm(kernel)
    kernel = (kernel / spread).astype(dtype)
    bias = np.zeros(width)
    bias[: kept.sum()] = -mean @ whitening
    z = np.empty((n, width))
    for rows, part in _centered(x, center, input_dtype):
        z[rows] = part @ kernel.astype(np.float64)
    direction = rng.standard_normal(width)
    size = np.linalg.norm(z + bias, axis=1).max()
    bias = (bias + shift * (size or 1.0) * direction / np.linalg.norm(direction)).astype(dtype)
    z += bias
    # Sums of d products: the rounding of blocked summation is a random walk of size eps |x - center| |kernel|, and it
    # was measured 7 to 10 times below that on 3,072 pixels; 2 is for other orders of summation.
    error = 2 * eps * (distance * amplification + np.linalg.norm(z, axis=1))
    return Embedding(center, kernel, bias, z, error)


def chunks(n, row_bytes):
    """Yields slices that cover `range(n)` such that the rows of one take a bounded amount of memory."""
    step = max(1, _CHUNK_BYTES // max(1, row_bytes))
    for start in range(0, n, step):
        yield slice(start, min(n, start + step))


def _centered(x, center, input_dtype):
    """Yields `(rows, x[rows] - center)` with the rounding that the network's first layer has, as float64."""
    for rows in chunks(len(x), 8 * x.shape[1]):
        with np.errstate(over="ignore", invalid="ignore"):
            part = x[rows].astype(input_dtype).astype(center.dtype) - center
        yield rows, part.astype(np.float64)


def _mean(x, input_dtype):
    n = len(x)
    total = np.zeros(x.shape[1])
    for rows in chunks(n, 8 * x.shape[1]):
        with np.errstate(over="ignore", invalid="ignore"):
            total += (x[rows].astype(input_dtype).astype(np.float64) / n).sum(axis=0)
    return total
