"""What clients should not send, and connections that they should not keep: the server refuses, and goes on."""

import contextlib
import json
import os
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from serving.servers import IMAGES, MB, b64, encode


def png_header(width, height):
    """A real one-pixel PNG file whose header claims another size."""
    content = encode(np.zeros((1, 1, 3), np.uint8))
    return content[:16] + width.to_bytes(4, "big") + height.to_bytes(4, "big") + content[24:]


GOOD = IMAGES[0].tolist()
BODIES = {
    "empty": (b"", "The body is empty"),
    "broken": (b'{"instances": [[[', "is not JSON"),
    "not text": (b"\x00\xff\xfe", "is not JSON"),
    "deep": (b"[" * 100_000, "too many nested lists"),
    "no object": (b"[1]", "must be a JSON object"),
    "neither": ({}, 'either "instances" or "inputs". Received: nothing'),
    "both": ({"instances": [GOOD], "inputs": [GOOD]}, 'either "instances" or "inputs"'),
    "no list": ({"instances": 3}, '"instances" must be a list'),
    "no image": ({"instances": []}, "images must be float32"),
    "signature": ({"instances": [GOOD], "signature_name": "other"}, "signature_name must be one of serve_bytes, "),
    "rank": ({"instances": GOOD}, "shape [any, any, any, 3]. Received: shape [32, 32, 3]"),
    "channels": ({"instances": [[[[1, 2]]]]}, "Received: shape [1, 1, 1, 2]"),
    "ragged": ({"instances": [[[[1, 2, 3], [1]]]]}, "lists of different lengths"),
    "text": ({"instances": [[[["a", "b", "c"]]]]}, "values that are not numbers"),
    "one long text": ({"instances": ["x" * 100_000] + [""] * 20_000}, "values that are not numbers"),
    "text among numbers": ({"instances": [[[[1, "2", 3]]]]}, "values that are not numbers"),
    "booleans": ({"instances": [[[[True, False, True]]]]}, "values that are not numbers"),
    "nan": (b'{"instances": [[[[NaN, 1, 2]]]]}', "NaN is not a number"),
    "infinite": (b'{"instances": [[[[1e999, 1, 2]]]]}', "beyond the range of float32"),
    "fraction": ({"instances": [[[[0.5, 1, 2]]]], "signature_name": "serve_uint8"}, "not integers from 0 to 255"),
    "range": ({"instances": [[[[256, 1, 2]]]], "signature_name": "serve_uint8"}, "not integers from 0 to 255"),
}
FILES = {
    "pixels": ([GOOD], 'must be a list of {"b64": ...}'),
    "other key": ([{"b32": "AA"}], "Received an object with"),
    "not base64": ([{"b64": "?"}], "is not base64"),
    "empty file": ([b64(b"")], "An image must be a JPEG or a PNG file"),
    "no file": ([b64(b"not an image")], "An image must be a JPEG or a PNG file"),
    "gif": ([b64(encode(IMAGES[0], "GIF"))], "An image must be a JPEG or a PNG file"),
    "cut jpeg": ([b64(encode(IMAGES[0], "JPEG")[:500])], ""),
    "cut png": ([b64(encode(IMAGES[0])[:500])], ""),
    "one of four": ([b64(IMAGES[0]), b64(IMAGES[1]), b64(b"\x89PNG"), b64(IMAGES[2])], "An image must be"),
    "bomb": ([b64(png_header(30_000, 30_000))], "from 1 to 33554432 pixels. Received: 30000 30000"),
}
BODIES |= {name: ({"instances": i, "signature_name": "serve_bytes"}, reason) for name, (i, reason) in FILES.items()}


@pytest.mark.parametrize(("body", "reason"), BODIES.values(), ids=BODIES)
def test_a_bad_request_is_refused_with_a_reason(server, survives, body, reason):
    body = body if isinstance(body, bytes) else json.dumps(body).encode()
    status, answer = server.ask("POST", "/v1/models/digits:predict", body)
    assert status == 400
    assert list(answer) == ["error"] and reason in answer["error"] and len(answer["error"]) < 300


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("POST", "/v1/models/other:predict", 404),
        ("POST", "/v1/models/digits/versions/61:predict", 404),
        ("POST", "/v1/models/digits:classify", 405),
        ("GET", "/v1/models/other", 404),
        ("GET", "/v1/models/digits/versions/latest", 404),
        ("GET", "/", 404),
        ("DELETE", "/v1/models/digits", 405),
    ],
)
def test_what_is_not_there(server, survives, method, path, status):
    received, answer = server.ask(method, path, json.dumps({"instances": [GOOD]}) if method == "POST" else None)
    assert received == status and "digits" in answer["error"]


