"""Singular values of the Jacobian of any Keras model at an input, from the whole matrix or by Lanczos iteration."""

import math

import keras
import numpy as np
from scipy.linalg import svdvals

from allconv_resnet.errors import BadInput
from allconv_resnet.theory import autodiff

DENSE_ENTRIES = 10**8  # 0.8 GB in float64; the body of the CIFAR network has 5 * 10^7
DENSE_SIDE = 512  # up to this size the whole Jacobian is not slower than Lanczos iteration


def jacobian_singular_values(model, x, k=None, which="both", method="auto", batch_size=32, seed=0, progress=None):
    """Returns singular values of the Jacobian of the output of a model with respect to its input, at one input.

    The Jacobian has `min(inputs, outputs)` singular values, which are only 10 for a network with 10 logits. To measure
    the body of a network of this package, pass `keras.Model(model.input, model.get_layer("pool").input)`.

    Args:
        model: Keras model with one input and one output, which is evaluated with `training=False`, or a callable that
            maps a batch of inputs to a batch of outputs.
        x: Real array `[*input_shape]` or `[1, *input_shape]`.
        k: Positive integer, number of singular values at an end of the spectrum; None for all singular values.
        which: `"largest"`, `"smallest"` or `"both"`; ignored if `k` is None.
        method: `"dense"` computes the whole Jacobian in batches and its singular values. `"lanczos"` is matrix-free
            Golub-Kahan bidiagonalization with full reorthogonalization. It needs a few dozen products with the
            Jacobian for the largest singular values, and about as many as the Jacobian has rows for the smallest ones,
            for which `"dense"` is faster if its memory suffices. `"auto"` chooses between the two.
        batch_size: Positive integer, number of products with the Jacobian that are computed together.
        seed: Integer, seed of the first Lanczos vector.
        progress: Callable `(done, total)` that is called after each batch of products, or None.

    Returns:
        Float64 array, descending: all singular values, the `k` at one end, or the `k` largest and the `k` smallest,
        `[2k]` (all of them if there are fewer than `2k`). Their precision is that of the dtype of the model.

    Raises:
        BadInput: if the model has several inputs or outputs, or complex or integer ones; if the input has the wrong
            shape; if `which` or `method` is unknown; if `k` is not between 1 and the number of singular values.

    Example:

    >>> network = keras.Sequential([keras.Input((3,)), keras.layers.Dense(2, kernel_initializer="ones")])
    >>> jacobian_singular_values(network, np.zeros(3))[0].round(4).item()  # the square root of 6
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
    """The Jacobian of a model at one input as a linear operator on flat vectors.

    Args:
        model: As in `jacobian_singular_values`.
        x: Real array `[*input_shape]` or `[1, *input_shape]`.

    Attributes:
        shape: Pair `(outputs, inputs)`.

    Raises:
        BadInput: as in `jacobian_singular_values`.
    """

    def __init__(self, model, x):
        x = _check_input(model, x)

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
        """Returns the products J v, float64 `[b, outputs]`, for tangents v, `[b, inputs]`."""
        return self._flat(self._forward(np.reshape(vectors, (-1, *self._input_shape))))

    def backward(self, vectors):
        """Returns the products J^T u, float64 `[b, inputs]`, for cotangents u, `[b, outputs]`."""
        return self._flat(self._backward(np.reshape(vectors, (-1, *self._output_shape))))

    def _flat(self, products):
        return np.asarray(products, np.float64).reshape(len(products), -1)

    def dense(self, batch_size=32, progress=None):
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


def lanczos_singular_values(operator, k, which="both", tolerance=1e-7, seed=0, progress=None):
    """Returns the extreme singular values of a linear operator by Golub-Kahan-Lanczos bidiagonalization.

    With full reorthogonalization, step j gives A V = U B with a bidiagonal `[j, j]` matrix B. The residual of a
    singular value of B bounds its distance to a singular value of A, and after `min(shape)` steps B has all of them. A
    Krylov space contains only one copy of a repeated singular value and is then exhausted early; in that case all steps
    are done.

    Args:
        operator: Object with `shape`, `forward` and `backward` as in `JacobianOperator`.
        k: Positive integer, number of singular values at an end of the spectrum.
        which: `"largest"`, `"smallest"` or `"both"`.
        tolerance: Positive float, largest residual relative to the largest singular value.
        seed: Integer, seed of the first vector.
        progress: Callable `(done, total)`, where `total` is the largest possible number of steps, or None.

    Returns:
        Float64 array of the singular values of B, descending. Those that were asked for have converged; the others need
        not have.
    """
    transpose = operator.shape[1] > operator.shape[0]  # so that the right vectors are the shorter ones
    forward, backward = operator.forward, operator.backward
    if transpose:
        forward, backward = backward, forward
    n, m = min(operator.shape), max(operator.shape)
    random = np.random.default_rng(seed)
    V, U = np.empty((min(n, 256), n)), np.empty((min(n, 256), m))
    diagonal, above, exhausted = np.zeros(n), np.zeros(n), False
    V[0] = _orthonormal(random.standard_normal(n), V[:0])[0]
    for j in range(n):
        if j + 1 >= len(V) < n:  # double the capacity
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
    """Returns `vector`, made orthogonal to the rows of `basis` and of unit length, and its length before scaling."""
    scale = np.linalg.norm(vector)
    for _ in range(2):  # two passes are enough (Kahan)
        vector = vector - (basis @ vector) @ basis
    length = np.linalg.norm(vector)
    if random is not None and length <= 1e-12 * scale:
        # The Krylov space is exhausted; continue with a random direction that is not coupled to it.
        return _orthonormal(random.standard_normal(vector.size), basis)[0], 0.0
    return vector / length, length


def _check_input(model, x):
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
        raise BadInput("A Jacobian needs a finite input. Received: an input with NaN or infinity")
    if inputs is not None:
        shape = tuple(inputs[0].shape[1:])
        if x.ndim == len(shape) + 1 and len(x) == 1:
            x = x[0]
        if x.ndim != len(shape) or any(a is not None and a != b for a, b in zip(shape, x.shape, strict=True)):
            raise BadInput(f"x must be one input of shape {shape}. Received: x.shape={x.shape}")
    return x.astype("float64" if dtype == "float64" else "float32")
