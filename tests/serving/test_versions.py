"""Versions and models come and go while the server answers."""

import itertools
import json
import shutil
import signal
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from serving.servers import IMAGES, Server, wait_for

from allconv_resnet.errors import BadInput
from allconv_resnet.serving.models import Models
from allconv_resnet.serving.options import ServeOptions
from allconv_resnet.serving.refused import Refused
from allconv_resnet.serving.sources import Source, read_model_config, read_sources
from allconv_resnet.serving.versions import versions_of

CONFIG = """
model_config_list {
  config { name: "all" base_path: "%(base)s" model_platform: "tensorflow" model_version_policy { all {} } }
  config {
    name: "two" base_path: "%(base)s" model_version_policy { specific { versions: 1 versions: 3 } }
    version_labels { key: "stable" value: 1 }
    version_labels { key: "next" value: 3 }
    version_labels { key: "away" value: 9 }
  }
  config { name: "newest" base_path: "%(base)s" model_version_policy { latest { num_versions: 2 } } }
}
"""


class Fake:
    """Stands for a SavedModel, of which loading reads one file."""

    def __init__(self, path, name, version):
        self.path, self.name, self.version = path, name, version
        self.content = (path / "saved_model.pb").read_text()
        if self.content == "damaged":
            raise BadInput(f"The export in {path} cannot be loaded: damaged")

    def warm_up(self):
        if self.content == "cold":
            raise BadInput(f"The export in {self.path} does not answer: cold")


def write(base, version, content="good"):
    (base / str(version)).mkdir(parents=True, exist_ok=True)
    (base / str(version) / "saved_model.pb").write_text(content)


def models_of(base, **policy):
    return Models(lambda: {"model": Source("model", base, **policy)}, Fake)


def loaded(models):
    return sorted(model.version for model in models.loaded)


def test_only_numbers_are_versions(tmp_path):
    for name in ("1", "03", "²", "٣", ".4", ".600.5", "5.old", "-6", "x", "9" * 30):
        write(tmp_path, name)
    (tmp_path / "7").mkdir()  # empty
    assert versions_of(tmp_path) == {1: tmp_path / "1", 3: tmp_path / "03"}
    assert versions_of(tmp_path / "1") == {1: tmp_path / "1"}
    assert versions_of(tmp_path / "x") == {1: tmp_path / "x"}
    assert versions_of(tmp_path / "nothing") == {}


def test_the_newest_version_that_can_be_loaded_is_served(tmp_path, capsys):
    models = models_of(tmp_path)
    assert not models.look() or not models.loaded
    with pytest.raises(Refused, match="No version of model is loaded"):
        models.find("model")
    write(tmp_path, 1)
    assert models.look() and loaded(models) == [1] and models.ready
    first = models.find("model")
    write(tmp_path, 3, "damaged")
    write(tmp_path, 4, "cold")
    write(tmp_path, 2)
    assert models.look() and loaded(models) == [2]
    said = capsys.readouterr().err
    assert said.count("cannot be loaded: damaged") == 1 and said.count("does not answer: cold") == 1
    assert models.states("model") == [(4, models.failures[0]), (3, models.failures[1]), (2, "")]
    assert not models.look() and capsys.readouterr().err == ""  # nothing is said twice
    write(tmp_path, 3, "mended")
    assert models.look() and loaded(models) == [3]
    assert first.content == "good"  # who has it keeps it
    write(tmp_path, 3, "another")  # exported again under the same number
    assert models.look() and models.find("model").content == "another"
    write(tmp_path, 3, "damaged")
    assert not models.look() and models.find("model").content == "another"
    shutil.rmtree(tmp_path / "3")
    shutil.rmtree(tmp_path / "4")
    assert models.look() and loaded(models) == [2]
    shutil.rmtree(tmp_path)
    assert models.look() and loaded(models) == [] and not models.ready


