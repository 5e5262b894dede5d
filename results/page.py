"""What the page of this directory must show. `allconv-resnet report` reads it and writes README.md from the logs."""

import math
import statistics

from allconv_resnet.report import HOW_TO_READ, Claim, Comparison, Measurement, Page, Section, Training, spread

INTRODUCTION = f"""# Results

- **Reproduces up to 0.7 points:** the paper's network with the paper's recipe, trained for all 60,000 steps on the
  original CIFAR-10, reaches 7.04 % test error (one seed; the paper: 6.38 %). At step 50,000, near which the paper's
  error is lowest, it is 6.96 %.
- **Reproduces in 1,500 steps at the paper's size:** training works with the paper's initial weights, of standard
  deviation 1/(k^2 c) for k x k kernels with c channels, and diverges within 3 steps with 1/(k sqrt(c)). With batch
  normalization the training error is lower (n = 3).
- **Does not reproduce in 4,000 steps of small networks with clipped gradients:** the paper's initial weights lead to
  more test error than 1/(k sqrt(c)), and batch normalization to less.
- **Questions of this project, not claims of the paper:** with He et al.'s initial weights, training at the paper's size
  diverges too. In the small networks, those weights have less test error than the paper's, and identity shortcuts
  reduce the test error.
- **Not decided:** whether a fixed projection is better than a trained one, whether batch normalization has more test
  error at the paper's size, and whether it has less training error in small networks.
- **Not run:** CIFAR-100 and ImageNet at the paper's length, ResNet-110, All-CNN-C and DenseNet-BC at their own lengths.

This page shows what was measured, with the command, the hardware and the log. It is the output of
`allconv-resnet report`.

The first four tables are on the original CIFAR-10 and all of its 10,000 test images. In the other tables, unless a row
says otherwise, every image of CIFAR-10 was re-encoded once as JPEG (quality 75), and only 5,000 of the test images are
used. Errors there are therefore higher than on the original. `DIR` is a directory of tensorflow-datasets, and `S` is a
seed. Beside some logs there is a `logits.npz`, with the logits of the trained network for all test images in float16.
Their errors differ from those of the logs by at most 0.05 points. The commits `6ac593e` and `f76962a`, which two logs
name, are not in this repository's history.

All trainings of this page ran before commit `4febea8`, except for `airbench-60`, `resnet20-60-original`,
`cifar10-wide-amx`, `cifar10-wide-gpu` and seed 2 of `cifar10-batch-norm-1500`. Until then, the orders of CIFAR's images
in different epochs resembled each other: two images of a batch shared a batch of the next epoch 11 to 220 times as
often as chance has it, depending on the size of the batch. The digits and ImageNet were not affected. The orders of
different seeds resembled each other too, so that the standard deviations and the intervals may be too small.
`cifar10-wide` and `cifar10-wide-gpu` have about the same error, but they differ in the backend and the processor too.
What the orders did has not been measured.

{HOW_TO_READ} On this page the training loss and the training error are means over 3,000 to 26,000 images, over 16 for
ImageNet, and the time that is not counted after a stop is at most 3 %.
"""

LAST_COMMIT = "f83c8cf"  # the last one that has the logs of the recipes that were given up


def _train(name, what, seeds=3, prefix="", script="train_cifar.py"):
    return Training(name, what, f"{prefix}python {script} --recipe {name} --data-dir DIR --seed S", seeds)


def _on_one_core(trainings):
    return tuple(_train(name, what, prefix="taskset -c 0 ") for name, what in trainings.items())


def _given_up(name, test_error, commits, changes):
    return (
        f"{changes} The test error was {test_error}, with the code of {commits}. The log is in this repository's "
        f"history, in `results/{name}` at commit `{LAST_COMMIT}`."
    )


JAX = "KERAS_BACKEND=jax "
ON_A_GPU = (
    "Keras ran on JAX on an NVIDIA H200, in bfloat16, with 16 cores of an Intel Xeon (family 6, model 207). Other "
    "trainings shared the GPU most of the time, which lengthened the minutes. That machine had the images in a file "
    "`cifar10-original.npz`. The code was that of commit `9b75588`, "
    "which that machine saw as changes to `1e85e58`."
)

ALONE_ON_A_GPU = (
    "It had the GPU for itself, and the code was that of commit `936df51`, which the machine saw as changes to "
    "`dc97ad7`."
)

PAPER = Section(
    "The paper's network and recipe",
    "This is the network of table 1 with 13.5M parameters, trained as section 4.1 says: momentum, a learning rate of "
    "0.05 that falls at steps 30,000 and 50,000, weight decay, no normalization and no clipping. The paper reports "
    "6.38 % test error after 24 hours on a Tesla K40. We cannot explain the difference of 0.7 points. "
    "There is one seed. The arithmetic is bfloat16, images are padded by four pixels where the TensorFlow model that "
    f"the paper began with pads them by two, and the orders of the images were those before `4febea8`. {ON_A_GPU} The "
    "rows after the first two are other recipes of the paper, and recipes of the papers that it compares with. They "
    "were not run.",
    (
        Training(
            "cifar10",
            "All 60,000 steps. The figure is figure 1 of the paper.",
            "KERAS_BACKEND=jax python train_cifar.py --recipe cifar10 --dataset cifar10-original.npz "
            "--evaluate-every 2000 --checkpoint-every 10000 --seed S",
            1,
        ),
        _train(
            "cifar10-short",
            "A tenth of the steps, with a learning rate that falls at the same fractions.",
            1,
            JAX,
        ),
        *(
            _train(name, what)
            for name, what in {
                "cifar100": "The network of table 1 with 100 classes. The paper reports 24.64 %.",
                "resnet110": "ResNet-110 of He et al. 2015, who report 6.43 %.",
                "all-cnn-c": "All-CNN-C of Springenberg et al. 2014, who report 7.25 %.",
                "densenet-bc": "DenseNet-BC of Huang et al. 2016 with depth 100 and growth 12, who report 4.51 %.",
            }.items()
        ),
    ),
    notes=(
        "The recipes that were not run need a GPU: the 60,000 steps of table 1 take 20 to 63 hours on two cores "
        "in bfloat16, at the images per second in the logs under Speed. `KERAS_BACKEND=jax python train_cifar.py ...` "
        "trains them on a GPU machine without TensorFlow.",
    ),
    curves=("cifar10", "cifar10-short"),
)


