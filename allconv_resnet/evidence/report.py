"""`allconv-resnet report`: results/README.md and its figures, from the logs of the runs and nothing else."""

import functools
import json
from pathlib import Path

from allconv_resnet.errors import BadInput
from allconv_resnet.evidence import claims
from allconv_resnet.evidence.comparisons import COMPARISONS
from allconv_resnet.evidence.figures import draw_comparison, draw_curves, draw_ratios, mean
from allconv_resnet.evidence.measurements import MEASUREMENTS
from allconv_resnet.evidence.runs import find_runs
from allconv_resnet.evidence.trainings import SECTIONS, Section, Training

INTRODUCTION = """# Results

What was measured, with the command, the hardware and the log. This page is the output of `allconv-resnet report`.

CIFAR-10 here is the real data set, every image of which was re-encoded once as JPEG (quality 75), with 5,000 of its
10,000 test images: errors come out somewhat higher than on the original. `DIR` is a directory of tensorflow-datasets,
`S` a seed.

Errors are percentages, mean ± deviation over the seeds that have finished, at the last step. Training loss and error
are means over the steps since the line before in the log, on 3,000 to 26,000 images as the steps saw them: augmented,
with label smoothing, dropout and the statistics of the batch where a recipe has them. Minutes are those of the training
steps, processor minutes those of the whole process on all its cores from the first step to the last, with the
evaluations between them; of a run that was stopped and went on, without those between its last line and the stop (up
to 3 %). "+" after a code version: with changes that were not yet committed.
"""
NOT_RUN = "*not run*"
COLUMNS = (
    "training",
    "what",
    "n",
    "steps",
    "train loss",
    "train error",
    "test error",
    "minutes",
    "processor minutes",
    "where",
    "log",
)


def report(results):
    """Writes README.md and the figures of a results directory.

    Args:
        results: Path. Run directories lie at `NAME` or `NAME/*`, benchmarks and theory as `evidence` has them.

    Returns:
        Path of README.md.

    Raises:
        BadInput: if there is no such directory, a log in it cannot be read, or runs that share a row are not of one
            recipe under different seeds. Nothing is written then.
    """
    results = Path(results)
    if not results.is_dir():
        raise BadInput(f"{results} is not a directory of results")
    found = find_runs(results)
    known = {training.name for section in SECTIONS for training in section.trainings}
    others = (Training(name, "", _command(found[name]), len(found[name])) for name in sorted(set(found) - known))
    sections = [*SECTIONS, Section("Other trainings", "", tuple(others))]
    parts, figures = [INTRODUCTION], []  # drawn when all logs have been read
    for section in sections:
        runs = {training.name: found[training.name] for training in section.trainings if training.name in found}
        if section.trainings:
            parts.append(training_section(section, runs, results))
        drawn = {name: _finished(seeds) for name, seeds in runs.items()}
        if section.figure and len(runs) > 1:
            figures.append(functools.partial(draw_comparison, drawn, section.title, results / section.figure))
            parts.append(f"![{section.title}: test error against processor time]({section.figure})\n")
        for name, seeds in drawn.items():
            if len(seeds) > 1:
                figures.append(functools.partial(draw_curves, seeds, name, results / name / "curves.png"))
                if not section.figure:
                    parts.append(f"![{name}: training and test error against steps]({name}/curves.png)\n")
    parts.append(claim_table(found))
    parts.extend(comparison_section(comparison, results, figures) for comparison in COMPARISONS)
    parts.append(measurement_table(results))
    for draw in figures:
        draw()
    path = results / "README.md"
    temporary = path.with_name(".README.md")
    temporary.write_text("\n".join(parts))
    temporary.replace(path)
    return path


def training_section(section, found, results):
    """Returns a section's title, text and table, in Markdown; `found` has its runs by the name of their training.

    Where some runs of a training have finished, its figures are theirs.
    """
    rows = [COLUMNS]
    for training in section.trainings:
        runs = found.get(training.name, [])
        what = f"{training.what}{': ' if training.what else ''}`{training.command}`"
        if not runs:
            rows.append((f"`{training.name}`", what, f"0 of {training.seeds}", *[NOT_RUN] * (len(COLUMNS) - 3)))
            continue
        runs, unfinished = _finished(runs), len(runs) - len(_finished(runs))
        n = str(len(runs)) if len(runs) >= training.seeds else f"{len(runs)} of {training.seeds}"
        links = [f"[{run.path.name}]({run.path.relative_to(results).as_posix()})" for run in runs]
        links += [f"[curves]({training.name}/curves.png)"] if len(runs) > 1 else []
        rows.append(
            (
                f"`{training.name}`",
                what,
                n + f", {unfinished} unfinished" * (unfinished > 0),
                _steps(runs),
                mean([run.last("train")["loss"] for run in runs if run.last("train")], 3),
                mean([100 * run.last("train")["error"] for run in runs if run.last("train")]),
                mean([100 * run.last("test")["error"] for run in runs if run.last("test")]),
                mean([run.minutes() for run in runs], 1),
                mean([minutes for run in runs if (minutes := run.processor_minutes()) is not None], 1),
                "; ".join(dict.fromkeys(where(s) for run in runs for s in run.sessions)),
                " ".join(links),
            )
        )
    return "\n\n".join(part for part in (f"## {section.title}", section.text, _markdown(rows)) if part)


