"""What a process runs on: versions, processor, code version. Runs, benchmarks and theory commands file it."""

import importlib.metadata
import os
import platform
import subprocess
import sys
from pathlib import Path

PACKAGES = ("allconv_resnet", "tensorflow", "jax", "keras", "numpy", "scipy", "tensorflow-datasets")
BFLOAT16_FLAGS = {"amx_bf16", "avx512_bf16"}


def describe(**more):
    """Returns the environment of this process as a dictionary for JSON.

    Args:
        **more: Further entries, such as `precision="float32"`.

    Returns:
        Dictionary with `command`, `commit`, `python`, `versions` (of the installed packages among `PACKAGES`),
        `platform`, `cpu`, `cores`, `bfloat16_instructions`, `gpus`, and what `more` has.
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


def cores():
    """Returns how many processor cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()


def commit():
    """Returns the commit of the package's checkout, with `+changes` if files differ from it; None outside of one."""
    here = Path(__file__).parent

    def git(*arguments):
        return subprocess.run(
            ["git", "-C", here, *arguments], capture_output=True, text=True, check=True
        ).stdout.strip()

    try:
        return git("rev-parse", "HEAD") + ("+changes" if git("status", "--porcelain", "--", ".") else "")
    except (OSError, subprocess.CalledProcessError):
        return None


def processor(cpuinfo=Path("/proc/cpuinfo")):
    """Returns the processor's name and the set of its flags; the flags are empty where the system does not tell.

    Cloud machines hide the generation of their processor. The name of an x86 processor therefore includes the family
    and model numbers, which identify it.
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
