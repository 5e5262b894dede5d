"""The trainings that results/ has to show, in the sections of its page."""

from typing import NamedTuple


class Training(NamedTuple):
    """Runs of one recipe under several seeds, the run directories `results/NAME` or `results/NAME/*`."""

    name: str
    what: str
    command: str
    seeds: int = 3


class Section(NamedTuple):
    """Trainings that share a table and, where they are to be compared, a figure: `results/FIGURE`."""

    title: str
    text: str
    trainings: tuple[Training, ...]
    figure: str | None = None


def _on_one_core(what):
    return tuple(
        Training(name, text, f"taskset -c 0 python train_cifar.py --recipe {name} --data-dir DIR --seed S")
        for name, text in what.items()
    )


def _on_a_gpu(what):
    return tuple(
        Training(name, text, f"python train_cifar.py --recipe {name} --data-dir DIR --seed S")
        for name, text in what.items()
    )


SECTIONS = (
    Section(
        "Trainings",
        "",
        (
            Training(
                "digits",
                "embedded digits, held-out fifth; aim: 97 % right",
                "python train_cifar.py --recipe digits --seed S",
            ),
            Training(
                "container-digits",
                "the digits in the container image, CPU variant (docker/README.md)",
                "python train_cifar.py --recipe digits --run-dir /runs/digits",
                1,
            ),
            Training(
                "cifar10-small",
                "a narrow, shallow sibling for CPUs; aim: 80 % right, under 25 minutes on 2 cores",
                "python train_cifar.py --recipe cifar10-small --data-dir DIR --seed S",
            ),
            Training(
                "cifar10-250",
                "table 1 and the paper's recipe, first 250 steps; aim: a loss of at most 1.95 over steps 226 to 250",
                "python train_cifar.py --data-dir DIR --steps 250 --log-every 25",
                seeds=1,
            ),
            Training(
                "imagenet-30",
                "the 35.7M network, 30 steps of 16 images and a resume, on 400 images: it runs, no more",
                "python train_imagenet.py --data-dir DIR --batch-size 16 --steps 30 --log-every 1 --evaluate-every 30 "
                "--checkpoint-every 15 --no-export` and again with `--steps 34",
                seeds=1,
            ),
        ),
    ),
    Section(
        "Twenty minutes of one core",
        "A small network of the paper's kind and small ones of two kinds that it compares with (of DenseNet's none), "
        "each in as many steps as 20 minutes of one core of an AMD EPYC (Zen 4 or 5) hold in bfloat16; the drops of "
        "the learning rate come at the same parts of a run as in its recipe. Some runs were paused for benchmarks: "
        "their minutes have the pauses in them, their processor minutes do not.",
        (
            *_on_one_core(
                {
                    "cifar10-small-20": "ours: no normalization, 1.5M parameters; He et al.'s initialization, clipping",
                    "resnet20-20": "ResNet-20 of He et al. 2015, batch normalization, 0.27M",
                    "resnet20-plain-20": "the same without normalization; rate 0.05 and clipping, at 0.1 it diverges",
                    "all-cnn-c-20": "All-CNN-C of Springenberg et al. 2014, 1.37M",
                }
            ),
            Training(
                "all-cnn-c-20-first",
                "the same as it was first tried: He et al.'s initialization, biases of 0, rate 0.01 and clipping, "
                "without which its logits were dead",
                "taskset -c 0 python train_cifar.py --recipe all-cnn-c-20 --data-dir DIR --seed S` at commit `a1eb57d",
            ),
        ),
        "twenty-minutes.png",
    ),
    Section(
        "An hour of two cores",
        "What the family was brought to (residual convolutions, ReLU, average pooling, fixed projection; no "
        "normalization, no dropout) in 60 minutes of two cores of an AMD EPYC (Zen 4 or 5), bfloat16, and ResNet-20 in "
        "no less. Ours tests with the mean over an image and its mirror image, for twice the work, and ResNet-20 does "
        "not; ours was chosen by tries that were tested on the same 5,000 images. The aims are for cores with AMX, "
        "which these have not.",
        (
            Training(
                "cifar10-fast",
                "ours: whitening stem, 8 wide blocks of a 3x3 and a 1x1 convolution, Muon, the mean over mirror "
                "images; 3.7M parameters; aim: 92 % right, at least 88 %",
                "python train_cifar.py --recipe cifar10-fast --data-dir DIR --seed S",
                seeds=1,
            ),
            Training(
                "cifar10-fast-first",
                "the first try: 4 blocks of two 3x3 convolutions, no mirror images; 11,400 steps of 128 images at "
                "0.02, weight decay 0.1",
                "python train_cifar.py --recipe cifar10-fast --data-dir DIR --seed S` at commit `b1bfb48",
                seeds=1,
            ),
            Training(
                "cifar10-fast-second",
                "the second: the same blocks, no mirror images; 6,000 steps of 256 images at 0.015, weight decay 0.12",
                "python train_cifar.py --recipe cifar10-fast --data-dir DIR --seed S` at commit `34e72fc",
                seeds=1,
            ),
            Training(
                "cifar10-fast-third",
                "the third: the same blocks, mirror images, cutout; 5,760 steps of 256 images at 0.015, weight "
                "decay 0.12",
                "python train_cifar.py --recipe cifar10-fast --data-dir DIR --seed S` at commit `2c28cbb",
                seeds=1,
            ),
            Training(
                "resnet20-60",
                "ResNet-20 of He et al. 2015, batch normalization, 0.27M",
                "python train_cifar.py --recipe resnet20-60 --data-dir DIR --seed S",
                seeds=1,
            ),
        ),
        "an-hour.png",
    ),
    Section(
        "Ablations in 4,000 steps",
        "`cifar10-small` in 4,000 steps, and one change each; the deep ones have twice as many blocks. Some of the "
        "deep ones had tests run beside them, which lengthened their minutes, not their steps.",
        _on_one_core(
            {
                "small-4000": "what the others change: He et al.'s initialization, fixed projection",
                "small-4000-near-identity": "residual kernels of deviation 1/(k^2 c), the paper's",
                "small-4000-standard": "residual kernels of deviation 1/(k sqrt(c))",
                "small-4000-trained-head": "the last layer is trained",
                "small-4000-batch-norm": "batch normalization after each convolution",
                "small-4000-no-identity": "no identity",
                "small-4000-deep": "twice as many blocks",
                "small-4000-deep-near-identity": "the same, residual kernels of deviation 1/(k^2 c)",
                "small-4000-deep-no-identity": "the same, no identity, He et al.'s initialization",
            }
        ),
        "ablations.png",
    ),
    Section(
        "The full recipes",
        "As their papers have them, but that each image is standardized by itself and weight decay is on kernels "
        "alone; the errors are the papers', on the original images. They take a GPU: 60,000 steps of table 1 are 60 to "
        "63 hours of the two cores above, at the rates under Speed, and in the paper a day of a Tesla K40 for some "
        "50,000. No GPU was at hand. On a GPU machine without TensorFlow `examples/train_on_jax.py` runs them in "
        "pieces of as many minutes as one likes.",
        _on_a_gpu(
            {
                "cifar10": "table 1 of Hardt & Ma, 13.5M parameters: 6.38 %",
                "cifar100": "the same with 100 classes: 24.64 %",
                "cifar10-batch-norm": "`cifar10-he` with batch normalization, which overfits, says section 4.1",
                "cifar10-standard": "table 1, residual kernels of deviation 1/(k sqrt(c))",
                "cifar10-he": "table 1, He et al.'s initialization",
                "cifar10-trained-head": "table 1, the last layer is trained",
                "cifar10-no-identity": "`cifar10-he` without the identity",
                "all-cnn-c": "Springenberg et al. 2014: 7.25 %",
                "resnet110": "He et al. 2015: 6.43 %",
                "densenet-bc": "Huang et al. 2016, depth 100, growth 12: 4.51 %",
            }
        ),
    ),
)
