"""The run directory and its files.

config.json        the recipe, which determines all numbers; written before the first step
labels.txt         the names of the classes, one per line
environment.json   versions, hardware, precision and commit of every session of the run
metrics.jsonl      training and test metrics, one JSON object per line
tensorboard/       events for TensorBoard
curves.png         training and test error against steps
checkpoints/       the newest three checkpoints, and best/
model.keras        the trained network, written when the run has finished
evaluations.jsonl  metrics of `allconv-resnet evaluate --follow`
export/            the exports, a directory for each version
"""

import contextlib
import fcntl
import json
import re
import shutil
import tempfile
from pathlib import Path

from allconv_resnet import files
from allconv_resnet.errors import BadInput
from allconv_resnet.recipes.migrate import nest_fields
from allconv_resnet.recipes.recipe import Recipe
from allconv_resnet.training import json_lines

MODEL = "model.keras"
METRICS = "metrics.jsonl"
EVALUATIONS = "evaluations.jsonl"  # written by a process beside training, see evaluate.follow_run
EXPORT = "export"
FILES = ("config.json", "labels.txt", "environment.json", METRICS, EVALUATIONS, "curves.png", MODEL, ".lock")
CHECKPOINT = re.compile(r"step-\d+\.(npz|index|data-\d+-of-\d+)|checkpoint")  # those of 0.1 too
SAVED_MODEL = re.compile(
    r"saved_model\.pb|fingerprint\.pb|MODEL_CARD\.md|labels\.txt|variables/variables\.(index|data-[\d-]+of-\d+)"
    r"|assets\.extra/(tf_serving_warmup_requests|network\.json)"
)
EXPORTED = re.compile(r"\d+(\.int8)?\.(onnx|tflite)(\.MODEL_CARD\.md|\.labels\.txt)?")
DIRECTORIES = ("checkpoints", "checkpoints/best", "tensorboard", EXPORT)


def read_recipe(run_dir):
    """Returns the recipe of a run directory. If `centre` is missing it is None, since its default may be wrong.

    Args:
        run_dir: Path of the run directory.

    Raises:
        BadInput: if the directory has no config.json, or it cannot be read as a recipe.
    """
    path = Path(run_dir) / "config.json"
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
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
        sessions = json.loads((Path(run_dir) / "environment.json").read_text(encoding="utf-8"))["sessions"]
    except (OSError, ValueError, LookupError, TypeError):
        return []
    return [session for session in sessions if isinstance(session, dict)] if isinstance(sessions, list) else []


def read_labels(run_dir):
    """Returns the names of the classes.

    Args:
        run_dir: Path of the run directory.

    Raises:
        BadInput: if labels.txt cannot be read, or does not have one name for each class of the recipe.
    """
    path = Path(run_dir) / "labels.txt"
    classes = read_recipe(run_dir).data.num_classes
    again = "the training command of this run writes the file again"
    try:
        labels = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not text in UTF-8"
        raise BadInput(f"{path}, the names of the classes, cannot be read ({reason}): {again}") from error
    if len(labels) != classes:
        raise BadInput(
            f"{path} must have one name for each of {classes} classes; {again}. Received: {len(labels)} lines"
        )
    return labels


def is_export(directory):
    """Returns whether a directory has no other files than a SavedModel with its card."""
    paths = (path.relative_to(directory).as_posix() for path in directory.rglob("*") if not path.is_dir())
    return all(SAVED_MODEL.fullmatch(path) for path in paths)


