"""What the benchmarks share: paired timing, and a JSON beside the table that says where it was measured."""

import json
import statistics
import time
from datetime import UTC, datetime
from pathlib import Path

import tensorflow as tf

from allconv_resnet.training import environment

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
    where = environment.describe(tf.distribute.get_strategy(), "float32")
    content = {"measured": datetime.now(UTC).isoformat(timespec="seconds"), "environment": where, **figures}
    (RESULTS / f"{name}.json").write_text(json.dumps(content, indent=2) + "\n")
