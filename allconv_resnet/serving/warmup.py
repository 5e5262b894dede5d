"""Warm-up requests, which TensorFlow Serving sends to a model while it loads it, so that no user has to wait.

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
