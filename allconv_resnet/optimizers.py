"""The optimizer of Hardt & Ma, TF1's momentum with coupled weight decay, and Muon for short trainings."""

import contextlib
from typing import Any, Self

import keras
from keras import ops

from allconv_resnet.errors import BadInput
from allconv_resnet.types import Config, Tensor


@keras.saving.register_keras_serializable(package="allconv_resnet")
class Momentum(keras.optimizers.Optimizer):
    """Momentum as in `tf.compat.v1.train.MomentumOptimizer`, with an L2 loss on the weights.

    ```
    g <- g + weight_decay * w          # the gradient of 0.5 * weight_decay * |w|^2
    v <- momentum * v + g
    w <- w - learning_rate * v         # or, with nesterov, learning_rate * (g + momentum * v)
    ```

    `keras.optimizers.SGD` multiplies by the learning rate inside v, and decouples the weight decay from the momentum.
    The two differ after every drop of the learning rate.

    Args:
        learning_rate: Float, schedule, or callable.
        momentum: Float in [0, 1).
        weight_decay: Float, at least 0. `exclude_from_weight_decay` excludes variables, for instance
            `exclude_from_weight_decay(var_names=["bias", "gamma", "beta"])`. What is excluded is part of the
            configuration, so it is saved with the model.
        nesterov: Boolean.
        name: String, the name of the optimizer.
        **kwargs: Arguments of `keras.optimizers.Optimizer`: `clipnorm`, `global_clipnorm`, `use_ema`, ... Clipping is
            applied to the gradient without the weight decay, and under a strategy of several devices to the gradient of
            each device, before they are added up. With `gradient_accumulation_steps`, Keras gives a schedule the number
            of batches, and not that of updates: its boundaries must be multiplied by that number.

    Raises:
        BadInput: if `momentum` or `weight_decay` is out of its range.

    Example:

    >>> optimizer = acr.Momentum(acr.StepDecay(0.05, [30_000, 50_000], 0.1), weight_decay=1e-4)
    >>> optimizer.exclude_from_weight_decay(var_names=["bias", "gamma", "beta"])
    >>> model = acr.AllConvResNet(stages=[(1, 16, 2)])
    >>> model.compile(optimizer, keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    """

    def __init__(
        self,
        learning_rate: Any = 0.05,
        momentum: float = 0.9,
        weight_decay: float = 0.0,
        nesterov: bool = False,
        name: str = "momentum",
        **kwargs: Any,
    ) -> None:
        if not 0 <= momentum < 1:
            raise BadInput(f"momentum must be at least 0 and below 1. Received: momentum={momentum}")
        if not weight_decay >= 0:
            raise BadInput(f"weight_decay must be at least 0. Received: weight_decay={weight_decay}")
        super().__init__(learning_rate=learning_rate, name=name, **kwargs)
        self.momentum, self.nesterov = momentum, nesterov
        self.own_weight_decay = weight_decay  # Keras would apply an attribute `weight_decay` itself, decoupled
        self.excluded_paths, self.excluded_names, self.loaded = [], [], False

    def build(self, variables: list[keras.Variable]) -> None:
        if self.built:
            return
        if self.loaded:  # variables have the same paths in a loaded model, but they are other objects
            excluded = [variable for variable in variables if variable.path in self.excluded_paths]
            super().exclude_from_weight_decay(excluded, self.excluded_names)
        super().build(variables)
        self.velocities = self.add_optimizer_variables(variables, "velocity")

    def update_step(self, gradient: Tensor, variable: keras.Variable, learning_rate: Any) -> None:
        velocity = self.velocities[self._get_variable_index(variable)]
        with after(gradient):
            gradient = ops.cast(gradient, variable.dtype)
            if weight_decay := self.weight_decay_of(variable):
                gradient = gradient + weight_decay * variable
            self.assign(velocity, self.momentum * velocity + gradient)
            update = gradient + self.momentum * velocity if self.nesterov else velocity
            self.assign_sub(variable, ops.cast(learning_rate, variable.dtype) * update)

    def exclude_from_weight_decay(
        self, var_list: list[keras.Variable] | None = None, var_names: list[str] | None = None
    ) -> None:
        """Excludes variables from the weight decay. It must be called before the optimizer is built.

        Args:
            var_list: List of variables, or None.
            var_names: List of strings, or None. Variables in whose name one of them occurs are excluded. The name is
                the last part of a path, such as `bias` of `head/bias`.
        """
        super().exclude_from_weight_decay(var_list, var_names)
        self.excluded_paths = [variable.path for variable in var_list or ()]
        self.excluded_names, self.loaded = list(var_names or ()), False

    def weight_decay_of(self, variable: keras.Variable) -> float:
        """Returns the weight decay of a variable, which is 0 if `exclude_from_weight_decay` excluded it."""
        return self.own_weight_decay if self._use_weight_decay(variable) else 0.0

    def get_config(self) -> Config:
        return {
            **super().get_config(),
            "momentum": self.momentum,
            "weight_decay": self.own_weight_decay,
            "nesterov": self.nesterov,
            "excluded_paths": list(self.excluded_paths),
            "excluded_names": list(self.excluded_names),
        }

    @classmethod
    def from_config(cls, config: Config, custom_objects: dict[str, Any] | None = None) -> Self:
        rest = {key: value for key, value in config.items() if key not in ("excluded_paths", "excluded_names")}
        optimizer = super().from_config(rest, custom_objects)
        optimizer.excluded_paths = list(config.get("excluded_paths", ()))
        optimizer.excluded_names = list(config.get("excluded_names", ()))
        optimizer.loaded = True
        return optimizer


