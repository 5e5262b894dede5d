"""The logs of run directories, and which of them are seeds of one training."""

import json
import os
from dataclasses import dataclass
from pathlib import Path

from allconv_resnet.errors import BadInput
from allconv_resnet.progress import say
from allconv_resnet.recipes.recipe import MAY_CHANGE
from allconv_resnet.training.run_directory import METRICS, read_metrics

MAY_DIFFER = {"seed", "precision", *MAY_CHANGE}  # between the seeds of one training


@dataclass(frozen=True)
class Run:
    """The log of one run directory.

    Attributes:
        path: Path of the run directory.
        recipe: Dictionary of the fields of config.json, as `flatten` returns it.
        lines: List of the lines of metrics.jsonl.
        sessions: List of the sessions of environment.json.
    """

    path: Path
    recipe: dict
    lines: list
    sessions: list

    def last(self, split):
        """Returns the last line of a split, or None."""
        return next((line for line in reversed(self.lines) if line["split"] == split), None)

    def finished(self):
        """Returns whether the run was tested at its end: the last step of its recipe, or where patience ended it."""
        test = self.last("test")
        if test is None or test.get("planned", test["step"]) < self.recipe["steps"]:
            return False
        return test["step"] == max(line["step"] for line in self.lines)  # a later line: it went on with more patience

    def diverged_at(self):
        """Returns the step at which the loss was no longer finite and the run ended, or None."""
        return self.sessions[-1].get("not_finite_at")

    def minutes(self, step=None):
        """Returns the time of the training steps up to a step, or up to the last one.

        It is that of the images per second of each line.
        """
        batch = self.recipe["batch_size"]
        parts = self._train_lines(step)
        return sum(part * steps * batch / line["images_per_second"] for line, steps, part in parts) / 60

    def processor_minutes(self, step=None):
        """Returns the processor time up to a step, or up to the last one. It is None if the log does not have it."""
        if not any("cpu_seconds" in line for line in self.lines if line["split"] == "train"):
            return None
        parts = self._train_lines(step)
        if not all("cpu_seconds" in line for line, _, _ in parts):
            return None
        return sum(part * line["cpu_seconds"] for line, _, part in parts) / 60

    def _train_lines(self, until):
        """Returns the lines of training, each with the number of its steps and which part of them is before a step."""
        found, before = [], 0
        for line in self.lines:
            if line["split"] == "train" and (until is None or before < until):
                steps = line["step"] - before
                found.append((line, steps, 1 if until is None or not steps else min(1, (until - before) / steps)))
                before = line["step"]
        return found


def find_runs(directory):
    """Returns a dictionary from the name of each training to the list of its runs, in order.

    Args:
        directory: Path. A training NAME has its runs at `directory/NAME` or `directory/NAME/*`.

    Raises:
        BadInput: if a log cannot be read, or the runs of a training differ in more than their seeds.
    """
    runs = {}
    for path in _run_directories(directory):
        runs.setdefault(path.relative_to(directory).parts[0], []).append(read_run(path))
    for seeds in runs.values():
        check_seeds(seeds)
    return runs


def _run_directories(directory):
    """Returns the paths of the runs at NAME and NAME/*: the directories that have one of the files of each run."""
    above = _subdirectories(directory)
    paths = [*above, *(path for each in above for path in _subdirectories(each))]
    return sorted(path for path in paths if (path / "config.json").exists() or (path / METRICS).exists())


def _subdirectories(directory):
    """Returns the paths of the directories in a directory, and says which of them cannot be read."""
    paths = [path for path in directory.iterdir() if path.is_dir()]
    readable = [path for path in paths if os.access(path, os.R_OK | os.X_OK, effective_ids=True)]
    for path in sorted(set(paths) - set(readable)):
        say(f"{path} cannot be read and is left out")
    return readable


def check_seeds(runs):
    """Checks that runs have one recipe and different seeds, since only then they have a mean.

    A field that only some of the recipes have was added to the project later. It is not compared: the other runs had
    its default.

    Raises:
        BadInput: with two of the runs and the fields that differ.
    """
    first, others = runs[0], runs[1:]
    ended = {run.recipe["steps"]: run for run in runs if run.finished()}
    if len(ended) > 1:
        one, two = [run.path for run in ended.values()][:2]
        raise BadInput(
            f"Expected runs of one length in {first.path.parent}, which the report shows as seeds of one training. "
            f"Received: {one} and {two} have finished after different numbers of steps"
        )
    seen = {first.recipe["seed"]: first}
    for run in others:
        common = (first.recipe.keys() & run.recipe.keys()) - MAY_DIFFER
        differ = sorted(field for field in common if first.recipe[field] != run.recipe[field])
        if differ:
            raise BadInput(
                f"Expected runs of one recipe in {first.path.parent}, which the report shows as seeds of one training. "
                f"Received: {first.path} and {run.path} are not of one recipe: {', '.join(differ)}"
            )
        if (twin := seen.setdefault(run.recipe["seed"], run)) is not run:
            raise BadInput(
                f"Expected runs of different seeds in {first.path.parent}. "
                f"Received: {twin.path} and {run.path} have the same seed, {run.recipe['seed']}"
            )


def read_run(path):
    """Returns the `Run` of a run directory. A last line of its log that was cut short is left out.

    Args:
        path: Path.

    Raises:
        BadInput: if a file is missing, cannot be read, or lacks what the report needs.
    """
    try:
        config, environment = (
            json.loads((path / name).read_text(encoding="utf-8")) for name in ("config.json", "environment.json")
        )
        run = Run(path, flatten(config), read_metrics(path), environment["sessions"])
        _need(run.recipe, "seed", "steps", "batch_size")
        for line in run.lines:
            _need(line, "step", "split", "loss", "error", *["images_per_second"] * (line.get("split") == "train"))
        for session in run.sessions:
            _need(session, "commit", "cpu", "cores")
            command = session.get("command", [])  # a packed network does not have it
            if not (isinstance(command, list) and all(isinstance(word, str) for word in command)):
                raise ValueError(f"the command of a session is not a list of words: {command!r}")
        if not run.sessions:
            raise ValueError("environment.json has no session")
        run.minutes(), run.processor_minutes()  # they divide by what the log has
        return run
    except FileNotFoundError as error:
        raise BadInput(
            f"Expected the log of a run in {path}. Received: a directory without {Path(error.filename).name}"
        ) from error
    except (OSError, ValueError, LookupError, TypeError, AttributeError, ArithmeticError) as error:
        raise BadInput(f"Expected the log of a run in {path}. Received: {error}") from error


def flatten(config):
    """Returns the fields of a config.json in one dictionary, whether they lie flat there or in parts.

    The `kind` of a part becomes the part's name: `{"network": {"kind": "all_cnn", "dropout": 0.5}}` becomes
    `{"network": "all_cnn", "dropout": 0.5}`.

    Args:
        config: Dictionary.
    """
    flat = {}
    for name, part in config.items():
        fields = part.items() if isinstance(part, dict) else [("kind", part)]
        flat |= {name if field == "kind" else field: value for field, value in fields}
    return flat


def _need(content, *fields):
    missing = [field for field in fields if field not in content]
    if missing:
        raise ValueError(f"{', '.join(missing)} missing in {content}")
