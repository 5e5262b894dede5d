"""The container files say what they should: checked against the Compose Specification, and against the programs."""

import importlib.util
import json
import os
import re
import shutil
import subprocess
from configparser import ConfigParser
from importlib.metadata import version
from pathlib import Path

import pytest
import tyro
from check_jsonschema.builtin_schemas import get_builtin_schema
from jsonschema.validators import validator_for
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version
from ruamel.yaml import YAML

from allconv_resnet import cli
from allconv_resnet.recipes import RECIPES
from allconv_resnet.serving import kserve, metrics
from allconv_resnet.serving.options import ServeOptions
from allconv_resnet.training.engines import tf_config

ROOT = Path(__file__).resolve().parent.parent
DOCKER = ROOT / "docker"
SPEC = importlib.util.spec_from_file_location("constraints", DOCKER / "constraints.py")
constraints = importlib.util.module_from_spec(SPEC)
SPEC.loader.exec_module(constraints)
TRAINING = ("cifar", "imagenet", "worker-0", "worker-1", "chief", "ps-0", "async-worker-0", "async-worker-1")
ON_GPUS = ("cifar", "imagenet", "worker-0", "worker-1", "async-worker-0", "async-worker-1")


def load(name):
    (content,) = load_all(name)
    return content


def load_all(name):
    yaml = YAML(typ="safe", pure=True)
    yaml.constructor.add_constructor("!reset", lambda *_: None)  # Compose's own: takes away what another file gave
    return list(yaml.load_all(DOCKER / name))


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
    assert set(services) == {*TRAINING, "tensorboard", "serving", "page"}
    for name, service in services.items():
        assert service["healthcheck"]["test"] and service["init"] is True, name
        assert any(volume.split(":")[-1 if "ro" not in volume.split(":") else -2].startswith("/runs")
                   for volume in service["volumes"]), name  # fmt: skip
        gpus = service.get("deploy", {}).get("resources", {}).get("reservations", {}).get("devices", [])
        assert [device["capabilities"] for device in gpus] == ([["gpu"]] if name in ON_GPUS else []), name
    assert services["serving"]["image"].startswith("tensorflow/serving:")
    assert services["serving"]["ports"] == ["8501:8501", "8500:8500"]
    without = load("compose.cpu.yaml")["services"]
    assert set(without) == set(ON_GPUS)
    assert all(service == {"deploy": None} for service in without.values())
    # Before Compose 2.11, only one of several aliases of a tag had it.
    assert (DOCKER / "compose.cpu.yaml").read_text().count("deploy: !reset null") == len(ON_GPUS)


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


def test_the_workers_of_a_profile_have_gpus_of_their_own(services):
    for profile in ("multi-worker", "asynchronous"):
        workers = [each for each in services.values() if profile in each["profiles"] and "deploy" in each]
        devices = [each["deploy"]["resources"]["reservations"]["devices"][0]["device_ids"] for each in workers]
        assert devices == [["${GPUS_0:-0}"], ["${GPUS_1:-1}"]]
        assert all(each["environment"]["TF_FORCE_GPU_ALLOW_GROWTH"] == "true" for each in workers)


def test_the_page_is_served_and_probed(services):
    program, command, export, *options = map(interpolate, services["page"]["command"])
    assert (program, command, export) == ("allconv-resnet", "serve", "/runs/cifar10/export")
    assert tyro.cli(ServeOptions, args=options).host == "0.0.0.0"
    assert set(kserve.OPEN) == {"/v2/health/live", "/v2/health/ready"}  # those need no API key
    assert "127.0.0.1:8501/v2/health/ready" in services["page"]["healthcheck"]["test"][-1]
    deployment, service = load_all("serve.yaml")
    (container,) = deployment["spec"]["template"]["spec"]["containers"]
    options = tyro.cli(ServeOptions, args=container["command"][3:])
    assert container["command"][:2] == ["allconv-resnet", "serve"] and options.host == "0.0.0.0"
    assert deployment["spec"]["template"]["spec"]["terminationGracePeriodSeconds"] > options.stop_seconds
    assert container["ports"][0]["containerPort"] == options.port == service["spec"]["ports"][0]["port"]
    probes = {container[f"{kind}Probe"]["httpGet"]["path"] for kind in ("startup", "readiness", "liveness")}
    assert probes == set(kserve.OPEN)
    labels = deployment["spec"]["template"]["metadata"]["labels"]
    assert labels == deployment["spec"]["selector"]["matchLabels"] == service["spec"]["selector"]
    scraped = deployment["spec"]["template"]["metadata"]["annotations"]
    assert scraped["prometheus.io/path"] == metrics.ADDRESS and int(scraped["prometheus.io/port"]) == options.port


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
        shared = {volume["name"]: volume.get("emptyDir") for volume in spec["template"]["spec"]["volumes"]}
        assert shared["shm"]["medium"] == "Memory"  # for NCCL
        assert {"name": "shm", "mountPath": "/dev/shm"} in container["volumeMounts"]


