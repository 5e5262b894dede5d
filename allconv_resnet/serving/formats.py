"""Exports a trained network with Keras's `model.export` as one file for another runtime: ONNX or LiteRT."""

import shutil
import tempfile
from pathlib import Path

import keras
import numpy as np

from allconv_resnet import files
from allconv_resnet.errors import BadInput
from allconv_resnet.layers import Standardization

SUFFIXES = {"onnx": ".onnx", "litert": ".tflite"}


def path_of(directory, version, kind, quantize=None):
    """Returns the path of an exported file, such as `directory/600.onnx` or `directory/600.int8.tflite`.

    Args:
        directory: Path.
        version: Integer.
        kind: `"onnx"` or `"litert"`.
        quantize: `"int8"` or None.
    """
    return Path(directory) / f"{version}{f'.{quantize}' if quantize else ''}{SUFFIXES[kind]}"


def export_file(model, path, kind, images=None):
    """Writes a network to a file.

    The exported model takes `images`, float32 `[n, h, w, c]` of the network's size, with pixels from 0 to 255, and
    returns `logits` and `probabilities`, float32 `[n, num_classes]`. Only the SavedModel takes encoded files and images
    of other sizes: neither runtime decodes JPEG, and each resizes in its own way.

    Args:
        model: Keras model from standardized images to logits, computing in float32.
        path: Path of the file, see `path_of`.
        kind: `"onnx"` or `"litert"`.
        images: Array `[n, h, w, c]` of representative images, pixels from 0 to 255, or None. LiteRT then quantizes
            weights and activations to int8, with the ranges that these images have. Inputs and outputs stay float32.

    Raises:
        BadInput: if the converter is not installed, or the file cannot be written.
    """
    inputs = keras.Input(model.input_shape[1:], name="images", dtype="float32")
    logits = model(Standardization(dtype="float32")(inputs), training=False)
    whole = keras.Model(inputs, {"logits": logits, "probabilities": keras.layers.Softmax(dtype="float32")(logits)})
    whole(keras.ops.zeros((1, *model.input_shape[1:])))  # Keras exports to ONNX only models that were called
    with tempfile.TemporaryDirectory() as temporary:
        file = Path(temporary) / path.name
        try:
            whole.export(str(file), format=kind, verbose=False, **({} if images is None else _quantization(images)))
        except ImportError as error:
            remedy = "pip install -e '.[onnx]' in the checkout" if kind == "onnx" else "the whole package tensorflow"
            raise BadInput(f"--format {kind} needs {remedy}: {error}") from error
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with files.replacing(path) as partial:
                shutil.copyfile(file, partial)
        except OSError as error:
            raise BadInput(f"The export cannot be written to {path}: {error.strerror}") from error


def _quantization(images):
    """Returns the settings of TensorFlow's LiteRT converter for int8."""
    import tensorflow as tf

    def representative():
        for image in np.asarray(images, np.float32):
            yield {"images": image[None]}

    return {"optimizations": [tf.lite.Optimize.DEFAULT], "representative_dataset": representative}
