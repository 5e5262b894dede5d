"""What is trained, and how: the fields of an experiment. `recipes` has the experiments.

A recipe says everything that decides the weights at step N. Where a run is kept, where its data lie and how many
devices share the work are the job's business, not the recipe's (see `cli.Job`).
"""

import dataclasses
import functools
from dataclasses import dataclass

from allconv_resnet import baselines
from allconv_resnet.errors import BadInput
from allconv_resnet.model import AllConvResNet, whiten_stem
from allconv_resnet.optimizers import Momentum, Muon
from allconv_resnet.schedules import EpochExponentialDecay, LinearDecay, StepDecay, WarmUp

NETWORKS = {
    "all_cnn_c": baselines.all_cnn_c,
    "resnet20": baselines.resnet,
    "resnet20_plain": functools.partial(baselines.resnet, normalization=None),
    "resnet110": functools.partial(baselines.resnet, depth=110),
    "densenet_bc": baselines.densenet_bc,
}
"""By name, as a recipe's `network` has them."""


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
    """The paper's, with the fields below; or one that it compares with, by its name in `NETWORKS`."""

    # The network (table 1).
    stem: tuple[int, int, int, int] = (16, 3, 1, 1)
    """First convolution: filters, kernel size, stride, average pooling after it (1: none)."""
    stages: tuple[tuple[int, int, int], ...] = ((9, 64, 1), (9, 128, 2), (9, 256, 2))
    """Stages: residual blocks, filters, stride of the first block."""
    kernel_sizes: tuple[int, int] = (3, 3)
    """Of the two convolutions of a block."""
    activation: str = "relu"
    """The one nonlinearity of a block (section 4)."""
    final_activation: str | None = None
    """Between the last block and the pooling. Table 1 has none."""
    use_bias: bool = False
    """Biases in the convolutions. The paper has none."""
    whitened_stem: bool = False
    """A first convolution that is not trained, and whitens the patches of the training images. The paper trains it."""
    trainable_head: bool = False
    """Train the last layer. The paper keeps a random projection (section 4)."""
    initialization: str = "near_identity"
    """Residual kernels: `near_identity` 1/(k^2 c) (section 4.1), `standard` 1/(k sqrt(c)), `he`, or a Keras name."""
    normalization: str | None = None
    """None (section 4), or `batch` after each convolution."""
    shortcut: str | None = "identity"
    """Of the residual blocks: `identity` (section 4), or None."""
    mirror_average: bool = False
    """Infer, and test, with the mean over an image and its mirror image. The paper does not."""

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
    linear_decay: bool = False
    """Lower the learning rate evenly, to 0 after the last step, in place of boundaries."""
    warmup_steps: int = 0
    """Steps in which the learning rate rises evenly to that of the schedule."""
    optimizer: str = "momentum"
    """`momentum` (section 4.1), or `muon`: momentum whose updates are orthogonalized."""
    momentum: float = 0.9
    """In TF1's form: v <- momentum v + g, w <- w - learning_rate v."""
    nesterov: bool = False
    """w <- w - learning_rate (g + momentum v) instead."""
    weight_decay: float = 1e-4
    """On kernels; coupled: g <- g + weight_decay w. Of `muon` decoupled: w <- w - learning_rate weight_decay w."""
    clip_norm: float | None = None
    """Largest global norm of a gradient; longer ones are shortened. The paper does not clip."""
    label_smoothing: float = 0.0
    """Part of a label that is spread over all classes in training. The paper has none."""

    # The images (section 4.1; where the data set is one of records of JPEG files, section 4.2).
    padding: int = 4
    """Pixels of zeros on each side before the random crop. The 2016 TensorFlow model had 2."""
    flip: bool = True
    """Mirror half of the training images, left to right."""
    cutout: int = 0
    """Side, in pixels, of a square of each training image that is set to its mean, at a place that may reach beyond the
    edge; 0 for none. The paper has none."""
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
        if min(self.kernel_sizes) < 1:
            raise BadInput(f"kernel_sizes must be positive. Received: kernel_sizes={self.kernel_sizes}")
        positive = ("num_classes", "batch_size", "steps", "learning_rate", "decay_factor", "shuffle_buffer")
        for field in (*positive, "log_every", "evaluate_every", "checkpoint_every"):
            if not getattr(self, field) > 0:
                raise BadInput(f"{field} must be positive. Received: {field}={getattr(self, field)}")
        for field in ("padding", "cutout", "weight_decay", "warmup_steps", "seed"):
            if not getattr(self, field) >= 0:
                raise BadInput(f"{field} must not be negative. Received: {field}={getattr(self, field)}")
        if self.clip_norm is not None and not self.clip_norm > 0:
            raise BadInput(f"clip_norm must be positive or None. Received: clip_norm={self.clip_norm}")
        if not 0 < self.smallest_crop <= 1:
            raise BadInput(f"smallest_crop must be above 0, at most 1. Received: smallest_crop={self.smallest_crop}")
        if self.cutout > min(self.image_size[:2]):
            raise BadInput(
                "cutout must be at most the height and width of image_size. "
                f"Received: cutout={self.cutout}, image_size={self.image_size}"
            )
        if not 0 <= self.label_smoothing < 1:
            raise BadInput(
                f"label_smoothing must be at least 0 and below 1. Received: label_smoothing={self.label_smoothing}"
            )
        if self.linear_decay and (self.boundaries or self.decay_epochs is not None):
            raise BadInput(
                "linear_decay takes the place of boundaries and decay_epochs. "
                f"Received: boundaries={self.boundaries}, decay_epochs={self.decay_epochs}"
            )
        if self.decay_epochs is not None and (self.boundaries or not self.epoch_images):
            raise BadInput(
                "decay_epochs needs epoch_images, and takes the place of boundaries. "
                f"Received: epoch_images={self.epoch_images}, boundaries={self.boundaries}"
            )
        if self.decay_epochs is not None and self.decay_epochs * self.epoch_images < self.batch_size:
            raise BadInput(f"decay_epochs must be at least a step. Received: decay_epochs={self.decay_epochs}")
        if not 0 <= self.momentum < 1:
            raise BadInput(f"momentum must be at least 0 and below 1. Received: momentum={self.momentum}")
        if list(self.boundaries) != sorted(set(self.boundaries)) or any(b <= 0 for b in self.boundaries):
            raise BadInput(f"boundaries must be positive and increase. Received: boundaries={self.boundaries}")
        for field, choices in {
            "precision": ("auto", "float32", "bfloat16"),
            "normalization": (None, "batch"),
            "shortcut": (None, "identity"),
            "optimizer": ("momentum", "muon"),
            "bad_images": ("skip", "fail"),
            "network": ("allconv_resnet", *NETWORKS),
        }.items():
            if getattr(self, field) not in choices:
                raise BadInput(f"{field} must be one of {choices}. Received: {field}={getattr(self, field)!r}")

        own = ("stem", "stages", "kernel_sizes", "activation", "final_activation", "use_bias", "whitened_stem")
        own += ("trainable_head", "initialization", "normalization", "shortcut", "mirror_average")
        for field in own if self.network in NETWORKS else ():
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

    def build_model(self, images=None):
        """Returns the network with its initial weights, in the recipe's precision (`auto`: Keras's dtype policy).

        Args:
            images: uint8 array `[n, h, w, c]` of training images, which a whitened stem is made from; None where
                weights are loaded afterwards.

        Raises:
            BadInput: if there can be no such network.
        """
        dtype = {"auto": None, "float32": "float32", "bfloat16": "mixed_bfloat16"}[self.precision]
        if self.network in NETWORKS:
            return NETWORKS[self.network](self.num_classes, input_shape=self.image_size, seed=self.seed, dtype=dtype)
        try:
            model = AllConvResNet(
                input_shape=self.image_size,
                num_classes=self.num_classes,
                stem=self.stem,
                stages=self.stages,
                activation=self.activation,
                final_activation=self.final_activation,
                use_bias=self.use_bias,
                trainable_head=self.trainable_head,
                trainable_stem=not self.whitened_stem,
                initialization=self.initialization,
                normalization=self.normalization,
                shortcut=self.shortcut,
                kernel_sizes=self.kernel_sizes,
                mirror_average=self.mirror_average,
                seed=self.seed,
                dtype=dtype,
                name=self.name.replace("-", "_"),
            )
            if self.whitened_stem and images is not None:
                whiten_stem(model, images)
            return model
        except ValueError as error:
            raise BadInput(f"There can be no such network: {str(error).splitlines()[0]}") from error

    def build_schedule(self):
        """Returns the learning rate as a function of the step."""
        if self.linear_decay:
            schedule = LinearDecay(self.learning_rate, self.steps)
        elif self.decay_epochs is not None:
            steps_per_epoch = self.epoch_images / self.batch_size
            schedule = EpochExponentialDecay(self.learning_rate, self.decay_factor, self.decay_epochs, steps_per_epoch)
        else:
            schedule = StepDecay(self.learning_rate, self.boundaries, self.decay_factor)
        return WarmUp(schedule, self.warmup_steps) if self.warmup_steps else schedule

    def build_optimizer(self, **arguments):
        """Returns the recipe's optimizer with its schedule, its weight decay on kernels alone.

        It does not clip: the train step does, which sees the gradient of the whole batch, where Keras would clip that
        of each replica. For `fit` on one device pass `global_clipnorm=recipe.clip_norm`.

        Args:
            **arguments: Of `Momentum` or `Muon`.
        """
        kind = {"momentum": Momentum, "muon": Muon}[self.optimizer]
        optimizer = kind(self.build_schedule(), self.momentum, self.weight_decay, self.nesterov, **arguments)
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
