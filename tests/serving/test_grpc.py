"""TensorFlow Serving's gRPC services, over real connections with TensorFlow Serving's own client code."""

import queue

import grpc
import numpy as np
import pytest
import tensorflow as tf
from grpc_health.v1 import health_pb2, health_pb2_grpc
from serving.hostile import png_header
from serving.servers import IMAGES, encode, wait_for
from tensorflow.core.framework.tensor_pb2 import TensorProto
from tensorflow_serving.apis import (
    get_model_metadata_pb2,
    get_model_status_pb2,
    model_service_pb2_grpc,
    predict_pb2,
    prediction_service_pb2_grpc,
)


@pytest.fixture(scope="module")
def channel(server):
    with grpc.insecure_channel(f"127.0.0.1:{server.grpc_port}") as channel:
        yield channel


def predict(channel, images, signature="serve_uint8", **spec):
    request = predict_pb2.PredictRequest(output_filter=spec.pop("outputs", []))
    request.model_spec.name, request.model_spec.signature_name = spec.get("name", "digits"), signature
    if "version" in spec:
        request.model_spec.version.value = spec["version"]
    tensor = images if isinstance(images, TensorProto) else tf.make_tensor_proto(images)
    request.inputs["images"].CopyFrom(tensor)
    return prediction_service_pb2_grpc.PredictionServiceStub(channel).Predict(request, timeout=60)


@pytest.mark.parametrize("signature", ["", "serve_uint8", "serve_bytes"])
def test_answers_equal_the_network(channel, expected, signature):
    inputs = {"": IMAGES.astype(np.float32), "serve_uint8": IMAGES, "serve_bytes": [encode(image) for image in IMAGES]}
    answer = predict(channel, inputs[signature], signature)
    logits = tf.make_ndarray(answer.outputs["logits"])
    np.testing.assert_allclose(logits, expected, rtol=1e-4, atol=1e-5)
    assert tf.make_ndarray(answer.outputs["labels"])[0, 0].decode() == f"digit {expected[0].argmax()}"
    spec = answer.model_spec
    assert (spec.name, spec.version.value, spec.signature_name) == ("digits", 60, signature or "serving_default")
    assert set(answer.outputs) == {"classes", "labels", "logits", "probabilities"}


def test_outputs_and_versions_that_are_asked_for(channel):
    assert list(predict(channel, IMAGES, version=60, outputs=["classes"]).outputs) == ["classes"]


def lying(size):
    tensor = tf.make_tensor_proto(IMAGES[:1])
    tensor.tensor_shape.dim[1].size = size
    return tensor


def tensor(dtype, **values):
    """A tensor of one pixel."""
    tensor = TensorProto(dtype=dtype.as_datatype_enum, **values)
    for size in (1, 1, 1, 3):
        tensor.tensor_shape.dim.add(size=size)
    return tensor


def test_values_in_the_field_of_their_dtype(channel):
    answers = [
        predict(channel, tensor(tf.uint8, int_val=[0, 100, 255])),
        predict(channel, tensor(tf.uint8, tensor_content=bytes([0, 100, 255]))),
        predict(channel, tensor(tf.float32, float_val=[0, 100, 255]), ""),
    ]
    for answer in answers:
        np.testing.assert_array_equal(*(tf.make_ndarray(each.outputs["logits"]) for each in (answer, answers[0])))


