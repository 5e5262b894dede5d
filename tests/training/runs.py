"""Runs of training in processes of their own: TensorFlow's devices, signals and kills concern a whole process."""

import contextlib
import itertools
import multiprocessing
import os
import sys

from allconv_resnet.recipes import DIGITS

TINY = DIGITS.replace(
    stem=(8, 3, 2, 1), stages=((1, 16, 2), (1, 32, 2)), initialization="he", batch_size=32, precision="float32",
    steps=60, boundaries=(40,), log_every=1, evaluate_every=20, checkpoint_every=7,
)  # fmt: skip

# A server that has imported everything forks each run: a run starts in a fraction of a second.
SPAWN = multiprocessing.get_context("forkserver")
SPAWN.set_forkserver_preload(["allconv_resnet.training.loop", "sklearn.datasets", "matplotlib.figure"])

NUMBERS = itertools.count()


def _main(names, arguments, log, file_size_limit, environment):
    os.environ.update(environment)
    from allconv_resnet import cli

    if file_size_limit:
        import resource

        resource.setrlimit(resource.RLIMIT_FSIZE, (file_size_limit, file_size_limit))
    with open(log, "w", buffering=1) as stream:
        os.dup2(stream.fileno(), 1)
        os.dup2(stream.fileno(), 2)
        with contextlib.redirect_stdout(stream), contextlib.redirect_stderr(stream):
            cli.train(names, arguments)
    sys.exit("cli.train returned")


def command_line(recipe, run_dir, *more):
    """Returns the options that ask for a recipe."""
    options = []
    for name, value in recipe.to_dict().items():
        if value is None or isinstance(value, bool):
            continue
        flat = value if isinstance(value, list) else [value]
        flat = [item for part in flat for item in (part if isinstance(part, list) else [part])]
        options += [f"--{name.replace('_', '-')}", *map(str, flat)]
    return ["--recipe", "digits", *options, "--run-dir", str(run_dir), "--no-export", *more]


class Run:
    """A training command in a process of its own, with more environment variables."""

    def __init__(self, recipe, run_dir, *more, file_size_limit=None, **environment):
        self.log = run_dir.with_name(f"{run_dir.name}-{next(NUMBERS)}.log")
        arguments = (("digits",), command_line(recipe, run_dir, *more), self.log, file_size_limit, environment)
        self.process = SPAWN.Process(target=_main, args=arguments)
        self.process.start()

    def wait(self):
        """Returns the exit status, minus the signal's number if a signal killed it."""
        self.process.join(240)
        assert self.process.exitcode is not None, f"it hangs: {self.output()}"
        print(self.output())  # pytest shows it if the test fails
        return self.process.exitcode

    def output(self):
        return self.log.read_text()
