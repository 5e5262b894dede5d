"""Learning-rate schedules: those of Hardt & Ma, section 4, a linear one, and a warm-up for any."""

import keras
from keras import ops

Schedule = keras.optimizers.schedules.LearningRateSchedule


@keras.saving.register_keras_serializable(package="allconv_resnet")
class StepDecay(Schedule):
    """`initial * factor^j`, where j of the `boundaries` are at most the step (CIFAR, section 4.1).

    Args:
        initial: Float, the rate of step 0.
        boundaries: Increasing sequence of integers, in steps. The step with a boundary's number, counted from 0, is
            the first one with the lower rate.
        factor: Float.

    Raises:
        ValueError: if the boundaries do not increase, or one is not positive.

    Example:

    >>> float(StepDecay(0.05, [30_000, 50_000], 0.1)(30_000))  # 0.005
    """

    def __init__(self, initial, boundaries, factor=0.1):
        super().__init__()
        boundaries = [int(boundary) for boundary in boundaries]
        if boundaries != sorted(set(boundaries)) or any(boundary <= 0 for boundary in boundaries):
            raise ValueError(f"boundaries must be positive and increase. Received: boundaries={boundaries}")
        self.initial, self.boundaries, self.factor = float(initial), boundaries, float(factor)

    def __call__(self, step):
        """Returns the learning rate of `step`, an integer scalar: a float32 scalar."""
        rate = ops.convert_to_tensor(self.initial, "float32")
        for j, boundary in enumerate(self.boundaries, start=1):
            # The power is taken here, in double precision: rates are the float32 nearest to their formula.
            rate = ops.where(step >= boundary, ops.cast(self.initial * self.factor**j, "float32"), rate)
        return rate

    def get_config(self):
        return {"initial": self.initial, "boundaries": self.boundaries, "factor": self.factor}


@keras.saving.register_keras_serializable(package="allconv_resnet")
class EpochExponentialDecay(Schedule):
    """`initial * factor^floor(step / decay_steps)` (ImageNet, section 4.2: times 0.94 every two epochs).

    A decay comes every `decay_steps = int(epochs_per_decay * steps_per_epoch)` steps: whole steps, as TF-Slim had it.

    Args:
        initial: Float, the rate of step 0.
        factor: Float.
        epochs_per_decay: Float, epochs between two decays.
        steps_per_epoch: Float, images of the training set over the images of a step; need not be whole.

    Raises:
        ValueError: if a decay would come more often than every step.

    Example:

    >>> schedule = EpochExponentialDecay(0.1, 0.94, epochs_per_decay=2, steps_per_epoch=1_281_167 / 256)
    """

    def __init__(self, initial, factor, epochs_per_decay, steps_per_epoch):
        super().__init__()
        self.initial, self.factor = float(initial), float(factor)
        self.epochs_per_decay, self.steps_per_epoch = float(epochs_per_decay), float(steps_per_epoch)
        self.decay_steps = int(self.epochs_per_decay * self.steps_per_epoch)
        if self.decay_steps < 1:
            raise ValueError(
                "epochs_per_decay * steps_per_epoch must be at least one step. "
                f"Received: epochs_per_decay={epochs_per_decay}, steps_per_epoch={steps_per_epoch}"
            )

    def __call__(self, step):
        """Returns the learning rate of `step`, an integer scalar: a float32 scalar."""
        decays = ops.floor_divide(ops.cast(step, "int32"), self.decay_steps)
        return self.initial * ops.power(self.factor, ops.cast(decays, "float32"))

    def get_config(self):
        return {
            "initial": self.initial,
            "factor": self.factor,
            "epochs_per_decay": self.epochs_per_decay,
            "steps_per_epoch": self.steps_per_epoch,
        }


@keras.saving.register_keras_serializable(package="allconv_resnet")
class LinearDecay(Schedule):
    """`initial * (1 - step / steps)`, and 0 from `steps` on.

    Args:
        initial: Float, the rate of step 0.
        steps: Integer, positive.

    Raises:
        ValueError: if there are no steps.
    """

    def __init__(self, initial, steps):
        super().__init__()
        if steps < 1:
            raise ValueError(f"steps must be positive. Received: steps={steps}")
        self.initial, self.steps = float(initial), int(steps)

    def __call__(self, step):
        """Returns the learning rate of `step`, an integer scalar: a float32 scalar."""
        return self.initial * ops.maximum(1.0 - ops.cast(step, "float32") / self.steps, 0.0)

    def get_config(self):
        return {"initial": self.initial, "steps": self.steps}


@keras.saving.register_keras_serializable(package="allconv_resnet")
class WarmUp(Schedule):
    """`schedule` times `(step + 1) / steps` during the first `steps`.

    Args:
        schedule: Schedule that goes on as if there had been no warm-up.
        steps: Integer, positive.

    Raises:
        ValueError: if there are no steps.

    Example:

    >>> float(WarmUp(StepDecay(0.1, [32_000, 48_000]), 400)(0))  # 0.00025
    """

    def __init__(self, schedule, steps):
        super().__init__()
        if steps < 1:
            raise ValueError(f"steps must be positive. Received: steps={steps}")
        self.schedule, self.steps = schedule, int(steps)

    def __call__(self, step):
        """Returns the learning rate of `step`, an integer scalar: a float32 scalar."""
        return self.schedule(step) * ops.minimum((ops.cast(step, "float32") + 1) / self.steps, 1.0)

    def get_config(self):
        return {"schedule": keras.optimizers.schedules.serialize(self.schedule), "steps": self.steps}

    @classmethod
    def from_config(cls, config):
        return cls(keras.optimizers.schedules.deserialize(config["schedule"]), config["steps"])
