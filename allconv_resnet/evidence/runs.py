"""The logs of run directories."""

import json
from dataclasses import dataclass
from pathlib import Path

from allconv_resnet.errors import BadInput
from allconv_resnet.training.run_directory import MAY_CHANGE, read_metrics


@dataclass(frozen=True)
class Run:
    """The log of one run directory."""

    path: Path
    recipe: dict
    lines: list
    sessions: list

    def last(self, split):
        """Returns the last line of a split, or None."""
        return next((line for line in reversed(self.lines) if line["split"] == split), None)

    def finished(self):
        """Returns whether it came to the last step of its recipe, and was tested there."""
        test = self.last("test")
        return test is not None and test["step"] >= self.recipe["steps"]

    def minutes(self):
        """Returns the time of the training steps, from the images a second of each line."""
        train = [line for line in self.lines if line["split"] == "train"]
        steps = [line["step"] - before for line, before in zip(train, [0, *(x["step"] for x in train)], strict=False)]
        rates = [line["images_per_second"] for line in train]
        return sum(self.recipe["batch_size"] * n / rate for n, rate in zip(steps, rates, strict=True)) / 60

    def processor_minutes(self, step=None):
        """Returns the processor time up to a step, or up to the last; None if the log does not have it."""
        seconds, before = 0.0, 0
        for line in self.lines:
            if line["split"] == "train" and (step is None or before < step):
                if "cpu_seconds" not in line:
                    return None
                part = 1 if step is None else min(1, (step - before) / (line["step"] - before))
                seconds, before = seconds + part * line["cpu_seconds"], line["step"]
        return seconds / 60 if before else None


def find_runs(results):
    """Returns the runs below a directory by the name of their training, in order."""
    runs = {}
    for config in sorted([*results.glob("*/config.json"), *results.glob("*/*/config.json")]):
        path = config.parent
        name = path.relative_to(results).parts[0]
        runs.setdefault(name, []).append(read_run(path))
    for seeds in runs.values():
        check_seeds(seeds)
    return runs


def check_seeds(runs):
    """Refuses runs that are not of one recipe under seeds of their own: they have no mean.

    A field that only some have was added since, and had its default in the others.

    Raises:
        BadInput: naming two of the runs and what differs.
    """
    first, others = runs[0], runs[1:]
    seen = {first.recipe["seed"]: first}
    for run in others:
        common = (first.recipe.keys() & run.recipe.keys()) - {"seed", "precision", *MAY_CHANGE}
        differ = sorted(field for field in common if first.recipe[field] != run.recipe[field])
        if differ:
            raise BadInput(f"{first.path} and {run.path} are not of one recipe: {', '.join(differ)}")
        if (twin := seen.setdefault(run.recipe["seed"], run)) is not run:
            raise BadInput(f"{twin.path} and {run.path} have the same seed, {run.recipe['seed']}")


def read_run(path):
    """Returns the `Run` of a run directory. A last line of its log that was cut short is left out.

    Raises:
        BadInput: if one of its files is missing, cannot be read, or lacks what the page needs.
    """
    try:
        recipe, environment = (json.loads((path / name).read_text()) for name in ("config.json", "environment.json"))
        run = Run(path, recipe, read_metrics(path), environment["sessions"])
        _need(recipe, "seed", "steps", "batch_size")
        for line in run.lines:
            _need(line, "step", "split", "loss", "error", *["images_per_second"] * (line.get("split") == "train"))
        for session in run.sessions:
            _need(session, "command", "commit", "cpu", "cores")
        if not run.sessions:
            raise ValueError("environment.json has no session")
        run.minutes(), run.processor_minutes()  # they divide
        return run
    except (OSError, ValueError, LookupError, TypeError, AttributeError, ArithmeticError) as error:
        raise BadInput(f"{path} is not the log of a run: {error}") from error


def _need(content, *fields):
    missing = [field for field in fields if field not in content]
    if missing:
        raise ValueError(f"{', '.join(missing)} missing in {content}")