def _begun(recipe, what, prefix=""):
    command = f"{prefix}python train_cifar.py --recipe {recipe} --steps 1500 --data-dir DIR --seed S"
    command += " --log-every 25 --evaluate-every 150"
    return Training(f"{recipe}-1500", what, command)


PAPER_ABLATIONS = Section(
    "Initialization and normalization at the paper's size",
    "These are the first 1,500 steps of the network of table 1, whose learning rate is 0.05 all the while, and of "
    "three variants. Two of them change the initial weights. The third has He et al.'s initial weights and batch "
    "normalization; without batch normalization, the network diverges with these weights. Where the loss was no longer "
    "finite, the run ended. The runs that diverged were on two cores of an AMD EPYC. For the other two rows, "
    f"{ON_A_GPU} Seed 2 with batch normalization was trained later. {ALONE_ON_A_GPU}",
    (
        _begun("cifar10", "The residual kernels start with standard deviation 1/(k^2 c), as in the paper.", JAX),
        _begun("cifar10-standard", "The residual kernels start with standard deviation 1/(k sqrt(c))."),
        _begun("cifar10-he", "The residual kernels start with standard deviation sqrt(2)/(k sqrt(c))."),
        _begun(
            "cifar10-batch-norm", "He et al.'s initial weights, and batch normalization after each convolution.", JAX
        ),
    ),
    "paper-ablations.png",
    "steps",
)

ORIGINAL = Section(
    "Fast recipes on the original CIFAR-10",
    "These runs are on one core of an AMD EPYC (Zen 5) in bfloat16, except for those whose row names a Xeon or a GPU. "
    "Most of the time other jobs shared the core, so only the processor minutes say what a run needs. The aim of the "
    "fast recipes is an error of at most 6.0 % in 120 processor minutes. What they add to `cifar10-fast` was chosen on "
    "held-out images. `cifar10-fast` itself was chosen among tries that were tested on 5,000 test images (below). The "
    "compiled convolutions (benchmarks/NOTES.md) were written while these runs were made: `cifar10-fixed-norm-holdout` "
    "and seed 0 of `cifar10-wide` (120.0 processor minutes) ran without them, and its seeds 1 and 2 (100.2 and 100.4) "
    "with them for most of the steps. Those for AMX came at step 599 of seed 2 of `airbench-60`, which was on the "
    "Xeon, and from step 663 on two of its cores. It took 147.0 processor minutes, and the other seeds 95.5 and 95.9. "
    "`cifar10-fixed-norm-holdout` never saw "
    '5,000 of the 50,000 training images, and its network comes with the package, `acr.load("cifar10-fast")`. So does '
    'that of `cifar10-wide` with seed 0, `acr.load("cifar10-wide")`, whose kernels are stored in int8: `allconv-resnet '
    "evaluate cifar10-wide --data-dir DIR` measures 5.32 % with them.",
    (
        Training(
            "cifar10-small-original",
            "A narrow and shallow variant of the network for CPUs.",
            "taskset -c 0 python train_cifar.py --recipe cifar10-small --data-dir DIR --seed S",
        ),
        Training(
            "cifar10-fixed-norm-holdout",
            "A network of 3.7M parameters whose kernels keep their norm, trained by Muon.",
            "taskset -c 0 python train_cifar.py --recipe cifar10-fixed-norm --data-dir DIR --holdout 5000 --seed S",
            1,
        ),
        _train(
            "cifar10-wide", "That network with 4/3 of its widths and cutout (6.6M parameters).", prefix="taskset -c 0 "
        ),
        Training(
            "cifar10-wide-amx",
            "The same on two cores with AMX. The first 2,116 steps were made before the gradients by matrix products "
            "(benchmarks/NOTES.md). The aim of 120 processor minutes is missed: other guests of the processor slowed "
            "it by up to two times. There is one seed, because each takes an hour and a half of both cores or more.",
            "python train_cifar.py --recipe cifar10-wide --data-dir DIR --seed S",
            1,
        ),
        Training(
            "cifar10-wide-gpu",
            "The same on a GPU, which each run had for itself. The first one compiled its step, which took half a "
            "minute, and the others found it compiled. The machine had the images in a file `cifar10-original.npz`, "
            "and saw the code of `936df51` as changes to `dc97ad7`.",
            f"{JAX}python train_cifar.py --recipe cifar10-wide --data-dir DIR --seed S",
        ),
        _train(
            "airbench-60",
            "The batch-normalized network of airbench95 (Jordan 2024, 4.6M parameters) in 24 epochs. The paper reports "
            "95.0 % accuracy after 15. Unlike the paper's, it has no Lookahead, two views of each test image and not "
            "six, images that are standardized by themselves, and a first bias that learns until the end.",
            prefix="taskset -c 0 ",
        ),
        Training(
            "resnet20-60-original",
            "ResNet-20 of He et al. 2015 with batch normalization (0.27M parameters), in 18,000 of their 64,000 steps. "
            "They report 8.75 %.",
            "taskset -c 0 python train_cifar.py --recipe resnet20-60 --data-dir DIR --seed S",
        ),
    ),
    notes=(
        "`airbench-60` was first trained with a weight decay of 1.95e-6, 785 times less than the paper's, and a "
        "learning rate with a peak of 1.02, where the paper's is 1.30. The test error was 6.67 % (1 seed), at commit "
        "`04783fa`. The log is in this repository's history, in `results/airbench-60` at commit `01de8f3`.",
    ),
)

