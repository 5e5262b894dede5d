"""Runs one contender of `speed.py` in its own process, controlled by standard input.

    python benchmarks/contender.py NAME TASK BATCH PRECISION WEIGHTS

The process answers each line with one line of JSON: "train N" and "infer N" with the time they took in seconds, "check"
with the logits of the shared images, and "memory" with the largest resident size of the process and its growth since
the imports in bytes. Its first line has the times of the imports and of building the network in seconds.
"""

import time

BEGAN = time.perf_counter()

import contextlib  # noqa: E402 - the clock must start first
import importlib  # noqa: E402
import json  # noqa: E402
import re  # noqa: E402
import sys  # noqa: E402
from pathlib import Path  # noqa: E402


def main():
    name, task, batch, precision, weights = sys.argv[1:]
    answers = sys.stdout
    with contextlib.redirect_stdout(sys.stderr):
        module = importlib.import_module(f"contenders.{name}")
        imported, resident = time.perf_counter(), peak_bytes()
        contender = module.Contender(task, int(batch), precision, weights)
        built = time.perf_counter()
        answer(answers, {"import": imported - BEGAN, "build": built - imported})
        for line in sys.stdin:
            command, *count = line.split()
            if command in ("train", "infer"):
                began = time.perf_counter()
                getattr(contender, command)(int(count[0]))
                answer(answers, time.perf_counter() - began)
            elif command == "check":
                from contenders import networks

                answer(answers, contender.logits(networks.batch(task, int(batch), seed=1)[0]).tolist())
            elif command == "memory":
                answer(answers, {"peak": peak_bytes(), "beyond_import": peak_bytes() - resident})


def peak_bytes():
    """Returns the largest resident size of this process in bytes. `ru_maxrss` would begin with that of its parent."""
    status = Path("/proc/self/status").read_text(encoding="utf-8")
    return int(re.search(r"VmHWM:\s+(\d+) kB", status)[1]) * 1024


def answer(stream, value):
    print(json.dumps(value), file=stream, flush=True)


if __name__ == "__main__":
    main()
