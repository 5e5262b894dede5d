"""Predictions of an exported network for image files. They need only TensorFlow and the export."""

import tensorflow as tf

from allconv_resnet import errors
from allconv_resnet.errors import BadInput
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
    versions = versions_of(export)
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
        top: Integer, number of classes. An export returns at most 5.
        say: Function of a string, which is told the version that predicts, and whether `top` is more than it returns.

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
    most = serve.structured_outputs["classes"].shape[-1]
    if most is not None and top > most:
        say(f"The export answers with the {most} most probable classes, and not with more. Received: top={top}")
    names, contents = [], []
    for name, content in image_files(paths):
        if isinstance(content, BadInput):
            yield from _answers(serve, names, contents, top)
            names, contents = [], []
            yield {"image": name, "error": str(content)}
            continue
        names.append(name)
        contents.append(content)
        if len(names) == BATCH:
            yield from _answers(serve, names, contents, top)
            names, contents = [], []
    yield from _answers(serve, names, contents, top)


def _answers(serve, names, contents, top):
    if not names:
        return
    try:
        outputs = {key: value.numpy() for key, value in serve(images=tf.constant(contents)).items()}
    except tf.errors.OpError as error:
        if len(names) == 1:
            yield {"image": names[0], "error": f"{names[0]} is not an image that can be read: {reason(error)}"}
            return
        for name, content in zip(names, contents, strict=True):  # to find the bad image
            yield from _answers(serve, [name], [content], top)
        return
    for i, name in enumerate(names):
        best = zip(*(outputs[key][i, :top] for key in ("classes", "labels", "probabilities")), strict=True)
        predictions = [{"class": int(c), "label": label.decode(), "probability": float(p)} for c, label, p in best]
        yield {"image": name, "predictions": predictions}


def reason(error):
    """Returns the part of a TensorFlow error message that says what is wrong with an image."""
    lines = [line.strip() for line in error.message.splitlines()]
    # TensorFlow's message names the operation first and then the cause.
    line = next((line for line in lines if "An image" in line or "decode" in line or "Invalid" in line), lines[0])
    return errors.reason(ValueError(line))
