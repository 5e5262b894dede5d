"""Loads SavedModels."""

import tempfile
from pathlib import Path

import tensorflow as tf


def load_savedmodel(directory):
    """Returns a SavedModel, as `tf.saved_model.load` does.

    TensorFlow takes the path of the variables as a pattern, so that it would not find those in a directory such as
    `lr[0.05]`. The model is therefore loaded through a symbolic link.

    Args:
        directory: Path.

    Raises:
        OSError, ValueError or tf.errors.OpError: if the directory has no SavedModel that can be loaded.
    """
    with tempfile.TemporaryDirectory() as place:
        link = Path(place) / "model"
        link.symlink_to(Path(directory).resolve())
        return tf.saved_model.load(str(link))
