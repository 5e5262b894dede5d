"""Residual networks that fit any labels of any distinct points: theorem 3.2 of Hardt & Ma (arXiv 1611.04231).

`memorize` returns a Keras model of blocks `h -> h + V ReLU(U h + s)` with `O(n)` weights for n points, at any width.
The construction differs from the paper in three ways. It does not require that the points are separated and have norms
close to 1 (see `separation`), it whitens the random projection (see `embedding`), and it replaces the last block, which
maps surrogates to unit vectors, by a linear readout that selects the nearest surrogate.
"""

import hashlib
import itertools
import math
import warnings
from dataclasses import dataclass

import keras
import numpy as np

from allconv_resnet.errors import BadInput
from allconv_resnet.theory.checks import positive_integer
from allconv_resnet.theory.hardt_ma.embedding import Inseparable, chunks, embed
from allconv_resnet.theory.hardt_ma.separation import separate
from allconv_resnet.theory.hardt_ma.stacked_blocks import CenteredProjection, StackedResidualBlocks

# Pairs of the precision of the input and that of the arithmetic. Keras rounds arrays to float32 in fit and predict.
PRECISIONS = {
    "float32": [("float32", "float32")],
    "float64": [("float32", "float64"), ("float64", "float64")],
}
PRECISIONS["auto"] = PRECISIONS["float32"] + PRECISIONS["float64"]
_SHIFTS = (0.0, 1.5)  # relative to the largest norm; the second one moves every point away from the center
_PROJECTIONS = 2  # number of random projections that are tried


@dataclass(frozen=True)
class MemorizationReport:
    """Size and precision of a network built by `memorize`, which stores it as `model.report`."""

    points: int
    distinct_points: int
    classes: int
    width: int
    blocks: int
    parameters: int  # all weights of the model, including the projection and the readout
    theorem_parameters: int  # `theorem_parameters(points, classes)`
    smallest_margin: float  # minimum of (|z_i| - largest <u_i, later point>) / |z_i|, see `separation`
    precision: str  # precision of the arithmetic, "float32" or "float64"
    input_precision: str  # precision to which the network first rounds the points
    rounding: float  # upper bound of the distance of a point to its surrogate; labels cannot change below 1


def theorem_parameters(n, num_classes):
    """Returns the number of weights of theorem 3.2, `O(n log n + r^2)`, with all unspecified constants set to 1.

    There are `ceil(n/k)` blocks of `2 k^2 + k` weights with `k = ceil(log n)`, and `r^2` weights in the last block. Any
    proof needs a constant larger than 1 in `k = O(log n)`, so this is the smallest number that the theorem can state.

    Args:
        n: Positive integer, number of points.
        num_classes: Positive integer `r`.

    Returns:
        Integer.

    Raises:
        BadInput: if an argument is not a positive integer.

    Example:

    >>> theorem_parameters(50_000, 10)
    1150238
    """
    n = positive_integer(n, "n")
    k = max(1, math.ceil(math.log(n)))
    return math.ceil(n / k) * (2 * k * k + k) + positive_integer(num_classes, "num_classes") ** 2


def memorize(x, labels, width, *, num_classes=None, precision="auto", seed=0, progress=None):
    """Returns a residual network that fits any labels of any distinct points (theorem 3.2, without its assumptions).

    The construction takes `O(n^2 width)` operations and `O(n width)` memory. With `precision="auto"` the network
    computes in float32 if an upper bound of the rounding errors allows it, and in float64 otherwise. In the end the
    network is evaluated on all of `x` to verify every label.

    Args:
        x: `[n, ...]`, points or images, real numbers of any dtype and scale. Equal points need equal labels.
        labels: `[n]`, integers in `[0, num_classes)`.
        width: Positive integer, the width of the network.
        num_classes: Positive integer, or None for `max(labels) + 1`.
        precision: `"auto"`, `"float32"` or `"float64"`, the precision of the arithmetic of the network.
        seed: Integer, seed of the random projection.
        progress: Callable `(stage, done, total)` that is called repeatedly during the construction, or None.

    Returns:
        A functional `keras.Model` from `[batch, ...]` to logits `[batch, num_classes]`; their `argmax` on `x` equals
        `labels`. The attribute `model.report` is a `MemorizationReport`. For many points, use `predict_labels` or
        `model.predict` with a batch size of several thousand. Import `allconv_resnet.theory.expressivity` before
        `keras.saving.load_model` reads a saved model.

    Raises:
        BadInput: if `x` is empty, not real or not finite; if `labels` do not fit `x`; if equal points have different
            labels; if two points are too close for the precision (JAX has only float32 by default).

    Example:

    >>> x = np.array([[0.0, 0.0], [0.0, 1.0], [1.0, 0.0], [1.0, 1.0]])
    >>> model = memorize(x, [0, 1, 1, 0], width=2)
    >>> predict_labels(model, x)
    array([0, 1, 1, 0])
    """
    x, labels, num_classes = _check_points(x, labels, num_classes)
    width = positive_integer(width, "width")
    if precision not in PRECISIONS:
        raise BadInput(f"precision must be one of {', '.join(PRECISIONS)}. Received: precision={precision!r}")
    progress = progress or (lambda stage, done, total: None)
    flat = x.reshape(len(x), -1)
    distinct = _indices_of_distinct_points(flat, labels)
    points = flat if len(distinct) == len(flat) else flat[distinct]

    failure = None
    for fewer, (input_dtype, dtype), projection, shift in itertools.product(
        (False, True), PRECISIONS[precision], range(_PROJECTIONS), _SHIFTS
    ):
        if not _is_available(dtype):
            failure = failure or Inseparable((0, len(distinct) - 1), f"since {dtype} is not available")
            continue
        if input_dtype == "float64" and np.can_cast(x.dtype, np.float32):
            continue  # the same as an earlier attempt
        try:
            embedding = embed(points, width, input_dtype, dtype, seed + projection, shift)
            blocks = separate(embedding.z, labels[distinct], num_classes, dtype, embedding.error, fewer, progress)
        except Inseparable as problem:
            failure = problem
            continue
        model = _build_network(x.shape[1:], input_dtype, dtype, embedding, blocks)
        if not np.array_equal(predict_labels(model, x, progress=progress), labels):
            failure = Inseparable((0, 0), f"since the network in {dtype} has larger rounding errors than expected")
            continue
        model.report = MemorizationReport(
            points=len(x),
            distinct_points=len(distinct),
            classes=num_classes,
            width=width,
            blocks=len(blocks.U),
            parameters=model.count_params(),
            theorem_parameters=theorem_parameters(len(x), num_classes),
            smallest_margin=blocks.smallest_margin,
            precision=dtype,
            input_precision=input_dtype,
            rounding=blocks.rounding,
        )
        return model
    i, j = (int(distinct[point]) for point in failure.points)
    advice = "" if _is_available("float64") else " (JAX has float64 only with JAX_ENABLE_X64=1 in the environment)"
    raise BadInput(
        f"The points must differ enough to be told apart at width {width} with precision={precision!r}{advice}. "
        f"Received: x[{i}] and x[{j}], {failure}"
    )


