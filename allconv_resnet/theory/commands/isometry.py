"""`allconv-resnet theory isometry`: the spectra of Tarnowski et al. in simulations, training and networks.

There are five experiments. Each prints a table and writes a figure and a JSON file:

    spectra    spectra of simulated networks with every activation, the universal law, and what lies outside it
    outliers   what "irrespectively of the activation" leaves out: outliers against depth, on both sides of the bulk
    training   residual networks trained at equal weight scale and at equal c (Tarnowski et al., section 4)
    late       the test accuracy of such networks after some epochs
    network    the Jacobian of the CIFAR network of this package, and the law of its own blocks at their depth
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from allconv_resnet.errors import BadInput
from allconv_resnet.theory.checks import positive_integer
from allconv_resnet.theory.commands.reporting import refuse_unused
from allconv_resnet.usage import DATA_DIR, default

TRAINED = ("data", "data_dir", "width", "depth", "seeds", "c", "weight_scale")
USED = {  # by each experiment, apart from experiment and output_dir
    "spectra": ("width", "depth"),
    "outliers": ("width", "seeds"),
    "training": (*TRAINED, "steps"),
    "late": (*TRAINED, "epochs", "skip"),
    "network": ("data_dir", "run_dirs", "train_steps", "body"),
}


@dataclass(frozen=True)
class Options:
    """Compares spectra of Jacobians with their laws, and trainings at equal c (Tarnowski et al.)."""

    experiment: Literal["spectra", "outliers", "training", "late", "network"] = "spectra"
    """Experiment to run."""
    output_dir: Path = Path("results/theory/isometry")
    """Directory of the figures and the JSON files. Measurements that it already has are not repeated."""
    data: str = "digits"
    """training, late: dataset, digits, which needs no download, or another one with ten classes, such as cifar10."""
    data_dir: Annotated[Path | None, DATA_DIR] = None
    """training, late, network: directory of tensorflow-datasets."""
    width: Annotated[int | None, default("600 for spectra, 200 for outliers, 256 for training and late", "INT")] = None
    """Number of neurons of a layer."""
    depth: Annotated[int | None, default("100 for spectra, 20 for training and late", "INT")] = None
    """spectra, training, late: number of residual layers."""
    seeds: int = 3
    """outliers, training, late: number of networks of each kind."""
    steps: int = 100
    """training: number of SGD steps, with batches of 128 images and a learning rate of 0.02."""
    epochs: int = 10
    """late: number of epochs."""
    c: float = 0.125
    """training, late: effective cumulant of the networks that are compared at equal c."""
    weight_scale: float = 1.0
    """training, late: weight scale of the networks that are compared at equal weight scale."""
    skip: float = 1.0
    """late: the factor a of the identity in layers a x + phi(W x + b)."""
    run_dirs: tuple[Path, ...] = ()
    """network: run directories of train_cifar.py whose latest checkpoints are measured too."""
    train_steps: int = 0
    """network: number of training steps with 32 images after which the network is measured too; 0 for none."""
    body: bool = False
    """network: measure the whole stages, and the network from the pixels to the last feature map, too."""


def run(options: Options) -> None:
    """Runs one experiment.

    Args:
        options: `Options`.

    Raises:
        BadInput: if an option is out of range or has no effect, or if the dataset or a run is not available.
    """
    for name in ("width", "depth", "seeds", "steps", "epochs"):
        value = getattr(options, name)
        if value is not None:
            positive_integer(value, name)
    for name in ("c", "weight_scale", "skip"):
        if not 0 < getattr(options, name) < float("inf"):
            raise BadInput(f"{name} must be positive and finite. Received: {name}={getattr(options, name)}")
    refuse_unused(
        options, f"the experiment {options.experiment}", ("experiment", "output_dir", *USED[options.experiment])
    )
    # Keras is imported only in the experiments, because `--help` does not need it.
    where = options.output_dir, options.data_dir
    data = options.output_dir, options.data, options.data_dir, options.width or 256, options.depth or 20, options.seeds
    if options.experiment == "spectra":
        from allconv_resnet.theory.commands.simulated_spectra import compare_spectra

        compare_spectra(options.output_dir, options.width or 600, options.depth or 100)
    elif options.experiment == "outliers":
        from allconv_resnet.theory.commands.outlier_growth import compare_outliers

        compare_outliers(options.output_dir, options.width or 200, options.seeds)
    elif options.experiment == "training":
        from allconv_resnet.theory.commands.same_cumulant import compare_trainings

        compare_trainings(*data, options.steps, options.c, options.weight_scale)
    elif options.experiment == "late":
        from allconv_resnet.theory.commands.late_phase import compare_accuracies

        compare_accuracies(*data, options.epochs, options.c, options.weight_scale, options.skip)
    else:
        from allconv_resnet.theory.commands.network_spectra import measure_networks

        measure_networks(*where, options.run_dirs, options.train_steps, options.body)
