"""The objective of a residual predictor and of linear predictors on a sample (Shamir, arXiv 1804.06739, section 2).

    p(x) = W (x + V f_theta(x)),   F(W, V, theta) = E[loss(p(x), y)],   F_lin(U) = E[loss(U x, y)] = F(U, 0, theta)

The branch f_theta is represented by its features `[n, k]` on the sample, since the theorems hold for every theta.
"""

from dataclasses import dataclass, field

import keras
import numpy as np
from numpy.typing import ArrayLike

from allconv_resnet.errors import BadInput
from allconv_resnet.theory.checks import positive_integer
from allconv_resnet.theory.shamir import losses


@dataclass(frozen=True, eq=False)
class Problem:
    """A sample and a convex loss.

    Args:
        x: Real array `[n, d]` of inputs.
        y: Targets `[n, outputs]`, or integer labels `[n]` for `"cross_entropy"`. A callable accepts any `[n, ...]`.
        loss: `"squared"`, `"logistic"`, `"cross_entropy"`, a `Loss`, or a callable `(p, y) -> [n]` written with
            `keras.ops`.
        outputs: Integer m from 1 to d.

    Attributes:
        n: Integer, number of examples.
        d: Integer, dimension of the inputs.
        directions: Float64 array `[outputs, r]`, an orthonormal basis of the directions of the prediction on which the
            loss depends. For the cross-entropy r is `outputs - 1`, because it ignores what all logits have in common.

    Raises:
        BadInput: if an array is empty, complex or not finite, if the shapes do not fit, or if the loss is not convex.

    Example:

    >>> problem = Problem([[1.0, 0.0], [0.0, 1.0]], [0, 1], "cross_entropy", outputs=2)
    >>> round(problem.linear(np.zeros((2, 2))), 4)  # log 2
    0.6931
    """

    x: np.ndarray
    y: np.ndarray
    loss: losses.Loss | str = "squared"
    outputs: int = 1
    n: int = field(init=False)
    d: int = field(init=False)
    directions: np.ndarray = field(init=False)

    def __post_init__(self) -> None:
        x = np.asarray(self.x)
        if x.dtype.kind not in "fiub":
            raise BadInput(f"x must be real. Received: x of dtype {x.dtype}")
        x = x.astype(np.float64)
        if x.ndim != 2 or not x.size or not np.isfinite(x).all():
            raise BadInput(f"x must be a finite array [n, d] that is not empty. Received: x of shape {list(x.shape)}")
        shape = np.shape(self.y)
        if shape[:1] != (len(x),):
            raise BadInput(
                "x and y must have one row for each example. "
                f"Received: x of shape {list(x.shape)} and y of shape {list(shape)}"
            )
        positive_integer(self.outputs, "outputs")
        if not 1 <= self.outputs <= x.shape[1]:
            raise BadInput(f"outputs must lie between 1 and d = {x.shape[1]}. Received: outputs={self.outputs}")
        loss = losses.get(self.loss, self.y, self.outputs)
        y = loss.check_targets(self.y, self.outputs)
        directions = losses.output_directions(loss, y, self.outputs)
        values = {"x": x, "y": y, "n": len(x), "d": x.shape[1], "loss": loss, "directions": directions}
        for name, value in values.items():
            object.__setattr__(self, name, value)

    def linear(self, U: np.ndarray) -> float:
        """Returns F_lin(U) as a float, for U `[m, d]`."""
        return float(self.loss.value(self.x @ U.T, self.y).mean())

    def linear_gradient(self, U: np.ndarray) -> np.ndarray:
        """Returns the gradient of F_lin at U, `[m, d]`."""
        return self.loss.gradient(self.x @ U.T, self.y).T @ self.x / self.n

    def objective(self, W: np.ndarray, V: np.ndarray, features: np.ndarray) -> float:
        """Returns F(W, V) as a float, for W `[m, d]`, V `[d, k]` and features `[n, k]`."""
        return float(self.loss.value(self.predictions(W, V, features), self.y).mean())

    def gradient(self, W: np.ndarray, V: np.ndarray, features: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Returns the gradients of F with respect to W, `[m, d]`, and V, `[d, k]`."""
        slope = self.slopes(W, V, features) / self.n
        return slope.T @ (self.x + features @ V.T), W.T @ (slope.T @ features)

    def hessian_product(
        self, W: np.ndarray, V: np.ndarray, features: np.ndarray, directions: tuple[np.ndarray, np.ndarray]
    ) -> tuple[np.ndarray, np.ndarray]:
        """Returns the product of the Hessian of F in (W, V) with `directions`, a pair like (W, V), as such a pair."""
        dW, dV = directions
        predictions, h = self.predictions(W, V, features), self.x + features @ V.T
        slope, moved = self.loss.gradient(predictions, self.y) / self.n, features @ dV.T
        change = self.loss.hessian_product(predictions, self.y, h @ dW.T + moved @ W.T) / self.n
        return change.T @ h + slope.T @ moved, (dW.T @ slope.T + W.T @ change.T) @ features

    def slopes(self, W: np.ndarray, V: np.ndarray, features: np.ndarray) -> np.ndarray:
        """Returns the derivatives of the loss of each example with respect to the prediction, `[n, m]`."""
        return self.loss.gradient(self.predictions(W, V, features), self.y)

    def predictions(self, W: np.ndarray, V: np.ndarray, features: np.ndarray) -> np.ndarray:
        """Returns the predictions p(x), `[n, m]`."""
        return (self.x + features @ V.T) @ W.T

    def checked(self, W: ArrayLike, V: ArrayLike, features: ArrayLike) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Returns W, V and the features as float64 arrays.

        Args:
            W: Array `[m, d]`, or `[d]` for one output.
            V: Array `[d, k]`.
            features: Array `[n, k]`.

        Raises:
            BadInput: if a shape does not fit or a number is not finite.
        """
        W, V, features = (np.asarray(a, np.float64) for a in (W, V, features))
        W = W[None] if W.ndim == 1 and self.outputs == 1 else W
        k = features.shape[-1] if features.ndim == 2 else -1
        if (W.shape, V.shape, features.shape) != ((self.outputs, self.d), (self.d, k), (self.n, k)):
            raise BadInput(
                f"W, V and the features must have shapes [{self.outputs}, {self.d}], [{self.d}, k] and [{self.n}, k]. "
                f"Received: {list(W.shape)}, {list(V.shape)} and {list(features.shape)}"
            )
        if not all(np.isfinite(a).all() for a in (W, V, features)):
            raise BadInput("W, V and the features must be finite. Received: NaN or infinity")
        return W, V, features


def features_of(branch: keras.Model, x: ArrayLike, batch_size: int = 1024) -> np.ndarray:
    """Returns the flattened outputs of a residual branch f_theta on a sample.

    Args:
        branch: Keras model with one real input and one real output.
        x: Array `[n, d]`, which is reshaped to the input shape of the branch.
        batch_size: Positive integer.

    Returns:
        Float64 array `[n, k]`.

    Raises:
        BadInput: if the branch has several inputs or outputs, if they are complex, or if the input does not have `d`
            numbers.

    Example:

    >>> branch = keras.Sequential([keras.Input((5,)), keras.layers.Dense(8, "relu"), keras.layers.Dense(3)])
    >>> features_of(branch, np.ones((4, 5))).shape
    (4, 3)
    """
    if len(branch.inputs) != 1 or len(branch.outputs) != 1:
        raise BadInput(
            f"A residual branch must have one input and one output. "
            f"Received: {len(branch.inputs)} inputs and {len(branch.outputs)} outputs"
        )
    for tensor in (branch.inputs[0], branch.outputs[0]):
        if "complex" in tensor.dtype:
            raise BadInput(f"A residual branch must be real. Received: dtype {tensor.dtype}")
    shape, x = branch.inputs[0].shape[1:], np.asarray(x)
    if x.ndim != 2 or np.prod(shape) != x.shape[1]:
        raise BadInput(
            f"A row of x must have the numbers of one input of shape {tuple(shape)}. "
            f"Received: x of shape {list(x.shape)}"
        )
    x = np.asarray(x, branch.compute_dtype).reshape(-1, *shape)
    parts = [
        keras.ops.convert_to_numpy(branch(x[i : i + batch_size], training=False)) for i in range(0, len(x), batch_size)
    ]
    return np.concatenate(parts).reshape(len(x), -1).astype(np.float64)
