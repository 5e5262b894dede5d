"""`allconv-resnet theory landscape`: residual networks on CIFAR-10 and the best linear predictor (Shamir).

There are two experiments. Each prints a table and writes a figure and a JSON file:

    training   networks trained from good and from deliberately bad initializations, with certificates at the end
    regret     projected SGD with a direct linear path, for trained and adversarial branches, with its regret bound

The inputs are the first 64 principal components of the images, whitened, and a constant.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from allconv_resnet.theory.checks import positive_integer
from allconv_resnet.theory.commands.projected_runs import compare_branches
from allconv_resnet.theory.commands.reporting import load_cifar10
from allconv_resnet.theory.commands.residual_against_linear import compare_with_linear
from allconv_resnet.theory.landscape import Problem

ANIMALS = (2, 3, 4, 5, 6, 7)  # labels of CIFAR-10


@dataclass(frozen=True)
class Options:
    """Compares residual networks on CIFAR-10 with the best linear predictor (Shamir)."""

    experiment: Literal["training", "regret"] = "training"
    """Experiment to run."""
    output_dir: Path = Path("results/theory/landscape")
    """Directory of the figure and the JSON file."""
    data_dir: Path | None = None
    """Directory of tensorflow-datasets. Default: $TFDS_DATA_DIR or ~/tensorflow_datasets."""
    images: int = 2000
    """Number of training images; the first images of the dataset are used."""
    iterations: int = 1000
    """training: number of L-BFGS iterations between two certificates."""
    steps: int = 10_000
    """regret: number of steps of projected SGD."""
    radius: float = 1.0
    """regret: radius of the ball for (w, v)."""
    seed: int = 0
    """Seed of the initial weights and of the batches."""


def run(options: Options) -> None:
    """Runs one experiment.

    Args:
        options: `Options`.

    Raises:
        BadInput: if an option is out of range or the dataset is not available.
    """
    for name in ("images", "iterations", "steps"):
        positive_integer(getattr(options, name), name)
    problems = cifar10_problems(options.data_dir, options.images)
    if options.experiment == "training":
        compare_with_linear(options.output_dir, problems, options.iterations, options.seed)
    else:
        compare_branches(options.output_dir, problems["logistic"], options.steps, options.radius, options.seed)


def cifar10_problems(data_dir, count, components=64):
    """Returns a `Problem` on CIFAR-10 for each loss.

    Args:
        data_dir: Path of the directory of tensorflow-datasets, or None for the default.
        count: Positive integer, number of images.
        components: Positive integer, number of principal components.

    Returns:
        Dictionary: `"cross_entropy"` with the ten classes, `"logistic"` with animals against vehicles, and `"squared"`
        with one-hot targets.
    """
    images, labels = load_cifar10(data_dir)
    labels, flat = labels[:count], images[:count].reshape(len(labels[:count]), -1).astype(np.float64)
    left, values, _ = np.linalg.svd(flat - flat.mean(axis=0), full_matrices=False)
    components = min(components, int(np.sum(values > 1e-6 * values[0])))
    x = np.concatenate([left[:, :components] * np.sqrt(len(flat)), np.ones((len(flat), 1))], axis=1)
    return {
        "cross_entropy": Problem(x, labels, "cross_entropy", outputs=10),
        "logistic": Problem(x, np.where(np.isin(labels, ANIMALS), 1.0, -1.0)[:, None], "logistic"),
        "squared": Problem(x, np.eye(10)[labels], "squared", outputs=10),
    }
