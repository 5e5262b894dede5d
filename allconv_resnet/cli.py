"""The command lines: of the training scripts, and of `allconv-resnet`."""

import argparse
import json
import os
import sys
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Annotated, Literal

import tyro

from allconv_resnet.errors import BadInput, RunFailed
from allconv_resnet.recipes import RECIPES, Recipe
from allconv_resnet.serving.options import ServeOptions
from allconv_resnet.training import cluster

THEORY = ("linear", "expressivity", "landscape", "isometry")


@dataclass(frozen=True)
class Job:
    """Where and on what a recipe runs. None of it changes the weights."""

    recipe: Annotated[Recipe, tyro.conf.arg(name="")]
    run_dir: Path | None = None
    """Run directory; the same command on the same directory continues the run. Default: runs/NAME."""
    data_dir: Path | None = None
    """Directory of tensorflow-datasets. Default: $TFDS_DATA_DIR or ~/tensorflow_datasets."""
    strategy: Literal["auto", "one", "mirrored", "multi-worker", "parameter-server"] = "auto"
    """One device, mirrored over the GPUs of this machine, or over several machines: in step (multi-worker) or
    asynchronously (parameter-server), as TF_CONFIG says. auto: what TF_CONFIG is for, else all GPUs of this machine."""
    replicas: int | None = None
    """Devices to mirror over. Default: all GPUs. Without GPUs the CPU is split, which is of use for tests alone."""
    peer_timeout: float = 300
    """Seconds to wait for the other machines of TF_CONFIG."""
    export: bool = True
    """Export the network when the run has finished, to RUN_DIR/export."""


def train(names, arguments=None):
    """Runs a training script: command line -> recipe -> training. Does not return.

    Args:
        names: Of the recipes that the script offers, in `RECIPES`; the first is the default.
        arguments: Strings. Defaults to the command line.
    """

    def run():
        job = parse_job(names, arguments)
        from allconv_resnet.training.loop import train

        run_dir = job.run_dir or Path("runs") / job.recipe.name
        stopped_by = train(
            job.recipe,
            run_dir,
            job.data_dir,
            job.strategy,
            job.replicas,
            job.peer_timeout,
        )
        if stopped_by is None and job.export:
            from allconv_resnet.training.exporting import export_at_the_end

            export_at_the_end(run_dir, job.strategy)
        # As shells count: a run that was stopped has not succeeded, so that a supervisor starts it again.
        return 128 + stopped_by if stopped_by else 0

    if os.environ.get("TF_CONFIG"):
        cluster.leave(lambda: guarded(run))
    sys.exit(guarded(run))


def parse_job(names, arguments=None):
    """Returns the `Job` of a command line, in which every field of the recipe is an option.

    Args:
        names: As in `train`.
        arguments: As in `train`.
    """
    # The recipe is read first: it gives the other options their defaults.
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    parser.add_argument("--recipe", choices=names, default=names[0])
    chosen, rest = parser.parse_known_args(arguments)
    description = f"--recipe {{{','.join(names)}}} sets the defaults below (here: {chosen.recipe})."
    return tyro.cli(Job, default=Job(RECIPES[chosen.recipe]), args=rest, description=description)


def evaluate(
    run_dir: tyro.conf.Positional[Path],
    data_dir: Path | None = None,
    split: Literal["train", "test"] = "test",
    checkpoint: Literal["latest", "best"] = "latest",
    follow: bool = False,
) -> None:
    """Measures the loss and the errors of a run's network.

    Args:
        run_dir: Run directory.
        data_dir: Directory of tensorflow-datasets.
        split: Which images.
        checkpoint: Of the last step, or that with the lowest test error.
        follow: Evaluate each new latest checkpoint, beside the training, until its last step.
    """
    from allconv_resnet.training import evaluate
    from allconv_resnet.training.reports import describe

    if follow:
        results = evaluate.follow(run_dir, data_dir, split)
    else:
        results = [evaluate.evaluate_run(run_dir, data_dir, split, checkpoint)]
    for result in results:
        print(f"step {result['step']:,}: {describe(result, split)}", flush=True)


def plot(run_dir: tyro.conf.Positional[Path]) -> None:
    """Draws curves.png, training and test error against steps, from a run's metrics.

    Args:
        run_dir: Run directory.
    """
    from allconv_resnet.training import reports, run_directory

    print(reports.plot(run_dir, run_directory.read_recipe(run_dir).name))


