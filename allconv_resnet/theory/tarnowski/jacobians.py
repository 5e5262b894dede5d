"""Singular values of the input-output Jacobian of any Keras model, exact or by Lanczos bidiagonalization."""

import math

import keras
import numpy as np
from scipy.linalg import svdvals

from allconv_resnet.errors import BadInput
from allconv_resnet.theory import autodiff

DENSE_ENTRIES = 10**8  # 0.8 GB in float64; the body of the CIFAR network has 5 * 10^7
DENSE_SIDE = 512  # up to here the whole Jacobian costs no more than Lanczos


def jacobian_singular_values(model, x, k=None, which="both", method="auto", batch_size=32, seed=0, progress=None):
    """Returns singular values of the Jacobian of a model's output in its input, at one input.

    The Jacobian has `min(inputs, outputs)` singular values. With 10 logits that is 10; the spectrum of a network is
    that of its body, `keras.Model(model.input, model.get_layer("pool").input)`.

    Args:
        model: Keras model with one input and one output, evaluated with `training=False`; or a callable that maps a
            batch of one tensor to a batch of one tensor.
        x: Array `[*input_shape]` or `[1, *input_shape]`, real.
        k: Integer, how many values are wanted at an end; None for all.
        which: `"largest"`, `"smallest"` or `"both"` ends; without meaning if `k` is None.
        method: `"dense"`, the whole Jacobian in batches and its SVD; `"lanczos"`, matrix-free Golub-Kahan
            bidiagonalization with full reorthogonalization; or `"auto"`. The largest values take Lanczos a few dozen
            products with the Jacobian; the smallest take about as many as there are rows, and `"dense"` is faster
            as long as its memory suffices.
        batch_size: Integer, products with the Jacobian that are computed together.
        seed: Integer, of the first Lanczos vector.
        progress: Callable of two integers, products done and (at most) to do.

    Returns:
        Float64 array, descending: all values, or `k` of them, or for both ends the `k` largest and the `k` smallest,
        `[2k]` (all, if there are fewer than `2k`). They are as precise as the model's floating-point type.

    Raises:
        BadInput: for several inputs or outputs, complex or integer types, an input of the wrong shape, an unknown
            method, or a `k` that is not between 1 and the number of singular values.

    Example:

    >>> network = keras.Sequential([keras.Input((3,)), keras.layers.Dense(2, kernel_initializer="ones")])
    >>> jacobian_singular_values(network, np.zeros(3))[0].round(4).item()  # the root of 6
    2.4495
    """
    if which not in ("largest", "smallest", "both"):
        raise BadInput(f'which must be "largest", "smallest" or "both". Received: which={which!r}')
    if method not in ("auto", "dense", "lanczos"):
        raise BadInput(f'method must be "auto", "dense" or "lanczos". Received: method={method!r}')
    operator = JacobianOperator(model, x)
    count = min(operator.shape)
    if k is not None and not 1 <= k <= count:
        raise BadInput(f"k must lie between 1 and the number of singular values, {count}. Received: k={k}")
    if method == "auto":
        large = math.prod(operator.shape) > DENSE_ENTRIES
        few = k is not None and which == "largest" and count > DENSE_SIDE
        method = "lanczos" if large or few else "dense"
    if method == "dense" or k is None:
        values = svdvals(operator.dense(batch_size, progress), overwrite_a=True, check_finite=False)
    else:
        values = lanczos_singular_values(operator, k, which, seed=seed, progress=progress)
    if k is None or (which == "both" and 2 * k >= count):
        return values
    ends = {"largest": values[:k], "smallest": values[-k:], "both": np.append(values[:k], values[-k:])}
    return ends[which]


class JacobianOperator:
    """Products with the Jacobian of a model at one input, on flat vectors.

    Args:
        model: See `jacobian_singular_values`.
        x: Array `[*input_shape]` or `[1, *input_shape]`.

    Attributes:
        shape: `(outputs, inputs)`.

    Raises:
        BadInput: see `jacobian_singular_values`.
    """

    def __init__(self, model, x):
        x = _checked_input(model, x)

        def function(x):
            y = model(x, training=False) if isinstance(model, keras.Layer) else model(x)
            if isinstance(y, list | tuple | dict):
                raise BadInput(f"A Jacobian needs a model with one output. Received: {len(y)} outputs")
            kind = keras.backend.standardize_dtype(y.dtype)
            if "float" not in kind:
                raise BadInput(f"A Jacobian needs a model with real outputs. Received: outputs of dtype {kind}")
            return keras.ops.cast(y, x.dtype)

        output_shape, self._forward, self._backward = autodiff.linearize(function, x)
        self._input_shape, self._output_shape = x.shape, output_shape
        self.shape = (math.prod(output_shape), x.size)

    def forward(self, vectors):
        """Returns J v for tangents `[b, inputs]`: float64 `[b, outputs]`."""
        return self._flat(self._forward(np.reshape(vectors, (-1, *self._input_shape))))

    def backward(self, vectors):
        """Returns J^T u for cotangents `[b, outputs]`: float64 `[b, inputs]`."""
        return self._flat(self._backward(np.reshape(vectors, (-1, *self._output_shape))))

    def _flat(self, products):
        return np.asarray(products, np.float64).reshape(len(products), -1)

    def dense(self, batch_size=32, progress=None):
        """Returns the Jacobian (or its transpose, whichever has fewer columns) as a float64 array.

        Args:
            batch_size: Integer, products computed together.
            progress: Callable of two integers, products done and to do.
        """
        wide = self.shape[1] > self.shape[0]
        product, count = (self.backward if wide else self.forward), min(self.shape)
        columns = np.empty((count, max(self.shape)))
        for start in range(0, count, batch_size):
            stop = min(start + batch_size, count)
            # The last batch is filled up: one batch size is compiled once.
            units = np.zeros((min(batch_size, count), count))
            units[np.arange(stop - start), np.arange(start, stop)] = 1.0
            columns[start:stop] = product(units)[: stop - start]
            if progress is not None:
                progress(stop, count)
        return columns.T


