"""TF1's momentum with coupled weight decay, the optimizer of Hardt & Ma; and Muon, for a short training."""

import contextlib

import keras
from keras import ops


@keras.saving.register_keras_serializable(package="allconv_resnet")
class Momentum(keras.optimizers.Optimizer):
    """Momentum as `tf.compat.v1.train.MomentumOptimizer` has it, with an L2 loss on the weights.

    ```
    g <- g + weight_decay * w          # the gradient of 0.5 * weight_decay * |w|^2
    v <- momentum * v + g
    w <- w - learning_rate * v         # or, with nesterov, learning_rate * (g + momentum * v)
    ```

    `keras.optimizers.SGD` keeps the learning rate inside v and decouples the weight decay from the momentum: after a
    drop of the learning rate the two differ.

    Args:
        learning_rate: Float, schedule, or callable.
        momentum: Float in [0, 1).
        weight_decay: Float, at least 0. `exclude_from_weight_decay` leaves variables out, for instance
            `exclude_from_weight_decay(var_names=["bias", "gamma", "beta"])`.
        nesterov: Boolean.
        name: Name of the optimizer.
        **kwargs: Of `keras.optimizers.Optimizer`: `clipnorm`, `global_clipnorm`, `use_ema`, ... Clipping sees the
            gradient without the weight decay.

    Raises:
        ValueError: if `momentum` or `weight_decay` is out of its range.

    Example:

    >>> model.compile(Momentum(StepDecay(0.05, [30_000, 50_000], 0.1), weight_decay=1e-4), loss=...)
    """

    def __init__(self, learning_rate=0.05, momentum=0.9, weight_decay=0.0, nesterov=False, name="momentum", **kwargs):
        if not 0 <= momentum < 1:
            raise ValueError(f"momentum must be at least 0 and below 1. Received: momentum={momentum}")
        if not weight_decay >= 0:
            raise ValueError(f"weight_decay must be at least 0. Received: weight_decay={weight_decay}")
        super().__init__(learning_rate=learning_rate, name=name, **kwargs)
        self.momentum, self.nesterov = momentum, nesterov
        self.own_weight_decay = weight_decay  # Keras applies its `weight_decay` decoupled, as the step begins

    def build(self, variables):
        if self.built:
            return
        super().build(variables)
        self.velocities = self.add_optimizer_variables(variables, "velocity")

    def update_step(self, gradient, variable, learning_rate):
        velocity = self.velocities[self._get_variable_index(variable)]
        with after(gradient):
            gradient = ops.cast(gradient, variable.dtype)
            if weight_decay := self.weight_decay_of(variable):
                gradient = gradient + weight_decay * variable
            self.assign(velocity, self.momentum * velocity + gradient)
            update = gradient + self.momentum * velocity if self.nesterov else velocity
            self.assign_sub(variable, ops.cast(learning_rate, variable.dtype) * update)

    def weight_decay_of(self, variable):
        """Returns the weight decay of a variable: 0 for those that `exclude_from_weight_decay` left out."""
        return self.own_weight_decay if self._use_weight_decay(variable) else 0.0

    def get_config(self):
        return {
            **super().get_config(),
            "momentum": self.momentum,
            "weight_decay": self.own_weight_decay,
            "nesterov": self.nesterov,
        }


@keras.saving.register_keras_serializable(package="allconv_resnet")
class Muon(Momentum):
    """Momentum whose updates are orthogonalized (Jordan et al. 2024, "Muon: an optimizer for hidden layers").

    ```
    v <- momentum * v + g
    u <- v                             # or, with nesterov, g + momentum * v
    w <- w - learning_rate * (orthogonalized(u) + weight_decay * w)
    ```

    A kernel is taken as the matrix of its output channels against all else, so that one learning rate, about the
    spectral norm of an update, serves layers of every width. A vector's update is 0.7 long. `keras.optimizers.Muon`
    orthogonalizes matrices alone, and gives convolutions to Adam.

    Args:
        learning_rate: Float, schedule, or callable.
        momentum: Float in [0, 1).
        weight_decay: Float, at least 0; decoupled. Left out as in `Momentum`.
        nesterov: Boolean.
        name: Name of the optimizer.
        **kwargs: Of `keras.optimizers.Optimizer`.

    Raises:
        ValueError: if `momentum` or `weight_decay` is out of its range.

    Example:

    >>> model.compile(Muon(LinearDecay(0.02, 10_000), weight_decay=0.1), loss=...)
    """

    def __init__(self, learning_rate=0.02, momentum=0.9, weight_decay=0.0, nesterov=True, name="muon", **kwargs):
        super().__init__(learning_rate, momentum, weight_decay, nesterov, name, **kwargs)

    def update_step(self, gradient, variable, learning_rate):
        velocity = self.velocities[self._get_variable_index(variable)]
        with after(gradient):
            gradient = ops.cast(gradient, variable.dtype)
            self.assign(velocity, self.momentum * velocity + gradient)
            update = gradient + self.momentum * velocity if self.nesterov else velocity
            update = ops.reshape(orthogonalized(ops.reshape(update, (-1, variable.shape[-1]))), variable.shape)
            if weight_decay := self.weight_decay_of(variable):
                update = update + weight_decay * variable
            self.assign_sub(variable, ops.cast(learning_rate, variable.dtype) * update)


NEWTON_SCHULZ = (3.4445, -4.7750, 2.0315)  # Jordan et al.: steep at 0, and what is near 1 stays there


def orthogonalized(matrix):
    """Returns about `U V^T` of a matrix `U S V^T`: its singular values lie in [0.68, 1.21], but for those that were
    below 1/500 of the Frobenius norm.

    Five steps of Newton and Schulz, each of which makes `a s + b s^3 + c s^5` of a singular value s: `(a I + b A + c
    A^2) X` of X, where `A = X X^T`. The steps are taken on A, which is small, and X is multiplied after the second and
    the last: without the former, what a GPU rounds in float32 products (TF32) would grow to as much as the result.

    Args:
        matrix: Float tensor `[m, n]`.

    Returns:
        Float tensor `[m, n]`.
    """
    tall = matrix.shape[0] > matrix.shape[1]
    x = ops.transpose(matrix) if tall else matrix  # the short side comes first
    x = x / (ops.norm(x) + 1e-7)  # no singular value is above 1
    a, b, c = NEWTON_SCHULZ
    identity = ops.eye(x.shape[0], dtype=x.dtype)
    for steps in (2, 3):
        square, product = x @ ops.transpose(x), identity
        for _ in range(steps):
            factor = a * identity + b * square + c * (square @ square)
            square, product = factor @ square @ factor, factor @ product
        x = product @ x
    return ops.transpose(x) if tall else x


def after(gradient):
    """Returns a context whose operations wait for a gradient. TensorFlow would compute those that need a variable alone
    when the step begins, and keep their results, twice the size of the network, until the gradients are there.
    """
    if keras.backend.backend() != "tensorflow":
        return contextlib.nullcontext()
    import tensorflow as tf

    return tf.control_dependencies([gradient])