def test_a_configuration_in_the_form_of_tensorflow_serving(tmp_path, capsys):
    base, config = tmp_path / "base", tmp_path / "models.config"
    for version in (1, 2, 3):
        write(base, version)
    config.write_text(CONFIG % {"base": base})
    models = Models(lambda: {source.name: source for source in read_model_config(config)}, Fake)
    models.look()
    versions = {name: [version for version, _ in models.states(name)] for name in models.names}
    assert versions == {"all": [3, 2, 1], "two": [3, 1], "newest": [3, 2]}
    assert models.find("two", label="stable").version == 1 and models.find("two", label="next").version == 3
    assert models.find("two", version="1").version == 1 and models.find("two").version == 3
    for arguments, reason in [
        ({"label": "away"}, "There is no version 9"),
        ({"label": "x"}, "no label x"),
        ({"version": "2"}, "There is no version 2 of two. Loaded: 1, 3"),
    ]:
        with pytest.raises(Refused, match=reason):
            models.find("two", **arguments)
    config.write_text(f'model_config_list {{ config {{ name: "two" base_path: "{base}" }} }}')
    assert models.look() and models.names == ["two"] and loaded(models) == [3]  # changes while serving
    config.write_text("nonsense {")
    assert not models.look() and models.names == ["two"]
    assert capsys.readouterr().err.count("cannot be read") == 1


def test_what_names_no_models(tmp_path):
    config = tmp_path / "config"
    for text, reason in [
        ("custom_model_config {}", "must have a model_config_list"),
        ('model_config_list { config { name: "a/b" base_path: "x" } }', "name of a model"),
        (
            'model_config_list { config { name: "a" base_path: "x" model_platform: "torch" } }',
            "platform must be tensor",
        ),
        ('model_config_list { config { name: "a" } }', "base_path must be the path of a directory"),
        ("", "must have a model_config_list"),
    ]:
        config.write_text(text)
        with pytest.raises(BadInput, match=reason):
            read_model_config(config)
    for export, options, reason in [
        (None, {}, "There is nothing to serve"),
        (None, {"model": ("a",)}, "--model must be NAME=DIR. Received: 'a'"),
        ("x", {"model": ("model=y",)}, "a name of its own. Received: model, model"),
        (None, {"model_config": tmp_path / "nothing"}, "cannot be read"),
    ]:
        with pytest.raises(BadInput, match=reason):
            read_sources(export, ServeOptions(**options))


def first_logits(server, path):
    status, answer = server.predict(path, instances=IMAGES[:1].tolist())
    return status, answer["predictions"][0]["logits"] if status == 200 else answer["error"]


@pytest.mark.slow
def test_several_models_with_versions_and_labels_over_http(exported, expected, tmp_path):
    shutil.copytree(exported / "60", tmp_path / "61")
    shutil.copytree(exported / "60", tmp_path / "62")
    (tmp_path / "62" / "saved_model.pb").write_bytes(b"half of a co")
    config = tmp_path / "models.config"
    config.write_text(
        f'model_config_list {{ config {{ name: "labelled" base_path: "{tmp_path}" '
        'version_labels { key: "stable" value: 61 } } }'
    )
    with Server(exported, "--model", f"other={exported}", "--model-config", config, "--poll-seconds", "0") as server:
        for path in ("model", "other/versions/60", "labelled", "labelled/versions/61", "labelled/labels/stable"):
            status, logits = first_logits(server, f"/v1/models/{path}:predict")
            assert status == 200
            np.testing.assert_allclose(logits, expected[0], rtol=1e-4, atol=1e-5)
        _, answer = server.ask("GET", "/v1/models/labelled")
        states = [(each["version"], each["state"]) for each in answer["model_version_status"]]
        assert states == [("62", "END"), ("61", "AVAILABLE")]
        assert "cannot be loaded" in answer["model_version_status"][0]["status"]["error_message"]
        assert server.said().count("62 cannot be loaded") == 1
        shutil.rmtree(tmp_path / "62")
        shutil.copytree(exported / "60", tmp_path / "63")
        for number in (signal.SIGUSR1, signal.SIGUSR2, signal.SIGHUP):  # only the last has an effect, none ends it
            server.process.send_signal(number)
        wait_for(lambda: server.ask("GET", "/v1/models/labelled/versions/63")[0] == 200)
        assert first_logits(server, "/v1/models/labelled:predict")[0] == 200
        assert first_logits(server, "/v1/models/labelled/labels/stable:predict")[0] == 404
        wait_for(lambda: "Version 61 of labelled is no longer served" in server.said())


