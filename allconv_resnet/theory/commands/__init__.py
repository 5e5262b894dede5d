"""The experiments of `allconv-resnet theory`, one module each: each prints a table and writes its figures and numbers.

An experiment's module imports Keras and the theorems only when it runs, so that `--help` is shown at once.
"""

import dataclasses
import sys
from importlib import import_module

from allconv_resnet import usage
from allconv_resnet.errors import BadInput
from allconv_resnet.files import output_directory

THEORY = {
    "linear": "linear residual networks: small optima, gradient bounds, descent (Hardt & Ma, section 2)",
    "expressivity": "networks that fit random labels, and their size (Hardt & Ma, section 3)",
    "landscape": "residual networks against the best linear predictor (Shamir)",
    "isometry": "spectra of Jacobians of residual networks (Tarnowski et al.)",
    "gradients": "gradients against depth at initialization, for several initializations (Balduzzi et al.)",
}


def theory_command(arguments):
    """Runs `allconv-resnet theory NAME ...`.

    Args:
        arguments: List of strings, the arguments after `theory`.

    Returns:
        The exit status: 0, or 2 if no name was given.

    Raises:
        BadInput: if there is no such experiment.
    """
    name, rest = arguments[:1], arguments[1:]
    if name in ([], ["-h"], ["--help"]):
        text = usage.page(
            "allconv-resnet theory",
            "NAME",
            "Runs experiments with the theorems about residual networks, and writes their figures and numbers.",
            "allconv-resnet theory linear --output-dir figures",
            {"Experiments": THEORY},
            "`allconv-resnet theory NAME --help` lists the options of one of them.",
        )
        print(text, file=sys.stdout if name else sys.stderr)
        return 0 if name else 2
    if name[0] not in THEORY:
        raise BadInput(f"The experiments of allconv-resnet theory are {', '.join(THEORY)}. Received: {name[0]}")
    command, program = import_module(f"allconv_resnet.theory.commands.{name[0]}"), f"allconv-resnet theory {name[0]}"
    options = usage.parse(command.Options, rest, program, f"{program} --output-dir figures")
    if getattr(options, "seed", 0) < 0:
        raise BadInput(f"seed must be an integer of at least 0. Received: seed={options.seed}")
    directory = output_directory(options.output_dir, "output_dir")  # before the experiment, which takes a while
    command.run(dataclasses.replace(options, output_dir=directory))
    return 0
