"""What a network gets right and wrong on a split, image by image (`allconv-resnet evaluate --details`)."""

import csv
import heapq
import math

import keras
import numpy as np
import scipy.special

from allconv_resnet import files
from allconv_resnet.errors import BadInput
from allconv_resnet.layers import standardize
from allconv_resnet.plotting import new_figure, plain, save_figure

LOGITS = "logits.npz"
WRITTEN = (LOGITS, "predictions.csv", "classes.csv", "confusion.png", "mistakes.png")
SHEET = (5, 8)  # rows and columns of the sheet of mistakes
NAMED = 50  # classes of a confusion matrix that has room for their names


def require_directory(directory):
    """Returns the path of a directory that `write_details` can write to.

    Args:
        directory: Path of a directory, which need not exist.

    Raises:
        BadInput: if it cannot be written to, or has files with the names of those that would be written.
    """
    directory = files.output_directory(directory, "details")
    if not (directory / LOGITS).exists() and (foreign := [name for name in WRITTEN if (directory / name).exists()]):
        raise BadInput(f"{directory / foreign[0]} would be overwritten, but it is not of an earlier --details")
    return directory


def write_details(model, source, split, recipe, directory):
    """Writes what a network predicts for each image of a split.

    | file | |
    |---|---|
    | `logits.npz` | `logits`, float16 `[n, classes]`, and `labels`, `[n]`, from which all other files can be drawn |
    | `predictions.csv` | a row for each image: its number in the split, its class, the predicted one, its probability |
    | `classes.csv` | a row for each class: its images, those that were predicted wrong, and their fraction |
    | `confusion.png` | the confusion matrix: how often images of one class (row) are predicted as another (column) |
    | `mistakes.png` | the mistakes with the highest probabilities |

    Args:
        model: Keras model from standardized images to logits.
        source: `Source` of the recipe's dataset.
        split: Name of the split.
        recipe: `Recipe` of the network.
        directory: Path of the directory, which is created if it does not exist.

    Raises:
        BadInput: if the files cannot be written.
    """
    names, directory = source.label_names, require_directory(directory)
    rows, mistakes, all_logits = [], [], []
    for numbers, images, labels in _batches(source, split, recipe):
        logits = keras.ops.convert_to_numpy(model(images, training=False)).astype(np.float32)
        all_logits.append(logits.astype(np.float16))
        probabilities = scipy.special.softmax(logits, axis=-1)
        for number, image, label, values in zip(numbers, images, labels, probabilities, strict=True):
            predicted = int(values.argmax())
            rows.append((number, int(label), predicted, float(values[predicted])))
            if predicted != label:
                item = (float(values[predicted]), -number, int(label), predicted, keras.ops.convert_to_numpy(image))
                (heapq.heappush if len(mistakes) < math.prod(SHEET) else heapq.heappushpop)(mistakes, item)
    confusion = np.zeros((len(names), len(names)), int)
    np.add.at(confusion, tuple(np.array([row[1:3] for row in rows]).T), 1)
    try:
        directory.mkdir(parents=True, exist_ok=True)
        labels = np.array([row[1] for row in rows], np.int32)
        with files.replacing(directory / LOGITS) as temporary:
            np.savez_compressed(temporary, logits=np.concatenate(all_logits), labels=labels)
        _write_csv(
            directory / "predictions.csv",
            ("image", "class", "predicted", "probability"),
            [(i, names[label], names[predicted], f"{probability:.6f}") for i, label, predicted, probability in rows],
        )
        totals, errors = confusion.sum(axis=1), confusion.sum(axis=1) - confusion.diagonal()
        _write_csv(
            directory / "classes.csv",
            ("class", "images", "wrong", "error"),
            [(*row, f"{row[2] / max(1, row[1]):.6f}") for row in zip(names, totals, errors, strict=True)],
        )
        _draw_confusion(confusion, names, directory / "confusion.png")
        _draw_mistakes(sorted(mistakes, key=lambda item: item[:2], reverse=True), names, directory / "mistakes.png")
    except OSError as error:
        raise BadInput(f"The details cannot be written to {directory}: {error.strerror or error}") from error


def _batches(source, split, recipe):
    """Yields the numbers of images in the split, the standardized images, and their labels, each once and in order.

    Images that cannot be decoded are left out.
    """
    if keras.backend.backend() == "tensorflow":
        start = 0
        for images, labels, weights in source.evaluation_batches(split, recipe, padded=True):
            present = np.flatnonzero(weights.numpy())
            if present.size:
                yield start + present, keras.ops.take(images, present, axis=0), labels.numpy()[present]
            start += len(labels)
    else:
        images, labels = source.arrays(split)
        for start in range(0, len(labels), recipe.run.batch_size):
            part = slice(start, start + recipe.run.batch_size)
            yield range(start, start + len(labels[part])), standardize(images[part]), labels[part]


def _write_csv(path, header, rows):
    with files.replacing(path) as temporary, open(temporary, "w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([header, *rows])


def _draw_confusion(confusion, names, path):
    names = [plain(name) for name in names]
    few = len(names) <= NAMED
    size = 2.5 + 0.45 * len(names) if few else 10
    figure, axes = new_figure(size, size * 0.95)
    shares = confusion / np.maximum(1, confusion.sum(axis=1, keepdims=True))
    picture = axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    figure.colorbar(picture, label="fraction of the images of a class", shrink=0.7)
    if few:
        axes.set_xticks(range(len(names)), names, rotation=90)
        axes.set_yticks(range(len(names)), names)
        for (row, column), count in np.ndenumerate(confusion):
            if count:
                color = "white" if shares[row, column] > 0.5 else "black"
                axes.text(column, row, count, ha="center", va="center", fontsize=7, color=color)
    axes.set(xlabel="predicted class", ylabel="class")
    save_figure(figure, path)


def _draw_mistakes(mistakes, names, path):
    names = [plain(name) for name in names]
    rows = max(1, math.ceil(len(mistakes) / SHEET[1]))
    figure, axes = new_figure(1.4 * SHEET[1], 1.75 * rows + 0.4, rows, SHEET[1], squeeze=False)
    for place in axes.flat:
        place.axis("off")
    for place, (probability, number, label, predicted, image) in zip(axes.flat, mistakes, strict=False):
        image = (image - image.min()) / max(float(image.max() - image.min()), 1e-6)
        place.imshow(image if image.shape[-1] == 3 else image[..., 0], cmap="gray", vmin=0, vmax=1)
        place.set_title(f"{-number}: {names[label]}\nas {names[predicted]}, {probability:.0%}", fontsize=7)
    figure.suptitle("The mistakes with the highest probabilities" if mistakes else "There are no mistakes")
    save_figure(figure, path)
