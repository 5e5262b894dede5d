"""The experiments of `allconv-resnet theory`, one module each: each prints a table and writes its figures and numbers.

An experiment's module imports Keras and the theorems only when it runs, so that `--help` is shown at once.
"""

import argparse
from importlib import import_module

THEORY = {
    "linear": "linear residual networks: small optima, gradient bounds, descent (Hardt & Ma, section 2)",
    "expressivity": "networks that fit random labels, and their size (Hardt & Ma, section 3)",
    "landscape": "residual networks are never worse than linear predictors (Shamir)",
    "isometry": "spectra of Jacobians of residual networks (Tarnowski et al.)",
    "gradients": "gradients against depth at initialization, for several initializations (Balduzzi et al.)",
}


def theory_command(arguments):
    """Runs `allconv-resnet theory NAME ...`.

    Args:
        arguments: List of strings, the arguments after `theory`.

    Returns:
        0, the exit status.
    """
    names = "\n".join(f"  {name:14}{summary}" for name, summary in THEORY.items())
    parser = argparse.ArgumentParser(
        "allconv-resnet theory",
        description="Experiments with the theorems about residual networks.",
        epilog=f"experiments:\n{names}\n\n`allconv-resnet theory NAME --help` lists the options of one of them.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("name", choices=THEORY, metavar="NAME", help="one of the experiments below")
    name = parser.parse_args(arguments[:1]).name
    from allconv_resnet import usage

    command, program = import_module(f"allconv_resnet.theory.commands.{name}"), f"allconv-resnet theory {name}"
    command.run(usage.parse(command.Options, arguments[1:], program, f"{program} --output-dir figures"))
    return 0
