"""Residual networks that fit any labels of any distinct points: theorem 3.2 of Hardt & Ma (arXiv 1611.04231).

`memorize` returns a Keras model of blocks `h -> h + V ReLU(U h + s)` with `O(n)` weights for n points, at any width.
There are two constructions: that of the paper without its assumptions on the points (see `separation`), and a smaller
one (see `sweep`). Both start from a whitened random projection (see `embedding`).
"""

import itertools
import math
import numbers
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import keras
import numpy as np
from numpy.typing import ArrayLike

from allconv_resnet.errors import BadInput
from allconv_resnet.theory.checks import positive_integer
from allconv_resnet.theory.hardt_ma.embedding import Inseparable, embed
from allconv_resnet.theory.hardt_ma.memorized_points import check_points, indices_of_distinct_points
from allconv_resnet.theory.hardt_ma.memorizing_network import build_network
from allconv_resnet.theory.hardt_ma.separation import separate
from allconv_resnet.theory.hardt_ma.sweep import sweep

# Pairs of the precision of the input and that of the arithmetic. Keras rounds arrays to float32 in fit and predict.
PRECISIONS = {
    "float32": [("float32", "float32")],
    "float64": [("float32", "float64"), ("float64", "float64")],
}
PRECISIONS["auto"] = PRECISIONS["float32"] + PRECISIONS["float64"]
CONSTRUCTIONS = ("points", "sweep")
OUTPUTS = ("logits", "unit")
# How the points are embedded in each attempt: the shift relative to the largest norm, of which the second one moves
# every point away from the center, or the choice of the first coordinate.
_EMBEDDINGS = {
    "points": [{"shift": 0.0}, {"shift": 1.5}],
    "sweep": [{"shift": 0.0, "first": "principal"}, {"shift": 0.0, "first": "random"}],
}
_PROJECTIONS = 2  # number of random projections that are tried


@dataclass(frozen=True)
class MemorizationReport:
    """The result of `memorize`, which stores it as `model.report`: the size and precision of the network.

    Attributes:
        points: Integer, number of points.
        distinct_points: Integer, number of different points among them.
        classes: Integer, number of classes.
        construction: `"points"` or `"sweep"`.
        outputs: `"logits"` or `"unit"`.
        width: Integer, width of the network.
        blocks: Integer, number of residual blocks.
        neurons: Integer, hidden ReLUs of all blocks.
        parameters: Integer, all weights of the model, including the projection and the last layers.
        theorem_parameters: Integer, `theorem_parameters(points, classes, dimension)`, which also has a projection.
        smallest_margin: Float, "points": min (|z_i| - largest <u_i, later point>) / |z_i|; "sweep": min |p - b| / max
            |p|.
        precision: String, precision of the arithmetic, "float32" or "float64".
        input_precision: String, precision to which the network first rounds the points.
        rounding: Float, upper bound of the distance of a point to its surrogate; labels cannot change below 1.
    """

    points: int
    distinct_points: int
    classes: int
    construction: str
    outputs: str
    width: int
    blocks: int
    neurons: int
    parameters: int
    theorem_parameters: int
    smallest_margin: float
    precision: str
    input_precision: str
    rounding: float


def theorem_parameters(n: int, num_classes: int, dimension: int) -> int:
    """Returns the number of weights of theorem 3.2, `O(n log n + r^2)`, with all unspecified constants set to 1.

    There are `d k` weights in the first layer, `ceil(n/k)` blocks of `2 k^2 + k` weights with `k = ceil(log n)`, and
    `k r + r^2` weights in the last block. Any proof needs a constant larger than 1 in `k = O(log n)`, so this is the
    smallest number that the theorem can state.

    Args:
        n: Positive integer, number of points.
        num_classes: Positive integer `r`.
        dimension: Positive integer `d`, the dimension of the points.

    Returns:
        Integer.

    Raises:
        BadInput: if an argument is not a positive integer.

    Example:

    >>> theorem_parameters(50_000, 10, 3072)
    1184140
    """
    n, r = positive_integer(n, "n"), positive_integer(num_classes, "num_classes")
    k = max(1, math.ceil(math.log(n)))
    return positive_integer(dimension, "dimension") * k + math.ceil(n / k) * (2 * k * k + k) + k * r + r**2


