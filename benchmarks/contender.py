"""One contender in a process of its own, told on standard input what to do. For `speed.py`.

    python benchmarks/contender.py NAME TASK BATCH PRECISION WEIGHTS

It answers each line with one line of JSON: "train N" and "infer N" with the seconds they took, "check" with the logits
of the shared images, "memory" with the process's largest resident size and how much of that came after the imports, in
bytes. The first line says how long the imports and the building took, in seconds.
"""

import time

BEGAN = time.perf_counter()

import contextlib  # noqa: E402 - the clock starts first
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
    """Returns the largest resident size of this process so far. `ru_maxrss` would begin with that of its parent."""
    status = Path("/proc/self/status").read_text()
    return int(re.search(r"VmHWM:\s+(\d+) kB", status)[1]) * 1024


def answer(stream, value):
    print(json.dumps(value), file=stream, flush=True)


if __name__ == "__main__":
    main()