def test_the_trainjob_runs_in_step_on_all_nodes():
    runtime, job = load_all("trainjob.yaml")
    assert {each["apiVersion"] for each in (runtime, job)} == {"trainer.kubeflow.org/v1alpha1"}
    assert job["spec"]["runtimeRef"] == {"name": runtime["metadata"]["name"], "kind": runtime["kind"]}
    (node,) = runtime["spec"]["template"]["spec"]["replicatedJobs"]
    pod = node["template"]["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    assert node["name"] == container["name"] == "node"  # the names that the trainer looks for
    mounted = {mount["name"] for mount in container["volumeMounts"]}
    assert mounted == {volume["name"] for volume in pod["volumes"]} == {"data", "runs", "shm"}
    nodes = runtime["spec"]["mlPolicy"]["numNodes"]
    assert {"name": "NODES", "value": str(nodes)} in container["env"]
    assert cli.parse_job(["imagenet"], container["args"][1:]).strategy == "multi-worker"

    # Its script, with a program in the place of Python's that shows what training would be given.
    shell, option, script, name = container["command"]
    script = script.replace('exec python "$@"', 'echo "$TF_CONFIG"; echo "$@"')
    for index in range(nodes):
        environment = {**os.environ, "JOB": "imagenet", "NODES": str(nodes), "JOB_COMPLETION_INDEX": str(index)}
        command = [shell, option, script, name, *container["args"]]
        config, arguments = subprocess.run(command, env=environment, capture_output=True, text=True).stdout.splitlines()
        cluster = tf_config.read_cluster({"TF_CONFIG": config})
        assert cluster.this.host_and_port() == (f"imagenet-node-0-{index}.imagenet", 2222)
        assert len(cluster.tasks_of("worker")) == nodes and arguments.split() == container["args"]


def test_the_dockerfile_takes_the_variants_and_is_not_root():
    lines = (DOCKER / "Dockerfile").read_text().splitlines()
    assert "ARG BASE_IMAGE=python:3.11.14-slim-bookworm" in lines and "FROM ${BASE_IMAGE}" in lines
    assert "ARG VARIANT=gpu" in lines
    assert [line for line in lines if line.startswith("USER ")] == ["USER trainer"]
    copied = [part for line in lines if line.startswith("COPY ") for part in line.split()[1:-1]]
    allowed = {line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")}
    assert set(copied) == allowed  # all that the image takes is in the build context, and nothing else
    assert all(list(ROOT.glob(part)) for part in copied)


def pinned():
    lines = (DOCKER / "constraints.txt").read_text().splitlines()
    return dict(line.split("==") for line in lines if not line.startswith("#"))


def test_every_requirement_is_pinned():
    config = ConfigParser()
    config.read(ROOT / "setup.cfg")
    lines = [config["options"]["install_requires"], *dict(config["options.extras_require"]).values()]
    requirements = [Requirement(line.split("#")[0].strip()) for part in lines for line in part.splitlines() if line]
    assert len(requirements) >= 25
    for requirement in requirements:
        if requirement.name != "allconv_resnet":
            version_of_it = pinned()[canonicalize_name(requirement.name)]
            assert Version(version_of_it) in requirement.specifier, requirement
    assert pinned()["tensorflow"] == version("tensorflow")  # the one that these tests run on


@pytest.mark.slow
def test_all_extras_can_be_installed_together_and_nothing_is_left_open():
    """pip resolves all extras within constraints.txt, and takes nothing else than what stands there."""
    try:
        resolved = constraints.resolve("--constraint", str(constraints.FILE))
    except subprocess.CalledProcessError as error:
        if "Temporary failure in name resolution" in error.stderr or "NewConnectionError" in error.stderr:
            pytest.skip("no package registry can be reached")
        raise AssertionError(error.stderr) from error
    assert resolved == pinned()
    assert {"starlette", "click", "anyio", "nvidia-cudnn-cu12", "jaxlib", "torch", "onnxruntime"} <= resolved.keys()


def test_the_commit_is_known_inside_of_a_container(run_python, tmp_path):
    lines = (DOCKER / "Dockerfile").read_text().splitlines()
    assert "ARG COMMIT=" in lines and "ENV ALLCONV_RESNET_COMMIT=${COMMIT}" in lines
    shutil.copytree(ROOT / "allconv_resnet", tmp_path / "allconv_resnet")  # as in the image: no Git around it
    code = "import sys; sys.path[0] = sys.argv[1]; from allconv_resnet import environment; print(environment.commit())"
    for given, shown in (("abc123", "abc123"), ("", "None")):
        ran = run_python("-c", code, tmp_path, ALLCONV_RESNET_COMMIT=given)
        assert ran.stdout.strip() == shown, ran.stderr


def test_the_readme_shows_clusters_that_can_be_read():
    text = (DOCKER / "README.md").read_text()
    shown = re.findall(r"TF_CONFIG='(.*?)'", text, re.S)
    assert len(shown) == 2
    for config in shown:
        for index in range(6):
            config_of = json.loads(config.replace('"index": I', f'"index": {index}'))
            assert tf_config.read_cluster({"TF_CONFIG": json.dumps(config_of)}).this.index == index