@keras.saving.register_keras_serializable(package="allconv_resnet")
class Muon(Momentum):
    """Momentum whose updates are orthogonalized (Jordan et al. 2024, "Muon: an optimizer for hidden layers").

    ```
    v <- momentum * v + g
    u <- v                             # or, with nesterov, g + momentum * v
    w <- w - learning_rate * (orthogonalized(u) + weight_decay * w)
    ```

    A kernel is reshaped to a matrix whose columns are its output channels. The learning rate is then about the spectral
    norm of an update, so that one learning rate fits layers of every width. One-dimensional variables, and scalars, get
    updates of norm about 0.7 times the learning rate. `keras.optimizers.Muon` orthogonalizes only matrices, and updates
    convolutions by Adam.

    Args:
        learning_rate: Float, schedule, or callable.
        momentum: Float in [0, 1).
        weight_decay: Float, at least 0. It is decoupled. Variables are excluded as in `Momentum`.
        nesterov: Boolean.
        kernel_norm: Float or None. After each step, a kernel is scaled to the Frobenius norm of an orthogonal matrix of
            its shape times this number, `kernel_norm * sqrt(min(m, n))`. Its direction alone is trained then (Jordan
            2024, airbench). None leaves the norms free.
        vector_scale: Float. The updates of one-dimensional variables and of scalars are multiplied by it.
        name: String, the name of the optimizer.
        **kwargs: Arguments of `keras.optimizers.Optimizer`.

    Raises:
        BadInput: if a number is out of its range.

    Example:

    >>> optimizer = acr.Muon(acr.LinearDecay(0.02, 10_000), weight_decay=0.1)
    >>> model = acr.AllConvResNet(stages=[(1, 16, 2)])
    >>> model.compile(optimizer, keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    """

    def __init__(
        self,
        learning_rate: Any = 0.02,
        momentum: float = 0.9,
        weight_decay: float = 0.0,
        nesterov: bool = True,
        kernel_norm: float | None = None,
        vector_scale: float = 1.0,
        name: str = "muon",
        **kwargs: Any,
    ) -> None:
        super().__init__(learning_rate, momentum, weight_decay, nesterov, name, **kwargs)
        if kernel_norm is not None and not kernel_norm > 0:
            raise BadInput(f"kernel_norm must be positive or None. Received: kernel_norm={kernel_norm}")
        if not vector_scale > 0:
            raise BadInput(f"vector_scale must be positive. Received: vector_scale={vector_scale}")
        self.kernel_norm, self.vector_scale = kernel_norm, vector_scale

    def update_step(self, gradient: Tensor, variable: keras.Variable, learning_rate: Any) -> None:
        velocity = self.velocities[self._get_variable_index(variable)]
        with after(gradient):
            gradient = ops.cast(gradient, variable.dtype)
            self.assign(velocity, self.momentum * velocity + gradient)
            update = gradient + self.momentum * velocity if self.nesterov else velocity
            matrix = ops.reshape(update, (-1, variable.shape[-1] if len(variable.shape) else 1))
            update = ops.reshape(orthogonalized(matrix), variable.shape)
            if len(variable.shape) < 2:
                update = self.vector_scale * update
            if weight_decay := self.weight_decay_of(variable):
                update = update + weight_decay * variable
            rate = ops.cast(learning_rate, variable.dtype)
            if self.kernel_norm is None or len(variable.shape) < 2:
                self.assign_sub(variable, rate * update)
            else:
                new = variable - rate * update
                norm = self.kernel_norm * min(matrix.shape) ** 0.5
                self.assign(variable, new * (norm / ops.maximum(ops.norm(ops.reshape(new, (-1,))), TINY)))

    def get_config(self) -> Config:
        return {**super().get_config(), "kernel_norm": self.kernel_norm, "vector_scale": self.vector_scale}