WIDE = "--stages 2 128 2 4 256 2 2 512 2"


def _tried(name, what, options, steps=5600):
    command = "KERAS_BACKEND=jax python train_cifar.py --recipe cifar10-fixed-norm --data-dir DIR --holdout 5000"
    command += f" {options} --steps {steps} --evaluate-every {steps} --checkpoint-every {steps}"
    return Training(f"tried-{name}", what, command, 1)


TRIED = Section(
    "What was tried for the fast recipe",
    "Each row changes `cifar10-fixed-norm`, whose own row is above. The number of steps was meant to take about 110 "
    "processor minutes on one core. The choice of `cifar10-wide` looked at the held-out error alone, whose "
    f"sampling error is 0.3 points. {ON_A_GPU} benchmarks/NOTES.md has the shorter runs before these.",
    (
        _tried("wide", "4/3 of the widths.", WIDE),
        _tried("wide-cutout", "That, with cutout: `cifar10-wide`.", f"{WIDE} --cutout 8"),
        _tried(
            "wide-cutout-padding",
            "That, with shifts of up to four pixels.",
            f"{WIDE} --cutout 8 --padding 4",
        ),
        _tried(
            "wide-cutout-smoothing",
            "`cifar10-wide` with a label smoothing of 0.2.",
            f"{WIDE} --cutout 8 --label-smoothing 0.2",
        ),
        _tried(
            "wide-cutout-rate",
            "`cifar10-wide` with a learning rate of 0.06.",
            f"{WIDE} --cutout 8 --learning-rate 0.06",
        ),
        _tried(
            "wider-cutout",
            "5/3 of the widths, and cutout.",
            "--stages 2 160 2 4 320 2 2 640 2 --cutout 8",
            3900,
        ),
        _tried("kernels", "The second kernel of each block is 3x3.", "--kernel-sizes 3 3", 5400),
    ),
)

FIRST_STEPS = Section(
    "Trainings",
    "",
    (
        Training(
            "digits",
            "The embedded digits, tested on the held-out fifth. The aim is an accuracy of 97 %.",
            "python train_cifar.py --recipe digits --seed S",
        ),
        Training(
            "container-digits",
            "The embedded digits in the container image, in its CPU variant (docker/README.md).",
            "python train_cifar.py --recipe digits --run-dir /runs/digits",
            1,
        ),
        _train(
            "cifar10-small",
            "A narrow and shallow variant of the network for CPUs. The aim is an accuracy of 80 % in under 25 minutes "
            "on 2 cores.",
        ),
        Training(
            "cifar10-250",
            "The first 250 steps of the network of table 1 with the paper's recipe. The aim is a loss of at most 1.95 "
            "over steps 226 to 250.",
            "python train_cifar.py --data-dir DIR --steps 250 --log-every 25",
            seeds=1,
        ),
        Training(
            "imagenet-30",
            "The network of 35.7M parameters: 30 steps of 16 images and a resume, on 400 images. This only shows that "
            "it runs. The resume had `--steps 34`.",
            "python train_imagenet.py --data-dir DIR --batch-size 16 --steps 30 --log-every 1 --evaluate-every 30 "
            "--checkpoint-every 15 --no-export",
            seeds=1,
        ),
    ),
)

TWENTY_MINUTES = Section(
    "Twenty minutes of one core",
    "These are a small network of the paper's kind and small networks of two kinds that the paper compares it with. "
    "There is no small DenseNet. Each trains for as many steps as fitted into 20 minutes of one core of an AMD EPYC "
    "(Zen 4 or 5) in bfloat16 when it ran. Since then batch normalization has become faster: about 5,800 steps of "
    "ResNet-20 would fit now, not 3,450. The learning rate drops at the same fractions of the run as in the network's "
    "own recipe. "
    "Some runs were paused for benchmarks: their minutes include the pauses, and their processor minutes do not.",
    _on_one_core(
        {
            "cifar10-small-20": "Our network without normalization, with He et al.'s initialization and clipped "
            "gradients (1.5M parameters).",
            "resnet20-20": "ResNet-20 of He et al. 2015 with batch normalization (0.27M parameters).",
            "resnet20-plain-20": "ResNet-20 without normalization, with a learning rate of 0.05 and clipped "
            "gradients. At 0.1 it diverges.",
            "all-cnn-c-20": "All-CNN-C of Springenberg et al. 2014 (1.37M parameters).",
        }
    ),
    "twenty-minutes.png",
    notes=(
        _given_up(
            "all-cnn-c-20-first",
            "67.35 ± 2.36 % (3 seeds)",
            "`e6a0b24` to `fec53f7`",
            "`all-cnn-c-20` was first trained with He et al.'s initialization, biases of 0, a learning rate of 0.01 "
            "and clipped gradients. Without clipping, the ReLU of its logits was dead.",
        ),
    ),
)