def predict_labels(model, x, batch_size=4096, progress=None):
    """Returns the label of every point, the `argmax` of the logits.

    Unlike `model.predict`, it does not round float64 points to float32, and its default batches are so large that
    thousands of small blocks run efficiently. The memory is that of one batch.

    Args:
        model: Keras model from `[batch, ...]` to logits.
        x: `[n, ...]`, the points.
        batch_size: Positive integer.
        progress: As in `memorize`.

    Returns:
        Int64 array `[n]`.
    """
    x = np.asarray(x)
    labels = np.empty(len(x), np.int64)
    for start in range(0, len(x), batch_size):
        rows = slice(start, min(len(x), start + batch_size))
        labels[rows] = np.argmax(model.predict_on_batch(x[rows]), axis=-1)
        if progress:
            progress("predict", rows.stop, len(x))
    return labels


def _is_available(dtype):
    with warnings.catch_warnings(action="ignore"):  # JAX warns when it replaces float64 by float32
        return keras.backend.standardize_dtype(keras.ops.zeros(1, dtype).dtype) == dtype


def _build_network(shape, input_dtype, dtype, embedding, blocks):
    inputs = keras.Input(shape, dtype=input_dtype, name="points")
    h = keras.layers.Flatten(dtype=dtype)(inputs)
    h = CenteredProjection(blocks.U.shape[-1], dtype=dtype, name="projection")(h)
    h = StackedResidualBlocks(len(blocks.U), dtype=dtype, name="blocks")(h)
    logits = keras.layers.Dense(blocks.readout.shape[1], dtype=dtype, name="readout")(h)
    model = keras.Model(inputs, logits, name="memorization")
    model.get_layer("projection").set_weights([embedding.center, embedding.kernel, embedding.bias])
    model.get_layer("blocks").set_weights([blocks.U, blocks.s, blocks.V])
    model.get_layer("readout").set_weights([blocks.readout, blocks.readout_bias])
    return model


def _check_points(x, labels, num_classes):
    x, labels = np.asarray(x), np.asarray(labels)
    if x.dtype == bool:
        x = x.astype(np.uint8)
    if x.ndim < 2 or x.size == 0:
        raise BadInput(f"x must be [n, ...] with at least one point and one feature. Received: shape {list(x.shape)}")
    if x.dtype.kind not in "iuf" or x.dtype.itemsize > 8:
        raise BadInput(f"x must hold real numbers of at most 64 bits. Received: dtype {x.dtype}")
    for rows in chunks(len(x), x[0].nbytes):
        finite = np.isfinite(x[rows]).reshape(rows.stop - rows.start, -1).all(axis=1)
        if not finite.all():
            raise BadInput(f"x must be finite. Received: NaN or infinity in x[{rows.start + int(finite.argmin())}]")
    if labels.shape != (len(x),) or labels.dtype.kind not in "iu":
        raise BadInput(
            f"labels must be {len(x)} integers, one for each point. "
            f"Received: shape {list(labels.shape)}, dtype {labels.dtype}"
        )
    labels = labels.astype(np.int64)
    if num_classes is None:
        num_classes = max(0, int(labels.max())) + 1
    num_classes = positive_integer(num_classes, "num_classes")
    outside = (labels < 0) | (labels >= num_classes)
    if outside.any():
        i = int(outside.argmax())
        raise BadInput(f"labels must lie in [0, {num_classes}). Received: labels[{i}]={labels[i]}")
    return x, labels, num_classes


def _indices_of_distinct_points(x, labels):
    """Returns the index of the first row of each set of equal rows; raises `BadInput` if their labels differ."""
    first, distinct, conflicts = {}, [], []
    for i, row in enumerate(x):
        row = row + row.dtype.type(0)  # -0.0 equals 0.0
        j = first.setdefault(hashlib.blake2b(np.ascontiguousarray(row), digest_size=16).digest(), i)
        if j == i:
            distinct.append(i)
        elif labels[i] != labels[j]:
            conflicts.append(f"x[{j}] and x[{i}] with labels {labels[j]} and {labels[i]}")
    if conflicts:
        listed = "; ".join(conflicts[:5]) + ("; ..." if len(conflicts) > 5 else "")
        raise BadInput(f"Equal points must have equal labels. Received: {len(conflicts)} conflicts: {listed}")
    return np.array(distinct)
