"""The run directory and its files.

config.json        the recipe, which determines all numbers; written before the first step
labels.txt         the names of the classes, one per line
environment.json   versions, hardware, precision and commit of every session of the run
metrics.jsonl      training and test metrics, one JSON object per line
tensorboard/       events for TensorBoard
curves.png         training and test error against steps
checkpoints/       the newest three checkpoints, and best/
model.keras        the trained network, written when the run has finished
"""

import fcntl
import json
import shutil
import tempfile
import zipfile
from pathlib import Path

from allconv_resnet import files
from allconv_resnet.errors import BadInput
from allconv_resnet.recipes.migrate import nest_fields
from allconv_resnet.recipes.recipe import MAY_CHANGE, Recipe
from allconv_resnet.training.checkpoints import steps_on_disk

MODEL = "model.keras"


def resolve_recipe(run_dir, recipe, precision):
    """Returns the recipe with which a run begins or continues. It writes nothing.

    Args:
        run_dir: Path of the run directory.
        recipe: `Recipe` that the user asked for.
        precision: `"float32"` or `"bfloat16"`, the precision of a new run whose recipe has the precision `auto`. A run
            that has begun keeps its precision.

    Raises:
        BadInput: if the directory belongs to another recipe. The message lists the fields that differ.
    """
    before = read_recipe(run_dir) if (Path(run_dir) / "config.json").exists() else None
    if recipe.precision == "auto":
        recipe = recipe.replace(precision=before.precision if before else precision)
    if before:
        differences = _differences(before, recipe)
        if differences:
            raise BadInput(f"{run_dir} belongs to another recipe and was not changed: {'; '.join(differences)}")
    return recipe


def _differences(there, here):
    may_change = set(MAY_CHANGE) - ({"steps"} if here.schedule.depends_on_steps else set())
    old, new = there.flat(), here.flat()
    if old.get("centre") is None:  # older versions did not write it
        may_change.add("centre")
    return [
        f"{key} is {old.get(key)!r} there and {new.get(key)!r} here"
        for key in dict.fromkeys([*old, *new])
        if old.get(key) != new.get(key) and key not in may_change
    ]


def read_recipe(run_dir):
    """Returns the recipe of a run directory. If `centre` is missing it is None, since its default may be wrong.

    Args:
        run_dir: Path of the run directory.

    Raises:
        BadInput: if the directory has no config.json, or it cannot be read as a recipe.
    """
    path = Path(run_dir) / "config.json"
    try:
        values = json.loads(path.read_text())
        values = nest_fields(values, read_sessions(run_dir))
        values["data"].setdefault("centre", None)
        return Recipe.from_dict(values)
    except FileNotFoundError as error:
        raise BadInput(f"{run_dir} is not a run directory: it has no config.json") from error
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise BadInput(f"{path} cannot be read as a recipe of this version: {error}") from error


def read_sessions(run_dir):
    """Returns the sessions of environment.json in their order, or an empty list if the file cannot be read."""
    try:
        sessions = json.loads((Path(run_dir) / "environment.json").read_text())["sessions"]
    except (OSError, ValueError, LookupError, TypeError):
        return []
    return [session for session in sessions if isinstance(session, dict)] if isinstance(sessions, list) else []


def read_labels(run_dir):
    """Returns the names of the classes."""
    return (Path(run_dir) / "labels.txt").read_text(encoding="utf-8").splitlines()


def read_metrics(run_dir, name="metrics.jsonl"):
    """Returns the lines of metrics.jsonl as dictionaries, without a truncated last line.

    Args:
        run_dir: Path of the run directory.
        name: Name of the file.
    """
    path = Path(run_dir) / name
    lines = []
    for line in path.read_text().splitlines() if path.exists() else []:
        try:
            lines.append(json.loads(line))
        except json.JSONDecodeError:
            break
    return lines


def finished(run_dir, steps):
    """Returns whether a run has finished: it has made its last test and written the tested network.

    Args:
        run_dir: Path of the run directory.
        steps: Integer, number of steps of the recipe.
    """
    run_dir = Path(run_dir)
    model = run_dir / MODEL
    # With held-out images the run is tested once, at its end, which comes early if patience was exhausted.
    tests = [line for line in read_metrics(run_dir) if line["split"] == "test"]
    if not any(line.get("planned", line["step"]) >= steps for line in tests) or not zipfile.is_zipfile(model):
        return False
    # A prolonged run may have been stopped before it wrote the network again. Then its newest checkpoint is newer.
    checkpoints = run_dir / "checkpoints"
    newest = max(steps_on_disk(checkpoints), default=None)
    return newest is None or model.stat().st_mtime >= (checkpoints / f"step-{newest}.npz").stat().st_mtime


class RunDirectory:
    """A run directory, as a context manager that locks it, so that only this process writes to it.

    The workers of a job share a run directory. Only the first of them writes to it. The others write the same files to
    a temporary directory, because variables that are distributed over the workers can only be saved by all of them
    together.

    Attributes:
        path: Path to write to.
        shared: Path of the run directory, to read from.

    Args:
        run_dir: Path of the run directory, which is created if it does not exist.
        keeper: Boolean, whether this process writes to the run directory.

    Raises:
        BadInput: if the directory cannot be written to, or another process is training in it.
    """

    def __init__(self, run_dir, keeper=True):
        self.shared = Path(run_dir)
        self._copy = None if keeper else tempfile.TemporaryDirectory(prefix="worker-")
        self.path = self.shared if keeper else Path(self._copy.name)
        if not keeper and (metrics := self.shared / "metrics.jsonl").exists():
            shutil.copy(metrics, self.path)
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            self._lock = open(self.path / ".lock", "w")  # noqa: SIM115 - it is held as long as the run
        except OSError as error:
            raise BadInput(f"The run directory {run_dir} cannot be written to: {error.strerror}") from error
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            self._lock.close()
            raise BadInput(f"Another process is training in {run_dir}") from error

    def write_recipe(self, recipe, label_names):
        """Writes config.json and labels.txt.

        Args:
            recipe: `Recipe`.
            label_names: Sequence of names of the classes.
        """
        files.write_text(self.path / "labels.txt", "".join(f"{name}\n" for name in label_names))
        files.write_json(self.path / "config.json", recipe.to_dict())

    def add_session(self, first_step, environment):
        """Adds a session to environment.json.

        Args:
            first_step: Integer, step from which this process continues the run.
            environment: Dictionary of `environment.describe`.
        """
        sessions = [*read_sessions(self.path), {"first_step": first_step, **environment}]
        files.write_json(self.path / "environment.json", {"sessions": sessions})

    def finish(self, model):
        """Writes the trained network, a Keras model, to model.keras."""
        with files.replacing(self.path / MODEL) as temporary:
            model.save(temporary)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self._lock.close()
        if self._copy:
            self._copy.cleanup()