AN_HOUR = Section(
    "An hour of two cores",
    "The first row is the best of the first tries at a network without normalization in 60 minutes of two cores of an "
    "AMD EPYC (Zen 4 or 5) in bfloat16, on the re-encoded images. Such a network has residual convolutions, ReLU, "
    "average pooling and a fixed projection, and no dropout. ResNet-20 had at least as much time. Our network is "
    "tested with the mean over an image and its mirror image, which doubles the work of a test, and ResNet-20 is not. "
    "Our network was chosen among several tries, which were tested on the same 5,000 images. The aims are for cores "
    "with AMX, which these cores do not have.",
    (
        _train(
            "cifar10-fast",
            "Our network with a whitening stem, 8 wide blocks of a 3x3 and a 1x1 convolution, Muon, and the mean over "
            "mirror images (3.7M parameters). The aim is an accuracy of 92 %, and at least 88 %.",
            seeds=1,
        ),
        _train("resnet20-60", "ResNet-20 of He et al. 2015 with batch normalization (0.27M parameters).", seeds=1),
    ),
    "an-hour.png",
    notes=(
        _given_up(
            "cifar10-fast-first",
            "12.28 % (1 seed)",
            "`b1bfb48`",
            "The first try of `cifar10-fast` had 4 blocks of two 3x3 convolutions and no mirror images. It took 11,400 "
            "steps of 128 images with a learning rate of 0.02 and a weight decay of 0.1.",
        ),
        _given_up(
            "cifar10-fast-second",
            "12.84 % (1 seed)",
            "`34e72fc`",
            "The second try had the same blocks and no mirror images. It took 6,000 steps of 256 images with a "
            "learning rate of 0.015 and a weight decay of 0.12.",
        ),
        _given_up(
            "cifar10-fast-third",
            "12.22 % (1 seed)",
            "`2c28cbb`",
            "The third try had the same blocks, mirror images and cutout. It took 5,760 steps of 256 images with a "
            "learning rate of 0.015 and a weight decay of 0.12.",
        ),
    ),
)

ABLATIONS = Section(
    "Ablations in 4,000 steps",
    "The first row is `cifar10-small` in 4,000 steps, and each other row has one change. The deep networks have twice "
    "as many blocks. Tests ran beside some of the deep ones, which lengthened their minutes but did not change their "
    "steps.",
    _on_one_core(
        {
            "small-4000": "The network that the others change, with He et al.'s initialization and a fixed projection.",
            "small-4000-near-identity": "The residual kernels start with standard deviation 1/(k^2 c), as in the "
            "paper.",
            "small-4000-standard": "The residual kernels start with standard deviation 1/(k sqrt(c)).",
            "small-4000-trained-head": "The last layer is trained.",
            "small-4000-batch-norm": "Batch normalization follows each convolution.",
            "small-4000-no-identity": "The blocks have no identity.",
            "small-4000-deep": "The network has twice as many blocks.",
            "small-4000-deep-near-identity": "The deep network, with residual kernels of standard deviation 1/(k^2 c).",
            "small-4000-deep-no-identity": "The deep network without the identity, with He et al.'s initialization.",
        }
    ),
    "ablations.png",
)

AT_THIS_BUDGET = ("lower at this budget", "**not lower at this budget**")
SECTION_4 = "section 4.1, with 13.5M parameters"
ASKED_HERE = "asked here"


def _question(what, lower, higher):
    return Claim(what, ASKED_HERE, lower, higher, verdicts=("holds", "**does not hold**"))


CLAIMS_TEXT = (
    "The claims are those of Hardt & Ma about their network, and questions that are asked here. The trainings above, "
    "which decide them, are far shorter and most networks smaller than those of the paper, so that a verdict holds for "
    "this size and budget only. Our small networks have He et al.'s initialization and clipped gradients unless a "
    "name says otherwise, and no learning rate was tuned again for an ablation. At 13.5M parameters there are 1,500 "
    "steps. In the claims from the paper's table 2 our network "
    "has 1.5M parameters, ResNet-20, which would have 1.7 times as many steps in the same time now, stands for "
    "ResNet-110, and All-CNN-C has made 1,080 of its 136,850 steps. At full length, the paper's network has 7.04 % "
    "here (above), which is between the 6.43 % of He et al. and the 7.25 % of All-CNN-C in the paper's table. Errors "
    "are percentages at the last step. The difference is the second error minus the first, with Welch's 95 % interval "
    "over the seeds. If the interval contains 0, the claim is not decided. Test errors are on the same images for "
    "both, and training errors are on the images of the last steps. There is no correction for the number of claims."
)

CLAIMS = (
    Claim(
        "Our network has less test error than All-CNN-C.",
        "table 2: 6.38 against 7.25",
        "cifar10-small-20",
        "all-cnn-c-20",
        verdicts=AT_THIS_BUDGET,
    ),
    Claim(
        "Our network has less test error than He et al.'s.",
        "table 2: 6.38 against 6.43, with 110 layers",
        "cifar10-small-20",
        "resnet20-20",
        verdicts=AT_THIS_BUDGET,
    ),
    Claim(
        "Batch normalization overfits: it has less training error.",
        SECTION_4,
        "small-4000-batch-norm",
        "small-4000",
        "train",
    ),
    Claim(
        "Batch normalization overfits: it has more test error.",
        SECTION_4,
        "small-4000",
        "small-4000-batch-norm",
    ),
    Claim(
        "At 13.5M parameters, batch normalization with He et al.'s initial weights has less training error.",
        SECTION_4,
        "cifar10-batch-norm-1500",
        "cifar10-1500",
        "train",
    ),
    Claim(
        "At 13.5M parameters, batch normalization with He et al.'s initial weights has more test error.",
        SECTION_4,
        "cifar10-1500",
        "cifar10-batch-norm-1500",
    ),
    Claim(
        "At 13.5M parameters, 1/(k^2 c) is better than 1/(k sqrt(c)).",
        SECTION_4,
        "cifar10-1500",
        "cifar10-standard-1500",
    ),
    _question("At 13.5M parameters, 1/(k^2 c) is better than He et al.'s.", "cifar10-1500", "cifar10-he-1500"),
    Claim(
        "A fixed projection has slightly less test error than a trained one.",
        SECTION_4,
        "small-4000",
        "small-4000-trained-head",
    ),
    Claim("1/(k^2 c) is better than 1/(k sqrt(c)).", SECTION_4, "small-4000-near-identity", "small-4000-standard"),
    _question("1/(k^2 c) is better than He et al.'s.", "small-4000-near-identity", "small-4000"),
    _question(
        "With twice as many blocks, 1/(k^2 c) is better than He et al.'s.",
        "small-4000-deep-near-identity",
        "small-4000-deep",
    ),
    _question("The identity reduces the test error.", "small-4000", "small-4000-no-identity"),
    _question(
        "With twice as many blocks, the identity reduces the test error.",
        "small-4000-deep",
        "small-4000-deep-no-identity",
    ),
    _question("With the identity, depth reduces the test error.", "small-4000-deep", "small-4000"),
    _question(
        "Without the identity, depth increases the test error.",
        "small-4000-no-identity",
        "small-4000-deep-no-identity",
    ),
)

