"""Convex losses with their first and second derivatives.

A loss maps predictions `[n, m]`, one row for each example, and targets to values `[n]`. The three named losses have
closed-form derivatives; a loss given by the user is differentiated by the backend of Keras, and must be convex.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike
from scipy.special import expit, log_softmax, softmax

from allconv_resnet.errors import BadInput
from allconv_resnet.theory import autodiff


@dataclass(frozen=True)
class Loss:
    """A loss, convex and twice differentiable in the prediction (the assumption of Shamir, arXiv 1804.06739).

    Args:
        name: String, for messages and tables.
        value: Callable `(p, y) -> [n]` of predictions p `[n, m]` and targets y `[n, ...]`.
        gradient: Callable `(p, y) -> [n, m]`, the gradient of the value with respect to p.
        hessian_product: Callable `(p, y, v) -> [n, m]`, the product of the Hessian with respect to p and v `[n, m]`.

    Example:

    >>> LOSSES["squared"].value(np.array([[3.0]]), np.array([[1.0]]))
    array([2.])
    """

    name: str
    value: Callable[..., np.ndarray]
    gradient: Callable[..., np.ndarray]
    hessian_product: Callable[..., np.ndarray]

    def check_targets(self, y: ArrayLike, outputs: int) -> np.ndarray:
        """Returns the targets as an array in the form that the loss needs.

        Args:
            y: Array-like `[n, ...]`.
            outputs: Positive integer m.

        Raises:
            BadInput: if the targets do not fit one of the three named losses. Other losses accept any targets.
        """
        y = np.asarray(y)
        if self in (SQUARED, LOGISTIC) and y.dtype.kind not in "fiub":
            raise BadInput(f"The {self.name} loss needs real targets. Received: y of dtype {y.dtype}")
        if self is SQUARED:
            y = y.reshape(len(y), -1).astype(np.float64)
            if y.shape[1] != outputs or not np.isfinite(y).all():
                raise BadInput(
                    f"The squared loss needs finite targets [n, {outputs}]. Received: y of shape {list(y.shape)}"
                )
        if self is LOGISTIC:
            y = y.reshape(len(y), -1).astype(np.float64)
            if y.shape[1] != outputs or not np.isin(y, (-1.0, 1.0)).all():
                raise BadInput(
                    f"The logistic loss needs targets [n, {outputs}] of -1 and 1. Received: y of shape {list(y.shape)} "
                    f"with values {np.unique(y)[:5]}"
                )
        if self is CROSS_ENTROPY and (
            y.ndim != 1 or y.dtype.kind not in "iu" or outputs < 2 or y.min() < 0 or y.max() >= outputs
        ):
            values = f" from {y.min()} to {y.max()}" if y.dtype.kind in "iuf" else ""
            raise BadInput(
                f"The cross-entropy needs integer labels [n] in [0, {outputs}) and at least 2 outputs. "
                f"Received: y of shape {list(y.shape)} and dtype {y.dtype}{values}"
            )
        return y


def _one_hot(p, y):
    return np.eye(p.shape[1])[y]


def _softmax_hessian_product(p, y, v):
    s = softmax(p, axis=1)
    return s * (v - (s * v).sum(axis=1, keepdims=True))


SQUARED = Loss(  # |p - y|^2 / 2
    "squared",
    value=lambda p, y: 0.5 * ((p - y) ** 2).sum(axis=1),
    gradient=lambda p, y: p - y,
    hessian_product=lambda p, y, v: v,
)
LOGISTIC = Loss(  # log(1 + exp(-y p)) with y = -1 or 1, summed over the outputs
    "logistic",
    value=lambda p, y: np.logaddexp(0, -y * p).sum(axis=1),
    gradient=lambda p, y: -y * expit(-y * p),
    hessian_product=lambda p, y, v: expit(p) * expit(-p) * v,
)
CROSS_ENTROPY = Loss(  # -log softmax(p)[y] with a label y
    "cross_entropy",
    value=lambda p, y: -np.take_along_axis(log_softmax(p, axis=1), y[:, None], axis=1)[:, 0],
    gradient=lambda p, y: softmax(p, axis=1) - _one_hot(p, y),
    hessian_product=_softmax_hessian_product,
)
LOSSES: dict[str, Loss] = {loss.name: loss for loss in (SQUARED, LOGISTIC, CROSS_ENTROPY)}


def get(loss, y=None, outputs=1):
    """Returns a `Loss`.

    Args:
        loss: `"squared"`, `"logistic"`, `"cross_entropy"`, a `Loss`, or a callable `(p, y) -> [n]` written with
            `keras.ops`, with p a float64 tensor `[n, outputs]`.
        y: Targets `[n, ...]`, with which the convexity of a callable or a `Loss` is tested.
        outputs: Positive integer, number of predictions of an example.

    Raises:
        BadInput: if the name is unknown, or if the loss is not finite or not convex.

    Example:

    >>> from keras import ops
    >>> soft_absolute = get(lambda p, y: ops.sum(ops.sqrt(1 + (p - y) ** 2), axis=1), y=np.zeros((4, 1)))
    >>> soft_absolute.gradient(np.zeros((1, 1)), np.zeros((1, 1))).item()
    0.0
    """
    if isinstance(loss, str) and loss in LOSSES:
        return LOSSES[loss]
    if callable(loss) and not isinstance(loss, Loss):
        loss = _differentiated(loss)
    if not isinstance(loss, Loss):
        raise BadInput(f"loss must be a callable or one of {', '.join(LOSSES)}. Received: loss={loss!r}")
    check_convex(loss, y, outputs)
    return loss


def check_convex(loss, y, outputs, samples=2000, seed=0):
    """Tests on random predictions that a loss is finite and that its second derivatives are not negative.

    Args:
        loss: `Loss`.
        y: Targets `[n, ...]` to draw from.
        outputs: Positive integer m.
        samples: Positive integer, number of predictions `[m]`, which are normal with scales from 0.01 to 100.
        seed: Integer, seed of the predictions.

    Raises:
        BadInput: if the loss has the wrong shape, is not finite, or is not convex.
    """
    random = np.random.default_rng(seed)
    y = np.asarray(y)[random.integers(len(y), size=samples)]
    scale = 10 ** random.uniform(-2, 2, size=(samples, 1))
    p, v = scale * random.standard_normal((samples, outputs)), random.standard_normal((samples, outputs))
    value, product = loss.value(p, y), loss.hessian_product(p, y, v)
    if value.shape != (samples,) or not (np.isfinite(value).all() and np.isfinite(product).all()):
        raise BadInput(
            f"loss must map predictions [n, {outputs}] to finite values [n] with finite derivatives. "
            f"Received: {loss.name}, values of shape {list(value.shape)}"
        )
    curvature = (v * product).sum(axis=1)
    worst = np.argmin(curvature)
    if curvature[worst] < -1e-9 * np.abs(curvature).max():
        raise BadInput(
            f"loss must be convex in the prediction. Received: {loss.name}, whose second derivative at p={p[worst]}, "
            f"y={y[worst]} along {v[worst]} is {curvature[worst]:.3g}"
        )


def output_directions(loss, y, outputs, samples=200, seed=0):
    """Returns an orthonormal basis of the directions of the prediction on which a loss depends.

    The cross-entropy does not change if the same number is added to all logits: its basis has `outputs - 1` vectors.
    The span of all first derivatives and all images of second derivatives is estimated at random predictions.

    Args:
        loss: `Loss`.
        y: Targets `[n, ...]` to draw from.
        outputs: Positive integer m.
        samples: Positive integer, number of predictions `[m]`.
        seed: Integer, seed of the predictions.

    Returns:
        Float64 array `[m, r]`.

    Example:

    >>> output_directions(CROSS_ENTROPY, np.array([0, 1, 2]), 3).shape
    (3, 2)
    """
    random = np.random.default_rng(seed)
    if loss in (SQUARED, LOGISTIC):
        return np.eye(outputs)
    y = np.asarray(y)
    y = y[np.resize(np.arange(len(y)), max(samples, len(y)))]  # every target, since one alone may show a direction
    scale = 10 ** random.uniform(-2, 2, size=(len(y), 1))
    p, v = scale * random.standard_normal((len(y), outputs)), random.standard_normal((len(y), outputs))
    spans = [loss.gradient(p, y), loss.hessian_product(p, y, v)]
    # Each span is normalized, so that large targets do not hide the directions that only second derivatives show.
    rows = np.concatenate([span / max(np.linalg.norm(span), np.finfo(float).tiny) for span in spans])
    _, values, basis = np.linalg.svd(rows, full_matrices=False)
    return basis[values > 1e-9].T


def _differentiated(function):
    def at(p, y):
        """Returns the loss as a function of the prediction alone, and the prediction in float64."""
        return (lambda p: function(p, autodiff.tensor(np.asarray(y)))), np.asarray(p, np.float64)

    return Loss(
        getattr(function, "__name__", type(function).__name__),
        value=lambda p, y: autodiff.evaluate(*at(p, y)),
        gradient=lambda p, y: autodiff.value_and_gradient(*at(p, y))[1],
        hessian_product=lambda p, y, v: autodiff.hessian_product(*at(p, y), np.asarray(v, np.float64)),
    )
