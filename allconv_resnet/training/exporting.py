"""Exports the network of a run directory."""

import contextlib
import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import keras
import numpy as np

from allconv_resnet import files, pretrained
from allconv_resnet.data.source import load_for_recipe
from allconv_resnet.errors import BadInput
from allconv_resnet.progress import say
from allconv_resnet.serving.card import CARD, LABELS
from allconv_resnet.training import run_directory
from allconv_resnet.training.engines import keeps_run_directory
from allconv_resnet.training.run_directory import EXPORT, is_export
from allconv_resnet.training.weights import load_model

SUFFIXES = {"savedmodel": "", "onnx": ".onnx", "litert": ".tflite"}
NETWORK = "assets.extra/network.json"  # the Keras model and the names of its classes, without the weights
REPRESENTATIVE = 256  # images that determine the ranges of int8


def export_run(run_dir, checkpoint="latest", output_dir=None, kind="savedmodel", quantize=None, data_dir=None):
    """Exports the network of a run, with a model card and the names of the classes.

    Args:
        run_dir: Path of the run directory, or the name of a network that comes with the package.
        checkpoint: Which checkpoint, see `weights.load_model`.
        output_dir: Path of the directory of all versions, or None for `run_dir/export`, which is not possible for a
            network of the package. The version is the step, or one more than the newest version if that is larger, so
            that the newest version is always the last export. An export of the same step is replaced in
            `run_dir/export` alone: in other directories it may be that of another run.
        kind: `"savedmodel"`, `"onnx"` or `"litert"`.
        quantize: `"int8"` or None. The ranges are those of training images.
        data_dir: Directory of tensorflow-datasets with these images.

    Returns:
        Path of the SavedModel's directory, which has the card and the names, or of the file. In that case they lie
        beside it as `FILE.MODEL_CARD.md` and `FILE.labels.txt`.

    Raises:
        BadInput: if there is no such run or checkpoint, or the export cannot be written.
    """
    if quantize and kind != "litert":
        raise BadInput(f"--quantize needs --format litert. Received: quantize={quantize}, format={kind}")
    if output_dir is None and str(run_dir) in pretrained.names():
        raise BadInput(f"{run_dir} comes with the package, which is not written to: export needs --output-dir")
    run_dir = pretrained.find(run_dir)
    recipe = run_directory.read_recipe(run_dir)
    centre = recipe.data.centre
    if centre is None:
        raise BadInput(
            f'{run_dir}/config.json does not say which part of an image evaluation shows: add "centre" to its data, '
            f"1.0 for images of one size or 0.875 for records of ImageNet"
        )
    if keras.backend.backend() != "tensorflow":
        return _export_on_tensorflow(run_dir, checkpoint, output_dir, kind, quantize, data_dir)
    from allconv_resnet.serving.card import file_usage, model_card, savedmodel_usage
    from allconv_resnet.serving.export import TOP, export_savedmodel
    from allconv_resnet.serving.formats import export_file, path_of

    directory = files.output_directory(output_dir, "output_dir") or Path(run_dir) / EXPORT
    labels = run_directory.read_labels(run_dir)
    images = _representative_images(recipe, data_dir) if quantize else None
    model, recipe, step = load_model(run_dir, checkpoint)
    try:
        files.remove_leftovers(directory)
        version = _next_version(directory, step, kind, directory.resolve() == (Path(run_dir) / EXPORT).resolve())
    except OSError as error:
        raise BadInput(f"The export cannot be written to {directory}: {error.strerror}") from error
    size, classes = recipe.data.image_size, len(labels)
    weights = (sum(keras.ops.size(each) for each in model.trainable_variables), model.count_params())
    record = (run_directory.read_metrics(run_dir), _last_session(run_dir, recipe), labels, tuple(map(int, weights)))
    if kind == "savedmodel":
        card = model_card(recipe, step, checkpoint, *record, savedmodel_usage(size, classes, min(TOP, classes)))
        network = {"labels": labels, "model": keras.saving.serialize_keras_object(model)}
        return export_savedmodel(model, labels, directory, version, centre, card, {NETWORK: network})
    path = path_of(directory, version, kind, quantize)
    usage = file_usage(path, kind, size, classes, 0 if images is None else len(images))
    if recipe.precision != "float32":  # the converters of ONNX and LiteRT do not support mixed precision
        values = model.get_weights()
        model = recipe.replace(precision="float32").build_model()
        model.set_weights(values)
    export_file(model, path, kind, images)
    try:
        files.write_text(path.with_name(f"{path.name}.{CARD}"), model_card(recipe, step, checkpoint, *record, usage))
        files.write_text(path.with_name(f"{path.name}.{LABELS}"), "".join(f"{label}\n" for label in labels))
    except OSError as error:
        raise BadInput(f"The card of {path} cannot be written: {error.strerror}") from error
    return path