PEERS = {
    "torch_compiled": "torch.compile",
    "torch_peer": "PyTorch",
    "keras_fit": "Keras `fit`",
    "keras_fit_jax": "Keras `fit` on JAX",
}
# Keras on JAX imports TensorFlow too, so its memory is not comparable.
MEMORY_PEERS = dict(list(PEERS.items())[:3])
CLIENTS = ("1", "8", "32")
TRAIN_SPEED = {
    "benchmarks/speed-cifar-train-[0-9]*.json": "python benchmarks/speed.py cifar-train --batch 32 128 512 "
    "[--precision bfloat16 --peers torch_compiled torch_peer]",
    "benchmarks/speed-imagenet-train-*.json": "python benchmarks/speed.py imagenet-train --batch 32 [--precision "
    "bfloat16 --peers torch_compiled torch_peer]",
}
INFERENCE_SPEED = {"benchmarks/speed-cifar-infer-*.json": "python benchmarks/speed.py cifar-infer --batch 1 32 256"}


def _setting(d, entry):
    return d["what"], str(entry["batch"]), entry["precision"]


def _commits(contenders):
    return sorted({contender["commit"] for contender in contenders if contender.get("commit")})


def _speed_rows(d):
    rows = []
    for entry in d["entries"]:
        peers = [entry["contenders"].get(peer) for peer in PEERS]
        ratios = [spread(peer["ours_over_theirs"], ".2f") if peer else "*not run*" for peer in peers]
        rows.append(((*_setting(d, entry), *ratios), _commits(peer for peer in peers if peer)))
    return rows


def _gpu_rows(d):
    rows = []
    for entry in d["entries"]:
        peers = [entry["contenders"].get(peer) for peer in ("torch_compiled", "torch_peer")]
        rates = [{key: round(value) for key, value in p["ours"]["images_per_second"].items()} for p in peers if p]
        ours = sorted({spread(rate, ",d") for rate in rates})  # one for each run
        ratios = [spread(peer["ours_over_theirs"], ".2f") if peer else "*not run*" for peer in peers]
        rows.append(((*_setting(d, entry), "; ".join(ours), *ratios), _commits(peer for peer in peers if peer)))
    return rows


def _speed_ratios(d):
    return [
        (
            "{}, batch {}, {}".format(*_setting(d, entry)),
            {
                name.replace("`", ""): entry["contenders"][peer]["ours_over_theirs"]
                for peer, name in PEERS.items()
                if peer in entry["contenders"]
            },
        )
        for entry in d["entries"]
    ]


def _memory_rows(d):
    rows = []
    for entry in d["entries"]:
        peers = {peer: c for peer, c in entry["contenders"].items() if peer in MEMORY_PEERS and "memory" in c}
        # Peers that were measured in different runs have a figure of ours each.
        ours = sorted({_gigabytes(c["ours"]) for c in peers.values()})
        theirs = [_gigabytes(peers[peer]) if peer in peers else "*not run*" for peer in MEMORY_PEERS]
        rows.append(((*_setting(d, entry), " to ".join(ours), *theirs), _commits(peers.values())))
    return rows


def _gigabytes(contender):
    return f"{contender['memory']['beyond_import'] / 1e9:.2f}"


def _serving_rows(d):
    return [
        ((network, server, *(_answers(clients[number]) for number in CLIENTS)), [])
        for network, servers in d["networks"].items()
        for server, clients in servers.items()
    ]


def _answers(run):
    rates = {key: float(format(value, ".3g")) for key, value in run["requests_per_second"].items()}
    middle, slow = (float(format(run[key]["median"], ".2g")) for key in ("p50_ms", "p99_ms"))
    return f"{spread(rates, 'g')}; {middle:g}, {slow:g}"


