"""One server for all tests that only ask it."""

import numpy as np
import pytest
from serving.servers import BATCH, IMAGES, LIMITS, MB, Server, b64
from training.runs import TINY

from allconv_resnet.layers import standardize
from allconv_resnet.serving.export import export_savedmodel


@pytest.fixture(scope="session")
def model():
    return TINY.build_model()


@pytest.fixture(scope="session")
def expected(model):
    """The logits of the network for the images, after the evaluation pipeline."""
    return model.predict(standardize(IMAGES), verbose=0)


@pytest.fixture(scope="session")
def exported(model, tmp_path_factory):
    directory = tmp_path_factory.mktemp("export")
    export_savedmodel(model, [f"digit {i}" for i in range(10)], directory, version=60)
    return directory


@pytest.fixture(scope="session")
def server(exported):
    server = Server(exported, "--name", "digits", "--grpc-port", "0", *LIMITS, *BATCH)
    for signature in ("serving_default", "serve_uint8"):  # before the memory is measured for the first time
        server.predict(instances=IMAGES.tolist(), signature_name=signature)
    server.predict(instances=[b64(IMAGES[0])], signature_name="serve_bytes")
    server.memory_at_first = server.peak_memory()
    with server:
        yield server


@pytest.fixture
def survives(server, expected):
    """After the test: the same process, its memory bounded, answers the next good request."""
    yield
    assert server.process.poll() is None
    assert server.peak_memory() < server.memory_at_first + 400 * MB
    status, answer = server.predict(instances=IMAGES[:1].tolist())
    assert status == 200
    np.testing.assert_allclose(answer["predictions"][0]["logits"], expected[0], rtol=1e-4, atol=1e-5)
