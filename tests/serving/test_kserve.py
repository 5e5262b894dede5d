"""KServe's open inference protocol, over real connections."""

import base64
import contextlib
import http.client
import json
import struct

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


def binary(server, header, values, length=None):
    """Returns the status and the outputs of a request with binary values, whose own may be binary too."""
    text = json.dumps(header).encode()
    headers = {"Inference-Header-Content-Length": str(len(text) if length is None else length)}
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=60)
    with contextlib.closing(connection):
        connection.request("POST", INFER, text + values, headers)
        answer = connection.getresponse()
        content, length = answer.read(), answer.headers["Inference-Header-Content-Length"]
        assert answer.headers["Content-Type"] == ("application/octet-stream" if length else "application/json")
    text, rest = content[: int(length or len(content))], content[int(length or len(content)) :]
    found = json.loads(text)
    if answer.status != 200:
        return answer.status, found["error"]
    for each in found["outputs"]:
        size = each.get("parameters", {}).get("binary_data_size")
        if size is not None:
            each["data"], rest = values_of(each["datatype"], rest[:size]), rest[size:]
    assert not rest
    return 200, outputs(found)


def values_of(datatype, content):
    if datatype != "BYTES":
        return np.frombuffer(content, {"FP32": "<f4", "INT64": "<i8"}[datatype])
    found = []
    while content:
        (size,) = struct.unpack("<I", content[:4])
        found.append(content[4 : 4 + size].decode())
        content = content[4 + size :]
    return found


def packed(files):
    return b"".join(struct.pack("<I", len(each)) + each for each in files)


BINARY = {
    "FP32": ([6, 32, 32, 3], IMAGES.astype("<f4").tobytes()),
    "UINT8": ([6, 32, 32, 3], IMAGES.tobytes()),
    "BYTES": ([6], packed(map(encode, IMAGES))),
}


def asking(datatype, shape, size, **more):
    tensor = {"name": "images", "shape": shape, "datatype": datatype, "parameters": {"binary_data_size": size}}
    return {"inputs": [tensor], **more}


@pytest.mark.parametrize(("datatype", "given"), BINARY.items(), ids=BINARY)
def test_binary_values(server, expected, datatype, given):
    shape, values = given
    assert server.ask("GET", "/v2")[1]["extensions"] == ["binary_tensor_data"]
    names = {"classes", "labels", "logits", "probabilities"}
    every = {"parameters": {"binary_data_output": True, "priority": 1}}
    some = {"outputs": [{"name": "logits"}, {"name": "labels", "parameters": {"binary_data": True}}]}
    but_one = {"outputs": [{"name": name, "parameters": {"binary_data": name != "logits"}} for name in names]}
    for more, wanted in (({}, names), (every, names), (some, {"logits", "labels"}), (every | but_one, names)):
        status, found = binary(server, asking(datatype, shape, len(values), **more), values)
        assert status == 200 and set(found) == wanted
        np.testing.assert_allclose(found["logits"], expected, rtol=1e-4, atol=1e-5)
        assert found["labels"][0, 0] == f"digit {expected[0].argmax()}"


def test_binary_answers_to_json(server, expected):
    header = {"inputs": [{"name": "images", "shape": [6], "datatype": "BYTES", "data": FILES}], "model_name": "digits"}
    asked = [{"name": "logits", "parameters": {"binary_data": True}}, {"name": "classes", "parameters": None}]
    status, found = binary(server, header | {"outputs": asked}, b"")
    assert status == 200
    np.testing.assert_allclose(found["logits"], expected, rtol=1e-4, atol=1e-5)
    np.testing.assert_array_equal(found["classes"], np.argsort(-expected)[:, :5])


SHAPE, PIXELS = BINARY["UINT8"]
BAD_BINARY = {
    "no length": (asking("UINT8", SHAPE, len(PIXELS)), PIXELS, "ten", "must be the length of the JSON"),
    "negative length": (asking("UINT8", SHAPE, len(PIXELS)), PIXELS, -1, "must be the length of the JSON"),
    "beyond the body": (asking("UINT8", SHAPE, len(PIXELS)), PIXELS, 10**9, "must be the length of the JSON"),
    "no JSON": (asking("UINT8", SHAPE, len(PIXELS)), PIXELS, 0, "The body is empty"),
    "JSON cut off": (asking("UINT8", SHAPE, len(PIXELS)), PIXELS, 9, "The body is not JSON"),
    "another size": (asking("UINT8", SHAPE, len(PIXELS) - 1), PIXELS, None, "must be 18432, the bytes after the JSON"),
    "size is text": (asking("UINT8", SHAPE, "18432"), PIXELS, None, "Expected `int | null`"),
    "too few values": (asking("UINT8", SHAPE, 3), b"abc", None, "does not fit the data. Received: 3 values"),
    "parts of values": (asking("FP32", SHAPE, 3), b"abc", None, "Values of 4 bytes cannot have 3 bytes in all"),
    "bytes nobody asked for": (
        {"inputs": [{"name": "images", "shape": [6], "datatype": "BYTES", "data": FILES}]},
        b"abc",
        None,
        "must be 3, the bytes after the JSON. Received: 0",
    ),
    "neither": (
        {"inputs": [{"name": "images", "shape": [6], "datatype": "BYTES"}]},
        b"",
        None,
        "must have either data",
    ),
    "both": (
        {"inputs": [asking("BYTES", [1], 3)["inputs"][0] | {"data": FILES[:1]}]},
        b"abc",
        None,
        "must have either data",
    ),
    "length of a file": (asking("BYTES", [1], 7), b"\4\0\0\0abc", None, "before value 0 goes beyond the end"),
    "half a length": (asking("BYTES", [1], 2), b"\4\0", None, "before value 0 goes beyond the end"),
    "fewer files": (
        asking("BYTES", [2], 7),
        b"\3\0\0\0abc",
        None,
        "must be 2 files, each after its length. Received: 1",
    ),
    "more files": (asking("BYTES", [1], 8), bytes(8), None, "must be 1 files, each after its length. Received: more"),
    "not finite": (
        asking("FP32", SHAPE, 4 * len(PIXELS)),
        np.full(len(PIXELS), np.nan, "<f4").tobytes(),
        None,
        "not finite",
    ),
}


@pytest.mark.parametrize(("header", "values", "length", "reason"), BAD_BINARY.values(), ids=BAD_BINARY)
def test_what_is_refused_of_binary_values(server, survives, header, values, length, reason):
    status, error = binary(server, header, values, length)
    assert status == 400 and reason in error


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
