"""The experiments, one `Recipe` each: the paper's, what it compares with, and small ones for a CPU."""

from allconv_resnet.model import IMAGENET_WIDTHS
from allconv_resnet.recipe import Recipe

__all__ = ["RECIPES", "Recipe"]

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

CIFAR10_FAST = CIFAR10.replace(
    name="cifar10-fast",
    stem=(27, 3, 1, 1),
    whitened_stem=True,
    stages=((2, 96, 2), (4, 192, 2), (2, 384, 2)),
    kernel_sizes=(3, 1),  # a ReLU after each 3x3 convolution
    initialization="he",
    mirror_average=True,
    optimizer="muon",
    nesterov=True,
    batch_size=256,
    steps=4_900,  # 25 epochs
    learning_rate=0.015,
    boundaries=(),
    linear_decay=True,
    warmup_steps=120,
    weight_decay=0.12,
    label_smoothing=0.1,
    evaluate_every=700,
    checkpoint_every=500,
)
"""For an hour of two cores, 3.7M parameters: a fixed whitening stem, wide blocks whose second convolution is 1x1, Muon;
the logits of inference are the mean over an image and its mirror image.
"""

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

RESNET110 = RESNET20.replace(name="resnet110", network="resnet110", warmup_steps=400)
"""He et al. 2015: 6.43 %, the row of table 2. They hold 0.01 until the error is below 80 %, for about 400 steps; here
the rate rises to 0.1 in as many.
"""

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

STANDARD = CIFAR10.replace(name="cifar10-standard", initialization="standard")
"""Table 1 with residual kernels of deviation 1/(k sqrt(c)): an ablation of section 4.1's initialization."""

HE = CIFAR10.replace(name="cifar10-he", initialization="he")
"""Table 1 with He et al.'s initialization, sqrt(2)/(k sqrt(c))."""

TWIN = HE.replace(name="cifar10-batch-norm", normalization="batch")
"""HE with batch normalization: it overfits, says section 4.1."""

TRAINED_HEAD = CIFAR10.replace(name="cifar10-trained-head", trainable_head=True)
"""Table 1 with a trained last layer in the place of the fixed projection."""

NO_IDENTITY = HE.replace(name="cifar10-no-identity", shortcut=None)
"""HE without the identity: blocks of two convolutions and one ReLU."""

COMPARED = (ALL_CNN_C, RESNET20, RESNET110, DENSENET_BC, TWIN, STANDARD, HE, TRAINED_HEAD, NO_IDENTITY)
"""What the paper compares with, and ablations of what it claims. In all of them weight decay is on kernels alone, and
each image is standardized by itself, where the papers subtract a mean image (He et al.), whiten (Springenberg et al.)
or standardize each channel (Huang et al.).
"""


def _within(minutes, recipe, steps, **changes):
    """Returns a recipe of as many steps as some minutes hold, its drops at the same parts, with eight tests."""
    drops, every = tuple(round(steps * boundary / recipe.steps) for boundary in recipe.boundaries), -(-steps // 8)
    name = f"{recipe.name}-{minutes}"
    return recipe.replace(name=name, steps=steps, boundaries=drops, evaluate_every=every, **changes)


TWENTY_MINUTES = (
    _within(20, CIFAR10_SMALL, 12_000),
    _within(20, RESNET20, 3_450),
    # Without normalization a rate of 0.1 without clipping was NaN at step 5; of 0.05 and 0.1 with it, 0.05 fell faster.
    _within(
        20, RESNET20.replace(name="resnet20-plain", network="resnet20_plain", learning_rate=0.05, clip_norm=1.0), 5_800
    ),
    _within(20, ALL_CNN_C, 1_080),
)
"""The same budget for four networks: 20 minutes of one core, at the rate of an AMD EPYC (Zen 4 or 5) in bfloat16."""

SIXTY_MINUTES = (CIFAR10_FAST, _within(60, RESNET20, 18_000))
"""The same budget for two: 60 minutes of two cores, at the rate of an AMD EPYC (Zen 4 or 5) in bfloat16."""

SMALL_4000 = CIFAR10_SMALL.replace(
    name="small-4000", steps=4_000, boundaries=(1_600, 2_400, 3_100, 3_700), evaluate_every=500
)
"""What the ablations below change: CIFAR10_SMALL in 4,000 steps, 5 epochs."""

TWICE = ((2, 48, 2), (4, 96, 2), (4, 192, 2))  # as many blocks

SMALL_ABLATIONS = (
    SMALL_4000.replace(name="small-4000-near-identity", initialization="near_identity"),
    SMALL_4000.replace(name="small-4000-standard", initialization="standard"),
    SMALL_4000.replace(name="small-4000-trained-head", trainable_head=True),
    SMALL_4000.replace(name="small-4000-batch-norm", normalization="batch"),
    SMALL_4000.replace(name="small-4000-no-identity", shortcut=None),
    SMALL_4000.replace(name="small-4000-deep", stages=TWICE),
    SMALL_4000.replace(name="small-4000-deep-near-identity", stages=TWICE, initialization="near_identity"),
    SMALL_4000.replace(name="small-4000-deep-no-identity", stages=TWICE, shortcut=None),
)
"""The claims of sections 1 and 4 on a small network, in as many steps: initialization, fixed projection, no
normalization, identity, and what depth does with and without it.
"""


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

SMALL_IMAGES = (
    CIFAR10,
    CIFAR100,
    CIFAR10_SMALL,
    DIGITS,
    *COMPARED,
    *TWENTY_MINUTES,
    *SIXTY_MINUTES,
    SMALL_4000,
    *SMALL_ABLATIONS,
)
"""What train_cifar.py offers; the first is its default."""

RECIPES = {recipe.name: recipe for recipe in (*SMALL_IMAGES, *IMAGENETS)}
"""By name, as `--recipe` takes them."""
