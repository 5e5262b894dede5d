"""`allconv-resnet theory landscape`: residual networks on real images and the best linear predictor (Shamir).

There are five experiments. Each prints a table and writes a figure and a JSON file:

    training     networks trained from good and from deliberately bad initializations, with certificates at the end
    stationary   excess over the linear predictor against the gradient and the smallest eigenvalue of the Hessian
    chain        chains of narrow residual blocks: excess and its bounds along training
    network      certificates of a deep residual network, by products of vectors with its Hessian
    regret       projected SGD with a direct linear path, for trained and adversarial branches, with its regret bound

In all but `network` the inputs are the first 64 principal components of the images, whitened, and a constant.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from allconv_resnet.theory.checks import positive_integer
from allconv_resnet.theory.commands.reporting import refuse_unused
from allconv_resnet.usage import DATA_DIR, default

SHARED = ("experiment", "output_dir", "data", "data_dir", "images", "seed")
USED = {  # by each experiment, apart from those
    "training": ("iterations",),
    "stationary": (),
    "chain": (),
    "network": ("steps",),
    "regret": ("steps", "radius"),
}


@dataclass(frozen=True)
class Options:
    """Compares residual networks on real images with the best linear predictor (Shamir)."""

    experiment: Literal["training", "stationary", "chain", "network", "regret"] = "training"
    """Experiment to run."""
    output_dir: Path = Path("results/theory/landscape")
    """Directory of the figure and the JSON file."""
    data: str = "digits"
    """Dataset: digits, which needs no download, or another one with ten classes, such as cifar10."""
    data_dir: Annotated[Path | None, DATA_DIR] = None
    """Directory of tensorflow-datasets, for other datasets."""
    images: int = 500
    """Number of training images; the first images of the dataset are used."""
    iterations: int = 200
    """training: number of L-BFGS iterations between two certificates."""
    steps: Annotated[int | None, default("10,000 of projected SGD for regret, 300 of Adam for network", "INT")] = None
    """regret, network: number of steps."""
    radius: float = 1.0
    """regret: radius of the ball for (w, v)."""
    seed: int = 0
    """Seed of the initial weights and of the batches."""


def run(options: Options) -> None:
    """Runs one experiment.

    Args:
        options: `Options`.

    Raises:
        BadInput: if an option is out of range or has no effect, or if the dataset is not available or does not fit.
    """
    for name in ("images", "iterations", "steps"):
        if getattr(options, name) is not None:
            positive_integer(getattr(options, name), name)
    refuse_unused(options, f"the experiment {options.experiment}", (*SHARED, *USED[options.experiment]))
    # Keras is imported only here, because `--help` does not need it.
    from allconv_resnet.theory.commands import (
        certified_network,
        chained_blocks,
        image_problems,
        projected_runs,
        residual_against_linear,
        stationary_points,
    )
    from allconv_resnet.theory.commands.reporting import load_first_images

    images, labels = load_first_images(options.data, options.data_dir, options.images)
    settings = {"data": options.data, "images": options.images, "seed": options.seed}
    if options.experiment == "network":
        certified_network.certify_along_training(options.output_dir, images, labels, options.steps or 300, settings)
        return
    problems = image_problems.image_problems(images, labels)
    if options.experiment == "training":
        residual_against_linear.compare_with_linear(options.output_dir, problems, options.iterations, settings)
    elif options.experiment == "stationary":
        stationary_points.measure_excess(options.output_dir, problems, settings)
    elif options.experiment == "chain":
        chained_blocks.measure_chains(options.output_dir, problems, settings)
    else:
        steps = options.steps or 10_000
        projected_runs.compare_branches(options.output_dir, problems["logistic"], steps, options.radius, settings)