@pytest.mark.slow
def test_a_minute_of_clients_while_versions_come_and_go(exported, expected, tmp_path):
    """Every request is answered, and rightly; the newest version is damaged now and then."""
    base, numbers = tmp_path / "base", itertools.count(2)
    shutil.copytree(exported / "60", base / "1")
    body, stop, counts, seen = json.dumps({"instances": IMAGES[:1].tolist()}), threading.Event(), [0] * 32, set()
    with Server(base, "--poll-seconds", "0.2", "--batch", "32") as server:

        def client(i):
            while not stop.is_set():
                status, answer = server.ask("POST", "/v1/models/model:predict", body)
                assert status == 200, answer
                np.testing.assert_allclose(answer["predictions"][0]["logits"], expected[0], rtol=1e-4, atol=1e-5)
                counts[i] += 1

        with ThreadPoolExecutor(32) as clients:
            running = [clients.submit(client, i) for i in range(32)]
            end, previous = time.monotonic() + 60, 1
            while time.monotonic() < end:
                number = next(numbers)
                shutil.copytree(exported / "60", base / f".{number}.part")
                (base / f".{number}.part").rename(base / str(number))
                bad = next(numbers)
                shutil.copytree(exported / "60", base / str(bad), ignore=shutil.ignore_patterns("variables*"))
                wait_for(lambda n=number: server.ask("GET", f"/v1/models/model/versions/{n}")[0] == 200)
                seen.add(number)
                shutil.rmtree(base / str(previous))
                shutil.rmtree(base / str(bad))
                previous = number
            stop.set()
            for each in running:
                each.result()
        print(f"{sum(counts)} right answers, {len(seen)} versions")
        assert sum(counts) > 100 and len(seen) > 2
        assert server.process.poll() is None


def test_what_failed_is_tried_again_on_request_and_a_version_that_answers_stays(tmp_path, capsys):
    broken = {"now": False}

    def load(*arguments):
        if broken["now"]:
            raise BadInput("too many open files")
        return Fake(*arguments)

    write(tmp_path, 1)
    models = Models(lambda: {"model": Source("model", tmp_path)}, load)
    assert models.look() and models.find("model").content == "good"
    write(tmp_path, 1, "replaced")
    broken["now"] = True
    for _ in range(2):
        assert not models.look() and models.find("model").content == "good" and models.states("model") == [(1, "")]
    assert capsys.readouterr().err.count("too many open files") == 1
    broken["now"] = False
    assert not models.look()  # nothing has changed on disk
    assert models.look(again=True) and models.find("model").content == "replaced"


def test_a_label_moves_when_its_version_is_loaded(tmp_path):
    write(tmp_path, 1)
    sources = {"model": Source("model", tmp_path, specific=frozenset({1}), labels={"stable": 1})}
    seen = []

    def load(*arguments):
        if seen:
            seen.append(models.find("model", label="stable").version)
        return Fake(*arguments)

    models = Models(lambda: sources, load)
    models.look()
    seen.append(models.find("model", label="stable").version)
    write(tmp_path, 2)
    sources["model"] = Source("model", tmp_path, specific=frozenset({1, 2}), labels={"stable": 2})
    models.look()
    assert [*seen, models.find("model", label="stable").version] == [1, 1, 2]


def test_models_and_versions_that_are_missing_are_named_once(tmp_path, capsys):
    write(tmp_path, 1)
    sources = {
        "good": Source("good", tmp_path),
        "typo": Source("typo", tmp_path / "nowhere"),
        "some": Source("some", tmp_path, specific=frozenset({1, 7}), labels={"stable": 9}),
    }
    models = Models(lambda: sources, Fake)
    for _ in range(2):
        models.look()
    said = " ".join(capsys.readouterr().err.split())
    assert said.count("warning: ") == 2
    assert f"typo has no version in {tmp_path}/nowhere" in said and f"some has no version 7, 9 in {tmp_path}" in said