def memorize(
    x: ArrayLike,
    labels: ArrayLike,
    width: int,
    *,
    construction: Literal["points", "sweep"] = "points",
    outputs: Literal["logits", "unit"] = "logits",
    num_classes: int | None = None,
    precision: Literal["auto", "float32", "float64"] = "auto",
    seed: int = 0,
    progress: Callable[[str, int, int], object] | None = None,
) -> keras.Model:
    """Returns a residual network that fits any labels of any distinct points (theorem 3.2, without its assumptions).

    The construction takes `O(n^2 width)` operations and `O(n width)` memory. With `precision="auto"` the network
    computes in float32 if an upper bound of the rounding errors allows it, and in float64 otherwise. In the end the
    network is evaluated on all of `x` to verify every label.

    Args:
        x: `[n, ...]`, points or images, real numbers of any dtype and scale. Equal points need equal labels.
        labels: `[n]`, integers in `[0, num_classes)`.
        width: Positive integer, the dimension to which the points are projected.
        construction: `"points"`, the paper's, with one neuron for each point and about `2 width + 1` weights for each
            point, or `"sweep"`, with two neurons for up to `width` points, which are some 4 weights for each point.
        outputs: `"logits"`, a linear readout whose largest output is the label, or `"unit"`, the unit vector of the
            label, as theorem 3.2 states it: the last two layers of ReLUs give exactly 1 and exactly 0.
        num_classes: Positive integer, or None for `max(labels) + 1`.
        precision: `"auto"`, `"float32"` or `"float64"`, the precision of the arithmetic of the network.
        seed: Nonnegative integer, seed of the random projection.
        progress: Callable `(stage, done, total)` that is called repeatedly during the construction, or None.

    Returns:
        A functional `keras.Model` from `[batch, ...]` to `[batch, num_classes]`; the `argmax` on `x` equals `labels`.
        The attribute `model.report` is a `MemorizationReport`. Evaluate the model with `predict_labels`, or with
        `model.predict_on_batch`. Keras's `model.predict` rounds its input to float32 first, which is right only where
        `model.report.input_precision` is `"float32"`. Import `allconv_resnet.theory.expressivity` before
        `keras.saving.load_model` reads a saved model.

    Raises:
        BadInput: if `x` is empty, not real or not finite; if `labels` do not fit `x`; if equal points have different
            labels; if another argument is out of range; if the margin between two points is too small for this
            construction in this precision. Other networks may separate such points. JAX has only float32 by default.

    Example:

    >>> x = np.array([[0.0, 0.0], [0.0, 1.0], [1.0, 0.0], [1.0, 1.0]])
    >>> model = memorize(x, [0, 1, 1, 0], width=2)
    >>> predict_labels(model, x)
    array([0, 1, 1, 0])
    >>> exact = memorize(x, [0, 1, 1, 0], width=2, construction="sweep", outputs="unit")
    >>> exact.predict_on_batch(x).tolist()
    [[1.0, 0.0], [0.0, 1.0], [0.0, 1.0], [1.0, 0.0]]
    """
    x, labels, num_classes = check_points(x, labels, num_classes)
    width = positive_integer(width, "width")
    if not (isinstance(seed, numbers.Integral) and seed >= 0):
        raise BadInput(f"seed must be an integer of at least 0. Received: seed={seed!r}")
    choices = {"precision": (precision, PRECISIONS), "construction": (construction, CONSTRUCTIONS)}
    for name, (value, known) in {**choices, "outputs": (outputs, OUTPUTS)}.items():
        if value not in known:
            raise BadInput(f"{name} must be one of {', '.join(known)}. Received: {name}={value!r}")
    progress = progress or (lambda stage, done, total: None)
    flat = x.reshape(len(x), -1)
    distinct = indices_of_distinct_points(flat, labels)
    points = flat if len(distinct) == len(flat) else flat[distinct]

    failure = None
    fewer_choices = (False, True) if construction == "points" else (False,)
    for fewer, (input_dtype, dtype), projection, embedding_options in itertools.product(
        fewer_choices, PRECISIONS[precision], range(_PROJECTIONS), _EMBEDDINGS[construction]
    ):
        if not _is_available(dtype):
            failure = failure or Inseparable((0, len(distinct) - 1), f"since {dtype} is not available")
            continue
        if input_dtype == "float64" and np.can_cast(x.dtype, np.float32):
            continue  # the same as an earlier attempt
        try:
            embedding = embed(points, width, input_dtype, dtype, seed + projection, **embedding_options)
            if construction == "points":
                blocks = separate(embedding.z, labels[distinct], num_classes, dtype, embedding.error, fewer, progress)
            else:
                blocks = sweep(embedding, labels[distinct], num_classes, dtype, progress)
        except Inseparable as problem:
            failure = problem
            continue
        model = build_network(x.shape[1:], input_dtype, dtype, embedding, blocks, outputs)
        if not _fits(model, x, labels, outputs, progress):
            failure = Inseparable((0, 0), f"since the network in {dtype} has larger rounding errors than expected")
            continue
        model.report = MemorizationReport(
            points=len(x),
            distinct_points=len(distinct),
            classes=num_classes,
            construction=construction,
            outputs=outputs,
            width=width,
            blocks=len(blocks.U),
            neurons=blocks.s.size,
            parameters=model.count_params(),
            theorem_parameters=theorem_parameters(len(x), num_classes, flat.shape[1]),
            smallest_margin=blocks.smallest_margin,
            precision=dtype,
            input_precision=input_dtype,
            rounding=blocks.rounding,
        )
        return model
    i, j = (int(distinct[point]) for point in failure.points)
    advice = "" if _is_available("float64") else " (JAX has float64 only with JAX_ENABLE_X64=1 in the environment)"
    raise BadInput(
        f"The points must differ enough for construction={construction!r} to tell them apart at width {width} with "
        f"precision={precision!r}{advice}; a network of another kind may still do so. "
        f"Received: x[{i}] and x[{j}], {failure}"
    )


