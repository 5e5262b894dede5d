"""`allconv-resnet theory landscape`: residual networks on CIFAR-10 against the best linear predictor (Shamir).

Experiments, each of which prints one table and writes a figure and a JSON:

    training   networks trained from good and from deliberately bad starting points, certified at their end
    regret     projected SGD with a direct linear path, for trained and adversarial branches, under its bound

The inputs are the first 64 principal components of the images, whitened, and a constant.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from allconv_resnet.errors import BadInput
from allconv_resnet.theory.commands import projected_runs, residual_against_linear
from allconv_resnet.theory.commands.reporting import cifar10
from allconv_resnet.theory.predictors import Problem

ANIMALS = (2, 3, 4, 5, 6, 7)


@dataclass(frozen=True)
class Options:
    """What to run and on what."""

    experiment: Literal["training", "regret"] = "training"
    """Which of the two."""
    output_dir: Path = Path("results/theory/landscape")
    """Where the figure and the JSON go."""
    data_dir: Path | None = None
    """Directory of tensorflow-datasets. Default: $TFDS_DATA_DIR or ~/tensorflow_datasets."""
    images: int = 2000
    """Training images, the first of the set."""
    iterations: int = 1000
    """training: L-BFGS iterations of a run, between two looks at its certificate."""
    steps: int = 10_000
    """regret: steps of projected SGD."""
    radius: float = 1.0
    """regret: of the ball for (w, v)."""
    seed: int = 0
    """Of the networks' weights and the samples."""


def run(options: Options) -> None:
    """Runs one experiment.

    Raises:
        BadInput: if an option is out of range or the data is not there.
    """
    for name in ("images", "iterations", "steps"):
        if getattr(options, name) < 1:
            raise BadInput(f"{name} must be positive. Received: {name}={getattr(options, name)}")
    problems = real_problems(options.data_dir, options.images)
    if options.experiment == "training":
        residual_against_linear.run(options.output_dir, problems, options.iterations, options.seed)
    else:
        projected_runs.run(options.output_dir, problems["logistic"], options.steps, options.radius, options.seed)


def real_problems(data_dir, count, components=64):
    """Returns a `Problem` of each loss: ten classes, animal or vehicle, and one-hot targets."""
    images, labels = cifar10(data_dir)[:2]
    labels, flat = labels[:count], images[:count].reshape(len(labels[:count]), -1).astype(np.float64)
    left, values, _ = np.linalg.svd(flat - flat.mean(axis=0), full_matrices=False)
    components = min(components, int(np.sum(values > 1e-6 * values[0])))
    x = np.concatenate([left[:, :components] * np.sqrt(len(flat)), np.ones((len(flat), 1))], axis=1)
    return {
        "cross_entropy": Problem(x, labels, "cross_entropy", outputs=10),
        "logistic": Problem(x, np.where(np.isin(labels, ANIMALS), 1.0, -1.0)[:, None], "logistic"),
        "squared": Problem(x, np.eye(10)[labels], "squared", outputs=10),
    }
