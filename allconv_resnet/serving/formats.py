"""Exports a trained network with Keras's `model.export` as one file for another runtime: ONNX or LiteRT."""

import shutil
import tempfile
from pathlib import Path

import keras

from allconv_resnet import files
from allconv_resnet.errors import BadInput
from allconv_resnet.layers import Standardization

SUFFIXES = {"onnx": ".onnx", "litert": ".tflite"}


def export_file(model, directory, version, kind):
    """Writes `directory/version.onnx` or `directory/version.tflite`.

    The exported model takes `images`, float32 `[n, h, w, c]` of the network's size, with pixels from 0 to 255, and
    returns `logits` and `probabilities`, float32 `[n, num_classes]`. Only the SavedModel takes encoded files and images
    of other sizes: neither runtime decodes JPEG, and each resizes in its own way.

    Args:
        model: Keras model from standardized images to logits, computing in float32.
        directory: Path of the directory to write to.
        version: Integer, the name of the file without its suffix.
        kind: `"onnx"` or `"litert"`.

    Returns:
        Path of the file.

    Raises:
        BadInput: if the converter is not installed, or the file cannot be written.
    """
    images = keras.Input(model.input_shape[1:], name="images", dtype="float32")
    logits = model(Standardization(dtype="float32")(images), training=False)
    whole = keras.Model(images, {"logits": logits, "probabilities": keras.layers.Softmax(dtype="float32")(logits)})
    whole(keras.ops.zeros((1, *model.input_shape[1:])))  # Keras exports to ONNX only models that were called
    target = Path(directory) / f"{version}{SUFFIXES[kind]}"
    with tempfile.TemporaryDirectory() as temporary:
        file = Path(temporary) / target.name
        try:
            whole.export(str(file), format=kind, verbose=False)
        except ImportError as error:
            raise BadInput(f"--format {kind} needs: pip install 'allconv_resnet[{kind}]' ({error})") from error
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            with files.replacing(target) as partial:
                shutil.copyfile(file, partial)
        except OSError as error:
            raise BadInput(f"The export cannot be written to {target}: {error.strerror}") from error
    return target