def predict_labels(
    model: keras.Model, x: ArrayLike, batch_size: int = 4096, progress: Callable[[str, int, int], object] | None = None
) -> np.ndarray:
    """Returns the label of every point, the `argmax` of the logits.

    Unlike `model.predict`, it does not round float64 points to float32, which can change labels. Its default batches
    are so large that thousands of small blocks run efficiently. The memory is that of one batch.

    Args:
        model: Keras model from `[batch, ...]` to logits.
        x: `[n, ...]`, the points.
        batch_size: Positive integer.
        progress: As in `memorize`.

    Returns:
        Int64 array `[n]`.

    Raises:
        BadInput: if `batch_size` is not a positive integer.

    Example:

    >>> x = np.array([[0.0], [1.0], [2.0]])
    >>> predict_labels(memorize(x, [1, 0, 1], width=2), x)
    array([1, 0, 1])
    """
    x, batch_size = np.asarray(x), positive_integer(batch_size, "batch_size")
    labels = np.empty(len(x), np.int64)
    for start in range(0, len(x), batch_size):
        rows = slice(start, min(len(x), start + batch_size))
        labels[rows] = np.argmax(model.predict_on_batch(x[rows]), axis=-1)
        if progress:
            progress("predict", rows.stop, len(x))
    return labels


def _fits(model, x, labels, outputs, progress):
    if outputs == "logits":
        return np.array_equal(predict_labels(model, x, progress=progress), labels)
    units = np.eye(model.output_shape[-1])
    return all(
        np.array_equal(model.predict_on_batch(x[start : start + 4096]), units[labels[start : start + 4096]])
        for start in range(0, len(x), 4096)
    )


def _is_available(dtype):
    with warnings.catch_warnings(action="ignore"):  # JAX warns when it replaces float64 by float32
        return keras.backend.standardize_dtype(keras.ops.zeros(1, dtype).dtype) == dtype
