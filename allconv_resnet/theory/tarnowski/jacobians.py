"""Singular values of the Jacobian of any Keras model at an input, from the whole matrix or by Lanczos iteration."""

import math
from collections.abc import Callable
from typing import Any, Literal

import keras
import numpy as np
from numpy.typing import ArrayLike
from scipy.linalg import svdvals

from allconv_resnet.errors import BadInput
from allconv_resnet.theory import autodiff
from allconv_resnet.theory.checks import positive_integer
from allconv_resnet.theory.tarnowski.lanczos import ends, lanczos_singular_values
from allconv_resnet.types import Progress

DENSE_ENTRIES = 10**8  # 0.8 GB in float64; the body of the CIFAR network has 5 * 10^7
DENSE_SIDE = 512  # up to this size the whole Jacobian is not slower than Lanczos iteration


def jacobian_singular_values(
    model: keras.Model | Callable[..., Any],
    x: Any,
    k: int | None = None,
    which: Literal["largest", "smallest", "both"] = "both",
    method: Literal["auto", "dense", "lanczos"] = "auto",
    batch_size: int = 32,
    seed: int = 0,
    progress: Progress | None = None,
) -> np.ndarray:
    """Returns singular values of the Jacobian of the output of a model with respect to its input, at one input.

    The Jacobian has `min(inputs, outputs)` singular values, which are only 10 for a network with 10 logits. To measure
    the body of a network of this package, pass `keras.Model(model.input, model.get_layer("pool").input)`.

    Args:
        model: Keras model, which is evaluated with `training=False`, or a callable that maps a batch of inputs to a
            batch of outputs. Several inputs or outputs count as one vector, in the order of `keras.tree.flatten`.
        x: Real array `[*input_shape]` or `[1, *input_shape]`. For several inputs, a tuple or a dictionary of them, or,
            if the model has a list of inputs, a list.
        k: Positive integer, number of singular values at an end of the spectrum; None for all singular values.
        which: `"largest"`, `"smallest"` or `"both"`; ignored if `k` is None.
        method: `"dense"` computes the whole Jacobian in batches and its singular values. `"lanczos"` is matrix-free,
            see `lanczos_singular_values`. It needs some hundred products with the Jacobian for the largest singular
            values, and about as many as the Jacobian has rows for the smallest ones, for which `"dense"` is faster if
            its memory suffices. `"auto"` chooses between the two.
        batch_size: Positive integer, number of products with the Jacobian that are computed together.
        seed: Integer, seed of the first block of Lanczos vectors.
        progress: Callable `(done, total)` that is called after each batch of products, or None.

    Returns:
        Float64 array, descending: all singular values, the `k` at one end, or the `k` largest and the `k` smallest,
        `[2k]` (all of them if there are fewer than `2k`). Their precision is that of the dtype of the model.

    Raises:
        BadInput: if the model has complex or integer inputs or outputs; if the inputs have the wrong number or shape;
            if the Jacobian is not finite; if `batch_size` is not a positive integer; if `which` or `method` is unknown;
            if `k` is not between 1 and the number of singular values.
        RunFailed: if Lanczos iteration does not converge within its memory.

    Example:

    >>> network = keras.Sequential([keras.Input((3,)), keras.layers.Dense(2, kernel_initializer="ones")])
    >>> jacobian_singular_values(network, np.zeros(3))[0].round(4).item()  # the square root of 6
    2.4495
    """
    if which not in ("largest", "smallest", "both"):
        raise BadInput(f'which must be "largest", "smallest" or "both". Received: which={which!r}')
    if method not in ("auto", "dense", "lanczos"):
        raise BadInput(f'method must be "auto", "dense" or "lanczos". Received: method={method!r}')
    batch_size = positive_integer(batch_size, "batch_size")
    operator = JacobianOperator(model, x)
    count = min(operator.shape)
    if k is not None and not 1 <= k <= count:
        raise BadInput(f"k must lie between 1 and the number of singular values, {count}. Received: k={k}")
    if method == "auto":
        large = math.prod(operator.shape) > DENSE_ENTRIES
        few = k is not None and which == "largest" and count > DENSE_SIDE
        method = "lanczos" if large or few else "dense"
    if method == "lanczos" and k is not None:
        return lanczos_singular_values(operator, k, which, seed=seed, progress=progress)
    values = svdvals(operator.dense(batch_size, progress), overwrite_a=True, check_finite=False)
    return values if k is None else ends(values, k, which)


