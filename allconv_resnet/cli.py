"""The commands: of the training scripts, and of `allconv-resnet`."""

import json
import os
import sys
from pathlib import Path
from typing import Annotated, Literal

import tyro

from allconv_resnet import pretrained
from allconv_resnet.console import guarded, printing
from allconv_resnet.environment import require_keras_settings
from allconv_resnet.errors import BadInput, RunFailed
from allconv_resnet.files import expand
from allconv_resnet.job import parse_job
from allconv_resnet.progress import Progress, say
from allconv_resnet.recipes import RECIPES
from allconv_resnet.serving.options import ServeOptions
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


def evaluate_command(
    run_dir: tyro.conf.Positional[Path],
    data_dir: str | None = None,
    split: Literal["train", "test", "holdout"] = "test",
    checkpoint: Literal["latest", "best"] = "latest",
    follow: bool = False,
    details: Path | None = None,
) -> None:
    """Evaluates the loss and the errors of a run's network.

    Args:
        run_dir: Run directory, or the name of a network that comes with the package.
        data_dir: Directory of tensorflow-datasets.
        split: The split that the recipe trains on, tests on, or holds out.
        checkpoint: Which checkpoint: the latest or the best.
        follow: Evaluate each new checkpoint while the run trains, until its last step.
        details: Directory to write to: the predictions of all images, the error of each class, the confusion matrix,
            and the mistakes with the highest probabilities.
    """
    if follow and details:
        raise BadInput("evaluate writes the details of one checkpoint: give --follow or --details, but not both")
    from allconv_resnet.training import evaluate
    from allconv_resnet.training.reports import describe_evaluation

    if follow:
        results = evaluate.follow_run(run_dir, data_dir, split)
    else:
        results = [evaluate.evaluate_run(run_dir, data_dir, split, checkpoint, details)]
    for result in results:
        print(f"step {result['step']:,}: {describe_evaluation(result, split)}", flush=True)


def plot_command(run_dirs: tyro.conf.Positional[tuple[Path, ...]], output: Path | None = None) -> None:
    """Draws the training and test errors of a run against steps, or those of several runs over each other.

    Args:
        run_dirs: Run directories.
        output: File of the figure. Default: RUN_DIR/curves.png for one run, and curves.png for several.
    """
    from allconv_resnet.training import reports, run_directory

    if not run_dirs:
        raise BadInput("plot needs a run directory, or several")
    if len(run_dirs) == 1 and output is None:
        print(reports.plot_curves(run_dirs[0], run_directory.read_recipe(run_dirs[0]).name))
    else:
        print(reports.plot_runs(run_dirs, output or Path("curves.png")))


def pack_command(
    run_dir: tyro.conf.Positional[Path], name: tyro.conf.Positional[str], output_dir: Path | None = None
) -> None:
    """Packs the network of a finished run: float16 weights, a checksum, and a model card.

    Args:
        run_dir: Run directory.
        name: Name by which the network is found, and name of its folder.
        output_dir: Directory of the folder. Default: that of the networks that come with the package. A network
            elsewhere is found by the path of its folder.
    """
    from allconv_resnet.training.packing import pack_run

    print(pack_run(run_dir, name, output_dir))


def export_command(
    run_dir: tyro.conf.Positional[Path],
    checkpoint: Literal["latest", "best"] = "latest",
    output_dir: Path | None = None,
    format: Literal["savedmodel", "onnx", "litert"] = "savedmodel",
    quantize: Literal["int8"] | None = None,
    data_dir: Path | None = None,
) -> None:
    """Exports a run's network, by default as a SavedModel that preprocesses images itself, with a model card.

    Args:
        run_dir: Run directory, or the name of a network that comes with the package.
        checkpoint: Which checkpoint: the latest or the best.
        output_dir: Directory of all versions; the version is the step. Default: RUN_DIR/export, for a run directory.
        format: SavedModel, or one file VERSION.onnx or VERSION.tflite for images of the network's size.
        quantize: Compute in int8, with the ranges that training images have. It needs --format litert.
        data_dir: Directory of tensorflow-datasets with the training images for --quantize.
    """
    from allconv_resnet.training.exporting import export_run

    print(export_run(run_dir, checkpoint, output_dir, format, quantize, data_dir))


