"""What an operator sets: who may ask, how, and what is written down; and how the server ends."""

import contextlib
import gzip
import http.client
import json
import signal
import socket
import ssl
import subprocess
import threading
import time

import grpc
import numpy as np
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from serving.hostile import progressive
from serving.servers import IMAGES, Server, b64, encode, wait_for
from tensorflow_serving.apis import get_model_status_pb2, model_service_pb2_grpc

from allconv_resnet.errors import BadInput
from allconv_resnet.serving.access import read_keys
from allconv_resnet.serving.options import ServeOptions

PREDICT = "/v1/models/model:predict"
GOOD = {"instances": IMAGES[:1].tolist()}


@pytest.fixture(scope="module")
def certificate(tmp_path_factory):
    directory = tmp_path_factory.mktemp("tls")
    files = ["-keyout", directory / "key.pem", "-out", directory / "cert.pem"]
    subject = ["-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1"]
    command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", *files, *subject]
    subprocess.run(command, check=True, capture_output=True)
    return directory


@pytest.fixture(scope="module")
def guarded(exported, certificate, tmp_path_factory):
    directory = tmp_path_factory.mktemp("guarded")
    (directory / "keys").write_text("first key\n\n  second \n")
    arguments = ["--certificate", certificate / "cert.pem", "--certificate-key", certificate / "key.pem"]
    arguments += ["--api-key-file", directory / "keys", "--cors", "https://a.example", "--grpc-port", "0"]
    with Server(exported, *arguments, "--request-log", directory / "log") as server:
        server.log = directory / "log"
        yield server


def ask(server, certificate, path, body=None, **headers):
    trust = ssl.create_default_context(cafile=certificate / "cert.pem")
    connection = http.client.HTTPSConnection("127.0.0.1", server.port, timeout=60, context=trust)
    with contextlib.closing(connection):
        connection.request("POST" if body else "GET", path, body, headers)
        answer = connection.getresponse()
        return answer.status, answer.headers, answer.read()


def test_https_and_keys(guarded, certificate):
    assert "https://127.0.0.1" in guarded.line
    body = json.dumps(GOOD)
    for key in ("first key", "second"):
        assert ask(guarded, certificate, PREDICT, body, Authorization=f"Bearer {key}")[0] == 200
        assert ask(guarded, certificate, PREDICT, body, Authorization=f"bearer {key}")[0] == 200
    for headers in ({}, {"Authorization": "Bearer second "[:-3]}, {"Authorization": "Bearer"}, {"Authorization": "x"}):
        status, received, content = ask(guarded, certificate, PREDICT, body, **headers)
        assert status == 401 and received["WWW-Authenticate"] == "Bearer"
        assert "Authorization: Bearer KEY" in json.loads(content)["error"]
    assert ask(guarded, certificate, "/v1/models/model")[0] == 401
    assert ask(guarded, certificate, "/v2/health/ready")[0] == ask(guarded, certificate, "/v2/health/live")[0] == 200


def test_grpc_over_tls_with_keys(guarded, certificate):
    trust = grpc.ssl_channel_credentials((certificate / "cert.pem").read_bytes())
    with grpc.secure_channel(f"127.0.0.1:{guarded.grpc_port}", trust) as channel:
        request = get_model_status_pb2.GetModelStatusRequest()
        request.model_spec.name = "model"
        ask = model_service_pb2_grpc.ModelServiceStub(channel).GetModelStatus
        assert ask(request, metadata=[("authorization", "Bearer second")]).model_version_status[0].version == 60
        for key in ([], [("authorization", "Bearer secon")]):
            with pytest.raises(grpc.RpcError) as error:
                ask(request, metadata=key)
            assert error.value.code() is grpc.StatusCode.UNAUTHENTICATED
        health = health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest())
        assert health.status == health_pb2.HealthCheckResponse.SERVING
        request.model_spec.name = "nobody"
        with pytest.raises(grpc.RpcError, match="nobody"):
            ask(request, metadata=[("authorization", "Bearer second")])
    wait_for(lambda: '"status": 404' in guarded.log.read_text())
    lines = [json.loads(line) for line in lines_of(guarded)]
    calls = [(line["endpoint"], line["status"]) for line in lines if line["method"] == "gRPC"]
    expected = [("GetModelStatus", status) for status in (200, 401, 401)] + [("Check", 200), ("GetModelStatus", 404)]
    assert calls == expected
    asked = [line for line in lines if "Status" in line["endpoint"]]
    assert all(line["client"] == "127.0.0.1" for line in asked)
    assert all(bool(line["received"]) == (line["status"] != 401) for line in asked)  # their messages are not read


