"""Small recipes, for CPUs."""

from allconv_resnet.recipes.paper import CIFAR10
from allconv_resnet.recipes.parts import Linear, Muon, Run

CIFAR10_SMALL = CIFAR10.replace(
    name="cifar10-small",
    stem=(32, 3, 1, 1),
    stages=((1, 48, 2), (2, 96, 2), (2, 192, 2)),
    initialization="he",  # with so few blocks, near_identity would delay the start of learning by an epoch
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
"""A narrower and shallower network for CPUs with 1.5M parameters. results/README.md has its accuracy and its time."""

CIFAR10_FAST = CIFAR10.replace(
    name="cifar10-fast",
    stem=(27, 3, 1, 1),
    whitened_stem=True,
    stages=((2, 96, 2), (4, 192, 2), (2, 384, 2)),
    kernel_sizes=(3, 1),  # a ReLU after each 3x3 convolution
    initialization="he",
    mirror_average=True,
    optimizer=Muon(weight_decay=0.12),
    schedule=Linear(learning_rate=0.015, warmup_steps=120),
    run=Run(batch_size=256, steps=4_900, label_smoothing=0.1, evaluate_every=700, checkpoint_every=500),  # 25 epochs
)
"""A network of 3.7M parameters that trains in an hour on two cores. It has a fixed whitening stem and wide blocks whose
second convolution is 1x1, is trained by Muon, and averages its logits over an image and its mirror image in inference.
"""

CIFAR10_FIXED_NORM = CIFAR10_FAST.replace(
    name="cifar10-fixed-norm",
    block="scaled",
    gain=0.4,
    initialization="orthogonal",
    optimizer=Muon(weight_decay=0.0, kernel_norm=1.4, vector_scale=0.36),  # scalars move by 0.01 a step at the peak
    learning_rate=0.04,
    warmup_steps=150,
    padding=2,
    reflect=True,
    alternate=True,
)
"""`cifar10-fast` with kernels of fixed norm, a trained scalar for each branch, alternating flips and mirrored borders.
benchmarks/NOTES.md has the short runs that led to it. A network that it trained comes with the package.
"""

CIFAR10_WIDE = CIFAR10_FIXED_NORM.replace(
    name="cifar10-wide",
    stages=((2, 128, 2), (4, 256, 2), (2, 512, 2)),
    cutout=8,
    steps=5_600,  # 29 epochs
)
"""`cifar10-fixed-norm` with 4/3 of its widths and cutout, 6.6M parameters. results/README.md has what was tried."""

DIGITS = CIFAR10.replace(
    name="digits",
    dataset="digits",
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
"""scikit-learn's 1,797 real handwritten digits, enlarged to 32x32. It needs no download and under a minute on a CPU."""
