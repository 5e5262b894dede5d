"""The environment of a process, which runs, benchmarks and theory commands record: versions, processor and commit."""

import importlib.metadata
import math
import os
import platform
import subprocess
import sys
from pathlib import Path

from allconv_resnet.errors import BadInput

BACKENDS = ("tensorflow", "jax")
PACKAGES = ("allconv_resnet", "tensorflow", "jax", "keras", "numpy", "scipy", "tensorflow-datasets")
BFLOAT16_FLAGS = {"amx_bf16", "avx512_bf16"}
SHARE_OF_CONTAINER = Path("/sys/fs/cgroup/cpu.max")  # of Linux's control groups, version 2


def describe(**more):
    """Returns the environment of this process as a dictionary for JSON.

    Args:
        **more: Further entries, such as `precision="float32"`.

    Returns:
        Dictionary with `command`, `commit`, `python`, `versions` (of the installed packages among `PACKAGES`),
        `platform`, `cpu`, `cores`, `bfloat16_instructions`, `gpus`, and the entries of `more`.
    """
    name, flags = processor()
    return {
        "command": sys.argv,
        "commit": commit(),
        "python": platform.python_version(),
        "versions": {name: version for name in PACKAGES if (version := _version(name))},
        "platform": platform.platform(),
        "cpu": name,
        "cores": cores(),
        "bfloat16_instructions": sorted(BFLOAT16_FLAGS & flags),
        "gpus": [],
        **more,
    }


def require_keras_settings():
    """Raises `BadInput` if the settings of Keras are not those that networks are trained, read and exported with.

    They come from the environment variable KERAS_BACKEND and from ~/.keras/keras.json.
    """
    import keras

    backend, layout, floatx = keras.backend.backend(), keras.config.image_data_format(), keras.config.floatx()
    if backend not in BACKENDS:
        raise BadInput(f"Keras must run on {' or '.join(BACKENDS)} (KERAS_BACKEND). Received: {backend}")
    if layout != "channels_last" or floatx != "float32":
        raise BadInput(
            "Keras must be configured with image_data_format channels_last and floatx float32 (~/.keras/keras.json). "
            f"Received: {layout} and {floatx}"
        )


def cores():
    """Returns the number of processor cores that this process may use.

    A container may have a share of the time of all cores, such as `docker run --cpus 2`. It counts as so many cores.
    """
    count = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return min(count, _share_of_container())


def _share_of_container():
    """Returns the limit of a container on the time of cores, rounded up to whole cores, or infinity if it has none."""
    try:
        microseconds, period = SHARE_OF_CONTAINER.read_text().split()
    except (OSError, ValueError):  # it is not in a container, or not on Linux
        return math.inf
    return math.inf if microseconds == "max" else math.ceil(int(microseconds) / int(period))


def commit():
    """Returns the commit of the package's checkout, with `+changes` if files differ from it.

    Outside of Git it is that of the environment variable ALLCONV_RESNET_COMMIT, which images of docker/ have, or None.
    """
    here = Path(__file__).parent

    def git(*arguments):
        return subprocess.run(
            ["git", "-C", here, *arguments], capture_output=True, text=True, check=True
        ).stdout.strip()

    try:
        git("ls-files", "--error-unmatch", Path(__file__).name)  # not a repository that only contains the environment
        return git("rev-parse", "HEAD") + ("+changes" if git("status", "--porcelain", "--", ".") else "")
    except (OSError, subprocess.CalledProcessError):
        return os.environ.get("ALLCONV_RESNET_COMMIT") or None


def processor(cpuinfo=Path("/proc/cpuinfo")):
    """Returns the name of the processor and the set of its flags, which is empty if the system does not list them.

    Cloud machines hide the generation of their processor. The name of an x86 processor therefore includes the family
    and model numbers, which identify it.

    Args:
        cpuinfo: Path of the file with the description.
    """
    try:
        lines = [line.partition(":") for line in cpuinfo.read_text().splitlines()]
    except OSError:
        lines = []
    fields = {key.strip(): value.strip() for key, _, value in lines}
    name = fields.get("model name") or platform.processor() or platform.machine()
    if {"cpu family", "model"} <= fields.keys():
        name += f" (family {fields['cpu family']}, model {fields['model']})"
    return name, set(fields.get("flags", fields.get("Features", "")).split())


def _version(package):
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None
