"""The report of `allconv-resnet doctor`: what this installation has and lacks, to paste into a report of a fault."""

import importlib.metadata
import os
import platform
import re
from pathlib import Path

from allconv_resnet import environment, files, memory, pretrained
from allconv_resnet.errors import BadInput, reason

EXTRAS = {
    "gpu": "to compute on GPUs of NVIDIA",
    "jax": "for KERAS_BACKEND=jax",
    "serve": "for allconv-resnet serve",
    "onnx": "for allconv-resnet export --format onnx",
}
VARIABLES = ("KERAS_BACKEND", "KERAS_HOME", "JAX_PLATFORMS", "TFDS_DATA_DIR", "TF_CONFIG", "CUDA_VISIBLE_DEVICES")


def report():
    """Returns the report as text, and whether networks can be trained here."""
    keras, works = _keras()
    here = Path(__file__).parent
    rows = {
        "allconv_resnet": f"{version()}, commit {(environment.commit() or 'unknown')[:12]}, in {here}",
        "Python": f"{platform.python_version()} on {platform.platform()}",
        "packages": ", ".join(f"{name} {number}" for name, number in environment.describe()["versions"].items()),
        "Keras": keras,
        **(_devices() if works else {}),
        "memory": _memory(),
        "data": _data(),
        "networks": ", ".join(pretrained.names()) or "none",
        **{f"[{extra}]": _extra(extra, purpose) for extra, purpose in EXTRAS.items()},
        "variables": ", ".join(filter(None, map(_variable, VARIABLES))) or "none set",
    }
    return "\n".join(f"{name:15}{text}" for name, text in rows.items()), works


def version():
    """Returns the version of the installed package as a string."""
    try:
        return importlib.metadata.version("allconv_resnet")
    except importlib.metadata.PackageNotFoundError:
        return "(not installed)"


def missing(extra, package="allconv_resnet"):
    """Returns the names of the packages of an extra that are not installed, as a sorted list.

    Args:
        extra: String, the name of the extra.
        package: Name of the package that has it.
    """
    found = set()
    for line in importlib.metadata.requires(package) or ():
        requirement, _, marker = line.partition(";")
        if not re.search(rf"extra == ['\"]{re.escape(extra)}['\"]", marker):
            continue
        name, inner = re.match(r"([\w.-]+)(?:\[([\w, -]+)\])?", requirement).groups()
        try:
            importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            found.add(name)
        else:
            for each in (inner or "").replace(" ", "").split(","):
                found.update(missing(each, name) if each else ())
    return sorted(found)


def _keras():
    try:
        import keras

        environment.require_keras_settings()
    except Exception as error:  # a backend that is not installed raises many types of errors
        return f"cannot be used: {reason(error)}", False
    if keras.backend.backend() == "jax":
        import jax

        try:
            jax.devices()
        except Exception as error:  # JAX_PLATFORMS may name devices that are not there
            return f"cannot be used: JAX finds no devices ({reason(error)})", False
    return f"on {keras.backend.backend()}, {keras.config.floatx()}, {keras.config.image_data_format()}", True


def _devices():
    import keras

    from allconv_resnet import kernels

    if keras.backend.backend() == "jax":
        from allconv_resnet.training.engines.jax import JaxEngine

        engine = JaxEngine()
        precision, gpus = engine.resolve_precision(), engine.describe()["gpus"]
    else:
        from allconv_resnet.training.engines import distribution

        precision, gpus = distribution.resolve_precision("auto"), distribution.gpu_names()
    processor, flags = environment.processor()
    instructions = sorted(environment.BFLOAT16_FLAGS & flags)
    if gpus:
        has = "has" if precision == "bfloat16" else "does not have"
        why = f"the accelerator {has} instructions for bfloat16"
    elif keras.backend.backend() == "jax":
        why = "JAX has no bfloat16 convolutions for processors"
    else:
        why = f"the processor has {' and '.join(instructions) or 'no instructions for bfloat16'}"
    return {
        "processor": f"{processor}, {environment.cores()} cores",
        "GPUs": ", ".join(gpus) or "none that the backend finds",
        "precision": f"auto is {precision}, since {why}",
        "compiled": f"the operations for convolutions {_compiled(kernels.reason_against())}",
    }


def _compiled(reason_against):
    return f"are not used: {reason_against}" if reason_against else "are used where this processor trains in bfloat16"


def _variable(name):
    if name not in os.environ:
        return None
    return f"{name}=(set)" if name == "TF_CONFIG" else f"{name}={os.environ[name]}"  # it has the names of machines


def _memory():
    there = memory.available()
    return "unknown" if there is None else f"{memory.readable(there)} available"


def _data():
    directory = os.environ.get("TFDS_DATA_DIR") or "~/tensorflow_datasets"
    if files.in_bucket(directory):
        return f"{directory} (a bucket, which was not looked into)"
    try:
        path = files.expand(directory, "TFDS_DATA_DIR")
        there = path.is_dir()
        names = sorted({found.relative_to(path).parts[0] for found in path.glob("*/**/dataset_info.json")})
    except BadInput as error:
        return str(error)
    except OSError as error:
        return f"{directory} cannot be read: {error.strerror}"
    if not there:
        return f"{path} is no directory (TFDS_DATA_DIR and --data-dir name another directory)"
    return f"{path} has {', '.join(names) or 'no dataset'}"


def _extra(extra, purpose):
    try:
        lacking = missing(extra)
    except importlib.metadata.PackageNotFoundError:
        return f"unknown, since allconv_resnet is not installed ({purpose})"
    if not lacking:
        return f"installed ({purpose})"
    shown = ", ".join(lacking[:3]) + (f" and {len(lacking) - 3} more" if len(lacking) > 3 else "")
    return f"not installed ({purpose}): {shown} missing"
