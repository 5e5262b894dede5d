"""An exported network that the server can call."""

import threading
import time

import numpy as np
import tensorflow as tf

from allconv_resnet import memory
from allconv_resnet.errors import BadInput, reason
from allconv_resnet.serving.encoded import inspect
from allconv_resnet.serving.freezing import freeze
from allconv_resnet.serving.loading import load_savedmodel
from allconv_resnet.serving.refused import Refused
from allconv_resnet.serving.warmup import read_warmup

SLICE = 256  # most images in one call of the network, which bounds its memory; the largest batch of benchmarks/speed.py


class SavedModel:
    """One version of an exported network.

    Args:
        directory: Path of the version.
        name: String, the name of the model.
        version: Integer.

    Attributes:
        signatures: Dictionary from the name of each signature to the `tf.TensorSpec` of its input.
        outputs: Dictionary from the name of each signature to a dictionary of `tf.TensorSpec`.

    Raises:
        BadInput: if there is no export, or it cannot be loaded.
    """

    def __init__(self, directory, name="model", version=1):
        self.directory, self.name, self.version = directory, name, version
        try:
            self._loaded = load_savedmodel(directory)
            functions = self._loaded.signatures
            self.signatures = {
                name: next(iter(function.structured_input_signature[1].values()))
                for name, function in functions.items()
                if not name.startswith("__")  # TensorFlow's own
            }
            self.outputs = {name: functions[name].structured_outputs for name in self.signatures}
        except Exception as error:  # TensorFlow raises many types of errors for damaged files
            raise BadInput(f"The export in {directory} cannot be loaded: {reason(error)}") from error
        self._frozen, self._freezing = {}, threading.Lock()

    def warm_up(self):
        """Runs the requests that the export has for this, so that no user waits for what only the first call needs.

        Raises:
            BadInput: if the network cannot answer them.
        """
        try:
            for signature, inputs in read_warmup(self.directory):
                if signature in self.signatures:
                    self(signature, inputs[self.signatures[signature].name])
                    memory.give_back()
        except Exception as error:  # as above
            raise BadInput(f"The export in {self.directory} does not answer: {reason(error)}") from error

    def files_signature(self):
        """Returns the name of the signature that takes files, or None."""
        return next((name for name, spec in self.signatures.items() if spec.dtype == tf.string), None)

    def __call__(self, signature, images, step=SLICE, until=float("inf")):
        """Returns the outputs of a signature.

        Args:
            signature: String, name of the signature.
            images: Array `[n, ...]` as the signature takes it.
            step: Integer, most images in one call of the network.
            until: Float, the time of `time.monotonic()` after which no further call begins.

        Returns:
            Dictionary of arrays `[n, ...]`.

        Raises:
            Refused: with status 400 if the graph refuses the images, or 413 if they need too much memory or time.
        """
        spec, function, parts = self.signatures[signature], self._function(signature), []
        for i in range(0, len(images), step):
            if time.monotonic() > until:
                raise Refused(413, f"The images need more time than a request has: {i} of {len(images)} were computed")
            try:
                parts.append(function(tf.constant(images[i : i + step], spec.dtype)))
            except tf.errors.InvalidArgumentError as error:
                if spec.dtype == tf.string:
                    raise self._damaged(function, images, i, step, error) from error
                raise Refused(400, f"The network refuses the images: {reason(error)}") from error
            except tf.errors.ResourceExhaustedError as error:
                raise Refused(413, "The images need more memory than the server has") from error
        return {name: np.concatenate([part[name].numpy() for part in parts]) for name in parts[0]}

    def _damaged(self, function, images, first, step, error):
        """Returns the error that names the image that could not be decoded, which the graph does not say."""
        for i in range(first, min(first + step, len(images))):
            try:
                function(tf.constant(images[i : i + 1], tf.string))
            except tf.errors.InvalidArgumentError:
                return Refused(400, f"{image_name(i, len(images))} cannot be decoded: {inspect(images[i]).damage()}")
        return Refused(400, f"The images cannot be decoded: {reason(error)}")

    def _function(self, signature):
        with self._freezing:
            if signature not in self._frozen:  # at the first call, since each has a copy of the weights
                self._frozen[signature] = freeze(self._loaded.signatures[signature])
            return self._frozen[signature]


def image_name(i, count):
    """Returns how messages call one of several images."""
    return f"Image {i + 1} of {count}" if count > 1 else "The image"
