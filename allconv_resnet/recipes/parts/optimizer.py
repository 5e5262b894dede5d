"""The optimizer part of a recipe."""

from typing import TYPE_CHECKING, Any, ClassVar

from allconv_resnet.part import Fraction, NotNegative, Positive, part

if TYPE_CHECKING:
    import keras


@part
class Optimizer:
    """Base class of the optimizers."""

    momentum: Fraction = 0.9
    """Factor of the velocity: v <- momentum v + g."""
    clip_norm: Positive | None = None
    """Largest global norm of the gradient. A larger gradient is scaled down. The paper does not clip."""
    decay_vectors: bool = False
    """Whether weight decay applies to biases and to the scales of normalization too."""

    def arguments(self) -> dict[str, Any]:
        """Returns the arguments of the Keras optimizer without the learning rate.

        They do not include clipping, since the train step clips the gradient of the whole batch, whereas Keras would
        clip the gradient of each replica.
        """
        return {"momentum": self.momentum, "nesterov": self.nesterov, "weight_decay": self.weight_decay}

    def optimizer_class(self) -> "type[keras.optimizers.Optimizer]":
        """Returns the class of Keras optimizers. It is imported here because `--help` does without Keras."""
        raise NotImplementedError

    def build(self, schedule: Any, **more: Any) -> "keras.optimizers.Optimizer":
        """Returns the Keras optimizer. Its weight decay applies to kernels, and with `decay_vectors` to all variables.

        Args:
            schedule: Learning rate, or a Keras schedule of it.
            **more: Further arguments of the Keras optimizer, such as `global_clipnorm` for `fit` on one device.
        """
        optimizer = self.optimizer_class()(schedule, **{**self.arguments(), **more})
        if not self.decay_vectors:
            optimizer.exclude_from_weight_decay(var_names=["bias", "gamma", "beta", "gain"])
        return optimizer


@part
class Momentum(Optimizer):
    """Momentum as in TensorFlow 1 with coupled weight decay (section 4.1): w <- w - learning_rate v.

    Example:

    >>> acr.recipes.Momentum(momentum=0.85).build(0.1).name
    'momentum'
    """

    nesterov: bool = False
    """Whether the update is g + momentum v instead of v."""
    weight_decay: NotNegative = 1e-4
    """Coupled weight decay: g <- g + weight_decay w."""

    kind: ClassVar[str] = "momentum"

    def optimizer_class(self) -> "type[keras.optimizers.Optimizer]":
        from allconv_resnet import optimizers

        return optimizers.Momentum


@part
class Muon(Optimizer):
    """Momentum whose updates are orthogonalized (Jordan et al. 2024).

    Example:

    >>> acr.recipes.Muon(weight_decay=0.05).build(0.02).name
    'muon'
    """

    nesterov: bool = True
    """Whether the update orthogonalizes g + momentum v instead of v."""
    weight_decay: NotNegative = 0.1
    """Decoupled weight decay: w <- w - learning_rate weight_decay w."""
    kernel_norm: Positive | None = None
    """Frobenius norm that kernels keep, in units of that of an orthogonal matrix. None leaves their norms free."""
    vector_scale: Positive = 1.0
    """Factor of the updates of one-dimensional variables."""

    kind: ClassVar[str] = "muon"

    def arguments(self) -> dict[str, Any]:
        return {**super().arguments(), "kernel_norm": self.kernel_norm, "vector_scale": self.vector_scale}

    def optimizer_class(self) -> "type[keras.optimizers.Optimizer]":
        from allconv_resnet import optimizers

        return optimizers.Muon


OPTIMIZERS = {"momentum": Momentum(), "muon": Muon()}
"""Kinds of optimizers by name, as in `--optimizer NAME`."""