def test_pages_of_the_origins_that_may_ask(guarded, certificate):
    good = {"Authorization": "Bearer second", "Origin": "https://a.example"}
    _, headers, _ = ask(guarded, certificate, "/v1/models/model", **good)
    assert headers["Access-Control-Allow-Origin"] == "https://a.example"
    assert headers["Access-Control-Expose-Headers"] == "Inference-Header-Content-Length"
    _, headers, _ = ask(guarded, certificate, "/v1/models/model", **good | {"Origin": "https://b.example"})
    assert "Access-Control-Allow-Origin" not in headers


def test_the_log_of_requests(guarded, certificate):
    ask(guarded, certificate, PREDICT + "?logged", json.dumps(GOOD), Authorization="Bearer second")
    ask(guarded, certificate, "/nowhere", Authorization="Bearer second")
    lines = [json.loads(line) for line in wait_for(lambda: "nowhere" in guarded.log.read_text() and lines_of(guarded))]
    expected = {"method": "POST", "path": PREDICT, "client": "127.0.0.1", "status": 200}
    expected |= {"model": "model", "version": 60, "images": 1, "received": len(json.dumps(GOOD))}
    assert any(expected.items() <= line.items() for line in lines)
    assert lines[-1]["status"] == 404 and lines[-1]["seconds"] > 0 and lines[-1]["time"].startswith("20")
    assert "second" not in guarded.log.read_text().replace('"seconds"', "")  # no key


def lines_of(server):
    return server.log.read_text().splitlines()


@pytest.mark.slow
def test_a_handshake_that_does_not_come_is_not_waited_for(guarded):
    with socket.create_connection(("127.0.0.1", guarded.port), timeout=30) as opened:
        opened.sendall(b"\x16\x03\x01\x02\x00")
        assert opened.recv(100) == b""


@pytest.mark.parametrize("kind", ["jpeg", "png"])
def test_a_file_itself_as_the_body(server, expected, kind):
    file = encode(IMAGES[0], kind.upper())
    status, answer = server.ask("POST", "/v1/models/digits:predict", file, {"Content-Type": f"image/{kind}"})
    _, same = server.predict(instances=[b64(file)], signature_name="serve_bytes")
    assert status == 200 and answer == same
    if kind == "png":
        np.testing.assert_allclose(answer["predictions"][0]["logits"], expected[0], rtol=1e-4, atol=1e-5)
    status, answer = server.ask("POST", "/v1/models/digits:predict", file[:50], {"Content-Type": f"image/{kind}"})
    assert status == 400 and "The image" in answer["error"]


def test_packed_bodies(server):
    body = json.dumps(GOOD).encode()
    packed = server.ask("POST", "/v1/models/digits:predict", gzip.compress(body), {"Content-Encoding": "gzip"})
    assert packed[0] == 200 and packed == server.ask("POST", "/v1/models/digits:predict", body)
    file = gzip.compress(encode(IMAGES[0]))
    headers = {"Content-Encoding": "gzip", "Content-Type": "image/png"}
    assert server.ask("POST", "/v1/models/digits:predict", file, headers)[0] == 200


def test_an_empty_signature_name_is_the_default_one(server):
    assert server.predict(**GOOD, signature_name="") == server.predict(**GOOD)


