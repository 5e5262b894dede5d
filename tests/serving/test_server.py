"""The server in a process of its own, over real connections: it answers as the network does, and nothing ends it."""

import socket
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from serving.servers import IMAGES, b64, encode

from allconv_resnet import cli
from allconv_resnet.layers import standardize
from allconv_resnet.serving.export import export_savedmodel
from allconv_resnet.serving.options import ServeOptions

RNG = np.random.default_rng(1)
ROOT = Path(__file__).resolve().parents[2]
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
    expected = model.predict(standardize(images), verbose=0)
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
    assert refused.returncode == 1 and "400: Image 2 of 2 must be a JPEG or a PNG file" in refused.stderr

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


def command(*arguments):
    with pytest.raises(SystemExit) as stop:
        cli.main([str(argument) for argument in arguments])
    return stop.value.code


@pytest.mark.slow
def test_a_port_for_grpc_that_is_taken_leaves_no_unix_socket(exported, tmp_path):
    # So large a limit is one that gRPC itself does not take.
    options = ["--unix-socket", tmp_path / "socket", "--max-body-mb", "5000", "--max-buffered-mb", "1000000"]
    with socket.create_server(("127.0.0.1", 0)) as taken:
        code = "from allconv_resnet import cli; cli.main()"
        serve = [sys.executable, "-c", code, "serve", exported, *options, "--grpc-port", str(taken.getsockname()[1])]
        done = subprocess.run(serve, capture_output=True, text=True, timeout=120)
    assert done.returncode == 2 and "The server cannot listen on 127.0.0.1" in done.stderr.splitlines()[-1], done.stderr
    assert not (tmp_path / "socket").exists()


def test_what_cannot_be_served(tmp_path, model, capsys):
    assert command("serve", tmp_path) == 2
    assert "There is no exported model" in capsys.readouterr().err
    assert command("serve", tmp_path, "--port", "70000") == 2
    assert "port must lie in [0, 65535]. Received: port=70000" in capsys.readouterr().err
    assert command("serve", tmp_path, "--batch", "0") == 2
    assert "batch must be positive" in capsys.readouterr().err
    assert command("serve", tmp_path, "--name", "a/b") == 2
    assert "name must be made of" in capsys.readouterr().err
    export_savedmodel(model, range(10), tmp_path, 1)
    with socket.create_server(("127.0.0.1", 0)) as taken:
        assert command("serve", tmp_path, "--port", taken.getsockname()[1]) == 2
    said = capsys.readouterr().err
    assert "The server cannot listen on" in said and "Address already in use" in said
    (tmp_path / "1" / "saved_model.pb").write_bytes(b"nothing")
    assert command("serve", tmp_path) == 2
    assert "cannot be loaded" in capsys.readouterr().err
    assert ServeOptions().host == "127.0.0.1"  # nothing outside of the machine, unless asked for
