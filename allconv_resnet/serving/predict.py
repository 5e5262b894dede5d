"""Predictions of an exported network for image files. They need only TensorFlow and the export."""

import numpy as np
import scipy.special
import tensorflow as tf

from allconv_resnet import errors
from allconv_resnet.errors import BadInput
from allconv_resnet.serving.card import LABELS
from allconv_resnet.serving.encoded import inspect
from allconv_resnet.serving.images import image_files
from allconv_resnet.serving.loading import load_savedmodel
from allconv_resnet.serving.versions import versions_of

BATCH = 64


def latest_version(export):
    """Returns the directory of the newest version of an export, or the export itself if it is one version.

    Args:
        export: Path of an export, or of one version of it.

    Raises:
        BadInput: if there is no exported model.
    """
    try:
        versions = versions_of(export)
    except OSError as error:
        raise BadInput(f"The export in {export} cannot be read: {error.strerror}") from error
    if not versions:
        raise BadInput(f"{export} has no exported model: neither saved_model.pb nor a numbered directory with one")
    return versions[max(versions)]


def load_export(export):
    """Loads an export, or one version of it.

    Args:
        export: Path.

    Returns:
        The loaded SavedModel, and the path of its version.

    Raises:
        BadInput: if there is no exported model, or it cannot be loaded.
    """
    directory = latest_version(export)
    try:
        loaded = load_savedmodel(directory)
        loaded.signatures["serve_bytes"]
    except Exception as error:  # TensorFlow raises many types of errors for damaged files
        why = f"it has no signature {error}" if isinstance(error, KeyError) else errors.reason(error)
        raise BadInput(f"The export in {directory} cannot be loaded: {why}") from error
    return loaded, directory


def predict_export(export, paths, top=5, say=lambda text: None):
    """Yields, for each image, its name and its most probable classes.

    Args:
        export: Path of an export, or of one version of it.
        paths: Sequence of image files or directories, or `-` for standard input.
        top: Integer, number of classes. All classes are returned if the network has fewer.
        say: Function of a string, which is told the version that predicts, and whether `top` is more than there are
            classes.

    Yields:
        `{"image": name, "predictions": [{"class": int, "label": str, "probability": float}, ...]}`, or
        `{"image": name, "error": str}` for an image that does not exist or cannot be read.

    Raises:
        BadInput: if the export does not exist or cannot be loaded.
    """
    if top < 1:
        raise BadInput(f"top must be positive. Received: top={top}")
    loaded, directory = load_export(export)
    serve = loaded.signatures["serve_bytes"]
    say(f"Predictions of {directory}")
    classes = serve.structured_outputs["logits"].shape[-1]
    if top > classes:
        say(f"The network has {classes} classes. Received: top={top}")
    best = _Best(serve, top, directory)
    names, contents = [], []
    for name, content in image_files(paths):
        if isinstance(content, BadInput):
            yield from _answers(best, names, contents)
            names, contents = [], []
            yield {"image": name, "error": str(content)}
            continue
        names.append(name)
        contents.append(content)
        if len(names) == BATCH:
            yield from _answers(best, names, contents)
            names, contents = [], []
    yield from _answers(best, names, contents)


class _Best:
    """The `top` most probable classes of files. An export answers with at most 5, and with the logits of all."""

    def __init__(self, serve, top, directory):
        self.serve, self.top, self.labels = serve, top, None
        shape = serve.structured_outputs
        if min(top, shape["logits"].shape[-1]) > shape["classes"].shape[-1]:
            self.labels = _labels(directory, shape["logits"].shape[-1])

    def __call__(self, contents):
        """Returns a list of predictions for each file."""
        found = {key: value.numpy() for key, value in self.serve(images=tf.constant(contents)).items()}
        if self.labels is not None:
            classes = np.argsort(-found["logits"], axis=1, kind="stable")[:, : self.top]
            every = scipy.special.softmax(found["logits"], axis=1)
            labels, probabilities = self.labels[classes], np.take_along_axis(every, classes, 1)
        else:
            classes, probabilities = found["classes"][:, : self.top], found["probabilities"]
            labels = np.char.decode(found["labels"].astype(bytes), "utf-8")
        return [
            [{"class": int(c), "label": str(label), "probability": float(p)} for c, label, p in zip(*row, strict=False)]
            for row in zip(classes, labels, probabilities, strict=True)
        ]


def _damage(content):
    """Returns what is wrong with a file that could not be decoded, which TensorFlow says in words of its own."""
    try:
        return inspect(content).damage()
    except BadInput as error:
        return str(error)


def _labels(directory, classes):
    path = directory / LABELS
    try:
        labels = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        why = "it is not there" if isinstance(error, FileNotFoundError) else "it cannot be read"
        raise BadInput(f"More than 5 classes need {path}, which a new export has: {why}") from error
    if len(labels) != classes:
        raise BadInput(f"{path} must have {classes} names of classes, one a line. Received: {len(labels)} lines")
    return np.array(labels, object)


def _answers(best, names, contents):
    if not names:
        return
    try:
        predictions = best(contents)
    except tf.errors.OpError:
        if len(names) == 1:
            yield {"image": names[0], "error": f"{names[0]} is not an image that can be read: {_damage(contents[0])}"}
            return
        for name, content in zip(names, contents, strict=True):  # to find the bad image
            yield from _answers(best, [name], [content])
        return
    for name, found in zip(names, predictions, strict=True):
        yield {"image": name, "predictions": found}
