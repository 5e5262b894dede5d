"""The archives of a release, installed in fresh environments outside of the checkout, do what they should."""

import base64
import json
import os
import platform
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import urllib.request
import zipfile
from pathlib import Path

import pytest

from allconv_resnet import kernels

ROOT = Path(__file__).resolve().parent.parent
SOURCES = (
    "allconv_resnet",
    "allconv_resnet_command.py",
    "setup.cfg",
    "setup.py",
    "pyproject.toml",
    "README.md",
    "LICENSE",
)
ENVIRONMENT = {key: value for key, value in os.environ.items() if key not in ("PYTHONPATH", "KERAS_BACKEND")}


def run(*command, cwd):
    done = subprocess.run(
        list(map(str, command)), cwd=cwd, env=ENVIRONMENT, capture_output=True, text=True, timeout=300
    )
    if "No matching distribution found for setuptools" in done.stdout + done.stderr:
        pytest.skip("no package registry can be reached, from which the tools of the build come")
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def archives(tmp_path_factory):
    """The archives of a release, by their suffix. They are built from a copy, so that the checkout stays as it is."""
    copy = tmp_path_factory.mktemp("release")
    for name in SOURCES:
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, copy / name, ignore=shutil.ignore_patterns("__pycache__", "*.so"))
        else:
            shutil.copy(ROOT / name, copy)
    run(sys.executable, "-m", "build", "--quiet", cwd=copy)
    return {path.suffix: path for path in (copy / "dist").iterdir()}


def environment(directory, archive):
    """Returns the programs of a new environment with an archive. Its dependencies are those of these tests."""
    run(sys.executable, "-m", "venv", directory, cwd=directory.parent)
    (packages,) = directory.glob("lib/python*/site-packages")
    (packages / "dependencies.pth").write_text(sysconfig.get_paths()["purelib"] + "\n")
    # The dependencies contain the package too, which pip would take for what it is asked for.
    install = ("install", "--quiet", "--ignore-installed", "--no-deps", archive)
    run(directory / "bin/python", "-m", "pip", *install, cwd=directory.parent)
    run(directory / "bin/python", "-m", "pip", "check", cwd=directory.parent)
    where = run(directory / "bin/python", "-c", "import allconv_resnet as a; print(a.__file__)", cwd=directory.parent)
    assert Path(where.strip()).is_relative_to(packages)
    return directory / "bin"


@pytest.mark.slow
def test_the_archives_have_all_files_that_the_package_reads(archives):
    wheel = set(zipfile.ZipFile(archives[".whl"]).namelist())
    with tarfile.open(archives[".gz"]) as file:
        source = {name.partition("/")[2] for name in file.getnames()}
    files = {path.relative_to(ROOT) for path in (ROOT / "allconv_resnet").rglob("*") if path.is_file()}
    needed = {path.as_posix() for path in files if "__pycache__" not in path.parts and path.suffix != ".so"}
    assert needed - wheel == set() and needed - source == set()
    if kernels.available():  # there was a compiler for the checkout, and the wheel was built on the same machine
        assert any(name.startswith("allconv_resnet/kernels/compiled.") for name in wheel)
    assert "allconv_resnet/py.typed" in wheel and "allconv_resnet_command.py" in wheel
    assert not [name for name in wheel if name.startswith(("tests", "benchmarks", "examples"))]


@pytest.mark.slow
def test_the_wheel_trains_exports_and_serves(archives, tmp_path):
    bin = environment(tmp_path / "fresh", archives[".whl"])
    outside = tmp_path / "outside"
    outside.mkdir()
    options = ("--recipe", "digits", "--steps", "3", "--run-dir", "run")
    run(bin / "allconv-resnet", "train", *options, cwd=outside)
    assert list(outside.glob("run/export/3/saved_model.pb"))
    serve = [bin / "allconv-resnet", "serve", "run/export", "--port", "0"]
    server = subprocess.Popen(serve, cwd=outside, env=ENVIRONMENT, stdout=subprocess.PIPE, text=True)
    try:
        address = next(line for line in server.stdout if line.startswith("Serving version 3 at ")).split(" at ")[1]
        image = base64.b64encode((ROOT / "examples" / "seven.png").read_bytes()).decode()
        body = json.dumps({"signature_name": "serve_bytes", "instances": [{"b64": image}]}).encode()
        with urllib.request.urlopen(address.partition(",")[0], body, timeout=60) as answer:
            (prediction,) = json.load(answer)["predictions"]
    finally:
        server.terminate()
        server.wait(60)
    assert len(prediction["probabilities"]) == 5 and set(prediction["labels"]) <= set("0123456789")


@pytest.mark.slow
def test_the_source_distribution_is_the_same_package(archives, tmp_path):
    bin = environment(tmp_path / "fresh", archives[".gz"])
    version = archives[".gz"].name.removesuffix(".tar.gz").rpartition("-")[2]
    assert run(bin / "allconv-resnet", "--version", cwd=tmp_path) == f"allconv_resnet {version}\n"
    assert "cifar10-fast" in run(bin / "allconv-resnet", "doctor", cwd=tmp_path)


LOAD = """
import sys
import tensorflow as tf
library = tf.load_op_library(sys.argv[1])
print(hasattr(library, "allconv_convolution"), hasattr(library, "allconv_filter_gradient"))
"""


@pytest.mark.slow
@pytest.mark.skipif(
    sys.platform != "linux" or platform.machine() != "x86_64" or not shutil.which("cc"),
    reason="the operations are compiled on Linux on x86-64, where there is a C compiler",
)
def test_the_sources_compile_without_warnings(tmp_path):
    where = ("--build-lib", tmp_path, "--build-temp", tmp_path / "objects")
    flags = os.environ | {"CFLAGS": "-Wall -Werror"}
    subprocess.run([sys.executable, "setup.py", "-q", "build_ext", *where], cwd=ROOT, env=flags, check=True)
    (library,) = tmp_path.glob("allconv_resnet/kernels/compiled*.so")
    loaded = subprocess.run([sys.executable, "-c", LOAD, library], capture_output=True, text=True, check=True)
    assert loaded.stdout == "True True\n"
