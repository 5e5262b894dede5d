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
from allconv_resnet.recipes.parts import KINDS
from allconv_resnet.recipes.recipe import kinds_with
from allconv_resnet.serving.options import ServeOptions

THEORY = ("linear", "expressivity", "landscape", "isometry")


@dataclass(frozen=True)
class Job:
    """A recipe, and where it runs. Where it runs does not change the weights."""

    recipe: Recipe
    base: Annotated[str, tyro.conf.arg(name="recipe", metavar="NAME|FILE.json")] = "cifar10"
    """Recipe that sets the defaults of the options: a name, or a JSON file such as the config.json of a run."""
    data_kind: Annotated[Literal[tuple(KINDS["data"])], tyro.conf.arg(name="data")] = "arrays"
    """Kind of the images: of one size in memory, or JPEG files of all sizes in records."""
    network_kind: Annotated[Literal[tuple(KINDS["network"])], tyro.conf.arg(name="network")] = "allconv_resnet"
    """Kind of the network: the paper's, or one that it is compared with."""
    optimizer_kind: Annotated[Literal[tuple(KINDS["optimizer"])], tyro.conf.arg(name="optimizer")] = "momentum"
    """Kind of the optimizer."""
    schedule_kind: Annotated[Literal[tuple(KINDS["schedule"])], tyro.conf.arg(name="schedule")] = "steps"
    """Kind of the learning-rate schedule."""
    run_dir: Path | None = None
    """Run directory; the same command on the same directory continues the run. Default: runs/NAME."""
    data_dir: Path | None = None
    """Directory of tensorflow-datasets. Default: $TFDS_DATA_DIR or ~/tensorflow_datasets."""
    strategy: Literal["auto", "one", "mirrored", "multi-worker", "parameter-server"] = "auto"
    """One device, mirrored over the accelerators of this machine, or over several machines, synchronous (multi-worker)
    or asynchronous (parameter-server), as TF_CONFIG says. auto: what TF_CONFIG is for, else all accelerators of this
    machine."""
    replicas: int | None = None
    """Devices to mirror over. Default: all accelerators. Without any the CPU is split, which is of use for tests
    alone."""
    peer_timeout: float = 300
    """Seconds to wait for the other machines of TF_CONFIG."""
    minutes: float | None = None
    """Stop and save after so many minutes of steps; the same command goes on. Default: no limit."""
    export: bool = True
    """Export the network when the run has finished, to RUN_DIR/export."""


def train(names, arguments=None):
    """Runs a training script: command line -> recipe -> training. Does not return.

    Args:
        names: Names of the recipes that the script offers, in `RECIPES`; the first is the default.
        arguments: Strings. Defaults to the command line.
    """

    def run():
        job = parse_job(names, arguments)
        from allconv_resnet.training.loop import train

        run_dir = job.run_dir or Path("runs") / job.recipe.name
        place = (run_dir, job.data_dir, job.strategy, job.replicas, job.peer_timeout)
        stopped_by = train(job.recipe, *place, minutes=job.minutes)
        if stopped_by is None and job.export:
            from allconv_resnet.training.exporting import export_at_the_end

            export_at_the_end(run_dir)
        # As shells count: a run that was stopped has not succeeded, so that a supervisor starts it again.
        return 128 + stopped_by if stopped_by else 0

    if os.environ.get("TF_CONFIG"):
        from allconv_resnet.training.engines import tf_config

        tf_config.leave(lambda: guarded(run))
    sys.exit(guarded(run))