class JacobianOperator:
    """The Jacobian of a model at one input as a linear operator on flat vectors.

    Args:
        model: As in `jacobian_singular_values`.
        x: As in `jacobian_singular_values`.

    Attributes:
        shape: Pair `(outputs, inputs)`.

    Raises:
        BadInput: as in `jacobian_singular_values`.

    Example:

    >>> network = keras.Sequential([keras.Input((3,)), keras.layers.Dense(2, kernel_initializer="ones")])
    >>> operator = JacobianOperator(network, np.zeros(3))
    >>> operator.shape, operator.forward(np.eye(3)[:1]).tolist()
    ((2, 3), [[1.0, 1.0]])
    """

    def __init__(self, model: keras.Model | Callable[..., Any], x: Any) -> None:
        inputs, structure = _check_inputs(model, x)
        stops = np.cumsum([x.size for x in inputs]).tolist()
        flat = np.concatenate([x.ravel() for x in inputs])  # the dtype is the widest

        def function(flat):
            parts = [flat[:, stop - x.size : stop] for stop, x in zip(stops, inputs, strict=True)]
            parts = [
                keras.ops.cast(keras.ops.reshape(part, (1, *x.shape)), x.dtype)
                for part, x in zip(parts, inputs, strict=True)
            ]
            x = parts[0] if structure is None else keras.tree.pack_sequence_as(structure, parts)
            outputs = keras.tree.flatten(model(x, training=False) if isinstance(model, keras.Layer) else model(x))
            for y in outputs:
                kind = keras.backend.standardize_dtype(y.dtype)
                if "float" not in kind:
                    raise BadInput(f"A Jacobian needs a model with real outputs. Received: outputs of dtype {kind}")
            return keras.ops.concatenate(
                [keras.ops.cast(keras.ops.reshape(y, (1, -1)), flat.dtype) for y in outputs], 1
            )

        output_shape, self._forward, self._backward = autodiff.linearize(function, flat)
        self.shape: tuple[int, int] = (output_shape[0], flat.size)

    def forward(self, vectors: ArrayLike) -> np.ndarray:
        """Returns the products J v, float64 `[b, outputs]`, for tangents v, `[b, inputs]`."""
        return _finite(self._forward(vectors))

    def backward(self, vectors: ArrayLike) -> np.ndarray:
        """Returns the products J^T u, float64 `[b, inputs]`, for cotangents u, `[b, outputs]`."""
        return _finite(self._backward(vectors))

    def dense(self, batch_size: int = 32, progress: Progress | None = None) -> np.ndarray:
        """Returns the Jacobian or its transpose, whichever has fewer columns, as a float64 array.

        Args:
            batch_size: Positive integer, number of products that are computed together.
            progress: Callable `(done, total)`, or None.
        """
        wide = self.shape[1] > self.shape[0]
        product, count = (self.backward if wide else self.forward), min(self.shape)
        columns = np.empty((count, max(self.shape)))
        for start in range(0, count, batch_size):
            stop = min(start + batch_size, count)
            # The last batch is padded, so that only one batch size is compiled.
            units = np.zeros((min(batch_size, count), count))
            units[np.arange(stop - start), np.arange(start, stop)] = 1.0
            columns[start:stop] = product(units)[: stop - start]
            if progress is not None:
                progress(stop, count)
        return columns.T


def _finite(products):
    """Returns products with the Jacobian in float64; the methods would fail on others, or return any numbers."""
    products = np.asarray(products, np.float64)
    if not np.isfinite(products).all():
        raise BadInput("A Jacobian must be finite. Received: NaN or infinity, from the weights or an overflow")
    return products


def _check_inputs(model, x):
    """Returns a list of input arrays, and the structure in which the model takes them, None for a single array."""
    specs = getattr(model, "inputs", None)
    if (len(specs) == 1) if specs is not None else not isinstance(x, dict | tuple):
        return [_check_input(specs and specs[0], x)], None
    structure = x if specs is None else model.input
    arrays = keras.tree.flatten(x) if isinstance(x, dict | list | tuple) else [x]
    specs = [None] * len(arrays) if specs is None else keras.tree.flatten(structure)
    if len(arrays) != len(specs) or isinstance(x, dict) != isinstance(structure, dict):
        raise BadInput(
            f"A Jacobian needs one array for each of the {len(specs)} inputs of the model, in a "
            f"{type(structure).__name__}. Received: {len(arrays)} in a {type(x).__name__}"
        )
    return [_check_input(spec, array) for spec, array in zip(specs, arrays, strict=True)], structure


def _check_input(spec, x):
    """Returns an input as an array, after it was compared with the model's input, None for that of a callable."""
    x = np.asarray(x)
    dtype = spec.dtype if spec is not None else (x.dtype.name if x.dtype.kind == "f" else "float32")
    if x.dtype.kind not in "fiub" or "complex" in dtype:
        raise BadInput(f"A Jacobian needs real inputs. Received: dtype {x.dtype} for an input of dtype {dtype}")
    if "float" not in dtype:
        raise BadInput(f"A Jacobian needs a model with a floating-point input. Received: an input of dtype {dtype}")
    if not np.isfinite(x).all():
        raise BadInput("A Jacobian needs a finite input. Received: an input with NaN or infinity")
    if spec is not None:
        shape = tuple(spec.shape[1:])
        if x.ndim == len(shape) + 1 and len(x) == 1:
            x = x[0]
        if x.ndim != len(shape) or any(a is not None and a != b for a, b in zip(shape, x.shape, strict=True)):
            raise BadInput(f"x must be one input of shape {shape}. Received: x.shape={x.shape}")
    return x.astype("float64" if dtype == "float64" else "float32")
