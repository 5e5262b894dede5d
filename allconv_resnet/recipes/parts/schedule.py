"""The schedule part of a recipe: the learning rate as a function of the step."""

from typing import Annotated, ClassVar

from annotated_types import Lt

from allconv_resnet import schedules
from allconv_resnet.errors import BadInput
from allconv_resnet.part import Count, Natural, Positive, part

LARGEST_RATE = 1e6


@part
class Schedule:
    """Base class of the schedules."""

    learning_rate: Annotated[Positive, Lt(2 * LARGEST_RATE)] = 0.05
    """Learning rate at step 0, or after the warm-up."""
    warmup_steps: Natural = 0
    """Number of steps in which the learning rate rises linearly to that of the schedule."""

    depends_on_steps: ClassVar = False
    """Whether the learning rates of the first steps depend on the number of steps of the run."""

    def build(self, run):
        """Returns the Keras schedule.

        Args:
            run: Run part of the recipe: its `batch_size` and `steps` are used.
        """
        schedule = self.without_warmup(run)
        return schedules.WarmUp(schedule, self.warmup_steps) if self.warmup_steps else schedule

    def check(self, run):
        """Raises `BadInput` if the schedule does not fit the run part of the recipe."""


@part
class Steps(Schedule):
    """The learning rate falls at given steps (CIFAR, section 4.1)."""

    boundaries: tuple[Count, ...] = (30_000, 50_000)
    """Steps from which on the learning rate is lower. Without any it is constant."""
    decay_factor: Positive = 0.1
    """Factor by which the learning rate is multiplied at each boundary."""

    kind: ClassVar = "steps"

    def __post_init__(self):
        if list(self.boundaries) != sorted(set(self.boundaries)):
            raise BadInput(f"boundaries must increase. Received: boundaries={self.boundaries}")

    def without_warmup(self, run):
        return schedules.StepDecay(self.learning_rate, self.boundaries, self.decay_factor)


@part
class Epochs(Schedule):
    """The learning rate falls every few epochs (ImageNet, section 4.2)."""

    decay_factor: Positive = 0.94
    """Factor by which the learning rate is multiplied at each decay."""
    decay_epochs: Positive = 2.0
    """Number of epochs between two decays."""
    epoch_images: Count = 1_281_167
    """Number of images in an epoch."""

    kind: ClassVar = "epochs"

    def check(self, run):
        if self.decay_epochs * self.epoch_images < run.batch_size:
            raise BadInput(
                "decay_epochs is shorter than one step. "
                f"Received: decay_epochs={self.decay_epochs}, epoch_images={self.epoch_images}"
            )

    def without_warmup(self, run):
        steps_per_epoch = self.epoch_images / run.batch_size
        return schedules.EpochExponentialDecay(
            self.learning_rate, self.decay_factor, self.decay_epochs, steps_per_epoch
        )


@part
class Linear(Schedule):
    """The learning rate falls linearly to 0, which it reaches after the last step."""

    kind: ClassVar = "linear"
    depends_on_steps: ClassVar = True

    def without_warmup(self, run):
        return schedules.LinearDecay(self.learning_rate, run.steps)


SCHEDULES = {"steps": Steps(), "epochs": Epochs(), "linear": Linear()}
"""Kinds of schedules by name, as in `--schedule NAME`."""
