"""The commands of `allconv-resnet`, one function each: its arguments are the options, and its docstring is the help.

They import what they need when they run, so that `--help` is shown at once.
"""

import json
import os
import sys
from pathlib import Path
from typing import Annotated, Literal

import tyro

from allconv_resnet import doctor, files, pretrained
from allconv_resnet.errors import BadInput, RunFailed
from allconv_resnet.progress import Progress, say
from allconv_resnet.serving.options import ServeGroups
from allconv_resnet.usage import DATA_DIR, default, several

RunDir = Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="RUN_DIR")]
DataDir = Annotated[str | None, DATA_DIR]


def evaluate_command(
    run_dir: RunDir,
    data_dir: Annotated[
        str | None, default("that of the training, or else $TFDS_DATA_DIR or ~/tensorflow_datasets", "DIR")
    ] = None,
    split: Literal["train", "test", "holdout"] = "test",
    checkpoint: Literal["latest", "best"] = "latest",
    follow: bool = False,
    details: Annotated[Path | None, default("no details", "DIR")] = None,
) -> None:
    """Measures the loss and the errors of a run's network on a split of its data.

    Args:
        run_dir: Run directory, or the name of a network that comes with the package.
        data_dir: Directory of tensorflow-datasets.
        split: The split that the recipe trains on, tests on, or holds out.
        checkpoint: Which checkpoint: the latest or the best.
        follow: Evaluate each new checkpoint while the run trains, until its last step.
        details: Directory to write to: the predictions and logits of all images, the error of each class, the confusion
            matrix, and the mistakes with the highest probabilities.
    """
    if follow and details:
        raise BadInput("evaluate writes the details of one checkpoint: give --follow or --details, but not both")
    if follow and checkpoint != "latest":
        raise BadInput("--follow evaluates each new checkpoint: give --follow or --checkpoint, but not both")
    from allconv_resnet.training import evaluate
    from allconv_resnet.training.reports import describe_evaluation

    if follow:
        results = evaluate.follow_run(run_dir, data_dir, split)
    else:
        results = [evaluate.evaluate_run(run_dir, data_dir, split, checkpoint, details)]
    for result in results:
        print(f"step {result['step']:,}: {describe_evaluation(result, split)}", flush=True)


def plot_command(
    run_dirs: Annotated[tuple[Path, ...], tyro.conf.Positional, several("RUN_DIR")],
    output: Annotated[
        Path | None, default("RUN_DIR/curves.png, or curves.png for several runs and networks of the package", "FILE")
    ] = None,
) -> None:
    """Draws the training and test errors of a run against steps, or those of several runs over each other.

    Args:
        run_dirs: Run directories, or names of networks that come with the package.
        output: File of the figure.
    """
    from allconv_resnet.training import reports, run_directory

    if not run_dirs:
        raise BadInput("plot needs a run directory, or several")
    found = [pretrained.find(run_dir) for run_dir in run_dirs]
    packed = os.path.exists(found[0] / pretrained.WEIGHTS)  # nothing is written to the folder of a packed network
    if len(found) == 1 and output is None and not packed:
        print(reports.plot_curves(found[0], run_directory.read_recipe(found[0]).name))
    else:
        output = files.output_file(output or Path("curves.png"), "output")
        print(reports.plot_runs(dict(zip(map(str, run_dirs), found, strict=True)), output))


def pack_command(
    run_dir: RunDir,
    name: Annotated[str, tyro.conf.Positional],
    output_dir: Annotated[Path | None, default("that of the networks that come with the package", "DIR")] = None,
) -> None:
    """Packs the network of a finished run for others: small weights, a checksum, and a model card.

    Args:
        run_dir: Run directory.
        name: Name by which the network is found, and name of its folder.
        output_dir: Directory of the folder. A network that is not with those of the package is found by the path of
            its folder.
    """
    from allconv_resnet.training.packing import pack_run

    print(pack_run(run_dir, name, output_dir))


