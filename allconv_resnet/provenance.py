"""Which version of the code made a run, and which processor."""

import platform
import subprocess
from pathlib import Path


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

    Clouds hide which generation a processor is of: an x86 name has its family and model, which tell.
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