COMPARISONS = (
    Comparison(
        "Speed",
        "The figures are our images per second divided by those of each peer, measured in turn in one run: above 1, "
        "ours is faster. They are the median (minimum to maximum, n turns). All are with PyTorch 2.13.0, TensorFlow "
        "2.21.0 and Keras 3.15.1. Over torch.compile the aims are 1.15 for "
        "the CIFAR train step in bfloat16, 1.05 for it in float32, and 1 for the others. Two machines with an AMD EPYC "
        "were measured. The one that is listed as family 26, model 2, is twice as fast, and was measured later, with "
        "the compiled operations. The figures of the other one are from before that. The Xeon has AMX, for which there "
        "are compiled operations of their own. Others used its cores too, so its speed changed by up to 1.9 times "
        "between turns. For inference ours has constant weights, and Keras's `predict` converts them at each call. "
        "So did PyTorch when it was measured on the AMD EPYC, under autocast. On the Xeon, measured later, its weights "
        "are converted once and torch.compile takes them as constants, and our convolutions fuse with the ReLU or the "
        "addition that follows. Keras's figures are for whole calls of `fit` and `predict`: "
        "[benchmarks/NOTES.md](../benchmarks/NOTES.md) says what is known about their scatter.",
        TRAIN_SPEED | INFERENCE_SPEED,
        ("task", "batch", "precision", *PEERS.values()),
        _speed_rows,
        "speed.png",
        _speed_ratios,
        "images a second, ours over theirs",
    ),
    Comparison(
        "Speed on a GPU",
        "This project on JAX 0.11.2 and PyTorch 2.11.0 made steps of the CIFAR network in turns, with 16 cores of an "
        "Intel Xeon (family 6, model 207) beside the GPU. The figures are the median (minimum to maximum, n turns) of "
        "our images per second, and of ours over theirs. Our figure includes drawing and augmenting each batch, as in "
        "training; PyTorch's step gets the same batch each time. With 128 images our kernels take 5.46 of 7.2 ms, "
        "because the host takes longer to start them. PyTorch's CUDA graphs were not tried. The code was that of "
        "commit `936df51`, which the machine saw as changes to `dc97ad7`.",
        {"benchmarks/speed-cifar-train-jax-nvidia-*.json": "python benchmarks/gpu.py speed"},
        ("task", "batch", "precision", "ours, images per second", *list(PEERS.values())[:2]),
        _gpu_rows,
    ),
    Comparison(
        "Memory of a train step",
        "The figures are the peak memory of the process beyond that of its imports, in GB. The aim is at most that of "
        "PyTorch.",
        TRAIN_SPEED,
        ("task", "batch", "precision", "ours", *MEMORY_PEERS.values()),
        _memory_rows,
    ),
    Comparison(
        "Serving",
        "Clients that send one image per request share the two cores with the server. The figures are requests per "
        "second (minimum to maximum, n runs), and then the median and the 99th percentile of the latency in ms. "
        "SavedModel is `allconv-resnet serve` with an export, and model.predict is the same server with Keras's "
        "`model.predict`. With batching, images of several requests go through the network together. Protocol is the "
        "same server with a model that computes nothing: it shows what the server and the clients cost by themselves.",
        {"benchmarks/serving.json": "python benchmarks/serving.py"},
        ("network", "server", *(f"clients: {number}" for number in CLIENTS)),
        _serving_rows,
    ),
)


def _scaling(d):
    in_step, rate, staleness = (d["check"][key] for key in ("in_step_seconds", "updates_per_second", "staleness"))
    return (
        f"synchronous: {in_step['measured']:.3f} s per step (predicted {in_step['predicted']:.3f}); asynchronous: "
        f"{rate['measured']:.1f} updates per second (predicted {rate['predicted']:.1f}), staleness "
        f"{staleness['measured']:.2f} (predicted {staleness['predicted']:.2f})"
    )


def _landscape(d):
    runs = d["results"]
    good = [r for r in runs if r["verdict"] == "at least as good as linear"]
    rest = [r["relative_gradient"] for r in runs if r not in good]
    left = sum(r["escapes"] > 0 for r in runs)
    text = f"{len(good)} of {len(runs)} runs, {left} of which left a saddle by the certified step"
    return text + (f"; the others had not ended, with relative gradients of at least {min(rest):.1g}" if rest else "")


def _regret(d):
    violations = sum(r["violations"] for r in d["results"].values())
    slack = min(r["smallest_slack"] for r in d["results"].values())
    return f"{violations} violations in {len(d['results'])} runs of {d['steps']:,} steps, smallest slack {slack:.2g}"


def _same_cumulant(d):
    small = d["spreads"]["small mean"]
    scale, cumulant = (small[arm]["early"] for arm in ("same weight scale", "same c"))
    return f"{scale:.3g} at equal weight scale, {cumulant:.3g} at equal c, a ratio of {cumulant / scale:.2g}"


def _memorized(d):
    rows = [r for r in d["memorize_against_points"]["rows"] if r["points"] == 50_000]
    return "; ".join(
        f"width {r['width']}: {r['wrong']} wrong, {r['wrong_in_new_process']} in a new process, "
        f"{r['parameters'] / 1e6:.2f}M parameters, {r['precision']}, {r['cpu_seconds']:.0f} s of processor time, "
        f"{r['peak_gigabytes']:.1f} GB"
        for r in rows
    )


def _exponents(d):
    points = []
    for width in sorted({row["width"] for row in d["memorize_against_points"]["rows"]}):
        # For fewer points, the time is that of TensorFlow's start, and its exponent none of the algorithm.
        *_, first, last = (row for row in d["memorize_against_points"]["rows"] if row["width"] == width)
        slope = math.log(last["cpu_seconds"] / first["cpu_seconds"]) / math.log(last["points"] / first["points"])
        points.append(f"n^{slope:.2f} at width {width}")
    polar = d["factorize_against_dimension"]["exponents"]["polar"]
    return (
        f"memorize {', '.join(points)} between {first['points']:,} and {last['points']:,} points, and "
        f"d^{d['memorize_against_dimension']['exponent']:.2f}; "
        f"factorize d^{polar:.2f}"
    )


def _factorized(d):
    f = d["factorizations"]
    return (
        f"relative error at most {f['error']:.1e}; at most {f['svd_share']:.3f} of the bound with the paper's "
        f"construction (svd), {f['polar_share']:.3f} with polar factors; "
        f"polar above svd in {len(f['above'])} of {f['count']}, to {f['applicable']} of which the bound applies"
    )


def _bounds(d):
    n, broken = d["options"]["networks"], d["printed_bound"]["broken"]
    return (
        f"smallest ratio {d['corrected_bound']['least_ratio']:.9f}, and {d['bound_for_any_norm']['least_ratio']:.9f} "
        f"of the bound for any norm; the printed bound is violated on {broken / n:.1%} of {n:,}"
    )


def _phases(d):
    def share(start):
        rows = [row for row in d["phases"] if row["initialization"] == start]
        return f"{sum(row['reached'] >= 0.5 for row in rows)} of {len(rows)} from {start.replace('_', ' ')}"

    return ", ".join(share(start) for start in dict.fromkeys(row["initialization"] for row in d["phases"]))


