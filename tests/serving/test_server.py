"""The server in a process of its own, over real connections: it answers as the network does, and nothing ends it."""

import base64
import contextlib
import http.client
import io
import json
import os
import signal
import socket
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from training.runs import TINY

from allconv_resnet import cli
from allconv_resnet.data import augment
from allconv_resnet.serving.export import export
from allconv_resnet.serving.options import ServeOptions

RNG = np.random.default_rng(0)
IMAGES = RNG.integers(0, 256, (6, 32, 32, 3), dtype=np.uint8)
LIMITS = ["--max-connections", "100", "--header-seconds", "1.5", "--body-seconds", "1.5", "--max-header-kb", "16"]
BATCH = ["--batch", "8", "--batch-wait-ms", "20"]
MB = 2**20
ROOT = Path(__file__).resolve().parents[2]


class Server:
    """`allconv-resnet serve` in a process of its own, on a free port."""

    def __init__(self, *arguments):
        code = "from allconv_resnet import cli; cli.main()"
        command = [sys.executable, "-c", code, "serve", *map(str, arguments), "--port", "0"]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
        line = self.process.stdout.readline()  # ends when the process does
        assert "Serving version" in line, line
        self.port = int(line.split("127.0.0.1:")[1].split("/")[0])

    def ask(self, method, path, body=None):
        """Returns the status and the JSON of an answer."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        with contextlib.closing(connection):
            connection.request(method, path, body)
            answer = connection.getresponse()
            return answer.status, json.loads(answer.read())

    def predict(self, path="/v1/models/digits:predict", **body):
        return self.ask("POST", path, json.dumps(body))

    def connect(self, *parts):
        """Returns a connection on which some bytes have been sent."""
        connection = socket.create_connection(("127.0.0.1", self.port), timeout=30)
        for part in parts:
            connection.sendall(part)
        return connection

    def memory(self):
        """Returns the bytes of memory that the process holds."""
        pages = int(Path(f"/proc/{self.process.pid}/statm").read_text().split()[1])
        return pages * os.sysconf("SC_PAGESIZE")


@pytest.fixture(scope="module")
def model():
    return TINY.build_model()


@pytest.fixture(scope="module")
def expected(model):
    """The logits of the network for the images, after the evaluation pipeline."""
    return model.predict(augment.standardize(IMAGES), verbose=0)


@pytest.fixture(scope="module")
def server(model, tmp_path_factory):
    directory = tmp_path_factory.mktemp("export")
    export(model, [f"digit {i}" for i in range(10)], directory, version=60)
    server = Server(directory, "--name", "digits", *LIMITS, *BATCH)
    for signature in ("serving_default", "serve_uint8"):  # before the memory is measured for the first time
        server.predict(instances=IMAGES.tolist(), signature_name=signature)
    server.predict(instances=[b64(IMAGES[0])], signature_name="serve_bytes")
    server.memory_at_first = server.memory()
    yield server
    server.process.kill()


@pytest.fixture
def survives(server, expected):
    """After the test: the same process, its memory bounded, answers the next good request."""
    yield
    assert server.process.poll() is None
    assert server.memory() < server.memory_at_first + 400 * MB
    status, answer = server.predict(instances=IMAGES[:1].tolist())
    assert status == 200
    np.testing.assert_allclose(answer["predictions"][0]["logits"], expected[0], rtol=1e-4, atol=1e-5)


def encode(image, kind="PNG"):
    file = io.BytesIO()
    Image.fromarray(image).save(file, kind)
    return file.getvalue()


def b64(content):
    content = content if isinstance(content, bytes) else encode(content)
    return {"b64": base64.b64encode(content).decode()}


SIGNATURES = {
    "serving_default": (IMAGES + 0.0).tolist(),
    "serve_uint8": IMAGES.tolist(),
    "serve_bytes": [b64(image) for image in IMAGES],
}


@pytest.mark.parametrize("named", [False, True], ids=["bare", "named"])
@pytest.mark.parametrize("signature", SIGNATURES)
def test_answers_equal_the_network(server, expected, signature, named):
    images = SIGNATURES[signature]
    rows = [{"images": image} for image in images] if named else images
    status, answer = server.predict(instances=rows, signature_name=signature)
    assert status == 200
    for row, logits in zip(answer["predictions"], expected, strict=True):
        order = np.argsort(-logits)[:5]
        np.testing.assert_allclose(row["logits"], logits, rtol=1e-4, atol=1e-5)
        assert row["classes"] == order.tolist() and row["labels"] == [f"digit {i}" for i in order]
        np.testing.assert_allclose(row["probabilities"], (np.exp(logits) / np.exp(logits).sum())[order], rtol=1e-4)
    whole = {"images": images} if named else images
    path = "/v1/models/digits/versions/60:predict"
    status, columns = server.predict(path, inputs=whole, signature_name=signature)
    assert status == 200
    np.testing.assert_allclose(columns["outputs"]["logits"], expected, rtol=1e-4, atol=1e-5)
    assert columns["outputs"]["labels"] == [row["labels"] for row in answer["predictions"]]


def test_status_and_metadata(server):
    for path in ("/v1/models/digits", "/v1/models/digits/versions/60"):
        status, answer = server.ask("GET", path)
        assert status == 200
        (version,) = answer["model_version_status"]
        assert (version["version"], version["state"]) == ("60", "AVAILABLE")
        status, answer = server.ask("GET", f"{path}/metadata")
        assert status == 200
        signature = answer["metadata"]["signature_def"]["signature_def"]["serving_default"]
        assert signature["inputs"]["images"]["dtype"] == "DT_FLOAT"
        assert [dim["size"] for dim in signature["inputs"]["images"]["tensor_shape"]["dim"]] == ["-1", "-1", "-1", "3"]
        assert signature["outputs"]["classes"]["dtype"] == "DT_INT64"


def test_each_of_many_clients_gets_its_own_answer(server, model, survives):
    images = RNG.integers(0, 256, (200, 32, 32, 3), dtype=np.uint8)
    expected = model.predict(augment.standardize(images), verbose=0)
    with ThreadPoolExecutor(24) as clients:
        answers = list(clients.map(lambda image: server.predict(instances=[image.tolist()]), images))
    assert [status for status, _ in answers] == [200] * 200
    logits = [answer["predictions"][0]["logits"] for _, answer in answers]
    np.testing.assert_allclose(logits, expected, rtol=1e-4, atol=1e-5)


def test_a_bad_image_spoils_no_request_that_was_batched_with_it(server, expected, survives):
    bodies = [[b64(IMAGES[0])], [b64(b"nothing")], [b64(IMAGES[1])]] * 4
    with ThreadPoolExecutor(12) as clients:
        answers = list(clients.map(lambda b: server.predict(instances=b, signature_name="serve_bytes"), bodies))
    assert [status for status, _ in answers] == [200, 400, 200] * 4
    for i in range(0, 12, 3):
        for k in (0, 1):
            row = answers[i + 2 * k][1]["predictions"][0]
            np.testing.assert_allclose(row["logits"], expected[k], rtol=1e-4, atol=1e-5)


def test_the_example_client_and_the_health_check_of_compose(server, expected, tmp_path):
    (tmp_path / "good.png").write_bytes(encode(IMAGES[1]))
    (tmp_path / "bad.png").write_bytes(b"nothing")
    address = f"http://127.0.0.1:{server.port}/v1/models/digits"
    client = [sys.executable, ROOT / "examples" / "client.py", address, tmp_path / "good.png"]
    said = subprocess.run(client, capture_output=True, text=True, check=True).stdout
    assert f"good.png: digit {expected[1].argmax()} (" in said
    refused = subprocess.run([*client, tmp_path / "bad.png"], capture_output=True, text=True)
    assert refused.returncode == 1 and "400: An image must be a JPEG or a PNG file" in refused.stderr

    # The service of compose is called model; what asks whether it is well is tried on this server.
    text = (ROOT / "docker" / "compose.yaml").read_text().split("\n  serving:")[1].split("- >-\n")[1]
    check = " ".join(text.split("interval:")[0].split()).replace("8501", str(server.port))
    assert "/v1/models/model" in check
    assert subprocess.run(["bash", "-c", check.replace("models/model", "models/digits")], timeout=30).returncode == 0
    assert subprocess.run(["bash", "-c", check], timeout=30).returncode == 1


def test_large_and_thin_images_take_no_more_memory_than_they_have(server, survives):
    thin, large = np.zeros((1, 999_999, 3), np.uint8), np.zeros((3000, 3000, 3), np.uint8)
    for images in ([b64(thin)], [b64(large)] * 4):
        status, answer = server.predict(instances=images, signature_name="serve_bytes")
        assert status == 200 and len(answer["predictions"]) == len(images)
    status, _ = server.predict(instances=[[[[1, 2, 3]] * 40_000]])
    assert status == 200


def png_header(width, height):
    """A real one-pixel PNG file whose header claims another size."""
    content = encode(np.zeros((1, 1, 3), np.uint8))
    return content[:16] + width.to_bytes(4, "big") + height.to_bytes(4, "big") + content[24:]


GOOD = IMAGES[0].tolist()
BODIES = {
    "empty": (b"", "The body is empty"),
    "broken": (b'{"instances": [[[', "is not JSON"),
    "not text": (b"\x00\xff\xfe", "is not JSON"),
    "deep": (b"[" * 100_000, "too many lists within lists"),
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
    assert (status, answer["error"]) == (413, "A body may have 32,000,000 bytes at most")
    pieces = (b"1" * 1_000_000 for _ in range(50))
    status, answer = server.ask("POST", "/v1/models/digits:predict", pieces)  # in chunks
    assert (status, answer["error"]) == (413, "A body may have 32,000,000 bytes at most")


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
        assert server.memory() < server.memory_at_first + 400 * MB
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


def test_sigterm_ends_it_in_order(server):
    waiting = server.connect(POST[:20])
    server.process.send_signal(signal.SIGTERM)
    assert server.process.wait(30) == 0
    assert server.process.stdout.read() == "Stopped\n"
    waiting.close()


def command(*arguments):
    with pytest.raises(SystemExit) as stop:
        cli.main([str(argument) for argument in arguments])
    return stop.value.code


def test_what_cannot_be_served(tmp_path, model, capsys):
    assert command("serve", tmp_path) == 2
    assert "has no exported model" in capsys.readouterr().err
    assert command("serve", tmp_path, "--port", "70000") == 2
    assert "port must lie in [0, 65535]. Received: port=70000" in capsys.readouterr().err
    assert command("serve", tmp_path, "--batch", "0") == 2
    assert "batch must be positive" in capsys.readouterr().err
    assert command("serve", tmp_path, "--name", "a/b") == 2
    assert "name must be made of" in capsys.readouterr().err
    export(model, range(10), tmp_path, 1)
    with socket.create_server(("127.0.0.1", 0)) as taken:
        assert command("serve", tmp_path, "--port", taken.getsockname()[1]) == 2
    assert "cannot be listened on: Address already in use" in capsys.readouterr().err
    (tmp_path / "1" / "saved_model.pb").write_bytes(b"nothing")
    assert command("serve", tmp_path) == 2
    assert "cannot be loaded" in capsys.readouterr().err
    assert ServeOptions().host == "127.0.0.1"  # nothing outside of the machine, unless asked for
