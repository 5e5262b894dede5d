"""The engine protocol: what the loop asks of whatever makes the steps. Everything else is the loop's.

A run goes through `job`, `build`, `load` (where there is a checkpoint) and `begin`; then `advance` brings it from one
mark to the next, and between them the loop asks for totals, for a test, or for the state to save.
"""

import abc
import contextlib

import keras
import numpy as np

from allconv_resnet.errors import BadInput, RunFailed

SUMS = ("losses", "errors", "top5_errors", "images", "skipped")
"""What is summed over images. Losses are in nats; `skipped` counts the images of weight 0."""
TOP = 5


class Engine(abc.ABC):
    """Makes the steps of a run.

    Attributes:
        chief: Whether this process keeps the run directory.
        replicas: Integer, devices that share a batch.
        look_every: Integer or None: steps after which `advance` returns at the latest, so that the loop can look at the
            loss.
        stopped: Number of the signal because of which `advance` returned early, or None. All machines of a job agree on
            it.
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
        """Returns `"float32"` or `"bfloat16"`: what the precision `auto` means on these devices."""

    def describe(self):
        """Returns what the environment report says of the devices: a dictionary for JSON."""
        return {"backend": keras.backend.backend(), "strategy": self.strategy, "replicas": self.replicas}

    def serve(self, recipe, run_dir):
        """Serves another process that leads the job, if this one does not; returns whether it did, until the end."""
        return False

    @contextlib.contextmanager
    def job(self, recipe, run_dir):
        """A context in which all machines of the job are there.

        Raises:
            BadInput: if a machine does not answer, or was started with another recipe.
            RunFailed: in place of the backend's error, if a machine is gone or images cannot be read.
        """
        yield

    def require_same(self, **values):
        """Raises `BadInput` on every machine of the job if they do not have the same values."""

    def require_shared(self, run_dir):
        """Raises `BadInput` on every machine of the job if they do not see the same run directory."""

    @abc.abstractmethod
    def build(self, recipe, source, training=True):
        """Makes the model and its optimizer, with initial weights.

        Args:
            recipe: `Recipe` with a resolved precision.
            source: `Source` of the recipe's dataset.
            training: Whether the engine will train; False where weights are loaded and tested only.
        """

    @abc.abstractmethod
    def begin(self, step, stop):
        """Prepares the batches from a step on.

        Args:
            step: Integer, steps made so far.
            stop: Object whose `signal` is None until the process was told to stop.
        """

    @abc.abstractmethod
    def advance(self, step, to_step):
        """Makes steps until `to_step`, or until the run is to stop.

        Returns:
            Integer, the steps made so far; less than `to_step` if `stopped` is set.
        """

    @abc.abstractmethod
    def first_bad_step(self):
        """Returns the first step since the start, counted from 1, whose loss was not finite, or 0."""

    @abc.abstractmethod
    def sums(self):
        """Returns float64 array of `SUMS` since the last `reset`."""

    @abc.abstractmethod
    def reset(self):
        """Begins the sums again at 0."""

    def rates(self):
        """Returns what else the engine has measured since the last `reset`, for the log."""
        return {}

    @abc.abstractmethod
    def test(self, split):
        """Returns float64 array of `SUMS` over the images of a split, with the weights of now.

        Args:
            split: Name of the split.
        """

    def pull(self):
        """Copies the state from where it is trained to the variables of `model` and `optimizer`."""

    def push(self):
        """Copies the state from the variables of `model` and `optimizer` to where it is trained."""

    def weights(self):
        """Returns the arrays of the model alone, by name."""
        self.pull()
        return {f"model/{i:04}": keras.ops.convert_to_numpy(v) for i, v in enumerate(self.model.variables)}

    def state(self):
        """Returns all arrays that a resumed run needs, by name: model, optimizer, and the sums since the last log."""
        state = self.weights()
        for i, variable in enumerate(self.optimizer.variables):
            state[f"optimizer/{i:04}"] = keras.ops.convert_to_numpy(variable)
        return {**state, "sums": self.sums()}

    def load(self, state, training=True):
        """Takes over a state that `state` (or, if not training, `weights`) returned.

        Raises:
            ValueError: if the arrays are not those of this model; nothing is changed then.
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
        sums = np.asarray(state["sums"], np.float64) if training else np.zeros(len(SUMS))
        if sums.shape != (len(SUMS),):
            raise ValueError(f"it has no {len(SUMS)} sums")
        for variable, name in pairs:
            variable.assign(state[name])
        self.load_sums(sums)
        self.push()

    @abc.abstractmethod
    def load_sums(self, sums):
        """Takes over the sums since the last log."""


def means(sums):
    """Returns the mean `loss` (nats), and the `error` and the `top5_error` (fractions), of `SUMS`.

    Raises:
        RunFailed: if they are those of no image.
    """
    losses, errors, top5_errors, images, skipped = np.asarray(sums).tolist()
    if not images:
        raise RunFailed(f"None of {skipped:,.0f} images could be read")
    return {"loss": losses / images, "error": errors / images, "top5_error": top5_errors / images}


def whitening_images(recipe, source):
    """Returns the training images from which a whitened stem is made, or None where the recipe has no such stem.

    Raises:
        BadInput: if the images are not in memory.
    """
    if not recipe.network.whitened_stem:
        return None
    if source.kind != "arrays":
        raise BadInput(f"A whitened stem needs a dataset in memory, and {source.name} is one of records")
    return source.arrays(recipe.data.train_split)[0]
