"""What is trained, and how: one frozen dataclass, one instance for each experiment.

A recipe says everything that decides the weights at step N. Where a run is kept, where its data lie and how many
devices share the work are the job's business, not the recipe's (see `training.job`).
"""

import dataclasses
from dataclasses import dataclass

from allconv_resnet.baselines import NETWORKS
from allconv_resnet.errors import BadInput
from allconv_resnet.model import IMAGENET_WIDTHS, AllConvResNet
from allconv_resnet.optimizer import Momentum
from allconv_resnet.schedules import EpochExponentialDecay, StepDecay


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

    network: str = "allconv_resnet"
    """The paper's, with the fields below; or one that it compares with, by its name in `baselines.NETWORKS`."""

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
    """Multiplies the learning rate at each boundary, or every `decay_epochs`."""
    decay_epochs: float | None = None
    """Epochs between two decays, in place of boundaries (section 4.2)."""
    epoch_images: int | None = None
    """Images of an epoch, for `decay_epochs`."""
    momentum: float = 0.9
    """In TF1's form: v <- momentum v + g, w <- w - learning_rate v."""
    nesterov: bool = False
    """w <- w - learning_rate (g + momentum v) instead."""
    weight_decay: float = 1e-4
    """Coupled, on kernels: g <- g + weight_decay w."""
    clip_norm: float | None = None
    """Largest global norm of a gradient; longer ones are shortened. The paper does not clip."""

    # The images (section 4.1; where the data set is one of records of JPEG files, section 4.2).
    padding: int = 4
    """Pixels of zeros on each side before the random crop. The 2016 TensorFlow model had 2."""
    flip: bool = True
    """Mirror half of the training images, left to right."""
    smallest_crop: float = 0.08
    """Records: part of an image's area that its random crop shows at least; resized to `image_size`."""
    shuffle_buffer: int = 2_048
    """Records: images held undecoded, some 110 kB each, to draw the next one from; files are shuffled as well."""
    bad_images: str = "skip"
    """Records: `skip` images that cannot be decoded (they are named, and counted in the metrics), or `fail`."""

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
        positive = ("num_classes", "batch_size", "steps", "learning_rate", "decay_factor", "shuffle_buffer")
        for field in (*positive, "log_every", "evaluate_every", "checkpoint_every"):
            if not getattr(self, field) > 0:
                raise BadInput(f"{field} must be positive. Received: {field}={getattr(self, field)}")
        for field in ("padding", "weight_decay", "seed"):
            if not getattr(self, field) >= 0:
                raise BadInput(f"{field} must not be negative. Received: {field}={getattr(self, field)}")
        if self.clip_norm is not None and not self.clip_norm > 0:
            raise BadInput(f"clip_norm must be positive or None. Received: clip_norm={self.clip_norm}")
        if not 0 < self.smallest_crop <= 1:
            raise BadInput(f"smallest_crop must be above 0, at most 1. Received: smallest_crop={self.smallest_crop}")
        if self.decay_epochs is not None and (self.boundaries or not self.epoch_images):
            raise BadInput(
                "decay_epochs needs epoch_images, and takes the place of boundaries. "
                f"Received: epoch_images={self.epoch_images}, boundaries={self.boundaries}"
            )
        if not 0 <= self.momentum < 1:
            raise BadInput(f"momentum must be at least 0 and below 1. Received: momentum={self.momentum}")
        if list(self.boundaries) != sorted(set(self.boundaries)) or any(b <= 0 for b in self.boundaries):
            raise BadInput(f"boundaries must be positive and increase. Received: boundaries={self.boundaries}")
        for field, choices in {
            "precision": ("auto", "float32", "bfloat16"),
            "normalization": (None, "batch"),
            "bad_images": ("skip", "fail"),
            "network": ("allconv_resnet", *NETWORKS),
        }.items():
            if getattr(self, field) not in choices:
                raise BadInput(f"{field} must be one of {choices}. Received: {field}={getattr(self, field)!r}")

        table = ("stem", "stages", "activation", "final_activation", "use_bias", "trainable_head", "initialization")
        for field in (*table, "normalization") if self.network in NETWORKS else ():
            if (value := getattr(self, field)) != type(self).__dataclass_fields__[field].default:
                raise BadInput(
                    f"{field} is a field of allconv_resnet, not of {self.network}. Received: {field}={value!r}"
                )

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
        dtype = {"auto": None, "float32": "float32", "bfloat16": "mixed_bfloat16"}[self.precision]
        if self.network in NETWORKS:
            return NETWORKS[self.network](self.num_classes, input_shape=self.image_size, seed=self.seed, dtype=dtype)
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
                dtype=dtype,
                name=self.name.replace("-", "_"),
            )
        except ValueError as error:
            raise BadInput(f"There can be no such network: {str(error).splitlines()[0]}") from error

    def build_schedule(self):
        """Returns the learning rate as a function of the step."""
        if self.decay_epochs is not None:
            steps_per_epoch = self.epoch_images / self.batch_size
            return EpochExponentialDecay(self.learning_rate, self.decay_factor, self.decay_epochs, steps_per_epoch)
        return StepDecay(self.learning_rate, self.boundaries, self.decay_factor)

    def build_optimizer(self, **arguments):
        """Returns the paper's momentum, its weight decay on kernels alone, with the recipe's schedule.

        It does not clip: the train step does, which sees the gradient of the whole batch, where Keras would clip that
        of each replica. For `fit` on one device pass `global_clipnorm=recipe.clip_norm`.

        Args:
            **arguments: Of `Momentum`.
        """
        optimizer = Momentum(self.build_schedule(), self.momentum, self.weight_decay, self.nesterov, **arguments)
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

