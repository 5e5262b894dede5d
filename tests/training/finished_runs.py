"""Functions for the tests of runs that have finished."""

import pytest
from training.runs import command_line

from allconv_resnet import cli


def command(*arguments):
    """Returns the exit status of `allconv-resnet`."""
    with pytest.raises(SystemExit) as stop:
        cli.main([str(argument) for argument in arguments])
    return stop.value.code


def train_again(capsys, recipe, run_dir, *more):
    """Returns the exit status of the training command, and what it says."""
    capsys.readouterr()
    with pytest.raises(SystemExit) as stop:
        cli.train_command(("digits",), command_line(recipe, run_dir, *more))
    return stop.value.code, " ".join(capsys.readouterr().err.split())


def contents(directory):
    return {path: path.read_bytes() for path in directory.rglob("*") if path.is_file() and path.name != ".lock"}


def damage(run_dir, step):
    """Cuts the checkpoint of a step."""
    path = run_dir / "checkpoints" / f"step-{step}.npz"
    path.write_bytes(path.read_bytes()[:1000])