def _smaller_memorizers(d):
    largest = max(row["points"] for row in d["rows"])
    return "; ".join(
        f"{row['construction']}, width {row['width']}: {row['parameters']:,} weights, {row['wrong']} wrong, "
        f"{row['inexact']} not exact, {row['precision']}, {row['seconds']:.0f} s"
        for row in d["rows"]
        if row["points"] == largest
    )


def _gradients(d):
    depth = max(row["depth"] for row in d["rows"])

    def mean(variant, normalization):
        chosen = [
            row["backward_growth"]
            for row in d["rows"]
            if (row["variant"], row["normalization"], row["depth"]) == (variant, normalization, depth)
        ]
        return math.exp(sum(map(math.log, chosen)) / len(chosen))

    parts = [
        f"{name} {mean(variant, None):.2g}" for variant, name in (("near_identity", "near identity"), ("standard",) * 2)
    ]
    return f"{', '.join(parts)}, standard with batch normalization {mean('standard', 'batch'):.2g}"


def _jacobians(d):
    runs = "; ".join(f"{r['method']}, {r['ends']}: {r['wall_seconds']:.0f} s" for r in d["runs"])
    return f"{runs}; relative difference {d['largest_relative_difference']:.0e}"


def _network(d):
    return "; ".join(
        f"{r['network']}: c = {r['c']:.3g}, largest {r['squared_singular_values'][0]:.4g}" for r in d["results"]
    )


def _outliers(d):
    relu = next(curve["entries"] for curve in d["above"] if curve["label"] == "relu")
    return "; ".join(f"depth {e['depth']}: {e['simulated']:.4g} ({e['predicted']:.4g})" for e in relu)


def _late(d):
    spread = {}
    for arm in ("same weight scale", "same c"):
        runs = [r for r in d["results"] if r["arm"] == arm]
        means = [r["mean"] for r in runs if not r["diverged"]]
        lost = ", ".join(r["activation"] for r in runs if r["diverged"])
        spread[arm] = f"{min(means):.4f} to {max(means):.4f} at {arm}" + (f" ({lost} diverged)" if lost else "")
    return f"{d['settings']['data']}: {'; '.join(spread.values())}"


def _start_up(d):
    entry = d["entries"][0]["contenders"]
    return "; ".join(
        f"{name} {c['all']['median']:.1f} s, of which import {c['import']['median']:.1f}" for name, c in entry.items()
    )


def _time_to_accuracy(d):
    shown = {}
    for row in sorted(d["rows"], key=lambda row: row["target"]):
        minutes = row["processor_minutes"]
        shown.setdefault(row["target"], []).append(
            f"{row['contender']} {statistics.median(minutes):.1f} ({min(minutes):.1f} to {max(minutes):.1f}; "
            f"{row['reached']} of {row['runs']})"
        )
    return "; ".join(f"{target:g} %: {', '.join(contenders)}" for target, contenders in shown.items())


def _kernels(d):
    sums = {"filter gradients": 0.0, "input gradients": 0.0, "forward passes": 0.0, "all others": 0.0}
    names = dict(zip(("wgrad", "dgrad", "fprop"), sums, strict=False))
    for kernel, values in d["kernels"].items():
        sums[next((name for part, name in names.items() if part in kernel), "all others")] += values["milliseconds"]
    return "; ".join(f"{name} {milliseconds:.2f}" for name, milliseconds in sums.items())


def _decoded(d):
    over = ", ".join(f"{peer} {spread(values, '.2f')}" for peer, values in d["ours_over"].items())
    rates = {name: values["median"] for name, values in d["images_per_second"].items()}
    return f"over {over}; {rates['ours']:,.0f} images per second, the whole pipeline {rates['whole pipeline']:,.0f}"


def _precision(d):
    return (
        f"{d['outside']} of {d['intervals']} intervals differ by more than their own standard deviation over the "
        f"seeds, {d['outside_pooled']} by more than the root mean square of these deviations, of which the largest "
        f"difference is {d['largest_ratio']:.2f}"
    )


