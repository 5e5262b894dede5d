"""KServe's open inference protocol, over real connections."""

import base64
import json

import numpy as np
import pytest
from serving.hostile import png_header
from serving.servers import IMAGES, encode

INFER = "/v2/models/digits/infer"


def infer(server, shape, datatype, data, path=INFER, **more):
    tensor = {"name": "images", "shape": shape, "datatype": datatype, "data": data}
    return server.ask("POST", path, json.dumps({"inputs": [tensor], **more}))


def outputs(answer):
    return {each["name"]: np.reshape(each["data"], each["shape"]) for each in answer["outputs"]}


FILES = [base64.b64encode(encode(image)).decode() for image in IMAGES]
INPUTS = {
    "flat floats": ([6, 32, 32, 3], "FP32", (IMAGES + 0.0).ravel().tolist()),
    "nested integers": ([6, 32, 32, 3], "UINT8", IMAGES.tolist()),
    "files": ([6], "BYTES", FILES),
    "files in a column": ([6, 1], "BYTES", FILES),
}


@pytest.mark.parametrize("given", INPUTS.values(), ids=INPUTS)
def test_answers_equal_the_network(server, expected, given):
    status, answer = infer(server, *given, id="seven")
    assert status == 200
    assert (answer["model_name"], answer["model_version"], answer["id"]) == ("digits", "60", "seven")
    found = outputs(answer)
    np.testing.assert_allclose(found["logits"], expected, rtol=1e-4, atol=1e-5)
    np.testing.assert_array_equal(found["classes"], np.argsort(-expected)[:, :5])
    assert found["labels"][0, 0] == f"digit {expected[0].argmax()}"
    datatypes = {each["name"]: each["datatype"] for each in answer["outputs"]}
    assert datatypes == {"logits": "FP32", "classes": "INT64", "labels": "BYTES", "probabilities": "FP32"}


def test_a_version_and_the_outputs_that_are_asked_for(server):
    path = "/v2/models/digits/versions/60/infer"
    status, answer = infer(server, *INPUTS["files"], path=path, outputs=[{"name": "classes"}])
    assert status == 200 and [each["name"] for each in answer["outputs"]] == ["classes"] and "id" not in answer


def test_what_the_clients_of_triton_and_kserve_send_by_themselves(server):
    asked = {"outputs": [{"name": "classes", "parameters": {"binary_data": True}}], "model_name": "digits"}
    for more in (asked, {"parameters": {"binary_data_output": True, "priority": 1}}):
        status, answer = infer(server, *INPUTS["files"], **more)
        assert status == 200 and "classes" in outputs(answer)


def test_health_and_metadata(server):
    assert server.ask("GET", "/v2/health/live") == (200, {"live": True})
    assert server.ask("GET", "/v2/health/ready") == (200, {"ready": True})
    assert server.ask("GET", "/v2/models/digits/ready") == (200, {"name": "digits", "ready": True})
    assert server.ask("GET", "/v2/models/digits/versions/61/ready")[0] == 404
    assert server.ask("GET", "/v2")[1]["name"] == "allconv_resnet"
    status, answer = server.ask("GET", "/v2/models/digits/versions/60")
    assert status == 200 and answer["versions"] == ["60"]
    assert {"name": "images", "datatype": "BYTES", "shape": [-1]} in answer["inputs"]
    assert {"name": "logits", "datatype": "FP32", "shape": [-1, 10]} in answer["outputs"]


BAD = {
    "no object": (b"[]", 400, "must be a JSON object"),
    "no inputs": ({}, 400, "missing required field `inputs`"),
    "two inputs": ({"inputs": [{"name": "a", "shape": [], "datatype": "", "data": 1}] * 2}, 400, "must have one input"),
    "datatype": (([1], "FP16", [1]), 400, "datatype must be one of BYTES, FP32, UINT8"),
    "rank": (([3], "FP32", [1, 2, 3]), 400, "Received: shape [3]"),
    "channels": (([1, 1, 1, 2], "FP32", [1, 2]), 400, "Received: shape [1, 1, 1, 2]"),
    "negative": (([-1, -1, 1, 3], "FP32", [1, 2, 3]), 400, "Received: shape [-1"),
    "too few": (([1, 1, 2, 3], "FP32", [1, 2, 3]), 400, "does not fit the data. Received: 3 values"),
    "overflow": (([1, 2**62, 2**62, 3], "FP32", [1, 2, 3]), 400, "does not fit"),
    "text": (([1, 1, 1, 3], "FP32", ["1", "2", "3"]), 400, "not numbers"),
    "range": (([1, 1, 1, 3], "UINT8", [1, 2, 256]), 400, "not integers from 0 to 255"),
    "pixels as files": (([1], "BYTES", [1]), 400, "base64"),
    "not base64": (([1], "BYTES", ["?"]), 400, "base64"),
    "many": (([2000], "BYTES", []), 413, "at most 1,024 images"),
    "bomb": (([1], "BYTES", [base64.b64encode(png_header(30_000, 30_000)).decode()]), 400, "33,554,432 pixels"),
    "classification": (
        (*INPUTS["files"], {"outputs": [{"name": "logits", "parameters": {"classification": 2}}]}),
        400,
        "The parameter classification is not supported",
    ),
    "output": ((*INPUTS["files"], {"outputs": [{"name": "x"}]}), 400, "The outputs are classes, labels"),
}


@pytest.mark.parametrize(("body", "status", "reason"), BAD.values(), ids=BAD)
def test_what_is_refused(server, survives, body, status, reason):
    if isinstance(body, tuple):
        received, answer = infer(server, *body[:3], **(body[3] if len(body) > 3 else {}))
    else:
        received, answer = server.ask("POST", INFER, body if isinstance(body, bytes) else json.dumps(body))
    assert received == status and reason in answer["error"]
