"""The memory that a recipe needs at least, the memory that there is, and memory that is given back."""

import contextlib
import ctypes
import gc
import math
import threading
from pathlib import Path

from allconv_resnet.errors import BadInput

CGROUP = Path("/sys/fs/cgroup")


def require(received, **needs):
    """Raises `BadInput` if less memory is available than is needed.

    Args:
        received: String, the values that determine the need, such as `"batch_size=128"`.
        **needs: Numbers of bytes by what they are for, such as `weights=4_000`.
    """
    there, needed = available(), sum(needs.values())
    if there is not None and needed > there:
        parts = ", ".join(f"{name.replace('_', ' ')} {readable(size)}" for name, size in needs.items())
        raise BadInput(
            f"At least {readable(needed)} of memory is needed ({parts}), but {readable(there)} is available. "
            f"Received: {received}"
        )


def available(meminfo=Path("/proc/meminfo"), cgroup=CGROUP):
    """Returns the bytes of memory that this process can still use, or None if the system does not tell.

    Args:
        meminfo: Path of Linux's description of the memory.
        cgroup: Path of the control group, whose limit holds in a container.
    """
    try:
        lines = dict(line.split(":") for line in meminfo.read_text().splitlines())
        free = int(lines["MemAvailable"].split()[0]) * 1024
    except (OSError, ValueError, LookupError):
        return None
    try:
        limit, used = (int((cgroup / name).read_text()) for name in ("memory.max", "memory.current"))
        cache = dict(line.split() for line in (cgroup / "memory.stat").read_text().splitlines())
        free = min(free, limit - used + int(cache["inactive_file"]))
    except (OSError, ValueError, LookupError):  # there is no limit
        pass
    return free


def give_back():
    """Gives the memory that this process does not need any more back to the system, where the C library is glibc.

    The graphs of TensorFlow are in reference cycles, and glibc keeps most of what they took while they were prepared.
    """
    gc.collect()
    with contextlib.suppress(AttributeError, OSError, TypeError):  # another C library, or another system
        ctypes.CDLL(None).malloc_trim(0)


def sizes(build):
    """Returns the sizes of a network, for which no memory is allocated.

    Args:
        build: Function without arguments that returns a Keras model.

    Returns:
        Number of values in all weights, and number of values in the outputs of all layers for one image. A block of
        several layers counts as one layer.

    Raises:
        Exception: what `build` raises.
    """
    import keras

    found = {}

    def measure():
        try:
            with keras.StatelessScope(initialize_variables=False):
                model = build()
            found["weights"] = sum(math.prod(variable.shape) for variable in model.variables)
            found["outputs"] = sum(math.prod(layer.output.shape[1:]) for layer in model.layers)
        except Exception as error:
            found["error"] = error

    # Keras keeps a list of the variables that have no values yet for each thread. Here it ends with the thread.
    thread = threading.Thread(target=measure)
    thread.start()
    thread.join()
    if "error" in found:
        raise found["error"]
    return found["weights"], found["outputs"]


def readable(size):
    """Returns a number of bytes as text, such as "1.5 GB"."""
    for unit in ("B", "kB", "MB", "GB", "TB", "PB"):
        if size < 1000:
            return f"{size:.3g} {unit}"
        size /= 1000
    return f"{size:,.0f} EB"