def claim_table(found):
    """Returns the table of the paper's claims; `found` has the runs by the name of their training."""
    text = (
        "What Hardt & Ma say of their network, and what is asked here, in the trainings above, which are far shorter "
        "and smaller than theirs: a claim that does not reproduce does not do so at this size and budget. The small "
        "networks of ours have He et al.'s initialization and clipped gradients where a name does not say otherwise, "
        "and no rate was tuned anew for an ablation; in table 2's rows ours has 1.5M parameters, ResNet-20 stands for "
        "ResNet-110, and All-CNN-C has seen the images three times. Errors in percent, at the last step; the "
        "difference is the second less the first, with Welch's 95 % interval over the seeds: one that has 0 in it "
        "leaves the claim undecided. Test errors are of the same 5,000 images, training errors of the last steps' own. "
        "No allowance is made for the number of claims."
    )
    columns = ("claim", "whose", "split", "error of", "is below that of", "difference", "at this budget")
    return f"## Claims\n\n{text}\n\n" + _markdown([columns, *(claims.row(claim, found) for claim in claims.CLAIMS)])


def comparison_section(comparison, results, figures):
    """Returns the title, the text with its commands, and the table of a `Comparison`, in Markdown; adds its figure."""
    rows, drawn = [(*comparison.columns, "where", "log")], []
    for file, command in comparison.commands.items():
        logs = list(_logs(file, command, comparison.rows, results))
        for path, environment, found in logs:
            log = f"[log]({path.relative_to(results).as_posix()})"
            rows += [(*cells, where(environment, commits), log) for cells, commits in found]
        if not logs:
            rows.append((f"`{command}`", *[NOT_RUN] * (len(rows[0]) - 1)))
        for _, environment, ratios in _logs(file, command, comparison.ratios, results) if comparison.figure else ():
            machine = f", {environment['cpu']}" if len(logs) > 1 else ""
            drawn += [(setting + machine, values) for setting, values in ratios]
    commands = ", ".join(f"`{command}`" for command in comparison.commands.values())
    text = f"## {comparison.title}\n\n{comparison.text} {commands}.\n\n" + _markdown(rows)
    if drawn:
        figures.append(functools.partial(draw_ratios, drawn, comparison.title, results / comparison.figure))
        text += f"\n![{comparison.title}: ours over its peers]({comparison.figure})\n"
    return text


def measurement_table(results):
    """Returns the table of the measurements, in Markdown."""
    rows = [("what", "figure", "command", "where", "log")]
    for measurement in MEASUREMENTS:
        command = f"`{measurement.command}`"
        logs = list(_logs(measurement.file, measurement.command, measurement.figure, results))
        for path, environment, figure in logs:
            log = f"[{path.name}]({path.relative_to(results).as_posix()})"
            rows.append((measurement.what, figure or NOT_RUN, command, where(environment), log))
        if not logs:
            rows.append((measurement.what, NOT_RUN, command, "", ""))
    return "## Measurements\n\n" + _markdown(rows)


def _logs(file, command, read, results):
    """Yields each JSON that a pattern matches: its path, where it was written, and what `read` makes of it."""
    for path in sorted(results.glob(file)):
        try:
            content = json.loads(path.read_text())
            where(content["environment"])
            yield path, content["environment"], read(content)
        except (ValueError, LookupError, TypeError, AttributeError) as error:
            raise BadInput(f"{path} is not what `{command}` writes: {error!r}") from error


def where(environment, commits=()):
    """Returns the hardware and the code version, or several, in a few words."""
    cores = f"{environment['cores']} core{'s' if environment['cores'] > 1 else ''}"
    processor = ", ".join(environment.get("gpus") or [f"{cores} of {environment['cpu']}"])
    precision = [environment["precision"]] if "precision" in environment else []
    versions = [_version(commit) for commit in commits or [environment["commit"]]]
    return ", ".join([processor, *precision, *versions])


def _version(commit):
    return commit[:7] + "+" * commit.endswith("+changes") if commit else "unknown version"


def _command(runs):
    return " ".join(["python", *runs[0].sessions[0]["command"]])


def _finished(runs):
    return [run for run in runs if run.finished()] or runs


def _steps(runs):
    done = sorted({run.lines[-1]["step"] if run.lines else 0 for run in runs})
    planned = max(run.recipe["steps"] for run in runs)
    text = " to ".join(f"{step:,}" for step in dict.fromkeys((done[0], done[-1])))
    return text if done[0] == planned else f"{text} of {planned:,}"


def _markdown(rows):
    lines = ["| " + " | ".join(row) + " |" for row in rows]
    return "\n".join([lines[0], "|" + "---|" * len(rows[0]), *lines[1:]]) + "\n"
