"""The command lines: of the training scripts, and of `allconv-resnet`."""

import os
import sys

import tyro

from allconv_resnet import doctor, usage
from allconv_resnet.commands import COMMANDS, EXAMPLES, GROUPS
from allconv_resnet.console import guarded, printing
from allconv_resnet.environment import require_keras_settings
from allconv_resnet.errors import BadInput
from allconv_resnet.files import expand
from allconv_resnet.job import parse_job
from allconv_resnet.recipes import RECIPES
from allconv_resnet.theory.commands import THEORY, theory_command


def train_command(names=None, arguments=None, program=None):
    """Runs a training script with the recipe of the command line, and exits.

    Args:
        names: Names in `RECIPES` of the recipes of the script. The first is the default. By default these are all
            recipes.
        arguments: List of strings. Defaults to the command line.
        program: String, the command of the script for its help. Defaults to the name of the script.
    """
    names = tuple(RECIPES) if names is None else names

    def run():
        with printing():
            job = parse_job(names, arguments, program)
        from allconv_resnet.training.loop import train
        from allconv_resnet.training.run_name import default_run_dir

        run_dir = default_run_dir(job.recipe, job.base) if job.run_dir is None else expand(job.run_dir, "run_dir")
        place = (run_dir, job.data_dir, job.strategy, job.replicas, job.peer_timeout)
        stopped_by = train(job.recipe, *place, minutes=job.minutes, overwrite=job.overwrite, given=set(job.given))
        if stopped_by is None and job.export:
            from allconv_resnet.training.exporting import export_at_the_end

            export_at_the_end(run_dir, job.strategy)
        # A stopped run must fail, as in a shell, so that a supervisor starts it again.
        return 128 + stopped_by if stopped_by else 0

    if os.environ.get("TF_CONFIG"):
        from allconv_resnet.training.engines import tf_config

        tf_config.run_and_exit(lambda: guarded(run))
    sys.exit(guarded(run))


def overview():
    """Returns the help of `allconv-resnet`."""
    theory = "{" + ",".join(THEORY) + "}"
    groups = {
        "Train": {"train": "Trains a network, or continues a run. `allconv-resnet train --list` shows the recipes."},
        **{title: {name: usage.paragraph(each.__doc__).split("\n")[0] for name, each in group.items()}
           for title, group in GROUPS.items()},
        "Theorems of the papers": {"theory": f"Runs the experiments of one paper: allconv-resnet theory {theory} ..."},
    }  # fmt: skip
    return usage.page(
        "allconv-resnet",
        "COMMAND",
        "Trains, measures and serves all-convolutional residual networks without normalization (Hardt & Ma, arXiv "
        "1611.04231).",
        "allconv-resnet train --recipe digits",
        groups,
        "`allconv-resnet COMMAND --help` explains one command, and `allconv-resnet --version` prints the version.",
    )


def main(arguments=None):
    """Runs `allconv-resnet COMMAND ...` and exits.

    Args:
        arguments: List of strings. Defaults to the command line.
    """
    arguments = sys.argv[1:] if arguments is None else arguments
    name, rest = arguments[:1], arguments[1:]
    if name == ["train"]:
        train_command(arguments=rest, program="allconv-resnet train")

    @printing()
    def run():
        if name == ["--version"]:
            print(f"allconv_resnet {doctor.version()}")
        elif name in ([], ["-h"], ["--help"]):
            print(overview(), file=sys.stdout if name else sys.stderr)
            return 0 if name else 2
        elif name == ["theory"]:
            require_settings(rest)
            return theory_command(rest)
        elif name[0] not in COMMANDS:
            known = ", ".join(["train", *COMMANDS, "theory"])
            raise BadInput(f"The commands of allconv-resnet are {known}. Received: {name[0]}")
        else:
            if name != ["doctor"]:
                require_settings(rest)
            command = COMMANDS[name[0]]
            config = (tyro.conf.DisallowNone, tyro.conf.OmitArgPrefixes)
            usage.parse(command, rest, f"allconv-resnet {name[0]}", EXAMPLES[command], config=config)
        return 0

    sys.exit(guarded(run))


def require_settings(arguments):
    """Raises `BadInput` if Keras's settings cannot be worked with, unless the arguments ask for help alone."""
    if not {"-h", "--help"} & set(arguments):
        require_keras_settings()
