"""What is trained, and how: one frozen dataclass, one instance for each experiment.

A recipe says everything that decides the weights at step N. Where a run is kept, where its data lie and how many
devices share the work are the job's business, not the recipe's (see `training.job`).
"""

import dataclasses
from dataclasses import dataclass

from allconv_resnet.errors import BadInput
from allconv_resnet.model import AllConvResNet
from allconv_resnet.optimizer import Momentum
from allconv_resnet.schedules import StepDecay


@dataclass(frozen=True)
class Recipe:
    """One experiment. Sections and tables are those of Hardt & Ma (arXiv 1611.04231)."""

    name: str
    """What the experiment is called."""
    dataset: str
    """`digits` (embedded), or the name of a tensorflow-datasets set of small images: `cifar10`, `cifar100`, ..."""
    num_classes: int
    """Classes of the data set, and logits of the network."""
    image_size: tuple[int, int, int] = (32, 32, 3)
    """Height, width (pixels) and channels of an image."""

    # The network (table 1).
    stem: tuple[int, int, int, int] = (16, 3, 1, 1)
    """First convolution: filters, kernel size, stride, average pooling after it (1: none)."""
    stages: tuple[tuple[int, int, int], ...] = ((9, 64, 1), (9, 128, 2), (9, 256, 2))
    """Stages: residual blocks, filters, stride of the first block."""
    activation: str = "relu"
    """The one nonlinearity of a block (section 4)."""
    final_activation: str | None = None
    """Between the last block and the pooling. Table 1 has none."""
    use_bias: bool = False
    """Biases in the convolutions. The paper has none."""
    trainable_head: bool = False
    """Train the last layer. The paper keeps a random projection (section 4)."""
    initialization: str = "near_identity"
    """Residual kernels: `near_identity` 1/(k^2 c) (section 4.1), `standard` 1/(k sqrt(c)), `he`, or a Keras name."""
    normalization: str | None = None
    """None (section 4), or `batch` after each convolution."""

    # The optimizer (section 4.1).
    batch_size: int = 128
    """Images a step, over all devices."""
    steps: int = 60_000
    """Steps of the whole run. The paper's accuracy peaks near 50,000."""
    learning_rate: float = 0.05
    """At step 0, or after the warm-up."""
    boundaries: tuple[int, ...] = (30_000, 50_000)
    """Steps from which on the learning rate is lower."""
    decay_factor: float = 0.1
    """Multiplies the learning rate at each boundary."""
    momentum: float = 0.9
    """In TF1's form: v <- momentum v + g, w <- w - learning_rate v."""
    weight_decay: float = 1e-4
    """Coupled, on kernels: g <- g + weight_decay w."""
    clip_norm: float | None = None
    """Largest global norm of a gradient; longer ones are shortened. The paper does not clip."""

    # The images (section 4.1).
    padding: int = 4
    """Pixels of zeros on each side before the random crop. The 2016 TensorFlow model had 2."""
    flip: bool = True
    """Mirror half of the training images, left to right."""

    seed: int = 0
    """Fixes the initial weights, the projection, the order of the images and their augmentation."""
    precision: str = "auto"
    """`float32`, `bfloat16` (float32 weights), or `auto`: bfloat16 where the hardware has it."""

    # What is seen on the way, in steps. These may change when a run is resumed.
    log_every: int = 100
    """Steps between two lines of training loss and error."""
    evaluate_every: int = 1_000
    """Steps between two evaluations on the test set."""
    checkpoint_every: int = 1_000
    """Steps between two checkpoints."""

    def __post_init__(self):
        positive = ("num_classes", "batch_size", "steps", "learning_rate", "decay_factor")
        for field in (*positive, "log_every", "evaluate_every", "checkpoint_every"):
            if not getattr(self, field) > 0:
                raise BadInput(f"{field} must be positive. Received: {field}={getattr(self, field)}")
        for field in ("padding", "weight_decay", "seed"):
            if not getattr(self, field) >= 0:
                raise BadInput(f"{field} must not be negative. Received: {field}={getattr(self, field)}")
        if self.clip_norm is not None and not self.clip_norm > 0:
            raise BadInput(f"clip_norm must be positive or None. Received: clip_norm={self.clip_norm}")
        if not 0 <= self.momentum < 1:
            raise BadInput(f"momentum must be at least 0 and below 1. Received: momentum={self.momentum}")
        if list(self.boundaries) != sorted(set(self.boundaries)) or any(b <= 0 for b in self.boundaries):
            raise BadInput(f"boundaries must be positive and increase. Received: boundaries={self.boundaries}")
        for field, choices in {
            "precision": ("auto", "float32", "bfloat16"),
            "normalization": (None, "batch"),
        }.items():
            if getattr(self, field) not in choices:
                raise BadInput(f"{field} must be one of {choices}. Received: {field}={getattr(self, field)!r}")

    def replace(self, **changes):
        """Returns the recipe with some fields changed.

        Raises:
            BadInput: if a recipe has no such field, or cannot have such a value.
        """
        fields = [field.name for field in dataclasses.fields(self)]
        if unknown := sorted(set(changes) - set(fields)):
            raise BadInput(f"A recipe has no field {', '.join(unknown)}. Its fields are: {', '.join(fields)}")
        return dataclasses.replace(self, **changes)

    def build_model(self):
        """Returns the network with its initial weights, in the recipe's precision (`auto`: Keras's dtype policy).

        Raises:
            BadInput: if there can be no such network.
        """
        try:
            return AllConvResNet(
                input_shape=self.image_size,
                num_classes=self.num_classes,
                stem=self.stem,
                stages=self.stages,
                activation=self.activation,
                final_activation=self.final_activation,
                use_bias=self.use_bias,
                trainable_head=self.trainable_head,
                initialization=self.initialization,
                normalization=self.normalization,
                seed=self.seed,
                dtype={"auto": None, "float32": "float32", "bfloat16": "mixed_bfloat16"}[self.precision],
                name=self.name.replace("-", "_"),
            )
        except ValueError as error:
            raise BadInput(f"There can be no such network: {str(error).splitlines()[0]}") from error

    def build_schedule(self):
        """Returns the learning rate as a function of the step."""
        return StepDecay(self.learning_rate, self.boundaries, self.decay_factor)

    def build_optimizer(self, **arguments):
        """Returns the paper's momentum, its weight decay on kernels alone, with the recipe's schedule.

        It does not clip: the train step does, which sees the gradient of the whole batch, where Keras would clip that
        of each replica. For `fit` on one device pass `global_clipnorm=recipe.clip_norm`.

        Args:
            **arguments: Of `Momentum`.
        """
        optimizer = Momentum(self.build_schedule(), self.momentum, self.weight_decay, **arguments)
        optimizer.exclude_from_weight_decay(var_names=["bias", "gamma", "beta"])
        return optimizer

    def to_dict(self):
        """Returns the fields as JSON has them: tuples are lists."""
        return {key: _as_lists(value) for key, value in dataclasses.asdict(self).items()}

    @classmethod
    def from_dict(cls, values):
        """Returns the recipe that `to_dict` gave.

        Raises:
            BadInput: as `replace`.
        """
        base = cls(**{key: values[key] for key in ("name", "dataset", "num_classes")})
        return base.replace(**{key: _as_tuples(value) for key, value in values.items()})