def lanczos_singular_values(operator, k, which="both", tolerance=1e-7, seed=0, progress=None):
    """Returns the extreme singular values of an operator by Golub-Kahan-Lanczos bidiagonalization.

    With all earlier vectors reorthogonalized, step j gives A V = U B with B bidiagonal j x j; the residual of a value
    of B bounds its distance to a singular value of A. After `min(shape)` steps B has them all. A Krylov space holds one
    copy of a repeated value: where it is exhausted early, which repeated values cause, all steps are done.

    Args:
        operator: Object with `shape`, `forward` and `backward` as `JacobianOperator`.
        k: Integer, values wanted at an end.
        which: `"largest"`, `"smallest"` or `"both"`.
        tolerance: Float, largest residual relative to the largest singular value.
        seed: Integer, of the first vector.
        progress: Callable of two integers, steps done and the most there can be.

    Returns:
        Float64 array, the values of B, descending: those wanted are converged, others need not be.
    """
    transpose = operator.shape[1] > operator.shape[0]  # the right vectors live on the shorter side
    forward, backward = operator.forward, operator.backward
    if transpose:
        forward, backward = backward, forward
    n, m = min(operator.shape), max(operator.shape)
    random = np.random.default_rng(seed)
    V, U = np.empty((min(n, 256), n)), np.empty((min(n, 256), m))
    diagonal, above, exhausted = np.zeros(n), np.zeros(n), False
    V[0] = _orthonormal(random.standard_normal(n), V[:0])[0]
    for j in range(n):
        if j + 1 >= len(V) < n:  # room for twice as many vectors
            V, U = (np.concatenate([X, np.empty((min(len(X), n - len(X)), X.shape[1]))]) for X in (V, U))
        u = forward(V[j : j + 1])[0]
        U[j], diagonal[j] = _orthonormal(u - (above[j - 1] * U[j - 1] if j else 0.0), U[:j], random)
        if j + 1 < n:
            v = backward(U[j : j + 1])[0]
            V[j + 1], above[j] = _orthonormal(v - diagonal[j] * V[j], V[: j + 1], random)
        steps = j + 1
        if progress is not None:
            progress(steps, n)
        exhausted = exhausted or (steps < n and above[j] == 0)
        if steps == n or (not exhausted and steps >= 2 * k and steps % max(10, steps // 8) == 0):
            B = np.diag(diagonal[:steps]) + np.diag(above[: steps - 1], 1)
            left, values, _ = np.linalg.svd(B)
            residuals = above[j] * np.abs(left[-1])
            at_ends = {"largest": residuals[:k], "smallest": residuals[-k:], "both": residuals[np.r_[:k, -k:0]]}
            if np.all(at_ends[which] <= tolerance * values[0]):
                break
    return values


def _orthonormal(vector, basis, random=None):
    """A unit vector orthogonal to the rows of `basis`, and the length of what was left of `vector`."""
    scale = np.linalg.norm(vector)
    for _ in range(2):  # twice is enough (Kahan)
        vector = vector - (basis @ vector) @ basis
    length = np.linalg.norm(vector)
    if random is not None and length <= 1e-12 * scale:
        # The Krylov space is exhausted: any new direction continues it, uncoupled.
        return _orthonormal(random.standard_normal(vector.size), basis)[0], 0.0
    return vector / length, length


def _checked_input(model, x):
    inputs, outputs = getattr(model, "inputs", None), getattr(model, "outputs", None)
    if isinstance(x, dict | tuple) or (inputs is not None and len(inputs) != 1):
        received = len(inputs) if inputs is not None else len(x)
        raise BadInput(f"A Jacobian needs a model with one input. Received: {received} inputs")
    if outputs is not None and len(outputs) != 1:
        raise BadInput(f"A Jacobian needs a model with one output. Received: {len(outputs)} outputs")
    x = np.asarray(x)
    dtype = inputs[0].dtype if inputs is not None else (x.dtype.name if x.dtype.kind == "f" else "float32")
    if x.dtype.kind not in "fiub" or "complex" in dtype:
        raise BadInput(f"A Jacobian needs real inputs. Received: dtype {x.dtype} for an input of dtype {dtype}")
    if "float" not in dtype:
        raise BadInput(f"A Jacobian needs a model with a floating-point input. Received: an input of dtype {dtype}")
    if not np.isfinite(x).all():
        raise BadInput("A Jacobian needs a finite input. Received: an input with nan or infinity")
    if inputs is not None:
        shape = tuple(inputs[0].shape[1:])
        if x.ndim == len(shape) + 1 and len(x) == 1:
            x = x[0]
        if x.ndim != len(shape) or any(a is not None and a != b for a, b in zip(shape, x.shape, strict=True)):
            raise BadInput(f"x must be one input of shape {shape}. Received: x of shape {x.shape}")
    return x.astype("float64" if dtype == "float64" else "float32")