def read_metrics(run_dir, name="metrics.jsonl"):
    """Returns the lines of a log as dictionaries, see `json_lines.read`.

    Args:
        run_dir: Path of the run directory.
        name: Name of the file.
    """
    return json_lines.read(Path(run_dir) / name)


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
        self._at_exit = contextlib.ExitStack()
        self._copy = None if keeper else tempfile.TemporaryDirectory(prefix="worker-")
        self.path = self.shared if keeper else Path(self._copy.name)
        try:
            if not keeper and (metrics := self.shared / METRICS).exists():
                shutil.copy(metrics, self.path)
            self.path.mkdir(parents=True, exist_ok=True)
            _require_kinds(self.path)
            self._lock = open(self.path / ".lock", "wb")  # noqa: SIM115 - it is held as long as the run
        except OSError as error:
            raise BadInput(f"The run directory {run_dir} cannot be written to: {error.strerror}") from error
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            self._lock.close()
            raise BadInput(f"Another process is training in {run_dir}") from error
        except OSError as error:
            self._lock.close()
            raise BadInput(
                f"The run directory {run_dir} must be on a file system that has locks, but flock failed: "
                f"{error.strerror}"
            ) from error
        try:
            for name in (".", *DIRECTORIES):
                files.remove_leftovers(self.path / name)
        except OSError as error:
            self._lock.close()
            raise BadInput(f"What a killed process left in {run_dir} cannot be removed: {error}") from error

    def clear(self):
        """Deletes what an earlier run has written to the directory, and no other files.

        Raises:
            BadInput: if a directory of the run has other files. Nothing has been deleted then.
        """
        written = [path for name in DIRECTORIES for path in self._listed(name)]
        if foreign := [path for path in written if not _is_of_a_run(path)]:
            raise BadInput(
                f"--overwrite would delete {foreign[0]}, which no run writes: move it away, and the same command "
                f"begins the run anew"
            )
        # config.json goes last: as long as it is there, the same command deletes what could not be deleted before.
        others = (self.path / name for name in FILES if name not in (".lock", "config.json"))
        for path in (*others, *written, self.path / "config.json"):
            shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink(missing_ok=True)
        for name in sorted(
            DIRECTORIES, reverse=True
        ):  # "checkpoints/best" before "checkpoints"; a link to a directory elsewhere stays
            if (directory := self.path / name).is_dir() and not directory.is_symlink() and not self._listed(name):
                shutil.rmtree(directory)

    def _listed(self, name):
        """Returns the paths in a directory of the run, without its other directories."""
        directory, others = self.path / name, {self.path / each for each in DIRECTORIES}
        return [path for path in directory.iterdir() if path not in others] if directory.is_dir() else []

    def write_recipe(self, recipe, label_names):
        """Writes config.json and labels.txt.

        Args:
            recipe: `Recipe`.
            label_names: Sequence of names of the classes.
        """
        files.write_json(self.path / "config.json", recipe.to_dict())
        files.write_text(self.path / "labels.txt", "".join(f"{name}\n" for name in label_names))

    def add_session(self, first_step, environment):
        """Adds a session to environment.json. A file that cannot be read is kept as environment.json.damaged-1.

        Args:
            first_step: Integer, step from which this process continues the run.
            environment: Dictionary of `environment.describe`.
        """
        path = self.path / "environment.json"
        sessions = read_sessions(self.path)
        if not sessions and path.exists():
            files.copy_damaged(path)
        files.write_json(path, {"sessions": [*sessions, {"first_step": first_step, **environment}]})

    def mark_session(self, **facts):
        """Adds facts about how this session ended to its entry in environment.json."""
        *earlier, last = read_sessions(self.path) or [{}]  # the file may have been deleted meanwhile
        files.write_json(self.path / "environment.json", {"sessions": [*earlier, {**last, **facts}]})

    def finish(self, model):
        """Writes the trained network, a Keras model, to model.keras."""
        with files.replacing(self.path / MODEL) as temporary:
            model.save(temporary)

    def closing(self, log):
        """Returns an object, whose method `close` is called when the context ends."""
        return self._at_exit.enter_context(contextlib.closing(log))

    def __enter__(self):
        return self

    def __exit__(self, *_):
        try:
            self._at_exit.close()
        finally:
            self._lock.close()
            if self._copy:
                self._copy.cleanup()


def _is_of_a_run(path):
    """Returns whether a path in one of the `DIRECTORIES` has a name that a run or an export gives."""
    if path.parent.name == EXPORT:
        return is_export(path) if path.is_dir() else bool(EXPORTED.fullmatch(path.name))
    if path.parent.name == "tensorboard":
        return path.is_dir() and all(each.name.startswith("events.out.tfevents.") for each in path.iterdir())
    return bool(CHECKPOINT.fullmatch(path.name))


def _require_kinds(run_dir):
    """Raises `BadInput` if a file of the run is a directory, or a directory of the run is a file."""
    for names, right, kind, other in (
        (FILES, Path.is_file, "file", "directory"),
        (DIRECTORIES, Path.is_dir, "directory", "file"),
    ):
        for name in names:
            path = run_dir / name
            if path.exists() and not right(path):
                raise BadInput(
                    f"{path} must be a {kind}; move it away, and the same command continues the run. "
                    f"Received: a {other}"
                )
