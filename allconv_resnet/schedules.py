"""Learning-rate schedules: those of Hardt & Ma, section 4, linear ones, and a warm-up for any schedule."""

from collections.abc import Sequence
from typing import Self

import keras
from keras import ops
from keras.optimizers import schedules

from allconv_resnet.errors import BadInput
from allconv_resnet.types import Config, Tensor


@keras.saving.register_keras_serializable(package="allconv_resnet")
class StepDecay(schedules.LearningRateSchedule):
    """The learning rate is `initial * factor^j`, where j of the `boundaries` are at most the step (section 4.1, CIFAR).

    `keras.optimizers.schedules.PiecewiseConstantDecay` lowers the rate one step later, and needs a boundary.

    Args:
        initial: Float, the rate of step 0.
        boundaries: Increasing sequence of integers, in steps. The step with a boundary's number, counted from 0, is
            the first one with the lower rate.
        factor: Float.

    Raises:
        BadInput: if the boundaries do not increase, or if one is not a positive integer.

    Example:

    >>> float(acr.StepDecay(0.05, [30_000, 50_000], 0.1)(30_000))
    0.004999999888241291
    """

    def __init__(self, initial: float, boundaries: Sequence[int], factor: float = 0.1) -> None:
        super().__init__()
        steps = [int(boundary) for boundary in boundaries]
        if steps != sorted(set(boundaries)) or any(step <= 0 for step in steps):
            raise BadInput(
                f"boundaries must be positive integers and increase. Received: boundaries={list(boundaries)}"
            )
        self.initial, self.boundaries, self.factor = float(initial), steps, float(factor)

    def __call__(self, step: Tensor) -> Tensor:
        """Returns the learning rate of `step`, an integer scalar, as a float32 scalar."""
        rate = ops.convert_to_tensor(self.initial, "float32")
        for j, boundary in enumerate(self.boundaries, start=1):
            # The power is computed by Python in double precision, so that every rate is the float32 nearest to it.
            rate = ops.where(step >= boundary, ops.cast(self.initial * self.factor**j, "float32"), rate)
        return rate

    def get_config(self) -> Config:
        return {"initial": self.initial, "boundaries": self.boundaries, "factor": self.factor}


@keras.saving.register_keras_serializable(package="allconv_resnet")
class EpochExponentialDecay(schedules.ExponentialDecay):
    """The learning rate is `initial * factor^floor(step / decay_steps)` (section 4.2, ImageNet: 0.94 every two epochs).

    The rate decays every `decay_steps = int(epochs_per_decay * steps_per_epoch)` steps, rounded down as in TF-Slim.

    Args:
        initial: Float, the rate of step 0.
        factor: Float.
        epochs_per_decay: Float, the number of epochs between two decays.
        steps_per_epoch: Float, the number of training images divided by the batch size. It need not be an integer.

    Raises:
        BadInput: if the rate would decay more often than every step.

    Example:

    >>> schedule = acr.EpochExponentialDecay(0.1, 0.94, epochs_per_decay=2, steps_per_epoch=1_281_167 / 256)
    >>> schedule.decay_steps
    10009
    """

    def __init__(self, initial: float, factor: float, epochs_per_decay: float, steps_per_epoch: float) -> None:
        decay_steps = int(epochs_per_decay * steps_per_epoch)
        if decay_steps < 1:
            raise BadInput(
                "epochs_per_decay * steps_per_epoch must be at least one step. "
                f"Received: epochs_per_decay={epochs_per_decay}, steps_per_epoch={steps_per_epoch}"
            )
        super().__init__(float(initial), decay_steps, float(factor), staircase=True)
        self.epochs_per_decay, self.steps_per_epoch = float(epochs_per_decay), float(steps_per_epoch)

    def get_config(self) -> Config:
        return {
            "initial": self.initial_learning_rate,
            "factor": self.decay_rate,
            "epochs_per_decay": self.epochs_per_decay,
            "steps_per_epoch": self.steps_per_epoch,
        }


