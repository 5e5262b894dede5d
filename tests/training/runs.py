"""Runs of training in processes of their own: devices, signals and kills concern a whole process."""

import contextlib
import itertools
import json
import multiprocessing
import os
import signal
import subprocess
import sys
import time

import numpy as np
from training.jobs import configurations

from allconv_resnet.part import as_lists
from allconv_resnet.recipes import DIGITS
from allconv_resnet.training.checkpoints import read_checkpoint

TINY = DIGITS.replace(
    stem=(8, 3, 2, 1), stages=((1, 16, 2), (1, 32, 2)), initialization="he", batch_size=32, precision="float32",
    steps=60, boundaries=(40,), log_every=1, evaluate_every=20, checkpoint_every=7,
)  # fmt: skip
# Six steps of a network with a single block, for tests of what lies in a run directory.
SMALL = TINY.replace(
    stem=(4, 3, 4, 1),
    stages=((1, 8, 1),),
    batch_size=16,
    steps=6,
    boundaries=(4,),
    evaluate_every=3,
    checkpoint_every=2,
)
TIMES = ("images_per_second", "input_wait", "cpu_seconds", "staleness")

# A server that has imported everything forks each run: a run starts in a fraction of a second.
SPAWN = multiprocessing.get_context("forkserver")
SPAWN.set_forkserver_preload(
    [
        "allconv_resnet.training.loop",
        "allconv_resnet.training.engines.asynchronous",
        "allconv_resnet.training.engines.synchronous",
        "sklearn.datasets",
        "matplotlib.figure",
    ]
)

NUMBERS = itertools.count()


def run_command(names, arguments, log, file_size_limit, environment):
    os.environ.update(environment)
    for name in environment.get("WITHOUT_MODULES", "").split():
        sys.modules[name] = None  # importing it fails
    from allconv_resnet import cli

    if file_size_limit:
        import resource

        resource.setrlimit(resource.RLIMIT_FSIZE, (file_size_limit, file_size_limit))
    with open(log, "w", encoding="utf-8", buffering=1) as stream:
        os.dup2(stream.fileno(), 1)
        os.dup2(stream.fileno(), 2)
        with contextlib.redirect_stdout(stream), contextlib.redirect_stderr(stream):
            cli.train_command(names, arguments)
    sys.exit("cli.train_command returned")


def command_line(recipe, run_dir, *more):
    """Returns the options that ask for a recipe."""
    options = []
    for name, value in recipe.flat().items():
        option = name.replace("_", "-")
        if isinstance(value, bool):
            options.append(f"--{option}" if value else f"--no-{option}")
            continue
        flat = as_lists(value) if isinstance(value, tuple) else [value]
        flat = [item for part in flat for item in (part if isinstance(part, list) else [part])]
        options += [f"--{option}", *map(str, flat)]
    return ["--recipe", "digits", *options, "--run-dir", str(run_dir), "--no-export", *more]


class Run:
    """A training command in a process of its own, with more environment variables."""

    def __init__(self, recipe, run_dir, *more, file_size_limit=None, **environment):
        self.log = run_dir.with_name(f"{run_dir.name}-{next(NUMBERS)}.log")
        self.options = (command_line(recipe, run_dir, *more), file_size_limit, environment)
        self.begin()

    def begin(self):
        arguments, *rest = self.options
        self.process = SPAWN.Process(target=run_command, args=(("digits",), arguments, self.log, *rest))
        self.process.start()

    def alive(self):
        return self.process.is_alive()

    def send(self, number):
        """Sends a signal."""
        os.kill(self.process.pid, number)

    def kill(self):
        self.process.kill()

    def wait(self):
        """Returns the exit status, minus the signal's number if a signal killed it."""
        self.process.join(240)
        assert self.process.exitcode is not None, f"it hangs: {self.output()}"
        print(self.output())  # pytest shows it if the test fails
        return self.process.exitcode

    def output(self):
        return self.log.read_text()


class JaxRun(Run):
    """A training command with Keras on JAX, forked by a server of its own: the other one has imported TensorFlow."""

    server = None

    def begin(self):
        if JaxRun.server is None:
            JaxRun.server = subprocess.Popen(
                [sys.executable, "-m", "training.jax_server"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
                env={**os.environ, "KERAS_BACKEND": "jax", "PYTHONPATH": os.pathsep.join(sys.path)},
            )
        arguments, *rest = self.options
        self.number = self.ask("run", (("digits",), arguments, str(self.log), *rest))

    def ask(self, what, argument):
        """Returns the server's answer to a request."""
        print(json.dumps([what, argument]), file=self.server.stdin, flush=True)
        return json.loads(self.server.stdout.readline())

    def alive(self):
        return self.ask("poll", self.number) is None

    def send(self, number):
        os.kill(self.number, number)

    def kill(self):
        if self.alive():
            self.send(signal.SIGKILL)

    def wait(self):
        deadline = time.monotonic() + 240
        while self.alive():
            assert time.monotonic() < deadline, f"it hangs: {self.output()}"
            time.sleep(0.02)
        print(self.output())
        return self.ask("poll", self.number)

    def output(self):
        return self.log.read_text() if self.log.exists() else ""


class AsynchronousRun(Run):
    """The chief of an asynchronous job, with a worker and a parameter server that serve it."""

    def begin(self):
        arguments, file_size_limit, environment = self.options
        self.log.with_suffix(".servers").mkdir()
        self.servers = []
        for (job, index), config in configurations(chief=1, worker=1, ps=1).items():
            chief = job == "chief"
            log = self.log if chief else self.log.with_suffix(".servers") / f"{job}-{index}"
            more = {**environment, "TF_CONFIG": config, "TF_CPP_MIN_LOG_LEVEL": "2"}
            rest = (("digits",), [*arguments, "--peer-timeout", "60"], log, file_size_limit if chief else None, more)
            process = SPAWN.Process(target=run_command, args=rest)
            process.start()
            if chief:
                self.process = process
            else:
                self.servers.append(process)

    def kill(self):
        super().kill()
        for server in self.servers:
            server.kill()

    def wait(self):
        status = super().wait()
        for server in self.servers:
            server.kill()
        return status


ENGINES = {"synchronous": Run, "jax": JaxRun, "asynchronous": AsynchronousRun}


def state(run_dir, step):
    """All numbers of a checkpoint: weights, momentum, totals."""
    return read_checkpoint(run_dir / "checkpoints" / f"step-{step}.npz")


def lines(run_dir, split=None):
    """The lines of metrics.jsonl, of one split or of all."""
    found = [json.loads(line) for line in (run_dir / "metrics.jsonl").read_text().splitlines()]
    return [line for line in found if split in (None, line["split"])]


def metrics(run_dir):
    """The lines of metrics.jsonl without what differs from run to run."""
    return [{key: value for key, value in line.items() if key not in TIMES} for line in lines(run_dir)]


def assert_same(one, other, step):
    first, second = state(one, step), state(other, step)
    assert first.keys() == second.keys()
    assert any(name.startswith("optimizer/") for name in first)
    for name, value in first.items():
        np.testing.assert_array_equal(value, second[name], err_msg=name)
    assert metrics(one) == metrics(other)


def wait_for(run, condition):
    deadline = time.monotonic() + 120
    while not condition():
        assert run.alive() and time.monotonic() < deadline, run.output()
        time.sleep(0.001)


def wait_for_lines(run, path, count):
    wait_for(run, lambda: path.exists() and path.read_bytes().count(b"\n") >= count)
