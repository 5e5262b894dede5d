"""Functions that the benchmarks share: timing, and JSON files with the figures and the environment."""

import contextlib
import importlib.metadata
import importlib.util
import json
import os
import re
import statistics
import time
from datetime import UTC, datetime
from pathlib import Path

from allconv_resnet import environment, files

PEERS = ("torch", "opencv-python-headless", "imagecodecs", "simplejpeg", "pillow")  # packages that are compared with
RESULTS = Path(__file__).resolve().parent.parent / "results" / "benchmarks"


def elapsed_seconds(function, repeats=1):
    """Returns the wall-clock time in seconds of calling a function several times."""
    began = time.perf_counter()
    for _ in range(repeats):
        function()
    return time.perf_counter() - began


def spread(values):
    """Returns the minimum, median, maximum and number of the values of a list."""
    return {"min": min(values), "median": statistics.median(values), "max": max(values), "n": len(values)}


def write_figures(name, figures):
    """Writes the figures and the environment in which they were measured to results/benchmarks/NAME.json."""
    RESULTS.mkdir(parents=True, exist_ok=True)
    content = {
        "measured": datetime.now(UTC).isoformat(timespec="seconds"),
        "environment": this_environment(),
        **figures,
    }
    files.write_json(RESULTS / f"{name}.json", content)


def read_figures(name):
    """Returns the content of results/benchmarks/NAME.json, or an empty dictionary if there is no such file."""
    path = RESULTS / f"{name}.json"
    return json.loads(path.read_text()) if path.exists() else {}


def this_environment():
    """Returns the environment of this process with the versions of the peers that are installed.

    It has no precision, which each benchmark records itself.
    """
    found = environment.describe(gpus=gpu_names())
    for name in PEERS:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            found["versions"][name] = importlib.metadata.version(name)
    return found


def gpu_names():
    """Returns the names of the GPUs of this machine, as JAX has them if Keras uses it, or else TensorFlow."""
    if os.environ.get("KERAS_BACKEND") != "jax" and importlib.util.find_spec("tensorflow"):
        from allconv_resnet.training.engines.distribution import gpu_names

        return gpu_names()
    import jax

    return [device.device_kind for device in jax.devices() if device.platform == "gpu"]


def hardware():
    """Returns the kind of this machine as a part of a file name."""
    where = this_environment()
    parts = where["gpus"] or [str(where["cores"]), where["cpu"], *where["bfloat16_instructions"]]
    return re.sub(r"[^a-z0-9_]+", "-", " ".join(parts).lower()).strip("-")
