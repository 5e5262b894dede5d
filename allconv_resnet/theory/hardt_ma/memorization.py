"""Finite-sample expressivity: a residual network that fits any labels of any distinct points (section 3 of Hardt & Ma).

Theorem 3.2 of arXiv 1611.04231 as a program. `memorize` returns a Keras model of blocks `h -> h + V ReLU(U h + s)` with
`O(n)` weights for n points, at any width. Three things differ from the paper: the condition that points be separated
and of nearly unit norm is dropped (see `allconv_resnet.theory.memorization`), the random projection is whitened, and a
linear readout onto the nearest surrogate takes the place of the last block, from surrogates to unit vectors.
"""

import hashlib
import itertools
import math
import warnings
from dataclasses import dataclass

import keras
import numpy as np

from allconv_resnet.errors import BadInput
from allconv_resnet.theory import matrices
from allconv_resnet.theory.embedding import Inseparable, chunks, embed
from allconv_resnet.theory.memorization import separate
from allconv_resnet.theory.stacked import CenteredProjection, StackedResidualBlocks

__all__ = ["MemorizationReport", "memorize", "predict_labels", "theorem_parameters"]

# (rounding of the input, arithmetic): Keras's own fit and predict round floating-point arrays to float32.
PRECISIONS = {
    "float32": [("float32", "float32")],
    "float64": [("float32", "float64"), ("float64", "float64")],
}
PRECISIONS["auto"] = PRECISIONS["float32"] + PRECISIONS["float64"]
_SHIFTS = (0.0, 1.5)  # of the points' largest norm: the second takes every point away from the center
_FRAMES = 2  # random projections that are tried


@dataclass(frozen=True)
class MemorizationReport:
    """What `memorize` built, as `model.report`."""

    points: int
    distinct_points: int
    classes: int
    width: int
    blocks: int
    parameters: int  # all weights of the model, the projection and the readout included
    theorem_parameters: int  # `theorem_parameters(points, classes)`
    smallest_margin: float  # how much farther than any later point a point lies along itself; least, relative
    precision: str  # of the arithmetic, "float32" or "float64"
    input_precision: str  # to which the network first rounds the points
    rounding: float  # bound of the error with which points reach their class's surrogate; at 1 labels could change


def theorem_parameters(n, num_classes):
    """Returns the count of theorem 3.2, `O(n log n + r^2)`, with 1 for the constants that the paper leaves open.

    `ceil(n/k)` blocks of `2 k^2 + k` weights with `k = ceil(log n)`, and `r^2` for the last block. The constant of
    `k = O(log n)` is larger than 1 in any proof, so this is the theorem at its best.

    Args:
        n: Integer, the number of points, at least 1.
        num_classes: Integer `r`, at least 1.

    Example:
    >>> theorem_parameters(50_000, 10)
    1150238
    """
    n = matrices.positive_integer(n, "n")
    k = max(1, math.ceil(math.log(n)))
    return math.ceil(n / k) * (2 * k * k + k) + matrices.positive_integer(num_classes, "num_classes") ** 2