def parse_job(names, arguments=None):
    """Returns the `Job` of a command line, in which every field of the recipe's parts is an option.

    Args:
        names: As in `train`.
        arguments: As in `train`.

    Raises:
        BadInput: if the recipe or a kind is unknown, or an option belongs to a kind that was not chosen.
    """
    arguments = sys.argv[1:] if arguments is None else list(arguments)
    # The recipe and the kinds are read first: they decide which options there are, and give them their defaults.
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    parser.add_argument("--recipe", default=names[0])
    for part in KINDS:
        parser.add_argument(f"--{part}")
    chosen, rest = parser.parse_known_args(arguments)
    if chosen.recipe.endswith(".json"):
        recipe = Recipe.read(chosen.recipe)
    elif chosen.recipe in names:
        recipe = RECIPES[chosen.recipe]
    else:
        raise BadInput(f"recipe must be a .json file or one of {', '.join(names)}. Received: recipe={chosen.recipe!r}")
    for part in KINDS:
        if kind := getattr(chosen, part):
            recipe = recipe.with_kind(part, kind)
    _refuse_other_kinds(recipe, rest)
    kinds = {f"{part}_kind": getattr(chosen, part) or getattr(recipe, part).kind for part in KINDS}
    description = f"The recipes are: {', '.join(names)}."
    options = (tyro.conf.OmitArgPrefixes,)  # short names; the help groups them by part all the same
    default = Job(recipe, chosen.recipe, **kinds)
    return tyro.cli(Job, default=default, args=rest, description=description, config=options)


def _refuse_other_kinds(recipe, arguments):
    fields = recipe.fields()
    for argument in arguments:
        if not argument.startswith("--"):
            continue
        name = argument[2:].partition("=")[0].replace("-", "_")
        for field in (name, name.removeprefix("no_")):
            owners = kinds_with(field)
            if owners and field not in fields:
                part, kinds = owners[0][0], " or ".join(dict.fromkeys(kind for _, kind in owners))
                raise BadInput(
                    f"{argument} is an option of --{part} {kinds}. "
                    f"This recipe has --{part} {getattr(recipe, part).kind}"
                )


def evaluate(
    run_dir: tyro.conf.Positional[Path],
    data_dir: Path | None = None,
    split: Literal["train", "test", "holdout"] = "test",
    checkpoint: Literal["latest", "best"] = "latest",
    follow: bool = False,
) -> None:
    """Measures the loss and the errors of a run's network.

    Args:
        run_dir: Run directory.
        data_dir: Directory of tensorflow-datasets.
        split: The images that the recipe trains on, or those that it tests on.
        checkpoint: Which checkpoint: the latest or the best.
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
        checkpoint: Which checkpoint: the latest or the best.
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
        options: Options of the server.
    """
    try:
        from allconv_resnet.serving.server import SavedModel, serve
    except ModuleNotFoundError as error:
        raise BadInput(
            f"allconv-resnet serve needs the package {error.name}: pip install 'allconv_resnet[serve]' installs it"
        ) from error

    serve(SavedModel(export), options)


def save_arrays(
    dataset: tyro.conf.Positional[str], output: tyro.conf.Positional[Path], data_dir: Path | None = None
) -> None:
    """Writes the images and labels of a dataset to one .npz file, which trains on machines without TensorFlow.

    Args:
        dataset: Name of a dataset of images of one size, as --dataset has it.
        output: File to write, FILE.npz.
        data_dir: Directory of tensorflow-datasets.
    """
    from allconv_resnet.data import arrays
    from allconv_resnet.data.source import load_data

    found = load_data(dataset, data_dir)
    if found.kind != "arrays":
        raise BadInput(f"{dataset} has JPEG files of all sizes in records, which do not fit in one array")
    if output.suffix != ".npz":
        raise BadInput(f"The file to write must end with .npz. Received: {output}")
    arrays.save_npz(found, output)
    print(output)


def report(directory: tyro.conf.Positional[Path] = Path("results")) -> None:
    """Writes README.md and the figures of a directory of runs, from the logs in it.

    Args:
        directory: Directory with the runs of each training at NAME or NAME/*. If it has a page.py, this says what the
            README.md must show; otherwise the README.md has one table of all trainings.
    """
    from allconv_resnet.report import read_page, write_report

    page = read_page(directory)
    if page:
        print(f"{directory / 'page.py'} says what the page must show.")
    print(write_report(directory, page))


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
            "save-arrays": save_arrays,
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