@pytest.mark.slow
def test_a_unix_socket_and_two_signals(exported, tmp_path):
    path = tmp_path / "socket"
    with socket.socket(socket.AF_UNIX) as left:  # by a server that was killed
        left.bind(str(path))
    with Server(exported, "--unix-socket", path, "--stop-seconds", "600") as server:
        assert str(path) in server.line
        with socket.socket(socket.AF_UNIX) as opened:
            opened.connect(str(path))
            opened.sendall(b"GET /v2/health/ready HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n")
            with opened.makefile("rb") as stream:
                assert b"200 OK" in stream.read()
        with socket.socket(socket.AF_UNIX) as held:
            held.connect(str(path))
            held.sendall(b"POST " + PREDICT.encode() + b" HTTP/1.1\r\nhost: x\r\ncontent-length: 9\r\n\r\n{")
            time.sleep(0.5)
            server.process.send_signal(signal.SIGINT)
            time.sleep(0.5)
            assert server.process.poll() is None  # it waits for the request
            server.process.send_signal(signal.SIGINT)
            assert server.process.wait(60) == 0
        assert not path.exists()


@pytest.mark.slow
def test_a_request_has_its_time_and_the_server_ends_in_its_own(exported):
    """Each image is allowed. For all of them a request has no time, and the server not when it is told to stop."""
    large = {"instances": [b64(progressive(4096, 4096, 80))] * 30, "signature_name": "serve_bytes"}
    arguments = ["--threads", "1", "--predict-seconds", "6", "--stop-seconds", "3", "--max-megapixels", "1e5"]
    with Server(exported, *arguments) as server:
        status, answer = server.ask("POST", PREDICT, json.dumps(large))
        assert status == 413 and "6 s" in answer["error"]
        assert server.ask("POST", PREDICT, json.dumps(GOOD))[0] == 200  # the one thread is free again

        half = server.connect(b"POST /v1/models/mode")
        unfinished = server.connect(b"POST " + PREDICT.encode() + b" HTTP/1.1\r\nhost: x\r\ncontent-length: 9\r\n\r\n{")
        answers = []
        asking = threading.Thread(target=lambda: answers.append(server.ask("POST", PREDICT, json.dumps(large))))
        asking.start()
        time.sleep(1)
        server.process.send_signal(signal.SIGTERM)
        assert server.process.wait(60) == 0  # computing alone would take minutes
        assert server.process.stdout.read() == "Stopped\n"
        asking.join()
        assert answers == [(503, {"error": "The server is stopping"})]
        with unfinished, unfinished.makefile("rb") as stream:
            assert b"503" in stream.readline()
        half.close()
        assert "Traceback" not in server.said()


def test_options_that_are_refused(tmp_path):
    empty = tmp_path / "empty"
    empty.write_text("\n \n")
    for path, reason in [(empty, "must have a key"), (tmp_path / "nothing", "cannot be read")]:
        with pytest.raises(BadInput, match=reason):
            read_keys(path)
    for options, reason in [
        ({"certificate": empty}, "HTTPS needs a certificate and its key"),
        ({"max_header_kb": 4}, "max_header_kb must lie in"),
        ({"header_seconds": 100}, "header_seconds must lie in"),
        ({"predict_seconds": float("inf")}, "predict_seconds must be positive and finite"),
        ({"poll_seconds": -1}, "poll_seconds must not be negative"),
        ({"poll_seconds": float("inf")}, "poll_seconds must be at most 1,000,000"),
        ({"write_seconds": 1e10}, "write_seconds must be at most 1,000,000. Received: write_seconds=10000000000"),
        ({"stop_seconds": 1e10}, "stop_seconds must be at most 1,000,000"),
        ({"max_images": 0}, "max_images must be positive"),
    ]:
        with pytest.raises(BadInput, match=reason):
            ServeOptions(**options)


def test_a_certificate_that_cannot_be_used(exported, tmp_path):
    from allconv_resnet.serving.listening import check_certificate

    (tmp_path / "x").write_text("nothing")
    with pytest.raises(BadInput, match="must be PEM files"):
        check_certificate(ServeOptions(certificate=tmp_path / "x", certificate_key=tmp_path / "x"))
