"""The counters of the server count what was asked, the documentation describes it, and both name it as the server."""

import http.client
import json
import re
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families
from serving.servers import IMAGES, b64

from allconv_resnet.serving import metrics, page

DASHBOARD = Path(__file__).resolve().parent.parent.parent / "docker" / "grafana.json"


def fetch(server, path, **headers):
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=60)
    connection.request("GET", path, headers=headers)
    answer = connection.getresponse()
    return answer, answer.read().decode()


def counted(server):
    """All values by name and labels."""
    answer, text = fetch(server, metrics.ADDRESS)
    assert answer.status == 200 and answer.headers["Content-Type"].startswith("text/plain; version=")
    samples = [sample for family in text_string_to_metric_families(text) for sample in family.samples]
    return {(sample.name, *sorted(sample.labels.items())): sample.value for sample in samples}


def test_requests_errors_batches_and_memory_are_counted(server):
    before = counted(server)
    body = {"instances": IMAGES[:3].tolist(), "signature_name": "serve_uint8"}
    assert server.predict(**body)[0] == 200
    assert server.predict(instances=[b64(IMAGES[0])], signature_name="serve_bytes")[0] == 200
    assert server.predict(instances=[b64(b"no image")], signature_name="serve_bytes")[0] == 400
    assert server.predict("/v1/models/other:predict", instances=[])[0] == 404
    for i in range(5):
        assert server.ask("GET", f"/nothing/{i}")[0] == 404
    after = counted(server)

    def grew(name, **labels):
        key = (f"allconv_resnet_{name}", *sorted(labels.items()))
        return after[key] - before.get(key, 0)

    asked = {"endpoint": "predict", "model": "digits"}
    assert grew("requests_total", **asked, status="200") == 2
    assert grew("requests_total", **asked, status="400") == 1
    assert grew("requests_total", endpoint="predict", model="", status="404") == 1  # whatever name a client makes up
    assert grew("requests_total", endpoint="", model="", status="404") == 5
    assert grew("requests_total", endpoint="metrics", model="", status="200") == 1
    assert grew("request_seconds_count", **asked) == 3
    assert 0 < grew("request_seconds_sum", **asked) < 60
    assert grew("request_seconds_bucket", **asked, le="+Inf") == 3
    assert grew("request_bytes_total", model="digits") > len(json.dumps(body)) - 10
    batch = {"model": "digits", "signature": "serve_uint8"}
    assert grew("batch_images_sum", **batch) == 3 and grew("batch_images_count", **batch) == 1
    assert grew("batch_images_bucket", **batch, le="2.0") == 0 and grew("batch_images_bucket", **batch, le="4.0") == 1
    assert grew("batch_requests_sum", **batch) == 1 and 0 < grew("batch_seconds_sum", **batch) < 60
    assert after["allconv_resnet_loaded", ("model", "digits"), ("version", "60")] == 1
    assert after["allconv_resnet_queue",] == after["allconv_resnet_requests_in_progress",] == 0
    assert after["process_resident_memory_bytes",] > 1e8


def test_openmetrics_is_spoken_as_well(server):
    answer, text = fetch(server, metrics.ADDRESS, Accept="application/openmetrics-text; version=1.0.0")
    assert answer.headers["Content-Type"].startswith("application/openmetrics-text") and text.endswith("# EOF\n")


def test_the_dashboard_shows_metrics_that_there_are(server):
    shown = set(re.findall(r"(?:allconv_resnet|process)_[a-z_]+", DASHBOARD.read_text()))
    server.predict(instances=IMAGES[:1].tolist())
    assert len(shown) >= 8 and shown <= {key[0] for key in counted(server)}
    board = json.loads(DASHBOARD.read_text())
    places = [(panel["gridPos"]["x"], panel["gridPos"]["y"]) for panel in board["panels"]]
    assert len(set(places)) == len(places) and len({panel["id"] for panel in board["panels"]}) == len(places)
    assert all(panel["targets"] for panel in board["panels"])


def test_openapi_describes_what_the_server_answers(server):
    content = json.loads(fetch(server, "/openapi.json")[1])
    assert content["openapi"] == "3.1.0"
    for path, methods in content["paths"].items():
        if "get" in methods:
            assert fetch(server, path)[0].status == 200
            continue
        media = methods["post"]["requestBody"]["content"]["application/json"]
        for example in media["examples"].values():  # Swagger UI sends it when it is tried out
            status, answer = server.ask("POST", path, json.dumps(example["value"]))
            assert status == 200
            schemas = content["components"]["schemas"]
            name = media["schema"]["oneOf"][-1]["$ref"].rpartition("/")[2]
            rows = schemas[f"{name}-answer"]["anyOf"][0]["properties"]["predictions"]["items"]["properties"]
            assert rows.keys() == answer["predictions"][0].keys()
    assert "/v1/models/digits/versions/60:predict" in content["paths"]


def test_pages_and_their_files(server):
    for path in (*page.OPEN, "/openapi.json", "/page/models.json"):
        answer, text = fetch(server, path)
        assert answer.status == 200, path
        urls = set(re.findall(r'(?:src|href)="([^"]+)"', text)) if path in ("/", "/docs") else set()
        for url in urls:
            assert "//" not in url and fetch(server, f"/{url}")[0].status == 200, url
    policy = fetch(server, "/")[0].headers["Content-Security-Policy"]
    assert policy.startswith("default-src 'none'") and "unsafe" not in policy and "http" not in policy
    for path in ("/static/../page.py", "/static/%2e%2e/page.py", "/swagger-ui/../core.py", "/static/"):
        assert fetch(server, path)[0].status == 404


@pytest.mark.parametrize(
    "card", ["", "# The <b>title</b>\n\n<script>alert(1)</script> [x](javascript:alert(1))\n\n| a |\n|---|\n| b |\n"]
)
def test_a_card_of_a_stranger_brings_no_html(card, tmp_path):
    class Model:
        directory, name, version = tmp_path, "it", 3

        def files_signature(self):
            return "serve_bytes"

    if card:
        (tmp_path / "MODEL_CARD.md").write_text(card)
    shown = page.describe(Model())
    assert shown["title"] == ("The <b>title</b>" if card else "it") and shown["version"] == "3"
    assert "<script" not in shown["card"] and 'href="javascript' not in shown["card"]
    assert ("<td>b</td>" in shown["card"]) == bool(card)
