"""Exports a trained network with Keras's `model.export` as one file for another runtime: ONNX or LiteRT."""

import shutil
import tempfile
from pathlib import Path

import keras
import numpy as np

from allconv_resnet import files
from allconv_resnet.errors import BadInput, reason
from allconv_resnet.layers import Standardization

SUFFIXES = {"onnx": ".onnx", "litert": ".tflite"}


def export_file(model, directory, version, kind, images=None):
    """Writes `directory/version.onnx` or `directory/version.tflite`, or with `images` `directory/version.int8.tflite`.

    The exported model takes `images`, float32 `[n, h, w, c]` of the network's size, with pixels from 0 to 255, and
    returns `logits` and `probabilities`, float32 `[n, num_classes]`. Only the SavedModel takes encoded files and images
    of other sizes: neither runtime decodes JPEG, and each resizes in its own way. In a LiteRT file n is 1 until the
    interpreter resizes its input, and `signature runners` do that by themselves.

    Args:
        model: Keras model from standardized images to logits, computing in float32.
        directory: Path of the directory to write to.
        version: Integer, the name of the file without its suffix.
        kind: `"onnx"` or `"litert"`.
        images: Array `[n, h, w, c]` of representative images, pixels from 0 to 255, or None. LiteRT then quantizes
            weights and activations to int8, with the ranges that these images have. Inputs and outputs stay float32.

    Returns:
        Path of the file.

    Raises:
        BadInput: if the converter is not installed, or the file cannot be written.
    """
    inputs = keras.Input(model.input_shape[1:], name="images", dtype="float32")
    logits = model(Standardization(dtype="float32")(inputs), training=False)
    whole = keras.Model(inputs, {"logits": logits, "probabilities": keras.layers.Softmax(dtype="float32")(logits)})
    whole(keras.ops.zeros((1, *model.input_shape[1:])))  # Keras exports to ONNX only models that were called
    target = Path(directory) / f"{version}{'' if images is None else '.int8'}{SUFFIXES[kind]}"
    with tempfile.TemporaryDirectory() as temporary:
        file = Path(temporary) / target.name
        try:
            whole.export(str(file), format=kind, verbose=False, **({} if images is None else _quantization(images)))
        except ImportError as error:
            raise BadInput(f"--format {kind} needs: pip install 'allconv_resnet[{kind}]' ({error})") from error
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            with files.replacing(target) as partial:
                shutil.copyfile(file, partial)
        except OSError as error:
            raise BadInput(f"The export cannot be written to {target}: {error.strerror}") from error
    return target


def _quantization(images):
    """Returns the settings of TensorFlow's LiteRT converter for int8."""
    import tensorflow as tf

    def representative():
        for image in np.asarray(images, np.float32):
            yield {"images": image[None]}

    return {"optimizations": [tf.lite.Optimize.DEFAULT], "representative_dataset": representative}
