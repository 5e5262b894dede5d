"""The logs of run directories."""

import json
from dataclasses import dataclass
from pathlib import Path

from allconv_resnet.errors import BadInput


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
    return runs


def read_run(path):
    """Returns the `Run` of a run directory.

    Raises:
        BadInput: if one of its files is missing or cannot be read.
    """
    try:
        lines = [json.loads(line) for line in (path / "metrics.jsonl").read_text().splitlines()]
        sessions = json.loads((path / "environment.json").read_text())["sessions"]
        return Run(path, json.loads((path / "config.json").read_text()), lines, sessions)
    except (OSError, ValueError, KeyError) as error:
        raise BadInput(f"{path} is not the log of a run: {error}") from error
