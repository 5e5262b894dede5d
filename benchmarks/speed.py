"""Compares the speed of this project with that of its peers, which take turns on one machine.

    python benchmarks/speed.py cifar-train      --batch 128 --precision bfloat16 float32
    python benchmarks/speed.py imagenet-train   --batch 32
    python benchmarks/speed.py cifar-infer      --batch 1 32 256
    python benchmarks/speed.py start-up
    python benchmarks/speed.py cifar-train --ours ours_jax --peers torch_peer torch_compiled       on a GPU

Each contender has its own process (`contender.py`). They start, and are checked, at the same time. While one is
measured, the others wait. First all must compute the same logits from the same weights, to 1e-4 of the largest in
float32. Then they take turns. A ratio is that of the images per second of this project and of the peer in one turn. The
peers need the extra `bench` (and `jax`).

The script writes results/benchmarks/speed-TASK-HARDWARE.json with an entry for each batch size and precision. An entry
has the last measurement of each peer, together with that of this project in the same run. Peers that are not measured
again keep their last measurement, so that slow peers can have their own runs.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from contextlib import ExitStack, suppress
from pathlib import Path

import harness
import numpy as np
from contenders import networks

PEERS = ("torch_peer", "torch_compiled", "keras_fit", "keras_fit_jax")
BACKENDS = {"keras_fit_jax": "jax", "ours_jax": "jax"}
SECONDS = 3.0  # of a turn, if its steps take as long as the second one of the process
CHECKED = 4  # images whose logits are compared


class Contender:
    """A process that runs `contender.py`."""

    def __init__(self, name, task, batch, precision, weights):
        self.name = name
        environment = {**os.environ, "KERAS_BACKEND": BACKENDS.get(name, "tensorflow"), "TF_CPP_MIN_LOG_LEVEL": "3"}
        environment["XLA_PYTHON_CLIENT_PREALLOCATE"] = "false"  # the contenders share the memory of a GPU
        if precision == "float32":  # GPUs would round the factors of float32 products to 10 bits
            environment |= {"NVIDIA_TF32_OVERRIDE": "0", "JAX_DEFAULT_MATMUL_PRECISION": "highest"}
        script = Path(__file__).with_name("contender.py")
        module = "keras_fit" if name.startswith("keras_fit") else name
        self.messages = tempfile.TemporaryFile("w+")  # noqa: SIM115 - __exit__ closes it
        self.process = subprocess.Popen(
            [sys.executable, script, module, task, str(batch), precision, weights],
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self.messages,
            text=True,
        )

    def ask(self, command):
        self.send(command)
        return self.read()

    def send(self, command):
        with suppress(BrokenPipeError):  # `read` will say why the process has ended
            print(command, file=self.process.stdin, flush=True)

    def read(self):
        line = self.process.stdout.readline()
        if not line:
            status = self.process.wait()
            self.messages.seek(0)
            raise SystemExit(f"{self.messages.read()}\n{self.name} ended with status {status}")
        return json.loads(line)

    def __enter__(self):
        return self

    def __exit__(self, error, *_):
        if error:  # the process may wait for someone who reads its answer
            self.process.kill()
        with suppress(BrokenPipeError):
            self.process.stdin.close()
        self.process.wait()
        self.process.stdout.close()
        self.messages.close()


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("cifar-train", "cifar-infer", "imagenet-train", "imagenet-infer", "start-up"))
    parser.add_argument("--batch", type=int, nargs="+", default=[128])
    parser.add_argument("--precision", nargs="+", choices=("float32", "bfloat16"), default=["bfloat16", "float32"])
    parser.add_argument("--peers", nargs="*", choices=PEERS, default=PEERS)
    parser.add_argument("--ours", choices=("ours", "ours_jax"), default="ours", help="engine of this project")
    parser.add_argument("--turns", type=int, default=5)
    options = parser.parse_args()
    task = options.what.split("-")[0] if options.what != "start-up" else "cifar"
    with tempfile.TemporaryDirectory() as folder:
        weights = f"{folder}/weights.npz"
        networks.save(task, weights)
        check(task, options.ours, options.peers, weights)
        name = f"speed-{options.what}{options.ours.removeprefix('ours').replace('_', '-')}-{harness.hardware()}"
        entries = {(e["precision"], e["batch"]): e for e in harness.read_figures(name).get("entries", [])}
        for precision in options.precision:
            for batch in options.batch:
                measure = start_up if options.what == "start-up" else throughput
                entry = measure(options, task, batch, precision, weights)
                commit = harness.this_environment()["commit"]
                kept = entries.get((precision, batch), {"contenders": {}})["contenders"]
                measured = {name: values | {"commit": commit} for name, values in entry["contenders"].items()}
                entries[precision, batch] = entry | {"contenders": kept | measured}
                harness.write_figures(
                    name, {"what": options.what, "entries": [entries[key] for key in sorted(entries)]}
                )


def check(task, ours, peers, weights):
    """Ends the benchmark unless all contenders compute the same function."""
    with ExitStack() as stack:
        running = start((ours, *peers), task, CHECKED, "float32", weights, stack)
        for contender in running.values():
            contender.send("check")  # they compile at the same time
        logits = {name: np.array(contender.read()) for name, contender in running.items()}
    for name in peers:
        error = np.abs(logits[name] - logits[ours]).max() / np.abs(logits[ours]).max()
        print(f"{name}: logits differ from ours by {error:.1e} of the largest", flush=True)
        if not error < 1e-4:
            raise SystemExit(f"{name} computes another function than ours")


def start(names, task, batch, precision, weights, stack):
    """Starts the contenders, which import and build at the same time, and returns them by name."""
    running = {name: stack.enter_context(Contender(name, task, batch, precision, weights)) for name in names}
    for contender in running.values():
        contender.started = contender.read()
    return running


def throughput(options, task, batch, precision, weights):
    """Measures one batch size in one precision, prints the table, and returns the entry for the JSON."""
    verb = options.what.split("-")[1]
    names = (options.ours, *options.peers)
    with ExitStack() as stack:
        running = start(names, task, batch, precision, weights, stack)
        steps = {}
        for name, contender in running.items():
            contender.ask(f"{verb} 1")  # compiles, and measures which algorithm is the fastest
            steps[name] = max(1, round(SECONDS / contender.ask(f"{verb} 1")))
        rates = {name: [] for name in names}
        for turn in range(options.turns):
            for name in names if turn % 2 == 0 else reversed(names):
                seconds = running[name].ask(f"{verb} {steps[name]}")
                rates[name].append(batch * steps[name] / seconds)
        memory = {name: contender.ask("memory") for name, contender in running.items()}
    entry = {"batch": batch, "precision": precision, "contenders": {}}
    ours = {"images_per_second": harness.spread(rates[options.ours]), "memory": memory[options.ours]}
    operations = networks.operations(task) * (3 if verb == "train" else 1)  # of an image, the gradients included
    print(f"\n{options.what}, batch {batch}, {precision}: images per second, and ours / theirs in the same turn")
    for name in names:
        ratios = harness.spread([a / b for a, b in zip(rates[options.ours], rates[name], strict=True)])
        if name != options.ours:
            theirs = {"images_per_second": harness.spread(rates[name]), "memory": memory[name]}
            entry["contenders"][name] = {"ours_over_theirs": ratios, **theirs, "ours": ours}
        print(
            f"{name:15} {harness.spread(rates[name])['median']:9.1f}   "
            f"{harness.spread(rates[name])['median'] * operations / 1e12:7.2f} TFLOP/s   ratio {ratios['median']:.3f} "
            f"({ratios['min']:.3f} to {ratios['max']:.3f}, n = {ratios['n']})   "
            f"peak {memory[name]['peak'] / 1e9:.2f} GB, {memory[name]['beyond_import'] / 1e9:.2f} since the import",
            flush=True,
        )
    return entry


def start_up(options, task, batch, precision, weights):
    """Measures import, build and first step of new processes, prints the table, and returns the entry."""
    names, parts = (options.ours, *options.peers), ("import", "build", "first step", "all")
    times = {name: {part: [] for part in parts} for name in names}
    for _ in range(options.turns):
        for name in names:
            with ExitStack() as stack:
                (contender,) = start([name], task, batch, precision, weights, stack).values()
                first = contender.ask("train 1")
                seconds = [contender.started["import"], contender.started["build"], first]
            for part, value in zip(parts, [*seconds, sum(seconds)], strict=True):
                times[name][part].append(value)
    print(f"\nseconds of a new process up to its first step, batch {batch}, {precision}")
    for name in names:
        shown = "   ".join(f"{part} {harness.spread(times[name][part])['median']:6.2f}" for part in parts)
        print(f"{name:15} {shown}   (n = {options.turns})", flush=True)
    spreads = {name: {part: harness.spread(values) for part, values in times[name].items()} for name in names}
    return {"batch": batch, "precision": precision, "contenders": spreads}


if __name__ == "__main__":
    main()
