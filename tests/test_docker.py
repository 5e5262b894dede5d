"""The container files say what they should: checked against the Compose Specification, and against the programs."""

import json
import re
from importlib.metadata import version
from pathlib import Path

import pytest
from check_jsonschema.builtin_schemas import get_builtin_schema
from jsonschema.validators import validator_for
from packaging.requirements import Requirement
from packaging.version import Version
from ruamel.yaml import YAML

from allconv_resnet import cli
from allconv_resnet.recipes import RECIPES
from allconv_resnet.training.engines import tf_config

ROOT = Path(__file__).resolve().parent.parent
DOCKER = ROOT / "docker"
TRAINING = ("cifar", "imagenet", "worker-0", "worker-1", "chief", "ps-0", "async-worker-0", "async-worker-1")
ON_GPUS = ("cifar", "imagenet", "worker-0", "worker-1", "async-worker-0", "async-worker-1")


def load(name):
    yaml = YAML(typ="safe", pure=True)
    yaml.constructor.add_constructor("!reset", lambda *_: None)  # Compose's own: takes away what another file gave
    return yaml.load(DOCKER / name)


@pytest.fixture(scope="module")
def services():
    return load("compose.yaml")["services"]


def interpolate(text):
    """What Compose makes of ${NAME:-default} where nothing is set."""
    return re.sub(r"\$\{\w+:-([^}]*)\}", r"\1", text)


@pytest.mark.parametrize("name", ["compose.yaml", "compose.cpu.yaml"])
def test_compose_files_are_valid(name):
    schema = get_builtin_schema("vendor.compose-spec")
    validator = validator_for(schema)(schema)
    content = load(name)
    assert [error.message for error in validator.iter_errors(content)] == []
    content["services"]["cifar"]["comand"] = "a misspelling"
    assert any("comand" in str(error.message) for error in validator.iter_errors(content))  # it does look


def test_services_have_what_they_need(services):
    assert set(services) == {*TRAINING, "tensorboard", "serving"}
    for name, service in services.items():
        assert service["healthcheck"]["test"], name
        assert any(volume.split(":")[-1 if "ro" not in volume.split(":") else -2].startswith("/runs")
                   for volume in service["volumes"]), name  # fmt: skip
        gpus = service.get("deploy", {}).get("resources", {}).get("reservations", {}).get("devices", [])
        assert [device["capabilities"] for device in gpus] == ([["gpu"]] if name in ON_GPUS else []), name
    assert services["serving"]["image"].startswith("tensorflow/serving:")
    assert services["serving"]["ports"] == ["8501:8501", "8500:8500"]
    without = load("compose.cpu.yaml")["services"]
    assert set(without) == set(ON_GPUS)
    assert all(service == {"deploy": None} for service in without.values())


@pytest.mark.parametrize("name", TRAINING)
def test_commands_are_those_of_the_programs(services, name):
    python, script, *options = map(interpolate, services[name]["command"])
    assert (ROOT / script).exists()
    first = {"train_cifar.py": "cifar10", "train_imagenet.py": "imagenet"}[script]
    job = cli.parse_job([first, *RECIPES], options)
    assert python == "python" and job.recipe.name == first
    assert str(job.run_dir).startswith("/runs/")
    config = services[name].get("environment", {}).get("TF_CONFIG")
    assert (config is None) == (job.strategy not in ("multi-worker", "parameter-server"))


@pytest.mark.parametrize(("profile", "jobs"), [("multi-worker", (0, 2, 0)), ("asynchronous", (1, 2, 1))])
def test_the_tasks_of_a_job_know_each_other(services, profile, jobs):
    of_job = {name: service for name, service in services.items() if profile in service["profiles"]}
    found = {name: tf_config.read_cluster(service["environment"]) for name, service in of_job.items()}
    assert {each.tasks for each in found.values()} == {next(iter(found.values())).tasks}
    for name, each in found.items():
        assert each.this.host_and_port() == (name, 2222)  # a service is reached by its name
        assert tuple(len(each.tasks_of(job)) for job in ("chief", "worker", "ps")) == jobs
    assert {each.this for each in found.values()} == set(next(iter(found.values())).tasks)


def test_the_tfjob_is_the_papers_job():
    job = load("tfjob.yaml")
    assert (job["apiVersion"], job["kind"]) == ("kubeflow.org/v1", "TFJob")
    replicas = job["spec"]["tfReplicaSpecs"]
    assert {name: spec["replicas"] for name, spec in replicas.items()} == {"Chief": 1, "PS": 2, "Worker": 6}
    for name, spec in replicas.items():
        (container,) = spec["template"]["spec"]["containers"]
        assert container["name"] == "tensorflow"
        assert container["resources"].get("limits", {}) == ({"nvidia.com/gpu": 8} if name == "Worker" else {})
        mounted = {mount["name"] for mount in container["volumeMounts"]}
        assert mounted == {volume["name"] for volume in spec["template"]["spec"]["volumes"]}
        options = cli.parse_job(["imagenet"], container["command"][2:])
        assert options.strategy == "parameter-server"


def test_the_dockerfile_takes_the_variants_and_is_not_root():
    lines = (DOCKER / "Dockerfile").read_text().splitlines()
    assert "ARG BASE_IMAGE=python:3.11.14-slim-bookworm" in lines and "FROM ${BASE_IMAGE}" in lines
    assert "ARG VARIANT=gpu" in lines
    assert [line for line in lines if line.startswith("USER ")] == ["USER trainer"]
    copied = [part for line in lines if line.startswith("COPY ") for part in line.split()[1:-1]]
    allowed = {line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")}
    assert set(copied) == allowed  # all that the image takes is in the build context, and nothing else
    assert all(list(ROOT.glob(part)) for part in copied)


def test_every_requirement_is_pinned():
    pins = dict(line.split("==") for line in (DOCKER / "constraints.txt").read_text().splitlines() if "==" in line)
    section = re.search(r"install_requires =\n((?:    .*\n)+)", (ROOT / "setup.cfg").read_text())[1]
    requirements = [Requirement(line.split("#")[0].strip()) for line in section.splitlines()]
    assert len(requirements) >= 10
    for requirement in requirements:
        pinned = pins[requirement.name.lower().replace("_", "-")]
        assert Version(pinned) in requirement.specifier, requirement
    assert pins["tensorflow"] == version("tensorflow")  # the one that these tests run on


def test_the_readme_shows_clusters_that_can_be_read():
    text = (DOCKER / "README.md").read_text()
    shown = re.findall(r"TF_CONFIG='(.*?)'", text, re.S)
    assert len(shown) == 2
    for config in shown:
        for index in range(6):
            config_of = json.loads(config.replace('"index": I', f'"index": {index}'))
            assert tf_config.read_cluster({"TF_CONFIG": json.dumps(config_of)}).this.index == index
