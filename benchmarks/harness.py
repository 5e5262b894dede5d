"""What the benchmarks share: paired timing, and a JSON beside the table that says where it was measured."""

import json
import re
import statistics
import time
from datetime import UTC, datetime
from pathlib import Path

from allconv_resnet import environment, files
from allconv_resnet.training.engines.distribution import gpu_names

RESULTS = Path(__file__).resolve().parent.parent / "results" / "benchmarks"


def seconds(function, repeats=1):
    """Returns the wall-clock seconds of calling `function` so many times."""
    began = time.perf_counter()
    for _ in range(repeats):
        function()
    return time.perf_counter() - began


def spread(values):
    """Returns the minimum, median and maximum of a list, and how many there are."""
    return {"min": min(values), "median": statistics.median(values), "max": max(values), "n": len(values)}


def write(name, figures):
    """Writes results/benchmarks/NAME.json: the figures, and the environment they were measured in."""
    RESULTS.mkdir(parents=True, exist_ok=True)
    content = {"measured": datetime.now(UTC).isoformat(timespec="seconds"), "environment": here(), **figures}
    files.write_json(RESULTS / f"{name}.json", content)


def read(name):
    """Returns what `write` wrote, or an empty dictionary."""
    path = RESULTS / f"{name}.json"
    return json.loads(path.read_text()) if path.exists() else {}


def here():
    """Returns the environment of this process; each benchmark says its own precision."""
    return environment.describe(gpus=gpu_names())


def hardware():
    """Returns the name of this machine's kind, for the name of a file."""
    where = here()
    parts = where["gpus"] or [str(where["cores"]), where["cpu"], *where["bfloat16_instructions"]]
    return re.sub(r"[^a-z0-9_]+", "-", " ".join(parts).lower()).strip("-")
