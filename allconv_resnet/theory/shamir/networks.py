"""Certificates for any Keras network: the objective, its gradient, and the ends of the spectrum of its Hessian.

Shamir's theorem is about one residual block (certificates.py). For deep residual networks there is no such theorem
without conditions that a network may not satisfy, so `certify_network` measures, on the data that it is given, which of
the alternatives holds at a point: the network is at least as good as the best linear predictor, its gradient is too
large for a stationary point, its Hessian has a negative eigenvalue, or nothing of that.
"""

from typing import NamedTuple

import keras
import numpy as np
from numpy.typing import ArrayLike

from allconv_resnet.errors import BadInput
from allconv_resnet.theory import autodiff
from allconv_resnet.theory.shamir.certificates import ESCAPES, GOOD, MOVING, RESTING
from allconv_resnet.theory.shamir.eigenvalues import extreme_eigenvalues
from allconv_resnet.theory.shamir.linear_optimum import linear_optimum
from allconv_resnet.theory.shamir.predictors import Problem


class NetworkCertificate(NamedTuple):
    """The result of `certify_network`.

    Attributes:
        verdict: String, see `certify_network`.
        objective: Float, mean loss of the network on the data.
        linear: Float, mean loss of the best linear predictor.
        gradient_norm: Float, norm of the gradient in all trainable weights.
        relative_gradient: Float, gradient_norm^2 / (2 largest objective): the share that one short gradient step
            removes.
        smallest: Float, smallest eigenvalue of the Hessian, an upper bound of it.
        residual: Float, an eigenvalue lies within this distance of `smallest`.
        largest: Float, largest eigenvalue of the Hessian, a lower bound of it.
        direction: List of arrays like the trainable weights, a unit direction of curvature `smallest` and slope at most
            0.
        step: Float, length of the step along the direction that was tried; 0 if the curvature is not negative.
        decrease: Float, decrease of the objective by this step, measured.
    """

    verdict: str
    objective: float
    linear: float
    gradient_norm: float
    relative_gradient: float
    smallest: float
    residual: float
    largest: float
    direction: list[np.ndarray]
    step: float
    decrease: float


