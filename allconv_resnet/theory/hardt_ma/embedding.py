"""The first layer of `expressivity.memorize`: a whitened random projection of the data to `width` dimensions.

A random orthonormal frame maps `x - mean` to `width` dimensions (the random projection of section 3 of Hardt & Ma), and
whitening then equalizes the variances of these dimensions. Whitening widens the margins: on CIFAR-10 the brightness
dominates a random projection that is not whitened, and whitened principal components have a tenth of the margin of a
whitened random projection.
"""

from dataclasses import dataclass

import numpy as np

_CHUNK_BYTES = 2**24


class Inseparable(Exception):
    """Two points are too close for the construction at this precision.

    Args:
        points: Pair of integers, the indices of the two points.
        reason: String.
    """

    def __init__(self, points, reason):
        super().__init__(reason)
        self.points = points


@dataclass(frozen=True)
class Embedding:
    """The map `z = (x - center) kernel + bias` with weights in the precision of the network, and its rounding error."""

    center: np.ndarray  # [d]
    kernel: np.ndarray  # [d, width]
    bias: np.ndarray  # [width]
    z: np.ndarray  # [n, width], float64, the embedded points, computed with the rounded weights
    error: np.ndarray  # [n], upper bound of |z computed in the precision of the network - z|
    first_error: np.ndarray  # [n], the same of the first coordinate of z alone


def embed(x, width, input_dtype, dtype, seed, shift, first=None):
    """Embeds points in `width` dimensions, in chunks of bounded memory.

    The coordinates of z are in the order of their variance before the whitening, the largest first, unless `first` is
    `"random"`.

    Args:
        x: `[n, d]`, real numbers of any dtype.
        width: Positive integer.
        input_dtype: `"float32"` or `"float64"`, the precision to which the network first rounds x.
        dtype: `"float32"` or `"float64"`, the precision in which the network computes.
        seed: Integer, seed of the projection and of the direction of the shift.
        shift: Float. All points are shifted in a random direction, by `shift` times the largest norm.
        first: None, `"principal"` or `"random"`, the direction of the first coordinate of z. A principal direction,
            of almost the largest variance, has the smallest rounding error, and a random one tells any two points
            apart.

    Returns:
        An `Embedding`.

    Raises:
        Inseparable: if the spread of the points is outside the range of the precision.
    """
    rng = np.random.default_rng(seed)
    n, d = x.shape
    frame = rng.standard_normal((d, min(d, width)))
    center = _mean(x, input_dtype).astype(dtype)
    spread = 0.0
    for _, part in _centered(x, center, input_dtype):
        spread = np.maximum(spread, np.abs(part).max())  # unlike max(), np.maximum propagates NaN
    limits = np.finfo(input_dtype)
    if n == 1 and spread == 0:
        spread = 1.0
    if not limits.tiny * 1e4 < spread < limits.max * 1e-4:
        raise Inseparable((0, n - 1), f"whose spread of {spread:.1g} is outside the range of {input_dtype}")

    if first == "principal":
        for _ in range(4):  # of the power iteration
            frame[:, 0] /= np.linalg.norm(frame[:, 0]) or 1.0
            frame[:, 0] = sum(part.T @ (part @ frame[:, 0]) for part in _scaled(x, center, input_dtype, spread))
    frame = np.linalg.qr(frame)[0]
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
    # Directions below the first threshold are rounding noise. Those below the second one have so few correct digits
    # that they get less than equal weight.
    kept = deviations > 100 * eps * largest
    whitening = axes[kept].T / np.maximum(deviations[kept], np.sqrt(eps) * largest)

    if first == "random":
        whitening = whitening @ np.linalg.qr(rng.standard_normal((kept.sum(), kept.sum())))[0]

    kernel = np.zeros((d, width))
    kernel[:, : kept.sum()] = frame @ whitening
    amplification, first_amplification = np.linalg.norm(kernel), np.linalg.norm(kernel[:, 0])
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
    # Each entry is a sum of d products. The rounding error of blocked summation is a random walk of size
    # eps |x - center| |kernel|; on 3,072 pixels the measured error was 7 to 10 times smaller. The factor 2 allows for
    # other orders of summation.
    error = 2 * eps * (distance * amplification + np.linalg.norm(z, axis=1))
    first_error = 2 * eps * (distance * first_amplification + np.abs(z[:, 0]))
    return Embedding(center, kernel, bias, z, error, first_error)


def chunks(n, row_bytes):
    """Yields slices that cover `range(n)`, each with a bounded number of bytes.

    Args:
        n: Integer, number of rows.
        row_bytes: Integer, bytes of one row.
    """
    step = max(1, _CHUNK_BYTES // max(1, row_bytes))
    for start in range(0, n, step):
        yield slice(start, min(n, start + step))


def _centered(x, center, input_dtype):
    """Yields `(rows, x[rows] - center)` as float64, rounded as in the first layer of the network."""
    for rows in chunks(len(x), 8 * x.shape[1]):
        with np.errstate(over="ignore", invalid="ignore"):
            part = x[rows].astype(input_dtype).astype(center.dtype) - center
        yield rows, part.astype(np.float64)


def _scaled(x, center, input_dtype, spread):
    """Yields `(x[rows] - center) / spread`, in chunks."""
    for _, part in _centered(x, center, input_dtype):
        yield part / spread


def _mean(x, input_dtype):
    n = len(x)
    total = np.zeros(x.shape[1])
    for rows in chunks(n, 8 * x.shape[1]):
        with np.errstate(over="ignore", invalid="ignore"):
            total += (x[rows].astype(input_dtype).astype(np.float64) / n).sum(axis=0)
    return total