def memorize(x, labels, width, *, num_classes=None, precision="auto", seed=0, progress=None):
    """Returns a residual network that fits every label of any distinct points (theorem 3.2, without its condition).

    Building takes `O(n^2 width)` operations and `O(n width)` memory. Precision is chosen from the margin: float32 where
    a bound of the rounding errors says that it is enough, else float64; the result is then run on all of `x`.

    Args:
        x: `[n, ...]`, real numbers of any dtype: points, images, at any scale. Equal points need equal labels.
        labels: `[n]`, integers in `[0, num_classes)`.
        width: Integer, at least 1, the width of the network.
        num_classes: Integer; None for `max(labels) + 1`.
        precision: `"auto"`, `"float32"` or `"float64"`, the arithmetic of the network.
        seed: Integer, of the random projection.
        progress: Function that is called now and then with `(stage, done, total)`, or None.

    Returns:
        A functional `keras.Model` from `[batch, ...]` to logits `[batch, num_classes]`, whose `argmax` on `x` is
        `labels`; `model.report` is a `MemorizationReport`. For many points use `predict_labels`, or `model.predict`
        with a batch size of thousands. Import this module before `keras.saving.load_model` reads a saved model.

    Raises:
        BadInput: if `x` is empty, not real or not finite; if `labels` do not fit; if equal points have different
            labels; if two points are too close for the precision, or for the float32 that JAX has by default.

    Example:
    >>> x = np.array([[0.0, 0.0], [0.0, 1.0], [1.0, 0.0], [1.0, 1.0]])
    >>> model = memorize(x, [0, 1, 1, 0], width=2)
    >>> predict_labels(model, x)
    array([0, 1, 1, 0])
    """
    x, labels, num_classes = _checked(x, labels, num_classes)
    width = matrices.positive_integer(width, "width")
    if precision not in PRECISIONS:
        raise BadInput(f"precision must be one of {', '.join(PRECISIONS)}. Received: {precision!r}.")
    progress = progress or (lambda stage, done, total: None)
    flat = x.reshape(len(x), -1)
    distinct = _distinct(flat, labels)
    points = flat if len(distinct) == len(flat) else flat[distinct]

    failure = None
    for fewer, (input_dtype, dtype), frame, shift in itertools.product(
        (False, True), PRECISIONS[precision], range(_FRAMES), _SHIFTS
    ):
        if not _available(dtype):
            failure = failure or Inseparable((0, len(distinct) - 1), f"{dtype} is not available")
            continue
        if input_dtype == "float64" and np.can_cast(x.dtype, np.float32):
            continue  # the same as the attempts before
        try:
            embedding = embed(points, width, input_dtype, dtype, seed + frame, shift)
            blocks = separate(embedding.z, labels[distinct], num_classes, dtype, embedding.error, fewer, progress)
        except Inseparable as problem:
            failure = problem
            continue
        model = _network(x.shape[1:], input_dtype, dtype, embedding, blocks)
        if not np.array_equal(predict_labels(model, x, progress=progress), labels):
            failure = Inseparable((0, 0), f"the network in {dtype} rounds more than was allowed for")
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
    advice = "" if _available("float64") else " JAX has float64 only with JAX_ENABLE_X64=1 in the environment."
    raise BadInput(
        f"The points cannot be told apart at width {width} with precision={precision!r}: "
        f"x[{i}] and x[{j}], {failure}.{advice}"
    )


def predict_labels(model, x, batch_size=4096, progress=None):
    """Returns the label of every point, `argmax` of the logits, `[n]`.

    Unlike `model.predict` it does not round float64 points to float32, and its batches are large enough for thousands
    of small blocks to be quick: memory is that of one batch.

    Args:
        model: A Keras model from `[batch, ...]` to logits.
        x: `[n, ...]`.
        batch_size: Integer.
        progress: As in `memorize`.
    """
    x = np.asarray(x)
    labels = np.empty(len(x), np.int64)
    for start in range(0, len(x), batch_size):
        rows = slice(start, min(len(x), start + batch_size))
        labels[rows] = np.argmax(model.predict_on_batch(x[rows]), axis=-1)
        if progress:
            progress("predict", rows.stop, len(x))
    return labels


def _available(dtype):
    with warnings.catch_warnings(action="ignore"):  # JAX warns that it makes a float32 of a float64
        return keras.backend.standardize_dtype(keras.ops.zeros(1, dtype).dtype) == dtype


def _network(shape, input_dtype, dtype, embedding, blocks):
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


def _checked(x, labels, num_classes):
    x, labels = np.asarray(x), np.asarray(labels)
    if x.dtype == bool:
        x = x.astype(np.uint8)
    if x.ndim < 2 or x.size == 0:
        raise BadInput(f"x must be [n, ...] with at least one point and one feature. Received: shape {list(x.shape)}.")
    if x.dtype.kind not in "iuf" or x.dtype.itemsize > 8:
        raise BadInput(f"x must hold real numbers of at most 64 bits. Received: dtype {x.dtype}.")
    for rows in chunks(len(x), x[0].nbytes):
        finite = np.isfinite(x[rows]).reshape(rows.stop - rows.start, -1).all(axis=1)
        if not finite.all():
            raise BadInput(f"x must be finite. Received: NaN or infinity in x[{rows.start + int(finite.argmin())}].")
    if labels.shape != (len(x),) or labels.dtype.kind not in "iu":
        raise BadInput(
            f"labels must be {len(x)} integers, one for each point. "
            f"Received: shape {list(labels.shape)}, dtype {labels.dtype}."
        )
    labels = labels.astype(np.int64)
    if num_classes is None:
        num_classes = max(0, int(labels.max())) + 1
    num_classes = matrices.positive_integer(num_classes, "num_classes")
    outside = (labels < 0) | (labels >= num_classes)
    if outside.any():
        i = int(outside.argmax())
        raise BadInput(f"labels must lie in [0, {num_classes}). Received: labels[{i}] = {labels[i]}.")
    return x, labels, num_classes


def _distinct(x, labels):
    """Returns the indices of the first of each set of equal rows; equal rows with different labels are `BadInput`."""
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
        raise BadInput(f"Equal points must have equal labels. Received {len(conflicts)} conflicts: {listed}.")
    return np.array(distinct)