@keras.saving.register_keras_serializable(package="allconv_resnet")
class LinearDecay(schedules.PolynomialDecay):
    """The learning rate is `initial * (1 - step / steps)`, and 0 from `steps` on.

    Args:
        initial: Float, the rate of step 0.
        steps: Positive integer.

    Raises:
        BadInput: if `steps` is not a positive integer.

    Example:

    >>> float(acr.LinearDecay(0.5, 8)(4))
    0.25
    """

    def __init__(self, initial: float, steps: int) -> None:
        super().__init__(float(initial), _whole(steps), end_learning_rate=0.0)

    def get_config(self) -> Config:
        return {"initial": self.initial_learning_rate, "steps": self.decay_steps}


@keras.saving.register_keras_serializable(package="allconv_resnet")
class Triangle(schedules.LearningRateSchedule):
    """The learning rate rises linearly to its highest value, and then falls linearly (Jordan 2024, arXiv 2404.00498).

    The defaults are those of the paper's program for CIFAR-10.

    Args:
        highest: Float, the rate of step `int(rise * steps)`.
        steps: Positive integer. The rate does not change from this step on.
        rise: Float between 0 and 1, the part of the steps in which the rate rises.
        first_factor: Float, the rate of step 0 as a multiple of `highest`.
        last_factor: Float, the rate of step `steps` as a multiple of `highest`.

    Raises:
        BadInput: if `steps` is not a positive integer, or `rise` is not between 0 and 1.

    Example:

    >>> [float(acr.Triangle(2.0, 8, rise=0.5, first_factor=0.25, last_factor=0.0)(step)) for step in (0, 2, 4, 6)]
    [0.5, 1.25, 2.0, 1.0]
    """

    def __init__(
        self, highest: float, steps: int, rise: float = 0.23, first_factor: float = 0.2, last_factor: float = 0.07
    ) -> None:
        super().__init__()
        steps = _whole(steps)
        if not 0 <= rise < 1:
            raise BadInput(f"rise must be at least 0 and less than 1. Received: rise={rise}")
        self.highest, self.steps = float(highest), steps
        self.rise, self.first_factor, self.last_factor = float(rise), float(first_factor), float(last_factor)

    def __call__(self, step: Tensor) -> Tensor:
        """Returns the learning rate of `step`, an integer scalar, as a float32 scalar."""
        top = int(self.rise * self.steps)
        step = ops.minimum(ops.cast(step, "float32"), self.steps)
        rising = self.first_factor + (1 - self.first_factor) * step / max(top, 1)
        falling = 1 + (self.last_factor - 1) * (step - top) / (self.steps - top)
        return self.highest * ops.where(step < top, rising, falling)

    def get_config(self) -> Config:
        return {
            "highest": self.highest,
            "steps": self.steps,
            "rise": self.rise,
            "first_factor": self.first_factor,
            "last_factor": self.last_factor,
        }


@keras.saving.register_keras_serializable(package="allconv_resnet")
class WarmUp(schedules.LearningRateSchedule):
    """The learning rate of another schedule, multiplied by `(step + 1) / steps` during the first `steps` steps.

    Args:
        schedule: Learning-rate schedule. It counts the steps of the warm-up too.
        steps: Positive integer.

    Raises:
        BadInput: if `steps` is not a positive integer, or if there is no schedule.

    Example:

    >>> float(acr.WarmUp(acr.LinearDecay(0.5, 8), 4)(0))
    0.125
    """

    def __init__(self, schedule: schedules.LearningRateSchedule, steps: int) -> None:
        super().__init__()
        self.schedule, self.steps = schedule, _whole(steps)
        if not callable(schedule):
            raise BadInput(f"schedule must be a learning-rate schedule. Received: schedule={schedule!r}")

    def __call__(self, step: Tensor) -> Tensor:
        """Returns the learning rate of `step`, an integer scalar, as a float32 scalar."""
        return self.schedule(step) * ops.minimum((ops.cast(step, "float32") + 1) / self.steps, 1.0)

    def get_config(self) -> Config:
        return {"schedule": schedules.serialize(self.schedule), "steps": self.steps}

    @classmethod
    def from_config(cls, config: Config) -> Self:
        return cls(schedules.deserialize(config["schedule"]), config["steps"])


def _whole(steps):
    """Returns a number of steps as an integer."""
    if steps != int(steps) or steps < 1:
        raise BadInput(f"steps must be a positive integer. Received: steps={steps}")
    return int(steps)
