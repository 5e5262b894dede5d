"""The schedule part of a recipe: the learning rate as a function of the step."""

from typing import TYPE_CHECKING, Annotated, ClassVar

from annotated_types import Ge, Gt, Le, Lt

from allconv_resnet.errors import BadInput
from allconv_resnet.part import LARGEST, Count, Fraction, Int32, Natural32, part

if TYPE_CHECKING:
    import keras

    from allconv_resnet.recipes.parts.run import Run

LARGEST_RATE = 1e6
Rate = Annotated[float, Gt(0), Lt(2 * LARGEST_RATE)]
Factor = Annotated[float, Gt(0), Le(1)]
FactorOrZero = Annotated[float, Ge(0), Le(1)]
Epoch = Annotated[float, Gt(0), Lt(1e9)]


@part
class Schedule:
    """Base class of the schedules."""

    learning_rate: Rate = 0.05
    """Learning rate at step 0, or after the warm-up. The highest one of a triangle."""
    warmup_steps: Natural32 = 0
    """Number of steps in which the learning rate rises linearly to that of the schedule."""

    depends_on_steps: ClassVar[bool] = False
    """Whether the learning rates of the first steps depend on the number of steps of the run."""

    def build(self, run: "Run") -> "keras.optimizers.schedules.LearningRateSchedule":
        """Returns the Keras schedule.

        Args:
            run: Run part of the recipe: its `batch_size` and `steps` are used.
        """
        from allconv_resnet import schedules  # imports Keras, which --help does not need

        schedule = self.without_warmup(run)
        return schedules.WarmUp(schedule, self.warmup_steps) if self.warmup_steps else schedule

    def check(self, run: "Run") -> None:
        """Raises `BadInput` if the schedule does not fit the run part of the recipe."""


@part
class Steps(Schedule):
    """The learning rate falls at given steps (CIFAR, section 4.1).

    Example:

    >>> float(acr.recipes.Steps(learning_rate=0.5, boundaries=(10,)).build(acr.recipes.Run())(0))
    0.5
    """

    boundaries: tuple[Int32, ...] = (30_000, 50_000)
    """Steps from which on the learning rate is lower. Without any it is constant."""
    decay_factor: Factor = 0.1
    """Factor by which the learning rate is multiplied at each boundary."""

    kind: ClassVar[str] = "steps"

    def __post_init__(self) -> None:
        if list(self.boundaries) != sorted(set(self.boundaries)):
            raise BadInput(f"boundaries must increase. Received: boundaries={self.boundaries}")

    def without_warmup(self, run: "Run") -> "keras.optimizers.schedules.LearningRateSchedule":
        from allconv_resnet import schedules

        return schedules.StepDecay(self.learning_rate, self.boundaries, self.decay_factor)


@part
class Epochs(Schedule):
    """The learning rate falls every few epochs (ImageNet, section 4.2).

    Example:

    >>> schedule = acr.recipes.Epochs(epoch_images=50_000).build(acr.recipes.Run(batch_size=100))
    >>> schedule.decay_steps
    1000
    """

    decay_factor: Factor = 0.94
    """Factor by which the learning rate is multiplied at each decay."""
    decay_epochs: Epoch = 2.0
    """Number of epochs between two decays."""
    epoch_images: Count = 1_281_167
    """Number of images in an epoch."""

    kind: ClassVar[str] = "epochs"

    def check(self, run: "Run") -> None:
        steps = self.decay_epochs * self.epoch_images / run.batch_size
        if not 1 <= steps < LARGEST:
            problem = "is shorter than one step" if steps < 1 else f"must be fewer than {LARGEST} steps"
            raise BadInput(
                f"decay_epochs {problem}. Received: decay_epochs={self.decay_epochs}, "
                f"epoch_images={self.epoch_images}, batch_size={run.batch_size}"
            )

    def without_warmup(self, run: "Run") -> "keras.optimizers.schedules.LearningRateSchedule":
        from allconv_resnet import schedules

        steps_per_epoch = self.epoch_images / run.batch_size
        return schedules.EpochExponentialDecay(
            self.learning_rate, self.decay_factor, self.decay_epochs, steps_per_epoch
        )


@part
class Linear(Schedule):
    """The learning rate falls linearly to 0, which it reaches after the last step.

    Example:

    >>> float(acr.recipes.Linear(learning_rate=0.5).build(acr.recipes.Run(steps=100))(50))
    0.25
    """

    kind: ClassVar[str] = "linear"
    depends_on_steps: ClassVar[bool] = True

    def without_warmup(self, run: "Run") -> "keras.optimizers.schedules.LearningRateSchedule":
        from allconv_resnet import schedules

        return schedules.LinearDecay(self.learning_rate, run.steps)


@part
class Triangle(Schedule):
    """The learning rate rises linearly and then falls linearly (Jordan 2024). `learning_rate` is the highest one.

    Example:

    >>> float(acr.recipes.Triangle(learning_rate=0.5, rise=0.5, last_factor=0.0).build(acr.recipes.Run(steps=100))(75))
    0.25
    """

    rise: Fraction = 0.23
    """Part of the steps in which the learning rate rises."""
    first_factor: Factor = 0.2
    """Learning rate of the first step as a multiple of the highest one."""
    last_factor: FactorOrZero = 0.07
    """Learning rate after the last step as a multiple of the highest one."""

    kind: ClassVar[str] = "triangle"
    depends_on_steps: ClassVar[bool] = True

    def without_warmup(self, run: "Run") -> "keras.optimizers.schedules.LearningRateSchedule":
        from allconv_resnet import schedules

        return schedules.Triangle(self.learning_rate, run.steps, self.rise, self.first_factor, self.last_factor)


SCHEDULES = {"steps": Steps(), "epochs": Epochs(), "linear": Linear(), "triangle": Triangle()}
"""Kinds of schedules by name, as in `--schedule NAME`."""
