"""What a run ran on: versions, hardware, precision, commit."""

import importlib.metadata
import os
import platform
import sys

import tensorflow as tf

from allconv_resnet.provenance import commit, processor

PACKAGES = ("allconv_resnet", "tensorflow", "keras", "numpy", "tensorflow-datasets")


def describe(strategy, precision):
    """Returns the environment of this process as a dictionary for JSON.

    Args:
        strategy: `tf.distribute.Strategy` of the run.
        precision: `"float32"` or `"bfloat16"`.
    """
    cpu, flags = processor()
    gpus = [tf.config.experimental.get_device_details(gpu) for gpu in tf.config.list_physical_devices("GPU")]
    return {
        "command": sys.argv,
        "commit": commit(),
        "python": platform.python_version(),
        "versions": {name: importlib.metadata.version(name) for name in PACKAGES},
        "platform": platform.platform(),
        "cpu": cpu,
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "bfloat16_instructions": sorted({"amx_bf16", "avx512_bf16"} & flags),
        "gpus": [str(gpu.get("device_name", "unknown")) for gpu in gpus],
        "strategy": type(strategy).__name__.lstrip("_"),
        "replicas": strategy.num_replicas_in_sync,
        "precision": precision,
    }
