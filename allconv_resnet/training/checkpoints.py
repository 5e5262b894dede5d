"""Checkpoints that survive a kill, a full disk and a damaged file."""

import shutil
from pathlib import Path

import keras
import tensorflow as tf

from allconv_resnet.errors import BadInput, RunFailed
from allconv_resnet.training.run_directory import steps_on_disk
from allconv_resnet.training.strategy import random_states


class Checkpoints:
    """The newest few states of a run in one directory, over `tf.train.CheckpointManager`.

    The manager writes under a temporary name and renames. What it lacks is added here: when the newest files are
    damaged, the ones before them are used; when the disk is full, what was there stays and the half-written files go.

    Args:
        directory: Path.
        keep: Integer, checkpoints to keep.
        **objects: What is saved, by name: trackable objects of TensorFlow or Keras, already built.
    """

    def __init__(self, directory, keep=3, **objects):
        self.directory = Path(directory)
        self.checkpoint = tf.train.Checkpoint(**objects, **_random_states(objects))
        _ = self.checkpoint.save_counter  # made on first use; reading a checkpoint expects it
        self.step = None  # of the last checkpoint that this process wrote or read
        self.manager = tf.train.CheckpointManager(
            self.checkpoint, str(self.directory), max_to_keep=keep, checkpoint_name="step"
        )

    def save(self, step):
        """Writes the state after `step` steps, unless that is the one that was written or read last.

        Raises:
            RunFailed: if it cannot be written; earlier checkpoints are as they were.
        """
        if step == self.step:  # what there is of this step must not be lost to a second try
            return
        try:
            self.manager.save(checkpoint_number=step)
            self.step = step
        except (tf.errors.OpError, OSError) as error:
            for path in self.directory.glob(f"step-{step}[._]*"):
                shutil.rmtree(path) if path.is_dir() else path.unlink()
            kept = max(steps_on_disk(self.directory), default=None)
            raise RunFailed(
                f"The checkpoint of step {step} could not be written to {self.directory} ({_reason(error)}); "
                + (f"that of step {kept} is kept" if kept is not None else "there is none before it")
                + ": make room, and the same command continues the run"
            ) from error

    def restore(self, directory=None, partial=False):
        """Loads the newest checkpoint that can be read.

        Args:
            directory: Path to read from. Defaults to the one that is written to.
            partial: Whether the checkpoint may hold more than the objects given, as a model alone.

        Returns:
            Its step, or None if there are no checkpoints; and the steps of the damaged ones that were passed over.

        Raises:
            BadInput: if there are checkpoints and none of them can be read.
        """
        directory = Path(directory or self.directory)
        damaged = []
        for step in sorted(steps_on_disk(directory), reverse=True):
            try:
                status = self.checkpoint.read(str(directory / f"step-{step}"))
                status.assert_existing_objects_matched().expect_partial()
                if not partial:
                    status.assert_consumed()
                self.step = step
                return step, damaged
            except (tf.errors.OpError, AssertionError, LookupError, RuntimeError, ValueError) as error:
                damaged.append(step)
                reason = _reason(error)
        if damaged:
            raise BadInput(f"No checkpoint in {directory} can be read; the oldest one, of step {damaged[-1]}: {reason}")
        return None, damaged


def _random_states(objects):
    """Returns the states of dropout and its like, which Keras does not show to TensorFlow's checkpoints, by model."""
    models = {name: value for name, value in objects.items() if isinstance(value, keras.Model)}
    states = {f"{name}_random": random_states(model) for name, model in models.items()}
    return {name: found for name, found in states.items() if found}


def _reason(error):
    return str(getattr(error, "message", None) or error).splitlines()[0]
