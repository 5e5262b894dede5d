"""What the theory commands share: tables, JSON results, progress, and access to datasets and trained runs.

Only this module of `theory` uses `allconv_resnet.data` and `allconv_resnet.training`. It imports them when they are
needed, because they import TensorFlow, which the theory itself does not need. It does the same with Keras, because
`--help` needs no Keras.
"""

from dataclasses import fields
from datetime import UTC, datetime
from pathlib import Path

import numpy as np

from allconv_resnet import files
from allconv_resnet.errors import BadInput
from allconv_resnet.progress import Progress


def write_results(path, **content):
    """Writes the results of an experiment and the environment as JSON, atomically.

    Args:
        path: Path. The directory is created if it does not exist.
        **content: Entries of the JSON object, see `json_ready`.
    """
    import keras

    from allconv_resnet.environment import describe

    measured = datetime.now(UTC).isoformat(timespec="seconds")
    environment = describe(backend=keras.backend.backend(), measured=measured)
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    files.write_json(path, json_ready({"environment": environment, **content}))


def json_ready(value):
    """Returns a value with the types of JSON: floats rounded to seven digits, and None for those that are not finite.

    Args:
        value: Dictionary, sequence, NumPy array, path, number, string, boolean or None, nested in any way.
    """
    if isinstance(value, dict):
        return {key: json_ready(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple | np.ndarray):
        return [json_ready(entry) for entry in value]
    if isinstance(value, float | np.floating):
        return float(f"{value:.7g}") if np.isfinite(value) else None
    if isinstance(value, np.generic):
        return value.item()
    return str(value) if isinstance(value, Path) else value


def print_table(headings, rows):
    """Prints a table with floats to four significant digits and a dash for None.

    Args:
        headings: Sequence of strings.
        rows: Sequence of rows, each with one value for each heading.
    """

    def cell(value):
        return "-" if value is None else f"{value:.4g}" if isinstance(value, float | np.floating) else str(value)

    lines = [list(headings), *([cell(value) for value in row] for row in rows)]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    for first, *rest in lines:
        print("  ".join([first.ljust(widths[0]), *map(str.rjust, rest, widths[1:])]))


def legend_beside(axes, **options):
    """Puts the legend of axes to their right, where it covers no data.

    Args:
        axes: `matplotlib.axes.Axes`.
        **options: Further arguments of `Axes.legend`.
    """
    axes.legend(loc="upper left", bbox_to_anchor=(1.02, 1.0), borderaxespad=0, fontsize="small", **options)


def add_statement(figure, text):
    """Writes what the theorem states, in one line, below a figure.

    Args:
        figure: `matplotlib.figure.Figure`.
        text: String.
    """
    figure.supxlabel(text, fontsize="small")


def progress_callback(label):
    """Returns a function of `(done, total)` that shows the progress of a job on standard error.

    Args:
        label: String, the name of the job.
    """
    progress = Progress(total=1)

    def show(done, total):
        progress.total = total
        message = f"{label}: {done:,}/{total:,}"
        if progress.terminal and done == total:
            progress.say(message)
        elif progress.due():
            progress.show(done, message)

    return show


def refuse_unused(options, choice, used):
    """Refuses options that differ from their defaults although they would have no effect.

    Args:
        options: Instance of a dataclass whose fields have defaults.
        choice: String, what was chosen, for the message: `"the experiment network"`.
        used: Iterable of strings, the names of the options that it uses.

    Raises:
        BadInput: if there is such an option.
    """
    rest = [f for f in fields(options) if f.name not in used]
    unused = [f"{f.name}={getattr(options, f.name)}" for f in rest if getattr(options, f.name) != f.default]
    if unused:
        raise BadInput(f"Options that {choice} does not use must not be given. Received: {', '.join(unused)}")


def load_images(name, data_dir, split="train", other=True):
    """Returns the images and labels of a split of a dataset.

    Args:
        name: String, name of the dataset.
        data_dir: Path of the directory of tensorflow-datasets, or None for the default.
        split: String, name of the split.
        other: Whether the experiment has `--data`, so that the message may advise another dataset.

    Returns:
        uint8 array `[n, height, width, channels]` and int64 array `[n]`.

    Raises:
        BadInput: if the dataset is not available.
    """
    from allconv_resnet.data.source import load_data

    try:
        return load_data(name, data_dir).arrays(split)
    except BadInput as error:
        # The commands that train networks recommend an option that the theory does not have.
        advice = "`train_cifar.py --recipe digits`"
        message = str(error) if other else str(error).split(f"; {advice}")[0]
        raise BadInput(message.replace(advice, "`--data digits`")) from error


def load_first_images(name, data_dir, count):
    """Returns the first training images of a dataset, each with mean 0 and standard deviation 1, and their labels.

    Only these images are standardized, so that the memory does not depend on the size of the dataset.

    Args:
        name: String, name of the dataset. `"digits"` needs no download.
        data_dir: Path of the directory of tensorflow-datasets, or None for the default.
        count: Positive integer, number of images.

    Returns:
        float32 array `[count, height, width, channels]` and int64 array `[count]`.

    Raises:
        BadInput: if the dataset is not available, or has fewer images.
    """
    images, labels = load_images(name, data_dir)
    check_count(count, images, name)
    return standardized(images[:count]), labels[:count].copy()


def check_count(count, images, name):
    """Raises `BadInput` if a dataset has fewer images than were asked for.

    Args:
        count: Positive integer.
        images: Array, the images of the dataset.
        name: String, name of the dataset.
    """
    if count > len(images):
        raise BadInput(f"images must be at most {len(images)}, the size of {name}. Received: images={count}")


def standardized(images):
    """Returns images with mean 0 and standard deviation 1 each, as a float32 array.

    Args:
        images: uint8 array `[n, height, width, channels]`.
    """
    import keras

    from allconv_resnet.layers import standardize

    return keras.ops.convert_to_numpy(standardize(images))


def load_cifar10(data_dir):
    """Returns the training images of CIFAR-10, each with mean 0 and standard deviation 1, and their labels.

    Args:
        data_dir: Path of the directory of tensorflow-datasets, or None for the default.

    Returns:
        float32 array `[50000, 32, 32, 3]` and int64 array `[50000]`.
    """
    images, labels = load_images("cifar10", data_dir)
    return standardized(images), labels


def load_run(run_dir):
    """Returns the network of a run at its latest checkpoint, and the step of that checkpoint.

    Args:
        run_dir: Path of the run directory.

    Returns:
        Keras model and integer.
    """
    from allconv_resnet.training.weights import load_model

    model, _, step = load_model(run_dir)
    return model, step
