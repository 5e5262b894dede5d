"""`allconv-resnet report`: results/README.md and its figures, from the logs of the runs and nothing else."""

import json
import statistics
from dataclasses import dataclass
from pathlib import Path

from allconv_resnet.errors import BadInput
from allconv_resnet.evidence import MEASUREMENTS, TRAININGS, Training

INTRODUCTION = """# Results

What was measured, with the command, the hardware and the log. This page is the output of `allconv-resnet report`.

CIFAR-10 here is the real data set, every image of which was re-encoded once as JPEG (quality 75), with 5,000 of its
10,000 test images: errors come out somewhat higher than on the original. `DIR` is a directory of tensorflow-datasets,
`S` a seed. Errors are percentages, mean ± deviation over the seeds, at the last step; minutes are those of the training
steps. "+" after a code version: with changes that were not yet committed.
"""
NOT_RUN = "*not run*"


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


def report(results):
    """Writes README.md and the figures of a results directory.

    Args:
        results: Path. Run directories lie at `NAME` or `NAME/*`, benchmarks and theory as `evidence` has them.

    Returns:
        Path of README.md.

    Raises:
        BadInput: if there is no such directory, or a log in it cannot be read.
    """
    results = Path(results)
    if not results.is_dir():
        raise BadInput(f"{results} is not a directory of results")
    known = {training.name: training for training in TRAININGS}
    found = find_runs(results)
    for name in sorted(set(found) - set(known)):
        known[name] = Training(name, "", _command(found[name]), len(found[name]))
    parts = [INTRODUCTION, training_table(known.values(), found, results), measurement_table(results)]
    for name, runs in found.items():
        if len(runs) > 1:
            draw_curves(runs, name, results / name / "curves.png")
            parts.append(f"![{name}: training and test error against steps]({name}/curves.png)\n")
    path = results / "README.md"
    temporary = path.with_name(".README.md")
    temporary.write_text("\n".join(parts))
    temporary.replace(path)
    return path


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


def training_table(trainings, found, results):
    """Returns the table of the trainings, in Markdown."""
    rows = [("training", "what", "n", "steps", "train loss", "train error", "test error", "minutes", "where", "log")]
    for training in trainings:
        runs = found.get(training.name, [])
        what = f"{training.what}{': ' if training.what else ''}`{training.command}`"
        if not runs:
            rows.append((f"`{training.name}`", what, f"0 of {training.seeds}", *[NOT_RUN] * 7))
            continue
        links = (f"[{run.path.name}]({run.path.relative_to(results).as_posix()})" for run in runs)
        rows.append(
            (
                f"`{training.name}`",
                what,
                str(len(runs)) if len(runs) >= training.seeds else f"{len(runs)} of {training.seeds}",
                _steps(runs),
                _mean([run.last("train")["loss"] for run in runs if run.last("train")], 3),
                _mean([100 * run.last("train")["error"] for run in runs if run.last("train")]),
                _mean([100 * run.last("test")["error"] for run in runs if run.last("test")]),
                _mean([run.minutes() for run in runs], 1),
                "; ".join(dict.fromkeys(where(s) for run in runs for s in run.sessions)),
                " ".join(links),
            )
        )
    return "## Trainings\n\n" + _markdown(rows)


def measurement_table(results):
    """Returns the table of the measurements, in Markdown."""
    rows = [("what", "figure", "command", "where", "log")]
    for measurement in MEASUREMENTS:
        paths = sorted(results.glob(measurement.file))
        if not paths:
            rows.append((measurement.what, NOT_RUN, f"`{measurement.command}`", "", ""))
        for path in paths:
            try:
                content = json.loads(path.read_text())
                figure = measurement.figure(content) or NOT_RUN
            except (ValueError, KeyError, TypeError) as error:
                raise BadInput(f"{path} is not what `{measurement.command}` writes: {error!r}") from error
            log = f"[{path.name}]({path.relative_to(results)})"
            # Contenders that were measured in several runs have a code version each.
            contenders = [c for entry in content.get("entries", ()) for c in entry["contenders"].values()]
            commits = sorted({contender["commit"] for contender in contenders})
            versions = commits or [content["environment"]["commit"]]
            places = "; ".join(where(content["environment"] | {"commit": commit}) for commit in versions)
            rows.append((measurement.what, figure, f"`{measurement.command}`", places, log))
    return "## Measurements\n\n" + _markdown(rows)


def where(environment):
    """Returns the hardware and the code version in a few words."""
    cores = f"{environment['cores']} core{'s' if environment['cores'] > 1 else ''}"
    processor = ", ".join(environment.get("gpus") or [f"{cores} of {environment['cpu']}"])
    commit = environment["commit"] or "unknown version"
    commit = commit[:7] + ("+" if commit.endswith("+changes") else "")
    precision = f", {environment['precision']}" if "precision" in environment else ""
    return f"{processor}{precision}, {commit}"


def draw_curves(runs, title, path):
    """Draws the errors of several seeds against steps: their mean, and their range as a band."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 4), layout="constrained")
    axes = figure.subplots()
    for split, color in (("train", "C0"), ("test", "C3")):
        errors = {}
        for run in runs:
            for line in run.lines:
                if line["split"] == split:
                    errors.setdefault(line["step"], []).append(100 * line["error"])
        common = {step: values for step, values in sorted(errors.items()) if len(values) == len(runs)}
        if common:
            label = f"{split}: {_mean(common[max(common)])} % at the end"
            axes.plot(list(common), [statistics.fmean(v) for v in common.values()], color=color, label=label)
            axes.fill_between(
                list(common),
                [min(v) for v in common.values()],
                [max(v) for v in common.values()],
                color=color,
                alpha=0.2,
            )
    axes.set(xlabel="step", ylabel="error (%)", ylim=(0, None), title=f"{title}, {len(runs)} seeds and their range")
    axes.grid(alpha=0.3)
    axes.legend()
    figure.savefig(path, dpi=120)


def _command(runs):
    return " ".join(["python", *runs[0].sessions[0]["command"]])


def _steps(runs):
    done = sorted({run.lines[-1]["step"] if run.lines else 0 for run in runs})
    planned = max(run.recipe["steps"] for run in runs)
    text = " to ".join(f"{step:,}" for step in dict.fromkeys((done[0], done[-1])))
    return text if done[0] == planned else f"{text} of {planned:,}"


def _mean(values, digits=2):
    if not values:
        return "-"
    mean = f"{statistics.fmean(values):.{digits}f}"
    return mean if len(values) == 1 else f"{mean} ± {statistics.stdev(values):.{digits}f}"


def _markdown(rows):
    lines = ["| " + " | ".join(row) + " |" for row in rows]
    return "\n".join([lines[0], "|" + "---|" * len(rows[0]), *lines[1:]]) + "\n"
