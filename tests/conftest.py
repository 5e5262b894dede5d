"""What several tests use."""

import os
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
from data.prepared_sets import write_prepared
from hypothesis import settings

# The same examples every time, so that a change is judged by itself; `--hypothesis-profile default` draws new ones.
settings.register_profile("repeatable", derandomize=True)
settings.load_profile("repeatable")

# Tests of signals also run where they were ignored when the tests began, as `nohup` and background jobs do.
for number, handler in ((signal.SIGHUP, signal.SIG_DFL), (signal.SIGINT, signal.default_int_handler)):
    if signal.getsignal(number) is signal.SIG_IGN:
        signal.signal(number, handler)

# XLA's compiler takes most of the time of a short run on JAX, so the processes of the tests share what it compiled.
COMPILED = tempfile.TemporaryDirectory()
os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", COMPILED.name)
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0")
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES", "-1")

ROOT = Path(__file__).resolve().parent.parent
PREPARED = ROOT.parent / "shared" / "tfds"


@pytest.fixture
def prepared():
    """Directory with the real CIFAR-10 (and a part of ImageNet), prepared by tensorflow-datasets."""
    if not (PREPARED / "cifar10").is_dir():
        pytest.skip("real CIFAR-10 is not beside the checkout, in ../shared/tfds")
    return PREPARED


@pytest.fixture
def run_python():
    """Runs a Python program in a process of its own, and returns the completed process."""

    def run(*arguments, **environment):
        return subprocess.run(
            [sys.executable, *map(str, arguments)],
            cwd=ROOT,
            env={**os.environ, **environment},
            capture_output=True,
            text=True,
            timeout=300,
        )

    return run


@pytest.fixture
def write_tfds():
    """Writes random images as a data set that tensorflow-datasets has prepared; returns the arrays of its splits."""
    return write_prepared
