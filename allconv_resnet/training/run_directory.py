"""The run directory: whose it is, and what the user keeps.

config.json        the resolved recipe, written before the first step
labels.txt         the names of the classes, one a line
environment.json   versions, hardware, precision and commit of every session that worked on the run
metrics.jsonl      one object a line
tensorboard/       events
curves.png         training and test error against steps
checkpoints/       the newest three, and best/
model.keras        the trained network, when the run has finished
"""

import fcntl
import json
import os
import re
import shutil
import tempfile
from pathlib import Path

from allconv_resnet.errors import BadInput
from allconv_resnet.recipes import Recipe

MODEL = "model.keras"
# No step's weights hang on these.
MAY_CHANGE = ("steps", "log_every", "evaluate_every", "checkpoint_every", "bad_images")


def resolve(run_dir, recipe, precision):
    """Returns the recipe that this run continues or begins with. Writes nothing.

    Args:
        run_dir: Path.
        recipe: `Recipe` that the user asked for.
        precision: What `auto` means on this hardware, for a new run. A run begun in one precision keeps it.

    Raises:
        BadInput: if the directory belongs to another recipe; the fields that differ are listed.
    """
    before = read_recipe(run_dir) if (Path(run_dir) / "config.json").exists() else None
    may_change = set(MAY_CHANGE) - ({"steps"} if recipe.linear_decay else set())  # whose rates hang on them
    if recipe.precision == "auto":
        recipe = recipe.replace(precision=before.precision if before else precision)
    if before:
        old, new = before.to_dict(), recipe.to_dict()
        differences = [f"{key} is {old[key]!r} there and {new[key]!r} here" for key in old if old[key] != new[key]]
        differences = [difference for difference in differences if difference.split()[0] not in may_change]
        if differences:
            raise BadInput(f"{run_dir} belongs to another recipe, and was left as it is: {'; '.join(differences)}")
    return recipe


def read_recipe(run_dir):
    """Returns the recipe of a run directory.

    Raises:
        BadInput: if the directory has none, or not one that can be read.
    """
    path = Path(run_dir) / "config.json"
    try:
        return Recipe.from_dict(json.loads(path.read_text()))
    except FileNotFoundError as error:
        raise BadInput(f"{run_dir} is not a run directory: it has no config.json") from error
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise BadInput(f"{path} is not a recipe of this version: {error}") from error


def read_sessions(run_dir):
    """Returns the sessions of environment.json, the first one first."""
    path = Path(run_dir) / "environment.json"
    return json.loads(path.read_text())["sessions"] if path.exists() else []


def read_labels(run_dir):
    """Returns the names of the classes."""
    return (Path(run_dir) / "labels.txt").read_text().splitlines()


def read_metrics(run_dir, name="metrics.jsonl"):
    """Returns the lines of metrics.jsonl as dictionaries; a last line that was cut short is left out."""
    path = Path(run_dir) / name
    lines = []
    for line in path.read_text().splitlines() if path.exists() else []:
        try:
            lines.append(json.loads(line))
        except json.JSONDecodeError:
            break
    return lines


def steps_on_disk(directory):
    """Returns the steps whose checkpoints lie in a directory, damaged ones included."""
    names = (re.fullmatch(r"step-(\d+)\.index", path.name) for path in Path(directory).glob("step-*.index"))
    return [int(name[1]) for name in names if name]


def finished(run_dir, steps):
    """Returns whether a run of so many steps has come to its end: the network of its last checkpoint is there."""
    model, checkpoints = Path(run_dir) / MODEL, Path(run_dir) / "checkpoints"
    newest = max(steps_on_disk(checkpoints), default=0)
    try:  # a run that was prolonged may have ended before it wrote the network anew
        written = (checkpoints / f"step-{newest}.index").stat().st_mtime
        return newest >= steps and model.stat().st_mtime >= written
    except FileNotFoundError:
        return False


class RunDirectory:
    """A run directory, as a context in which this process alone writes to it.

    The workers of a job share one. The first of them keeps it; the others write what it writes to a directory that is
    removed at the end: variables that are spread over the workers can only be saved by all of them together.

    Attributes:
        path: Path to write to.
        shared: Path of the run directory, to read from.

    Args:
        run_dir: Path; made if it does not exist.
        keeper: Whether this process is the one that keeps it.

    Raises:
        BadInput: if it cannot be written to, or another process is at work in it.
    """

    def __init__(self, run_dir, keeper=True):
        self.shared = Path(run_dir)
        self._copy = None if keeper else tempfile.TemporaryDirectory(prefix="worker-")
        self.path = self.shared if keeper else Path(self._copy.name)
        if not keeper and (metrics := self.shared / "metrics.jsonl").exists():
            shutil.copy(metrics, self.path)
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            self._lock = open(self.path / ".lock", "w")  # noqa: SIM115 - held as long as the run
        except OSError as error:
            raise BadInput(f"The run directory {run_dir} cannot be written to: {error.strerror}") from error
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            self._lock.close()
            raise BadInput(f"Another process is training in {run_dir}") from error

    def write_recipe(self, recipe, label_names):
        """Writes config.json and labels.txt."""
        self._replace("labels.txt", "".join(f"{name}\n" for name in label_names))
        self._replace("config.json", json.dumps(recipe.to_dict(), indent=2) + "\n")

    def add_session(self, first_step, environment):
        """Adds an entry to environment.json: from which step on this process, in this environment, did the work."""
        sessions = [*read_sessions(self.path), {"first_step": first_step, **environment}]
        self._replace("environment.json", json.dumps({"sessions": sessions}, indent=2) + "\n")

    def _replace(self, name, text):
        # A rename is all or nothing: a kill or a full disk leaves the old file or the new one.
        temporary = self.path / f".{name}"
        temporary.write_text(text)
        os.replace(temporary, self.path / name)

    def finish(self, model):
        """Writes the trained network."""
        temporary = self.path / f".{MODEL}"
        model.save(temporary)
        os.replace(temporary, self.path / MODEL)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self._lock.close()
        if self._copy:
            self._copy.cleanup()