MEASUREMENTS = (
    Measurement(
        "benchmarks/input_pipeline.json",
        "Images per second that the CIFAR pipeline augments by itself on 2 cores. The aim is 200,000.",
        "python benchmarks/input_pipeline.py --data-dir DIR",
        lambda d: spread(d["images_per_second"], ",.0f"),
    ),
    Measurement(
        "benchmarks/train_step.json",
        "Time of a step in the training loop divided by that of the bare step. The aim is at most 1.03.",
        "python benchmarks/train_step.py --pairs 6",
        lambda d: spread(d["loop_over_bare"], ".3f"),
    ),
    Measurement(
        "benchmarks/imagenet_input.json",
        "Crops that a core decodes from ImageNet's files, divided by those of each peer. The aim is 1.3 over the "
        "best. [benchmarks/NOTES.md](../benchmarks/NOTES.md) says why it is missed.",
        "python benchmarks/imagenet_input.py --data-dir DIR --repeats 15",
        _decoded,
    ),
    Measurement(
        "benchmarks/scaling.json",
        "Two workers on one machine against the model of docs/scaling.md, medians of 3.",
        "python benchmarks/scaling.py --check",
        _scaling,
    ),
    Measurement(
        "theory/linear/linear.json",
        "Theorem 2.1: the product equals R, and the norm satisfies the bound.",
        "allconv-resnet theory linear",
        _factorized,
    ),
    Measurement(
        "theory/linear/linear.json",
        "Equation 2.3, corrected: the squared gradient norm divided by the bound.",
        "allconv-resnet theory linear",
        _bounds,
    ),
    Measurement(
        "theory/linear/linear.json",
        "Targets and depths that gradient descent on linear networks reaches from at least half of 5 seeds, by its "
        "start.",
        "allconv-resnet theory linear",
        _phases,
    ),
    Measurement(
        "theory/expressivity/expressivity.json",
        "Weights of networks that map the 50,000 training images of the original CIFAR-10 to exact unit vectors of "
        "random labels.",
        "allconv-resnet theory expressivity --data cifar10 --data-dir DIR --points 1000 10000 50000 --widths 16",
        _smaller_memorizers,
    ),
    Measurement(
        "theory/gradients/gradients.json",
        "Growth of a gradient's norm through 64 blocks at initialization, geometric means.",
        "allconv-resnet theory gradients",
        _gradients,
    ),
    Measurement(
        "theory/benchmark.json",
        "Theorem 3.2: the 50,000 training images of the original CIFAR-10 with random labels.",
        "python benchmarks/theory.py --data-dir DIR",
        _memorized,
    ),
    Measurement(
        "theory/benchmark.json",
        "Processor time against the number of points n and the dimension d.",
        "python benchmarks/theory.py --data-dir DIR",
        _exponents,
    ),
    Measurement(
        "theory/isometry/spectra.json",
        "Spectra of simulated networks of width 1000 and depth 100: the largest Kolmogorov-Smirnov distance. The aim "
        "is 0.02.",
        "allconv-resnet theory isometry --width 1000",
        lambda d: (
            f"{max(r['kolmogorov_smirnov'] for r in d['results']):.3f} over {len(d['results'])} networks of "
            f"{len({r['activation'] for r in d['results']})} activations"
        ),
    ),
    Measurement(
        "theory/isometry/training.json",
        "Spread of the training loss between activations of small mean over the first 50 steps, on the original "
        "CIFAR-10. The aim is a ratio of at most 0.5.",
        "allconv-resnet theory isometry --experiment training --data cifar10 --data-dir DIR --steps 300",
        _same_cumulant,
    ),
    Measurement(
        "theory/isometry/network.json",
        "Blocks 2 to 9 of stage 1 of the CIFAR network: c, and the largest squared singular value.",
        "allconv-resnet theory isometry --experiment network --data-dir DIR --body",
        _network,
    ),
    Measurement(
        "theory/isometry/outliers.json",
        "The largest squared singular value of ReLU networks of width 200, simulated (predicted).",
        "allconv-resnet theory isometry --experiment outliers",
        _outliers,
    ),
    Measurement(
        "theory/isometry/late.json",
        "Test accuracy after ten epochs, range of the mean of three seeds over the activations that did not diverge.",
        "allconv-resnet theory isometry --experiment late",
        _late,
    ),
    Measurement(
        "theory/isometry/cifar10/late.json",
        "The same on the original CIFAR-10.",
        "allconv-resnet theory isometry --experiment late --data cifar10 --data-dir DIR "
        "--output-dir results/theory/isometry/cifar10",
        _late,
    ),
    Measurement(
        "benchmarks/jacobians.json",
        "Time for the 20 largest and the 20 smallest singular values of the CIFAR network's Jacobian. The aim is 5 "
        "minutes.",
        "python benchmarks/jacobians.py",
        _jacobians,
    ),
    Measurement(
        "theory/landscape/training.json",
        "Residual networks on 500 digits that end at least as good as the best linear predictor.",
        "allconv-resnet theory landscape",
        _landscape,
    ),
    Measurement(
        "theory/landscape/regret.json",
        "Projected SGD against its regret bound, with trained and adversarial branches.",
        "allconv-resnet theory landscape --experiment regret",
        _regret,
    ),
    Measurement(
        "benchmarks/speed-start-up-*.json",
        "Time from the start of a process to the end of its first step, with batches of 128.",
        "python benchmarks/speed.py start-up --precision bfloat16 --peers torch_compiled keras_fit",
        _start_up,
    ),
    Measurement(
        "benchmarks/import_time.json",
        "Seconds that `import allconv_resnet` adds to `import keras`. The aim is at most 0.3.",
        "python benchmarks/import_time.py",
        lambda d: spread(d["extra_seconds"], ".2f"),
    ),
    Measurement(
        "benchmarks/time_to_accuracy-*.json",
        "Processor minutes to an accuracy on the original CIFAR-10: the median, the range, and how many of the "
        "trainings reached it. `ours` are this project's networks, `keras` and `torch` are the batch-normalized "
        "network of airbench94 in Keras with this project's faster layers and in PyTorch with `torch.compile`. "
        "Other guests used the core. The trainings for 93.62 % have not ended.",
        "taskset -c 0 python benchmarks/time_to_accuracy.py --data-dir DIR",
        _time_to_accuracy,
    ),
    Measurement(
        "benchmarks/precision.json",
        "bfloat16 against float32 over 200 steps: intervals of the loss curve that differ by more than the seeds do.",
        "python benchmarks/precision.py --data-dir DIR",
        _precision,
    ),
    Measurement(
        "benchmarks/step_profile-*.json",
        "Milliseconds of the kernels of a train step of the paper's network on JAX, 128 images, bfloat16. The log's "
        "own groups, and its time of a step, are those of an earlier state of the script.",
        "python benchmarks/gpu.py profile",
        _kernels,
    ),
    Measurement(
        "benchmarks/growth.json",
        "Exponents of the time of a train step.",
        "python benchmarks/growth.py --precision bfloat16",
        lambda d: ", ".join(f"{name}^{d[name]['exponent']:.2f}" for name in ("batch", "depth", "width")),
    ),
)

PAGE = Page(
    INTRODUCTION,
    (PAPER, PAPER_ABLATIONS, ORIGINAL, TRIED, FIRST_STEPS, TWENTY_MINUTES, AN_HOUR, ABLATIONS),
    CLAIMS,
    CLAIMS_TEXT,
    COMPARISONS,
    MEASUREMENTS,
)