EPOCH = 391  # steps of 128 images, on the 50,000 of CIFAR

ALL_CNN_C = CIFAR10.replace(
    name="all-cnn-c",
    network="all_cnn_c",
    steps=350 * EPOCH,
    boundaries=(200 * EPOCH, 250 * EPOCH, 300 * EPOCH),
    weight_decay=1e-3,
    padding=5,
)
"""Springenberg et al. 2014, section 3: 7.25 % with this augmentation. The rate is one of the four that they try."""

RESNET20 = CIFAR10.replace(
    name="resnet20", network="resnet20", steps=64_000, learning_rate=0.1, boundaries=(32_000, 48_000)
)
"""He et al. 2015, section 4.2: 8.75 %."""

RESNET110 = RESNET20.replace(name="resnet110", network="resnet110")
"""He et al. 2015: 6.43 %, the row of table 2. They begin with a learning rate of 0.01 until the error is below 80 %."""

DENSENET_BC = CIFAR10.replace(
    name="densenet-bc",
    network="densenet_bc",
    batch_size=64,
    steps=300 * 782,
    learning_rate=0.1,
    boundaries=(150 * 782, 225 * 782),
    nesterov=True,
)
"""Huang et al. 2016, section 4.2: 4.51 % at depth 100 and growth 12; the 3.74 % of table 2 is a larger one's."""

TWIN = CIFAR10.replace(name="cifar10-batch-norm", normalization="batch", initialization="he")
"""Table 1 with batch normalization: it overfits, says section 4.1."""

STANDARD = CIFAR10.replace(name="cifar10-standard", initialization="standard")
"""Table 1 with residual kernels of deviation 1/(k sqrt(c)): an ablation of section 4.1's initialization."""

HE = CIFAR10.replace(name="cifar10-he", initialization="he")
"""Table 1 with He et al.'s initialization, sqrt(2)/(k sqrt(c))."""

TRAINED_HEAD = CIFAR10.replace(name="cifar10-trained-head", trainable_head=True)
"""Table 1 with a trained last layer in the place of the fixed projection."""

COMPARED = (ALL_CNN_C, RESNET20, RESNET110, DENSENET_BC, TWIN, STANDARD, HE, TRAINED_HEAD)
"""What the paper compares with, and ablations of what it claims. Weight decay is on kernels alone in all of them."""


IMAGENET = Recipe(
    name="imagenet",
    dataset="imagenet2012",
    num_classes=1000,
    image_size=(224, 224, 3),
    stem=(IMAGENET_WIDTHS[0], 7, 2, 2),
    stages=tuple(zip((3, 4, 6, 3), IMAGENET_WIDTHS, (1, 2, 2, 2), strict=True)),
    batch_size=256,
    steps=700_000,
    learning_rate=0.1,
    boundaries=(),
    decay_factor=0.94,
    decay_epochs=2,
    epoch_images=1_281_167,
    evaluate_every=5_000,
    checkpoint_every=1_000,
)
"""Section 4.2: 35.7M parameters; 35.29 % top-1 and 14.17 % top-5 error in the paper, a week on 6 machines of 8 GPUs."""

IMAGENET_PLAIN = IMAGENET.replace(
    name="imagenet-plain", stem=(64, 7, 2, 2), stages=((3, 64, 1), (4, 128, 2), (6, 256, 2), (3, 512, 2))
)
"""As IMAGENET with the widths of He et al.: 21.1M parameters."""

IMAGENET_TINY = IMAGENET.replace(
    name="imagenet-tiny",
    image_size=(64, 64, 3),
    stem=(16, 7, 2, 2),
    stages=((1, 16, 1), (1, 32, 2), (1, 64, 2), (1, 128, 2)),
    initialization="he",  # as CIFAR10_SMALL
    batch_size=64,
    steps=20_000,
    learning_rate=0.05,
    clip_norm=1.0,
    evaluate_every=1_000,
)
"""The same on 64x64 crops with a narrow, shallow network, to try a CPU, a cluster or a data set out."""

IMAGENETS = (IMAGENET, IMAGENET_PLAIN, IMAGENET_TINY)

RECIPES = {recipe.name: recipe for recipe in (DIGITS, CIFAR10, CIFAR100, CIFAR10_SMALL, *COMPARED, *IMAGENETS)}
"""By name, as `--recipe` takes them."""