def read_all(connection):
    """Returns the status and the JSON of what comes on a connection until the server closes it."""
    with contextlib.closing(connection), connection.makefile("rb") as stream:
        head, _, body = stream.read().partition(b"\r\n\r\n")
    return int(head.split()[1]), json.loads(body)


def read_all_or_reset(connection):
    with contextlib.suppress(ConnectionResetError):
        return read_all(connection)


POST = b"POST /v1/models/digits:predict HTTP/1.1\r\nhost: x\r\n"


def test_a_body_of_50_mb_is_refused_whether_or_not_it_says_its_size(server, survives):
    status, answer = server.ask("POST", "/v1/models/digits:predict", b"1" * 50_000_000)
    assert (status, answer["error"]) == (413, "A body must have at most 32,000,000 bytes")
    pieces = (b"1" * 1_000_000 for _ in range(50))
    status, answer = server.ask("POST", "/v1/models/digits:predict", pieces)  # in chunks
    assert (status, answer["error"]) == (413, "A body must have at most 32,000,000 bytes")


def test_a_request_may_have_so_many_images(server, survives):
    many = [[[[1, 2, 3]]]] * 1025
    status, answer = server.predict(instances=many)
    assert (status, answer["error"]) == (413, "A request must have at most 1,024 images. Received: 1,025")
    status, answer = server.predict(instances=many[:1024])
    assert status == 200 and len(answer["predictions"]) == 1024


@pytest.mark.parametrize("parts", [(), (b"POST /v1",), (POST, b"some: thing")], ids=["nothing", "a word", "a line"])
def test_a_header_that_does_not_come_is_not_waited_for(server, survives, parts):
    status, answer = read_all(server.connect(*parts))
    assert status == 408 and "header" in answer["error"]


def test_a_body_that_does_not_come_is_not_waited_for(server, survives):
    connection = server.connect(POST, b"connection: close\r\ncontent-length: 100\r\n\r\n{")
    status, answer = read_all(connection)
    assert status == 408 and "body" in answer["error"]


def test_a_header_without_end_is_refused(server, survives):
    status, answer = read_all(server.connect(POST, b"a: " + b"b" * 20_000))
    assert status == 431 and "16,000 bytes" in answer["error"]


def test_what_is_not_http_is_refused(server, survives):
    status, answer = read_all(server.connect(b"\x16\x03\x01 hello\r\n\r\n"))
    assert status == 400 and "HTTP" in answer["error"]


def test_a_thousand_slow_connections_do_not_keep_others_out(server, expected, survives):
    slow = [server.connect(POST[: 5 + i % 40]) for i in range(1_000)]
    try:
        status, answer = server.predict(instances=IMAGES[:1].tolist())
        assert status == 200
        np.testing.assert_allclose(answer["predictions"][0]["logits"], expected[0], rtol=1e-4, atol=1e-5)
        assert sum("socket" in os.readlink(fd) for fd in fds(server)) <= 110  # 100 connections and the server's own
        assert server.peak_memory() < server.memory_at_first + 400 * MB
        # The first had to make room; one whose bytes were still on their way is reset instead of told why.
        told = [answer for answer in map(read_all_or_reset, slow[:100]) if answer]
        assert told and all(status == 429 and "taken" in answer["error"] for status, answer in told)
        assert read_all(slow[-1])[0] == 408
    finally:
        for connection in slow:
            connection.close()


def fds(server):
    return [entry.path for entry in os.scandir(f"/proc/{server.process.pid}/fd") if entry.is_symlink()]


def test_bodies_that_stay_unfinished_are_bounded_together(server, survives):
    part = b"content-length: 30000000\r\n\r\n" + b"1" * 20_000_000
    with ThreadPoolExecutor(8) as clients:
        statuses = list(clients.map(lambda _: first_status(server.connect(POST, part)), range(8)))
    assert set(statuses) == {408, 429}  # 128 MB have room for six of them
    time.sleep(0.1)


def first_status(connection):
    with contextlib.closing(connection):
        return int(connection.recv(1000).split()[1])