def _as_lists(value):
    return [_as_lists(item) for item in value] if isinstance(value, tuple) else value


def _as_tuples(value):
    return tuple(_as_tuples(item) for item in value) if isinstance(value, list) else value


CIFAR10 = Recipe(name="cifar10", dataset="cifar10", num_classes=10)
"""Table 1 and section 4.1: 6.38 % test error in the paper, 24 h on a Tesla K40."""

CIFAR100 = CIFAR10.replace(name="cifar100", dataset="cifar100", num_classes=100)
"""As CIFAR10: 24.64 % test error in the paper."""

CIFAR10_SMALL = CIFAR10.replace(
    name="cifar10-small",
    stem=(32, 3, 1, 1),
    stages=((1, 48, 2), (2, 96, 2), (2, 192, 2)),
    initialization="he",  # so few blocks need no help to start, and near the identity they wait an epoch to do so
    batch_size=64,
    steps=11_700,  # 15 epochs
    learning_rate=0.1,
    boundaries=(4_500, 7_000, 9_000, 10_700),
    decay_factor=0.3,
    weight_decay=5e-4,
    clip_norm=1.0,
    evaluate_every=1_000,
    checkpoint_every=500,
)
"""A narrow, shallow sibling for CPUs, 1.5M parameters; results/README.md has its accuracy and its time."""

DIGITS = Recipe(
    name="digits",
    dataset="digits",
    num_classes=10,
    stem=(16, 3, 2, 1),
    stages=((1, 16, 1), (1, 32, 2), (1, 64, 2)),
    batch_size=64,
    steps=600,
    boundaries=(400, 500),
    clip_norm=1.0,
    padding=2,
    flip=False,
    log_every=50,
    evaluate_every=100,
    checkpoint_every=100,
)
"""scikit-learn's 1,797 real handwritten digits, enlarged to 32x32: no download, under a minute on a CPU."""

RECIPES = {recipe.name: recipe for recipe in (DIGITS, CIFAR10, CIFAR100, CIFAR10_SMALL)}
"""By name, as `--recipe` takes them."""