def certify_network(
    model: keras.Model,
    x: ArrayLike,
    y: ArrayLike,
    loss: str = "cross_entropy",
    linear: float | None = None,
    tolerance: float = 1e-8,
    stationary: float = 1e-6,
    curved: float = 1e-2,
    batch_size: int = 256,
    seed: int = 0,
) -> NetworkCertificate:
    """Certifies that a network is as good as a linear predictor, is not stationary, or is at a strict saddle.

    Args:
        model: Keras model of one input. The activations should be smooth: at the kinks of a ReLU the Hessian does not
            see them, and only `decrease` is evidence.
        x: Array `[n, ...]` of inputs.
        y: Targets as in `Problem`.
        loss: `"squared"`, `"logistic"` or `"cross_entropy"`, of the outputs of the model without a softmax.
        linear: Float, the loss to compare with; None for the best linear predictor of the flattened inputs and a
            constant.
        tolerance: Nonnegative float. The excess over the linear predictor still counts as good if it is at most this
            share of the loss of the prediction 0.
        stationary: Nonnegative float. A `relative_gradient` of at most this number counts as zero.
        curved: Nonnegative float. A negative eigenvalue counts if it is below -`curved` times the largest eigenvalue,
            which float32 needs to be well above 1e-4.
        batch_size: Positive integer, number of inputs at a time.
        seed: Integer, seed of the eigenvalue method.

    Returns:
        `NetworkCertificate`. Its verdict is the first of these that applies: "at least as good as linear"; "gradient
        too large to be stationary"; "escapes along a direction" of negative curvature; "nearly stationary", which for a
        deep network may be a local minimum above all linear predictors.

    Raises:
        BadInput: if the loss is unknown, the targets do not fit, the objective or its gradient is not finite, or the
            eigenvalues do not converge.

    Example:

    >>> model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1, use_bias=False, kernel_initializer="zeros")])
    >>> certify_network(model, np.eye(2), [1.0, -1.0], "squared").verdict
    'gradient too large to be stationary'
    """
    if loss not in LOSSES:
        raise BadInput(f"loss must be one of {', '.join(LOSSES)}. Received: loss={loss!r}")
    flat = np.asarray(x, np.float64).reshape(len(x), -1)
    outputs = model.output_shape[-1]
    problem = Problem(np.concatenate([flat, np.ones((len(flat), 1))], axis=1), y, loss, outputs)
    linear = linear_optimum(problem).value if linear is None else float(linear)
    zero = problem.linear(np.zeros((outputs, problem.d)))
    gradients_at, products_at = autodiff.weight_derivatives(model, LOSSES[loss])
    batches = [(x[i : i + batch_size], problem.y[i : i + batch_size]) for i in range(0, len(x), batch_size)]
    variables = model.trainable_variables
    shapes = [tuple(variable.shape) for variable in variables]
    ends = np.cumsum([int(np.prod(shape)) for shape in shapes])

    def flattened(parts):
        return np.concatenate([np.ravel(part).astype(np.float64) for part in parts])

    def split(vector):
        return [part.reshape(shape) for part, shape in zip(np.split(vector, ends[:-1]), shapes, strict=True)]

    def value_and_gradient():
        results = [gradients_at(*batch) for batch in batches]
        return sum(value for value, _ in results) / len(x), sum(flattened(parts) for _, parts in results) / len(x)

    def product(vector):
        return sum(flattened(products_at(*batch, split(vector))) for batch in batches) / len(x)

    objective, gradient = value_and_gradient()
    if not (np.isfinite(objective) and np.isfinite(gradient).all()):
        raise BadInput(
            "The objective and its gradient must be finite. Received: NaN or infinity, from the inputs or the weights"
        )
    found = extreme_eigenvalues(product, int(ends[-1]), tolerance=1e-3, seed=seed)
    direction = found.vector if gradient @ found.vector <= 0 else -found.vector
    weights = [keras.ops.convert_to_numpy(variable) for variable in variables]
    step, decrease = 0.0, 0.0
    if found.smallest < 0:

        def decrease_at(length):
            for variable, weight, part in zip(variables, weights, split(direction), strict=True):
                variable.assign(weight + length * part)
            return objective - value_and_gradient()[0]

        try:
            tried = [(t, decrease_at(t)) for t in 2.0 ** np.arange(1, -8, -1)]
            step, decrease = max(tried, key=lambda pair: pair[1] if np.isfinite(pair[1]) else -np.inf)
        finally:
            for variable, weight in zip(variables, weights, strict=True):
                variable.assign(weight)
    size = np.linalg.norm(gradient)
    relative = size**2 / max(2 * found.largest * objective, np.finfo(float).tiny)
    if objective - linear <= tolerance * zero:
        verdict = GOOD
    elif relative > stationary:
        verdict = MOVING
    else:
        verdict = ESCAPES if found.smallest < -curved * abs(found.largest) and decrease > 0 else RESTING
    numbers = (objective, linear, float(size), float(relative), found.smallest, found.residual, found.largest)
    return NetworkCertificate(verdict, *numbers, split(direction), float(step), float(decrease))


def _cross_entropy(outputs, y):
    log_probabilities = keras.ops.log_softmax(outputs, axis=-1)
    return -keras.ops.sum(keras.ops.one_hot(y, outputs.shape[-1], dtype=outputs.dtype) * log_probabilities, axis=-1)


LOSSES = {  # of losses.py, written with `keras.ops`
    "squared": lambda p, y: 0.5 * keras.ops.sum((p - keras.ops.cast(y, p.dtype)) ** 2, axis=-1),
    "logistic": lambda p, y: keras.ops.sum(keras.ops.softplus(-keras.ops.cast(y, p.dtype) * p), axis=-1),
    "cross_entropy": _cross_entropy,
}
