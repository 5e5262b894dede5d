"""`allconv-resnet theory isometry`: the universal spectrum of Tarnowski et al. in simulations, training and networks.

There are three experiments. Each prints a table and writes a figure and a JSON file:

    spectra    spectra of simulated networks with every activation, compared with the universal law
    training   residual networks trained on CIFAR-10 at equal weight scale and at equal c (Tarnowski et al., section 4)
    network    the Jacobian of the CIFAR network of this package, at initialization and during training
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from allconv_resnet.theory.checks import positive_integer
from allconv_resnet.theory.commands.network_spectra import measure_networks
from allconv_resnet.theory.commands.same_cumulant import compare_trainings
from allconv_resnet.theory.commands.simulated_spectra import compare_spectra
from allconv_resnet.theory.tarnowski.mean_field import check_cumulant


@dataclass(frozen=True)
class Options:
    """Compares spectra of Jacobians with the universal law, and trainings at equal c (Tarnowski et al.)."""

    experiment: Literal["spectra", "training", "network"] = "spectra"
    """Experiment to run."""
    output_dir: Path = Path("results/theory/isometry")
    """Directory of the figures and the JSON files. Measurements that it already has are not repeated."""
    data_dir: Path | None = None
    """training, network: directory of tensorflow-datasets. Default: $TFDS_DATA_DIR or ~/tensorflow_datasets."""
    width: int | None = None
    """spectra, training: number of neurons of a layer. Default: 1000 for spectra, 256 for training."""
    depth: int | None = None
    """spectra, training: number of residual layers. Default: 100 for spectra, 20 for training."""
    seeds: int = 3
    """training: number of runs of each network."""
    steps: int = 300
    """training: number of SGD steps, with batches of 128 images and a learning rate of 0.02."""
    c: float = 0.125
    """training: effective cumulant of the networks that are compared at equal c."""
    weight_scale: float = 1.0
    """training: weight scale of the networks that are compared at equal weight scale."""
    run_dirs: tuple[Path, ...] = ()
    """network: run directories of train_cifar.py whose latest checkpoints are measured too."""
    train_steps: int = 0
    """network: number of training steps with 32 images after which the network is measured too; 0 for none."""


def run(options: Options) -> None:
    """Runs one experiment.

    Args:
        options: `Options`.

    Raises:
        BadInput: if an option is out of range, or if the dataset or a run is not available.
    """
    check_cumulant(options.c)
    for name in ("width", "depth", "seeds", "steps"):
        value = getattr(options, name)
        if value is not None:
            positive_integer(value, name)
    if options.experiment == "spectra":
        compare_spectra(options.output_dir, options.width or 1000, options.depth or 100)
    elif options.experiment == "training":
        compare_trainings(
            options.output_dir,
            options.data_dir,
            options.width or 256,
            options.depth or 20,
            options.seeds,
            options.steps,
            options.c,
            options.weight_scale,
        )
    else:
        measure_networks(options.output_dir, options.data_dir, options.run_dirs, options.train_steps)
