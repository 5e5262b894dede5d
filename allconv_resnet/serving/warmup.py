"""Warm-up requests, which TensorFlow Serving and the server here send to a model while they load it.

No user then waits for what only the first request needs.
https://www.tensorflow.org/tfx/serving/saved_model_warmup
"""

from pathlib import Path

import tensorflow as tf
from tensorflow_serving.apis import prediction_log_pb2

FILE = "assets.extra/tf_serving_warmup_requests"


def write_warmup(directory, requests):
    """Writes the warm-up records of a SavedModel: one predict request for each signature.

    Args:
        directory: Path of the SavedModel.
        requests: Dictionary from the name of each signature to a dictionary of its input tensors.
    """
    path = Path(directory) / FILE
    path.parent.mkdir(exist_ok=True)
    with tf.io.TFRecordWriter(str(path)) as writer:
        for signature, tensors in requests.items():
            log = prediction_log_pb2.PredictionLog()
            log.predict_log.request.model_spec.signature_name = signature
            for name, tensor in tensors.items():
                log.predict_log.request.inputs[name].CopyFrom(tf.make_tensor_proto(tensor))
            writer.write(log.SerializeToString())


def read_warmup(directory):
    """Yields the warm-up requests of a SavedModel, if it has any.

    Args:
        directory: Path of the SavedModel.

    Yields:
        Pairs of the name of a signature and a dictionary from the name of each input to an array.
    """
    path = Path(directory) / FILE
    if not path.exists():
        return
    for record in tf.data.TFRecordDataset(str(path)).as_numpy_iterator():
        request = prediction_log_pb2.PredictionLog.FromString(record).predict_log.request
        inputs = {name: tf.make_ndarray(tensor) for name, tensor in request.inputs.items()}
        yield request.model_spec.signature_name, inputs