def predict_command(
    network: tyro.conf.Positional[Path],
    images: Annotated[tuple[str, ...], tyro.conf.Positional, tyro.conf.arg(metavar="IMAGE ...")],
    top: int = 5,
    json_lines: bool = False,
) -> None:
    """Shows the most probable classes of images.

    Args:
        network: Directory of an export, of one version of it, or of a run, or the name of a network that comes with the
            package.
        images: JPEG or PNG files, directories of them, or - for standard input.
        top: Number of classes.
        json_lines: Print one JSON object per line instead of a table.
    """
    if not images:
        raise BadInput("predict needs the paths of images, of directories of them, or - for standard input")
    from allconv_resnet.serving.images import count_images

    progress = Progress(count_images(images))
    if os.path.exists(pretrained.find(network) / "config.json"):  # also where the directory cannot be read
        from allconv_resnet.training.predict import predict_run

        answers = predict_run(network, images, top, say=say)
    else:
        from allconv_resnet.serving.predict import predict_export

        answers = predict_export(network, images, top, say)
    bad = 0
    for done, answer in enumerate(answers, start=1):
        if progress.due() and not sys.stdout.isatty():  # on a terminal the answers themselves show it
            progress.show(done, f"{done:,} of {progress.total:,} images")
        if "error" in answer:
            progress.say(f"error: {answer['error']}")
            bad += 1
        elif json_lines:
            print(json.dumps(answer))
        else:
            classes = ("{label} {probability:.1%}".format(**prediction) for prediction in answer["predictions"])
            print(f"{answer['image']}: {', '.join(classes)}")
    if bad:
        rest = "No other was given" if bad == progress.total else "All others were predicted"
        raise RunFailed(f"{bad} of {progress.total} images could not be read. {rest}")


def serve_command(
    export: tyro.conf.Positional[Path | None] = None,
    options: Annotated[ServeOptions, tyro.conf.arg(name="")] = ServeOptions(),  # noqa: B008 - frozen
) -> None:
    """Serves predictions over HTTP with TensorFlow Serving's REST protocol and KServe's, until SIGTERM or Ctrl-C.

    Args:
        export: Directory of an export, of which the newest version is served, or of one version of it.
        options: Options of the server.
    """
    try:
        from allconv_resnet.serving.models import Models
        from allconv_resnet.serving.server import serve
        from allconv_resnet.serving.sources import read_sources
    except ModuleNotFoundError as error:
        raise BadInput(
            f"allconv-resnet serve needs the package {error.name}. Install it with pip install 'allconv_resnet[serve]'"
        ) from error

    serve(Models(lambda: read_sources(export, options)), options)


def save_arrays(
    dataset: tyro.conf.Positional[str], output: tyro.conf.Positional[Path], data_dir: str | None = None
) -> None:
    """Writes the images and labels of a dataset to one .npz file, for training on machines without TensorFlow.

    Args:
        dataset: Name of a dataset of images of one size, as in --dataset NAME.
        output: File to write, FILE.npz.
        data_dir: Directory of tensorflow-datasets.
    """
    from allconv_resnet.data import arrays
    from allconv_resnet.data.source import load_data

    found = load_data(dataset, data_dir)
    if found.kind != "arrays":
        raise BadInput(f"{dataset} has image files of all sizes, which do not fit into one array")
    if output.suffix != ".npz":
        raise BadInput(f"The file to write must end with .npz. Received: {output}")
    arrays.save_npz(found, output)
    print(output)


def report_command(directory: tyro.conf.Positional[Path] = Path("results")) -> None:
    """Writes README.md and the figures of a directory of runs, from the logs in it.

    Args:
        directory: Directory with the runs of each training at NAME or NAME/*. If it has a page.py, that file determines
            the content of README.md. Otherwise README.md has one table of all trainings.
    """
    from allconv_resnet.report import read_page, write_report

    page = read_page(directory)
    if page:
        print(f"The content of the page is determined by {directory / 'page.py'}.")
    print(write_report(directory, page))


def main(arguments=None):
    """Runs `allconv-resnet COMMAND ...` and exits.

    Args:
        arguments: List of strings. Defaults to the command line.
    """
    arguments = sys.argv[1:] if arguments is None else arguments
    if arguments[:1] == ["train"]:
        train_command(arguments=arguments[1:], program="allconv-resnet train")

    @printing()
    def run():
        if arguments and not {"-h", "--help"} & set(arguments):
            require_keras_settings()
        if arguments[:1] == ["theory"]:
            return theory_command(arguments[1:])
        commands = {
            "evaluate": evaluate_command,
            "plot": plot_command,
            "pack": pack_command,
            "export": export_command,
            "predict": predict_command,
            "report": report_command,
            "save-arrays": save_arrays,
            "serve": serve_command,
        }
        description = f"Also: allconv-resnet train ..., allconv-resnet theory {{{','.join(THEORY)}}} ..."
        tyro.extras.subcommand_cli_from_dict(commands, prog="allconv-resnet", description=description, args=arguments)
        return 0

    sys.exit(guarded(run))