def export_command(
    run_dir: RunDir,
    checkpoint: Literal["latest", "best"] = "latest",
    output_dir: Annotated[Path | None, default("RUN_DIR/export, for a run directory", "DIR")] = None,
    format: Literal["savedmodel", "onnx", "litert"] = "savedmodel",
    quantize: Annotated[Literal["int8"] | None, default("no quantization", "int8")] = None,
    data_dir: DataDir = None,
) -> None:
    """Exports a run's network with a model card, as a SavedModel that preprocesses images itself, as ONNX or as LiteRT.

    Args:
        run_dir: Run directory, or the name of a network that comes with the package.
        checkpoint: Which checkpoint: the latest or the best.
        output_dir: Directory of all versions. The version is the step, or one more than the newest if that is larger.
        format: SavedModel, or one file VERSION.onnx or VERSION.tflite for images of the network's size.
        quantize: Compute in int8, with the ranges that training images have. It needs --format litert.
        data_dir: Directory of tensorflow-datasets with the training images for --quantize.
    """
    from allconv_resnet.training.exporting import export_run

    print(export_run(run_dir, checkpoint, output_dir, format, quantize, data_dir))


def predict_command(
    network: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="NETWORK")],
    images: Annotated[tuple[str, ...], tyro.conf.Positional, several("IMAGE")],
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
    export: Annotated[Path | None, tyro.conf.Positional, default("the models of --model-config", "[EXPORT]")] = None,
    options: Annotated[ServeGroups, tyro.conf.arg(name="")] = ServeGroups(),  # noqa: B008 - frozen
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
            f"allconv-resnet serve needs the package {error.name}. "
            "Install it, in the checkout, with pip install -e '.[serve]'"
        ) from error

    flat = options.options()
    read_sources(export, flat)  # what is wrong with the command line is said before the server begins to look
    serve(Models(lambda: read_sources(export, flat)), flat)


def save_arrays(
    dataset: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="DATASET")],
    output: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="FILE.npz")],
    data_dir: DataDir = None,
) -> None:
    """Writes the images and labels of a dataset to one .npz file, for training on machines without TensorFlow.

    Args:
        dataset: Name of a dataset of images of one size, as in --dataset NAME.
        output: File to write, FILE.npz.
        data_dir: Directory of tensorflow-datasets.
    """
    from allconv_resnet.data import arrays
    from allconv_resnet.data.source import load_data

    if output.suffix != ".npz":
        raise BadInput(f"The file to write must end with .npz. Received: {output}")
    files.output_file(output, "the file to write")
    found = load_data(dataset, data_dir)
    if found.kind != "arrays":
        raise BadInput(f"{dataset} has image files of all sizes, which do not fit into one array")
    arrays.save_npz(found, output)
    print(output)


def report_command(
    directory: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="[DIR]")] = Path("results"),
) -> None:
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


def doctor_command() -> None:
    """Shows what this installation has and lacks on one screen: versions, devices, precision, memory, data and extras.

    Paste it into a report of a fault. The status is 1 if Keras cannot be used.
    """
    text, works = doctor.report()
    print(text)
    if not works:
        raise RunFailed("Keras cannot be used here, see the line Keras")


EXAMPLES = {
    evaluate_command: "allconv-resnet evaluate runs/digits --checkpoint best",
    plot_command: "allconv-resnet plot runs/digits runs/digits-seed=1",
    report_command: "allconv-resnet report runs",
    export_command: "allconv-resnet export runs/digits --format onnx",
    predict_command: "allconv-resnet predict cifar10-fast photo.png",
    serve_command: "allconv-resnet serve runs/digits/export --port 8501",
    pack_command: "allconv-resnet pack runs/digits my-digits --output-dir networks",
    save_arrays: "allconv-resnet save-arrays cifar10 cifar10.npz",
    doctor_command: "allconv-resnet doctor",
}
GROUPS = {
    "Look at a run": {"evaluate": evaluate_command, "plot": plot_command, "report": report_command},
    "Use a network": {
        "predict": predict_command,
        "export": export_command,
        "serve": serve_command,
        "pack": pack_command,
    },
    "This machine": {"doctor": doctor_command, "save-arrays": save_arrays},
}
COMMANDS = {name: command for group in GROUPS.values() for name, command in group.items()}