TINY = 1e-30  # so that a kernel of zeros stays one

NEWTON_SCHULZ = (3.4445, -4.7750, 2.0315)  # by Jordan et al.: steep at 0, and values near 1 stay there


def orthogonalized(matrix):
    """Returns approximately `U V^T` for a matrix `U S V^T`.

    The singular values of the result lie in [0.68, 1.21], except for those that were below 1/500 of the Frobenius norm.
    Each of five Newton-Schulz steps maps X to `(a I + b A + c A^2) X` with `A = X X^T`, and thereby a singular value s
    to `a s + b s^3 + c s^5`. Where one side is at least 1.5 times the other, the steps are computed on A, which is
    small, and X is multiplied only after the second and the last step. Without the multiplication after the second, the
    rounding of float32 products on a GPU (TF32) would grow to the size of the result.

    Args:
        matrix: Float tensor `[m, n]`.

    Returns:
        Float tensor `[m, n]`.
    """
    tall = matrix.shape[0] > matrix.shape[1]
    x = ops.transpose(matrix) if tall else matrix  # so that A has the size of the shorter side
    x = x / (ops.norm(x) + 1e-7)  # so that no singular value is above 1
    a, b, c = NEWTON_SCHULZ
    # Of n and m, the shorter and the longer side, this takes 5 n^3 + 10 n^2 m multiplications, and what follows takes
    # 14 n^3 + 4 n^2 m.
    if x.shape[1] < 1.5 * x.shape[0]:
        for _ in range(5):
            square = x @ ops.transpose(x)
            x = a * x + (b * square + c * (square @ square)) @ x
        return ops.transpose(x) if tall else x
    identity = ops.eye(x.shape[0], dtype=x.dtype)
    for steps in (2, 3):
        square, product = x @ ops.transpose(x), None
        for _ in range(steps):
            factor = a * identity + b * square + c * (square @ square)
            square, product = factor @ square @ factor, factor if product is None else factor @ product
        x = product @ x
    return ops.transpose(x) if tall else x


def after(gradient):
    """Returns a context whose operations run after a gradient is computed.

    TensorFlow would otherwise compute the operations that depend only on variables when the step begins, and keep their
    results, twice the size of the network, until the gradients are computed.
    """
    if keras.backend.backend() != "tensorflow":
        return contextlib.nullcontext()
    import tensorflow as tf

    return tf.control_dependencies([gradient])