def read_network(directory):
    """Returns the Keras model in an export, with its weights, and the names of its classes.

    Args:
        directory: Path of the directory of all versions, of which the newest is read, or of one of them.

    Returns:
        Keras model from standardized images to logits, and a tuple of strings. None if the directory has no export.

    Raises:
        BadInput: if the export cannot be read.
    """
    from allconv_resnet.serving.loading import load_savedmodel

    directory = Path(directory)
    try:
        path = directory if (directory / "saved_model.pb").exists() else max(_versions(directory))[1]
    except (ValueError, OSError):
        return None
    try:
        content = json.loads((path / NETWORK).read_text(encoding="utf-8"))
        model = keras.saving.deserialize_keras_object(content["model"])
        for variable, value in zip(model.variables, load_savedmodel(path).variables, strict=True):
            variable.assign(value.numpy())
        return model, tuple(content["labels"])
    except Exception as error:  # TensorFlow and Keras raise many types of errors for damaged files
        reason = next(iter(str(error).splitlines()), type(error).__name__)
        raise BadInput(
            f"The network of the export {path} cannot be read: {reason}. `allconv-resnet export` of this version "
            f"writes it again"
        ) from error


def _representative_images(recipe, data_dir):
    """Returns images of the training split as evaluation shows them, an array `[n, h, w, c]` of pixels."""
    data = recipe.data
    source = load_for_recipe(data, (data.train_split,), data_dir, recipe.seed)
    if source.kind == "arrays":
        images, _ = source.arrays(data.train_split)
        chosen = np.random.default_rng(recipe.seed).permutation(len(images))[:REPRESENTATIVE]
        return images[np.sort(chosen)]
    import tensorflow as tf

    from allconv_resnet.serving.export import decode_image

    images = []
    present = source.evaluation_files(data.train_split, recipe, 0, 1).unbatch().filter(lambda file: file.present)
    for image in present.map(lambda file: file.images):
        with contextlib.suppress(tf.errors.InvalidArgumentError):  # it cannot be decoded, and training skips it too
            images.append(decode_image(source.contents(image), *data.image_size, data.centre).numpy())
        if len(images) == REPRESENTATIVE:
            break
    if not images:
        raise BadInput(f"None of the training images of {source.name} can be decoded")
    return np.stack(images)


def _last_session(run_dir, recipe):
    """Returns what a model card shows of the last session. What environment.json does not have is not recorded."""
    shown = {"versions": {}, "precision": recipe.precision, "cpu": "not recorded", "commit": "not recorded", "gpus": []}
    recorded = (run_directory.read_sessions(run_dir) or [{}])[-1]
    return shown | {key: recorded[key] for key in shown if isinstance(recorded.get(key), type(shown[key]))}


def _next_version(directory, step, kind, replace):
    """Returns the version of an export, so that it is the newest of its directory, and no file of the user is lost.

    An export of the same step is replaced only if it must be of the same run.
    """
    newest, path = max(_versions(directory, kind), default=(0, directory))
    if step > newest or (step == newest and replace and (path.is_file() or is_export(path))):
        return step
    say(f"The export of step {step:,} is version {newest + 1}, since {directory} has version {newest} already")
    return newest + 1


def _versions(directory, kind="savedmodel"):
    """Returns the versions of an export with their paths, as a list of pairs."""
    paths = directory.iterdir() if directory.exists() else []
    paths = [path for path in paths if path.name.endswith(SUFFIXES[kind])]
    names = [(path.name.removesuffix(SUFFIXES[kind]).removesuffix(".int8"), path) for path in paths]
    return [(int(name), path) for name, path in names if name.isascii() and name.isdecimal()]


def _export_on_tensorflow(run_dir, checkpoint, output_dir, kind, quantize, data_dir):
    """Exports a run in a new process, since the exporters need Keras on TensorFlow and a process has one backend."""
    command = [sys.executable, "-m", "allconv_resnet", "export", str(run_dir), "--checkpoint", checkpoint]
    options = {"format": kind, "output-dir": output_dir, "quantize": quantize, "data-dir": data_dir}
    command += [part for name, value in options.items() if value for part in (f"--{name}", str(value))]
    environment = {**os.environ, "KERAS_BACKEND": "tensorflow"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    if done.returncode:
        reason = done.stderr.strip().splitlines()[-1] if done.stderr.strip() else f"status {done.returncode}"
        raise BadInput(f"Keras on TensorFlow cannot export the run: {reason.removeprefix('error: ')}")
    if done.stderr.strip():
        say(done.stderr.strip())
    return Path(done.stdout.strip().splitlines()[-1])


def export_at_the_end(run_dir, strategy="auto"):
    """Exports a run that has finished and prints the path, unless its network has been exported already.

    Args:
        run_dir: Path of the run directory.
        strategy: Strategy of the run. Of the machines of a job, the one that keeps the run directory exports.
    """
    if not keeps_run_directory(strategy):
        return
    if importlib.util.find_spec("tensorflow") is None:
        say("The network is not exported: a SavedModel needs TensorFlow, which is not installed")
        return
    run_dir = Path(run_dir)
    if str(run_dir) in pretrained.names():  # an absolute path is never the name of a network of the package
        run_dir = run_dir.absolute()
    if _exported(run_dir):
        return
    say(f"Exported to {export_run(run_dir)}")


def _exported(run_dir):
    """Returns whether the newest export of a run is complete and not older than its network."""
    try:
        _, newest = max(_versions(run_dir / EXPORT))
        return (newest / CARD).stat().st_mtime >= (run_dir / run_directory.MODEL).stat().st_mtime
    except (ValueError, OSError):  # no version, or an incomplete one
        return False
