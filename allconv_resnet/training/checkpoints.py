"""Checkpoints: one `.npz` file for each step, written atomically.

A kill or a full disk does not damage earlier checkpoints, and a damaged file is recognized by the checksums of its
arrays. Every engine writes and reads the same files, so any of them can continue, evaluate and export a run.
"""

import re
from pathlib import Path

import numpy as np

from allconv_resnet import files
from allconv_resnet.errors import BadInput, RunFailed

WAYS_OUT = "To train, put a whole checkpoint back, choose another --run-dir, or begin anew with --overwrite"


def steps_on_disk(directory):
    """Returns the steps of all checkpoints in a directory in ascending order, including damaged ones."""
    try:
        paths = [path for path in Path(directory).iterdir() if path.is_file()]
    except OSError:
        return []
    names = [re.fullmatch(r"step-(\d{1,13})\.npz", path.name) for path in paths]
    return sorted(int(name[1]) for name in names if name)


class Checkpoints:
    """The newest few states of a run in one directory.

    Args:
        directory: Path, created when the first checkpoint is written.
        keep: Integer, number of checkpoints to keep, or None for all.
    """

    def __init__(self, directory, keep: int | None = 3):
        self.directory, self.keep = Path(directory), keep
        self.step = None  # step of the last checkpoint that this process wrote or read

    def save(self, step, state):
        """Writes the state after `step` steps, unless this checkpoint was the last one written or read.

        Args:
            step: Integer, number of steps made.
            state: Function without arguments that returns a dictionary of arrays.

        Raises:
            RunFailed: if the file cannot be written. Earlier checkpoints stay as they were.
        """
        if step == self.step:
            return
        try:
            self.directory.mkdir(parents=True, exist_ok=True)
            with files.replacing(self.directory / f"step-{step}.npz") as temporary:
                np.savez(temporary, **state())
        except OSError as error:
            kept = max(steps_on_disk(self.directory), default=None)
            raise RunFailed(
                f"The checkpoint of step {step} could not be written to {self.directory} ({error.strerror or error}); "
                + (f"that of step {kept} is kept" if kept is not None else "there is no earlier checkpoint")
                + ": make room, and the same command continues the run"
            ) from error
        self.step = step
        on_disk = steps_on_disk(self.directory)
        # Checkpoints of later steps were damaged, and the run has gone back: these steps are made again.
        kept = [other for other in on_disk if other <= step][-self.keep if self.keep else None :]
        for old in set(on_disk) - set(kept):
            (self.directory / f"step-{old}.npz").unlink(missing_ok=True)

    def remove_later(self, step):
        """Removes the checkpoints of later steps than `step`."""
        for later in steps_on_disk(self.directory):
            if later > step:
                (self.directory / f"step-{later}.npz").unlink(missing_ok=True)

    def keep_for(self, steps):
        """Removes the checkpoints but, for each of `steps`, the newest one that is not later, and those after them all.

        Args:
            steps: Sequence of integers, the steps from which the run may be continued.
        """
        on_disk = steps_on_disk(self.directory)
        kept = {max((other for other in on_disk if other <= step), default=None) for step in steps}
        for old in on_disk:
            if old <= max(steps) and old not in kept:
                (self.directory / f"step-{old}.npz").unlink(missing_ok=True)

    def restore(self, load, directory=None):
        """Loads the newest checkpoint that can be read.

        Args:
            load: Function of a dictionary of arrays, which raises `ValueError` if the arrays do not fit.
            directory: Path to read from. Defaults to the directory that `save` writes to.

        Returns:
            Step of the checkpoint, or None if there are no checkpoints, and the list of the steps of newer checkpoints
            that are damaged. They have been read, but not changed.

        Raises:
            BadInput: if there are checkpoints but none of them can be read.
        """
        directory = Path(directory or self.directory)
        damaged = []
        for step in reversed(steps_on_disk(directory)):
            try:
                load(read_checkpoint(directory / f"step-{step}.npz"))
                self.step = step
                return step, damaged
            except ValueError as error:
                damaged.append(step)
                reason = str(error)
        if damaged:
            oldest = f"the oldest one, of step {damaged[-1]}, fails with: {reason}"
            raise BadInput(f"No checkpoint in {directory} can be read; {oldest}. {WAYS_OUT}")
        if any(directory.glob("step-*.index")):
            raise BadInput(
                f"{directory} has checkpoints of version 0.1, which this version cannot continue: finish the run with "
                f"allconv_resnet 0.1, or begin anew with --overwrite or in another run directory"
            )
        return None, damaged


def read_checkpoint(path):
    """Returns a dictionary of all arrays of a checkpoint. Reading them verifies every checksum.

    Args:
        path: Path of the file.

    Raises:
        ValueError: if the file cannot be read. The message is one line.
    """
    try:
        with np.load(path, allow_pickle=False) as file:
            return {name: file[name] for name in file.files}
    except Exception as error:  # NumPy, zipfile, zlib and tokenize raise a dozen types for damaged files
        raise ValueError((str(error) or type(error).__name__).splitlines()[0]) from error