def export(
    run_dir: tyro.conf.Positional[Path],
    checkpoint: Literal["latest", "best"] = "latest",
    output_dir: Path | None = None,
    format: Literal["savedmodel", "onnx", "litert"] = "savedmodel",
) -> None:
    """Writes a run's network as a SavedModel that takes images as they come, and its model card.

    Args:
        run_dir: Run directory.
        checkpoint: Of the last step, or that with the lowest test error.
        output_dir: Where the versions lie; the version is the step. Default: RUN_DIR/export.
        format: SavedModel, or one file VERSION.onnx or VERSION.tflite for images of the network's size.
    """
    from allconv_resnet.training.exporting import export_run

    print(export_run(run_dir, checkpoint, output_dir, format))


def predict(
    export: tyro.conf.Positional[Path],
    images: tyro.conf.Positional[tuple[str, ...]],
    top: int = 5,
    json_lines: bool = False,
) -> None:
    """Shows the most probable classes of images.

    Args:
        export: Directory of an export, or of one version of it.
        images: JPEG or PNG files, directories of them, or - for standard input.
        top: How many classes.
        json_lines: One JSON object a line instead of a table.
    """
    from allconv_resnet.serving.predict import predict

    for answer in predict(export, images, top):
        if json_lines:
            print(json.dumps(answer))
        else:
            classes = ("{label} {probability:.1%}".format(**prediction) for prediction in answer["predictions"])
            print(f"{answer['image']}: {', '.join(classes)}")


def serve(
    export: tyro.conf.Positional[Path],
    options: Annotated[ServeOptions, tyro.conf.arg(name="")] = ServeOptions(),  # noqa: B008 - frozen
) -> None:
    """Answers predictions over HTTP in the protocol of TensorFlow Serving's REST, until SIGTERM or Ctrl-C.

    Args:
        export: Directory of an export, or of one version of it; the newest version is served.
        options: Of the server.
    """
    try:
        from allconv_resnet.serving.server import SavedModel, serve
    except ModuleNotFoundError as error:
        raise BadInput(
            f"allconv-resnet serve needs the package {error.name}: pip install 'allconv_resnet[serve]' installs it"
        ) from error

    serve(SavedModel(export), options)


def report(results: tyro.conf.Positional[Path] = Path("results")) -> None:
    """Writes README.md and the figures of a results directory from the logs in it.

    Args:
        results: Directory with run directories, and with what the benchmarks and the theory commands wrote.
    """
    from allconv_resnet.evidence.report import report

    print(report(results))


def main(arguments=None):
    """Runs `allconv-resnet COMMAND ...`. Does not return."""
    arguments = sys.argv[1:] if arguments is None else arguments

    def run():
        if arguments[:1] == ["theory"]:
            return theory(arguments[1:])
        commands = {
            "evaluate": evaluate,
            "plot": plot,
            "export": export,
            "predict": predict,
            "report": report,
            "serve": serve,
        }
        description = f"Also: allconv-resnet theory {{{','.join(THEORY)}}} ..."
        tyro.extras.subcommand_cli_from_dict(commands, prog="allconv-resnet", description=description, args=arguments)
        return 0

    sys.exit(guarded(run))


def theory(arguments):
    """Runs `allconv-resnet theory NAME ...`, an experiment of `allconv_resnet.theory.commands`.

    Args:
        arguments: List of strings, the arguments after `theory`.
    """
    description = "Experiments with the theorems about residual networks. NAME --help lists the options of each one."
    parser = argparse.ArgumentParser("allconv-resnet theory", description=description)
    parser.add_argument("name", choices=THEORY)
    name = parser.parse_args(arguments[:1]).name
    command = import_module(f"allconv_resnet.theory.commands.{name}")
    command.run(tyro.cli(command.Options, prog=f"allconv-resnet theory {name}", args=arguments[1:]))
    return 0


def guarded(run):
    """Returns the exit status of `run()`: bad input and failed runs end in one sentence, bugs in a traceback."""
    try:
        return run()
    except BadInput as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except RunFailed as error:
        print(f"failed: {error}", file=sys.stderr)
        return 1
