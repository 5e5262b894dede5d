"""`allconv-resnet theory isometry`: the universal spectrum against simulations, against training, in a real network.

Experiments, each of which prints one table and writes figures and one JSON:

    spectra    simulated networks of every activation over the theory's curve
    training   residual networks on CIFAR-10 at the same weight scale and at the same c (Tarnowski et al., section 4)
    network    the Jacobian of this project's CIFAR network: at its initializations and during training
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from allconv_resnet.errors import BadInput
from allconv_resnet.theory.commands import network_spectra, same_cumulant, simulated_spectra
from allconv_resnet.theory.mean_field import check_cumulant, check_depth


@dataclass(frozen=True)
class Options:
    """What to run and on what."""

    experiment: Literal["spectra", "training", "network"] = "spectra"
    """Which of the three."""
    output_dir: Path = Path("results/theory/isometry")
    """Where the figures and the JSON go; what is measured there already is not measured again."""
    data_dir: Path | None = None
    """Directory of tensorflow-datasets, for training and network. Default: $TFDS_DATA_DIR or ~/tensorflow_datasets."""
    width: int | None = None
    """Neurons a layer. Default: 1000 for spectra, 256 for training."""
    depth: int | None = None
    """Residual layers. Default: 100 for spectra, 20 for training."""
    seeds: int = 3
    """training: runs of each network."""
    steps: int = 300
    """training: SGD steps of 128 images, learning rate 0.02."""
    c: float = 0.125
    """training: the effective cumulant of the second arm."""
    weight_scale: float = 1.0
    """training: the weight scale of the first arm."""
    run_dirs: tuple[Path, ...] = ()
    """network: runs of train_cifar.py whose latest network is looked at too."""
    train_steps: int = 0
    """network: SGD steps of 32 images at the paper's recipe after which the network is looked at too; 0 for none."""


def run(options: Options) -> None:
    """Runs one experiment.

    Raises:
        BadInput: if an option is out of range or the data is not there.
    """
    check_cumulant(options.c)
    for name in ("width", "depth", "seeds", "steps"):
        value = getattr(options, name)
        if value is not None and value < 1:
            raise BadInput(f"{name} must be positive. Received: {name}={value}")
    if options.experiment == "spectra":
        simulated_spectra.run(options.output_dir, options.width or 1000, options.depth or 100)
    elif options.experiment == "training":
        check_depth(options.depth or 20)
        same_cumulant.run(
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
        network_spectra.run(options.output_dir, options.data_dir, options.run_dirs, options.train_steps)
