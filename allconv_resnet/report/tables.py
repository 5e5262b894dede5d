"""The tables of trainings, in Markdown."""

from urllib.parse import quote

from allconv_resnet.data.holdout import HOLDOUT
from allconv_resnet.report.figures import at_common_steps, mean

NOT_RUN = "*not run*"
HELD_OUT = "held-out error"
COLUMNS = (
    "training",
    "what",
    "n",
    "steps",
    "train loss",
    "train error",
    HELD_OUT,
    "test error",
    "minutes",
    "processor minutes",
    "where",
    "log",
)


def training_row(training, runs, directory):
    """Returns the cells of a training, for `COLUMNS`. If some of its runs have finished, only those count.

    Args:
        training: `Training`.
        runs: List of its `Run`, which may be empty.
        directory: Path of the page.
    """
    what = " ".join(filter(None, (training.what, f"`{training.command}`" if training.command else "")))
    if not runs:
        return f"`{training.name}`", what, f"0 of {training.seeds}", *[NOT_RUN] * (len(COLUMNS) - 3)
    counted = finished(runs)
    unfinished = len(runs) - len(counted)
    n = str(len(counted)) if len(counted) >= training.seeds else f"{len(counted)} of {training.seeds}"
    links = [link(run.path.name, run.path, directory) for run in counted]
    links += (
        [link("curves", directory / training.name / "curves.png", directory)]
        if sum(bool(run.lines) for run in counted) > 1
        else []
    )
    ended = [run for run in counted if run.finished()] or counted  # the others have no lines of the last step
    train, held_out, test = (last_lines(ended, split) for split in ("train", HOLDOUT, "test"))
    shown = {line["step"] for line in train + held_out + test}
    until = max(shown) if shown and not all(run.finished() for run in ended) else None
    return (
        f"`{training.name}`",
        what,
        n + f", {unfinished} unfinished" * (unfinished > 0),
        steps(counted, shown),
        mean([line["loss"] for line in train], 3),
        mean([100 * line["error"] for line in train]),
        mean([100 * line["error"] for line in held_out]),
        describe_test_errors(counted, test),
        mean([run.minutes(until) for run in ended], 1),
        mean([minutes for run in ended if (minutes := run.processor_minutes(until)) is not None], 1),
        "; ".join(dict.fromkeys(where(session) for run in counted for session in run.sessions)),
        " ".join(links),
    )


def training_table(trainings, found, directory):
    """Returns the table of some trainings, in Markdown. Errors on held-out images are shown if a run has them.

    Args:
        trainings: Sequence of `Training`.
        found: Dictionary from the name of each training to its runs.
        directory: Path of the page.
    """
    rows = [COLUMNS, *(training_row(training, found.get(training.name, []), directory) for training in trainings)]
    place = COLUMNS.index(HELD_OUT)
    if all(row[place] in ("-", NOT_RUN) for row in rows[1:]):
        rows = [(*row[:place], *row[place + 1 :]) for row in rows]
    return markdown(rows)


def finished(runs):
    """Returns the runs that have finished or diverged, or all of them if none has."""
    return [run for run in runs if run.finished() or run.diverged_at()] or runs


def last_lines(runs, split):
    """Returns the lines of a split whose mean is shown, one of each run that has any: those of the last step.

    Runs that have not finished may be at different steps, and may have logged at different steps. Their lines are those
    of the last step that all of them have passed, where losses and errors are interpolated between those of the log.

    Args:
        runs: List of `Run`.
        split: Name of the split.
    """
    if all(run.finished() for run in runs):
        return [line for run in runs if (line := run.last(split))]
    points = [[(x["step"], x["loss"], x["error"]) for x in run.lines if x["split"] == split] for run in runs]
    points = [lines for lines in points if lines]
    steps, losses, errors = at_common_steps(points, columns=2)
    if not points or not len(steps):
        return []
    return [
        {"step": int(steps[-1]), "loss": loss, "error": error}
        for loss, error in zip(losses[-1], errors[-1], strict=True)
    ]


def describe_test_errors(runs, lines):
    """Returns the mean test error of some lines of logs in percent, and at which steps some of the runs diverged."""
    diverged = sorted({run.diverged_at() for run in runs if run.diverged_at()})
    if not diverged:
        return mean([100 * line["error"] for line in lines])
    at = " to ".join(f"{step:,}" for step in dict.fromkeys((diverged[0], diverged[-1])))
    return "; ".join([mean([100 * line["error"] for line in lines])] * bool(lines) + [f"diverged at step {at}"])


def steps(runs, shown=()):
    """Returns how many steps runs have done, and of how many if they are not yet at the end.

    Args:
        runs: List of `Run`.
        shown: The steps whose losses and errors a row shows. They are named if the runs are at different steps.
    """
    done = sorted({run.diverged_at() or (run.lines[-1]["step"] if run.lines else 0) for run in runs})
    planned = max(run.recipe["steps"] for run in runs)
    text = " to ".join(f"{step:,}" for step in dict.fromkeys((done[0], done[-1])))
    if done[0] == planned or all(run.finished() for run in runs):
        return text
    at = " and ".join(f"{step:,}" for step in sorted(shown))
    at = f", figures of step {at}" if at and len(done) > 1 else ""
    return f"{text} of {planned:,}{at}"


def where(environment, commits=()):
    """Returns the hardware, the precision and the code version of a session, in a few words.

    Args:
        environment: Dictionary as `allconv_resnet.environment.describe` returns it.
        commits: Sequence of the commits to name instead of the environment's.
    """
    cores = f"{environment['cores']} core{'s' if environment['cores'] > 1 else ''}"
    processor = ", ".join(environment.get("gpus") or [f"{cores} of {environment['cpu']}"])
    precision = [environment["precision"]] if "precision" in environment else []
    versions = [_version(commit) for commit in commits or [environment["commit"]]]
    return ", ".join([processor, *precision, *versions])


def link(text, path, directory):
    """Returns a Markdown link from the page of a directory to a path below it."""
    return f"[{text}]({quote(path.relative_to(directory).as_posix())})"


def markdown(rows):
    """Returns a table in Markdown.

    Args:
        rows: List of tuples of strings. The first one has the names of the columns.
    """
    rows = [[cell.replace("|", "\\|").replace("\n", " ") for cell in row] for row in rows]
    lines = ["| " + " | ".join(row) + " |" for row in rows]
    return "\n".join([lines[0], "|" + "---|" * len(rows[0]), *lines[1:]]) + "\n"


def _version(commit):
    return commit[:7] + "+" * commit.endswith("+changes") if commit else "unknown version"
