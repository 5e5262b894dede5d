"""Runs real jobs of two workers on this machine's loopback interface, to check the model of `scaling.py`.

The cost of exchanging gradients is measured in jobs with small batches. The times of jobs with large batches are
predicted from it and then measured. Every worker is bound to its own core, so that two of them compute like two
machines.
"""

import json
import os
import socket
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
SMALL, LARGE = 4, 64  # images in a step of one worker
STEPS = {SMALL: 150, LARGE: 60}
LOG = 10
REPEATS = 3


def check(simulate):
    """Returns the measured and predicted seconds of a synchronous step, and asynchronous updates/s and staleness.

    Args:
        simulate: Function `simulate` of `scaling.py`.
    """
    repeats = [_measure() for _ in range(REPEATS)]

    def median(key, batch):
        return statistics.median(repeat[key][batch] for repeat in repeats)

    alone, in_step, rates, staleness = (
        {batch: median(key, batch) for batch in (SMALL, LARGE)} for key in ("alone", "in_step", "rate", "staleness")
    )
    exchange = in_step[SMALL] - alone[SMALL]
    # The cycle of a worker consists of its computation, the exchange with the server, and a pause until the next step
    # is scheduled. The staleness determines the length of the pause, in which no worker's weights become stale.
    cycle = 2 / rates[SMALL]
    pause = min(max(0, 1 - staleness[SMALL]) * cycle, cycle - alone[SMALL])
    rest = max(1e-6, cycle - alone[SMALL] - pause)
    predicted = simulate(2, 1, alone[LARGE], 1.0, 2 / rest, steps=5_000, pause=pause)
    figures = {
        "repeats": repeats,
        "in_step_seconds": {"measured": in_step[LARGE], "predicted": alone[LARGE] + exchange},
        "updates_per_second": {"measured": rates[LARGE], "predicted": predicted["updates_per_second"]},
        "staleness": {"measured": staleness[LARGE], "predicted": predicted["mean"]},
    }
    print(f"two workers, {LARGE} images each, medians of {REPEATS}:")
    for name in ("in_step_seconds", "updates_per_second", "staleness"):
        print("  {name}: measured {measured:.3f}, predicted {predicted:.3f}".format(name=name, **figures[name]))
    return figures


def _measure():
    """Returns dictionaries by batch size: seconds of a step of one worker and of a synchronous step, asynchronous
    updates per second, and staleness.
    """
    alone, in_step, rates, staleness = {}, {}, {}, {}
    for batch in (SMALL, LARGE):
        alone[batch] = batch / _speed(_run({("one", 0): {}, ("one", 1): {}}, batch))[0]
        in_step[batch] = 2 * batch / _speed(_run(_tasks(worker=2), 2 * batch))[0]
        images, staleness[batch] = _speed(_run(_tasks(chief=1, worker=2, ps=1), batch))
        rates[batch] = images / batch
    return {"alone": alone, "in_step": in_step, "rate": rates, "staleness": staleness}


def _tasks(**jobs):
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(sum(jobs.values()))]
    ports = iter([each.getsockname()[1] for each in sockets])
    for each in sockets:
        each.close()
    cluster = {job: [f"127.0.0.1:{next(ports)}" for _ in range(count)] for job, count in jobs.items()}
    tasks = [(job, index) for job, count in jobs.items() for index in range(count)]
    return {
        (job, index): {"TF_CONFIG": json.dumps({"cluster": cluster, "task": {"type": job, "index": index}})}
        for job, index in tasks
    }


def _run(tasks, batch):
    """Runs a job and returns the metrics of its run directories."""
    cores = sorted(os.sched_getaffinity(0))
    per_worker = batch // (2 if len(tasks) == 2 and "TF_CONFIG" in tasks[min(tasks)] else 1)
    with tempfile.TemporaryDirectory() as directory:
        processes, run_dirs = [], set()
        for (job, index), environment in tasks.items():
            run_dir = Path(directory) / (f"run-{index}" if job == "one" else "run")
            run_dirs.add(run_dir)
            command = [
                *(sys.executable, ROOT / "train_cifar.py", "--recipe", "cifar10-small", "--dataset", "digits"),
                *("--precision", "float32", "--batch-size", batch, "--steps", STEPS[per_worker], "--log-every", LOG),
                *("--evaluate-every", 10**6, "--checkpoint-every", 10**6, "--no-export", "--run-dir", run_dir),
            ]
            bound = {cores[index % len(cores)]} if job in ("one", "worker") else set(cores)
            processes.append(
                subprocess.Popen(
                    [str(part) for part in command],
                    env={**os.environ, **environment, "TF_CPP_MIN_LOG_LEVEL": "2"},
                    stdout=subprocess.DEVNULL,
                    stderr=subprocess.DEVNULL,
                    preexec_fn=lambda bound=bound: os.sched_setaffinity(0, bound),
                )
            )
        try:
            statuses = [process.wait(timeout=600) for process in processes]
        finally:
            for process in processes:
                process.kill()
        if any(statuses):
            raise SystemExit(f"The job {sorted(tasks)} failed with the statuses {statuses}")
        texts = [(run_dir / "metrics.jsonl").read_text() for run_dir in run_dirs]
    lines = [json.loads(line) for text in texts for line in text.splitlines()]
    return [line for line in lines if line["split"] == "train" and line["step"] > 2 * LOG]


def _speed(lines):
    """Returns the medians of the images per second and of the staleness."""
    staleness = statistics.median(line.get("staleness", 0.0) for line in lines)
    return statistics.median(line["images_per_second"] for line in lines), staleness