BAD = {
    "model": (lambda c: predict(c, IMAGES, name="x"), "NOT_FOUND", "There is no model x"),
    "version": (lambda c: predict(c, IMAGES, version=1), "NOT_FOUND", "There is no version 1"),
    "signature": (lambda c: predict(c, IMAGES, "x"), "INVALID_ARGUMENT", "signature_name must be one of"),
    "dtype": (lambda c: predict(c, IMAGES * 1.0), "INVALID_ARGUMENT", "Received: DT_DOUBLE of shape [6, 32, 32, 3]"),
    "rank": (lambda c: predict(c, IMAGES[0]), "INVALID_ARGUMENT", "of shape [32, 32, 3]"),
    "channels": (lambda c: predict(c, IMAGES[..., :1]), "INVALID_ARGUMENT", "of shape [6, 32, 32, 1]"),
    "a lying shape": (lambda c: predict(c, lying(2**40)), "INVALID_ARGUMENT", "another number of values"),
    "floats in another field": (
        lambda c: predict(c, tensor(tf.float32, int_val=[1, 2, 3]), ""),
        "INVALID_ARGUMENT",
        "in float_val alone",
    ),
    "bytes in another field": (
        lambda c: predict(c, tensor(tf.uint8, float_val=[1, 2, 3])),
        "INVALID_ARGUMENT",
        "in int_val alone",
    ),
    "two fields": (
        lambda c: predict(c, tensor(tf.uint8, int_val=[1, 2, 3], tensor_content=b"abc")),
        "INVALID_ARGUMENT",
        "Received: int_val, tensor_content",
    ),
    "range": (lambda c: predict(c, tensor(tf.uint8, int_val=[1, 2, 300])), "INVALID_ARGUMENT", "from 0 to 255"),
    "negative": (lambda c: predict(c, tensor(tf.uint8, int_val=[-1, 2, 3])), "INVALID_ARGUMENT", "from 0 to 255"),
    "no number": (
        lambda c: predict(c, np.full((1, 32, 32, 3), np.nan, np.float32), "", outputs=["classes"]),
        "INVALID_ARGUMENT",
        "The network's answer for these pixels is not finite",
    ),
    "outputs": (lambda c: predict(c, IMAGES, outputs=["x"]), "INVALID_ARGUMENT", "The outputs are"),
    "image": (lambda c: predict(c, [b"x", b"y"], "serve_bytes"), "INVALID_ARGUMENT", "Image 1 of 2 must be"),
    "claims": (lambda c: predict(c, [png_header(2**16, 2**16)], "serve_bytes"), "INVALID_ARGUMENT", "33,554,432"),
    "many": (lambda c: predict(c, np.zeros((1025, 1, 1, 3), np.uint8)), "RESOURCE_EXHAUSTED", "at most 1,024 images"),
    "large": (lambda c: predict(c, np.zeros((1, 2000, 2000, 3), np.uint8)), "RESOURCE_EXHAUSTED", ""),
}


@pytest.mark.parametrize(("ask", "code", "reason"), BAD.values(), ids=BAD)
def test_what_is_refused(channel, ask, code, reason):
    with pytest.raises(grpc.RpcError) as error:
        ask(channel)
    assert error.value.code().name == code and reason in error.value.details()
    assert predict(channel, IMAGES[:1]).outputs  # the next good one


def test_calls_whose_message_does_not_come_are_not_waited_for(server, channel):
    waiting = []
    method = "/tensorflow.serving.PredictionService/Predict"
    for _ in range(32):  # as many as may be at work together
        requests = queue.Queue()  # nothing is ever put into it
        calls = channel.stream_unary(method)
        waiting.append(calls.future(iter(requests.get, None)))
    check = health_pb2_grpc.HealthStub(channel).Check

    def answers():
        try:
            return check(health_pb2.HealthCheckRequest(), timeout=5).status == 1
        except grpc.RpcError:
            return False

    assert wait_for(answers, 20)
    codes = {call.exception(timeout=20).code().name for call in waiting}
    assert codes <= {"DEADLINE_EXCEEDED", "RESOURCE_EXHAUSTED"} and "DEADLINE_EXCEEDED" in codes
    assert predict(channel, IMAGES[:1]).outputs


def test_status_metadata_and_health(channel):
    status = get_model_status_pb2.GetModelStatusRequest()
    status.model_spec.name = "digits"
    ask = model_service_pb2_grpc.ModelServiceStub(channel).GetModelStatus
    for number in (None, 60):
        if number:
            status.model_spec.version.value = number
        (version,) = ask(status).model_version_status
        assert (version.version, version.state) == (60, get_model_status_pb2.ModelVersionStatus.AVAILABLE)
    status.model_spec.version.value = 99
    with pytest.raises(grpc.RpcError) as error:
        ask(status)
    assert error.value.code().name == "NOT_FOUND"

    metadata = get_model_metadata_pb2.GetModelMetadataRequest(metadata_field=["signature_def"])
    metadata.model_spec.name = "digits"
    stub = prediction_service_pb2_grpc.PredictionServiceStub(channel)
    answer = stub.GetModelMetadata(metadata)
    found = get_model_metadata_pb2.SignatureDefMap()
    answer.metadata["signature_def"].Unpack(found)
    signature = found.signature_def["serve_uint8"]
    assert signature.inputs["images"].dtype == tf.uint8.as_datatype_enum
    assert [dim.size for dim in signature.outputs["logits"].tensor_shape.dim] == [-1, 10]

    health = health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest())
    assert health.status == health_pb2.HealthCheckResponse.SERVING
