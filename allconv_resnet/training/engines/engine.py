"""The engine protocol: all methods that the loop calls. The loop does everything else.

The loop calls `job`, `build`, `load` (if there is a checkpoint) and `begin`. Then `advance` trains from one mark to the
next, and between them the loop calls the methods that return sums, test the network, or return the state to save.
"""

import abc
import contextlib

import keras
import numpy as np

from allconv_resnet.errors import BadInput, RunFailed

SUMS = ("losses", "errors", "top5_errors", "images", "skipped")
"""Names of the sums over images. Losses are in nats, and `skipped` counts the images of weight 0."""
TOP = 5


class Engine(abc.ABC):
    """Makes the steps of a run.

    Attributes:
        chief: Boolean, whether this process writes the run directory.
        replicas: Integer, number of devices that share a batch.
        look_every: Integer or None, most steps that `advance` makes, so that the loop can check the loss.
        stopped: Number of the signal that made `advance` return early, or None. It is the same on all machines of a
            job.
        strategy: String, name of the strategy for the environment report.
        model: Keras model, built by `build`.
        optimizer: Keras optimizer, built by `build`.
    """

    chief = True
    replicas = 1
    look_every = 10
    stopped = None
    strategy = "one"

    @abc.abstractmethod
    def resolve_precision(self):
        """Returns `"float32"` or `"bfloat16"`, the precision that `auto` means on these devices."""

    def describe(self):
        """Returns the part of the environment report about the devices, as a dictionary for JSON."""
        return {"backend": keras.backend.backend(), "strategy": self.strategy, "replicas": self.replicas}

    def serve(self, recipe, run_dir, overwrite=False):
        """Serves the chief until the run has finished, if this process is not the chief but a server of the job.

        Args:
            recipe: `Recipe`.
            run_dir: Path of the run directory.
            overwrite: Boolean, whether the chief will begin anew, although the run in the directory may have finished.

        Returns:
            Boolean, whether this process has served a run.
        """
        return False

    @contextlib.contextmanager
    def job(self, recipe, run_dir):
        """Returns a context manager that waits for all machines of the job and translates the backend's errors.

        Args:
            recipe: `Recipe`.
            run_dir: Path of the run directory.

        Raises:
            BadInput: if a machine does not answer, or was started with another recipe.
            RunFailed: if a machine can no longer be reached, or images cannot be read.
        """
        yield

    def require_same(self, **values):
        """Raises `BadInput` on every machine of the job if the machines have different values."""

    def require_shared(self, run_dir):
        """Raises `BadInput` on every machine of the job if the machines do not share the run directory."""

    @abc.abstractmethod
    def build(self, recipe, source, training=True):
        """Makes the model and its optimizer, with initial weights.

        Args:
            recipe: `Recipe` with a resolved precision.
            source: `Source` of the recipe's dataset.
            training: Boolean, whether the engine will train, or only test weights that are loaded.
        """

    @abc.abstractmethod
    def begin(self, step, stop):
        """Prepares for training from a step on.

        Args:
            step: Integer, number of steps made so far.
            stop: Object whose attribute `signal` is None, or the number of the signal that tells the run to stop.
        """

    @abc.abstractmethod
    def advance(self, step, to_step):
        """Makes steps until `to_step`, or until a signal stops the run.

        Args:
            step: Integer, number of steps made so far.
            to_step: Integer, number of steps that are to be made in total.

        Returns:
            Integer, number of steps made so far. It is less than `to_step` if `stopped` is set.
        """

    @abc.abstractmethod
    def first_bad_step(self):
        """Returns the first step, counted from 1, whose loss was not finite, or 0 if there was none."""

    @abc.abstractmethod
    def sums(self):
        """Returns a float64 array of `SUMS` since the last `reset`."""

    @abc.abstractmethod
    def reset(self):
        """Sets the sums to 0."""

    def rates(self):
        """Returns further measurements since the last `reset` for the log, as a dictionary."""
        return {}

    @abc.abstractmethod
    def test(self, split):
        """Returns a float64 array of `SUMS` over the images of a split with the current weights.

        Args:
            split: Name of the split.
        """

    def pull(self):
        """Copies the training state from the devices to the variables of `model` and `optimizer`."""

    def push(self):
        """Copies the training state from the variables of `model` and `optimizer` to the devices."""

    def weights(self):
        """Returns the arrays of the model by name."""
        self.pull()
        return {f"model/{i:04}": keras.ops.convert_to_numpy(v) for i, v in enumerate(self.model.variables)}

    def state(self):
        """Returns all arrays that a resumed run needs by name: model, optimizer, and the sums since the last log."""
        state = self.weights()
        for i, variable in enumerate(self.optimizer.variables):
            state[f"optimizer/{i:04}"] = keras.ops.convert_to_numpy(variable)
        return {**state, "sums": self.sums()}

    def load(self, state, training=True):
        """Loads a state.

        Args:
            state: Dictionary of arrays that `state` returned, or `weights` if `training` is false.
            training: Boolean, whether to load the optimizer and the sums as well.

        Raises:
            ValueError: if the arrays do not fit the model or the optimizer. Nothing is changed then.
        """
        groups = {"model": self.model.variables, "optimizer": self.optimizer.variables if training else []}
        pairs = []
        for group, variables in groups.items():
            names = sorted(name for name in state if name.startswith(f"{group}/"))
            if training or group == "model":
                shapes = [tuple(state[name].shape) for name in names]
                if shapes != [tuple(variable.shape) for variable in variables]:
                    raise ValueError(f"it holds another {group}, of {len(names)} variables")
            pairs += zip(variables, names, strict=False)
        sums = np.asarray(state.get("sums") if training else np.zeros(len(SUMS)), np.float64)
        if sums.shape != (len(SUMS),):
            raise ValueError(f"it has no {len(SUMS)} sums")
        for variable, name in pairs:
            variable.assign(state[name])
        self.load_sums(sums)
        self.push()

    @abc.abstractmethod
    def load_sums(self, sums):
        """Sets the sums since the last log.

        Args:
            sums: float64 array of `SUMS`.
        """


def number_of(name, sums):
    """Returns one of `SUMS` that counts images, as an integer.

    Args:
        name: `"images"` or `"skipped"`.
        sums: Array of `SUMS`.
    """
    return int(sums[SUMS.index(name)])


def means(sums):
    """Returns the means of `SUMS` over the images.

    Args:
        sums: Array of `SUMS`.

    Returns:
        Dictionary with `loss` (nats), `error` and `top5_error` (fractions).

    Raises:
        RunFailed: if the number of images is 0.
    """
    losses, errors, top5_errors, images, skipped = np.asarray(sums).tolist()
    if not images:
        raise RunFailed(f"None of {skipped:,.0f} images could be read")
    return {"loss": losses / images, "error": errors / images, "top5_error": top5_errors / images}


def whitening_images(recipe, source):
    """Returns the training images that determine a whitened stem, or None if the recipe has no such stem.

    Args:
        recipe: `Recipe`.
        source: `Source` of the recipe's dataset.

    Raises:
        BadInput: if the images are not in memory.
    """
    if not recipe.network.whitened_stem:
        return None
    if source.kind != "arrays":
        raise BadInput(f"A whitened stem needs a dataset in memory, but {source.name} is read from records")
    return source.arrays(recipe.data.train_split)[0]
