"""Logs of a run: metrics.jsonl, TensorBoard events and curves.png."""

import contextlib
import json
import os
from pathlib import Path

from allconv_resnet.data.holdout import HOLDOUT
from allconv_resnet.errors import BadInput
from allconv_resnet.plotting import add_grids, new_figure, plain, save_figure
from allconv_resnet.training import json_lines
from allconv_resnet.training.events import Events
from allconv_resnet.training.run_directory import EVALUATIONS, METRICS, read_metrics, read_recipe


class Metrics:
    """Writes metrics.jsonl and the TensorBoard events of a run.

    Args:
        run_dir: Path of the run directory.
        step: Integer, step from which the run continues. Lines and events of later steps, which a process wrote after
            its last checkpoint, are dropped because they will be written again.
        say: Function that shows a message to the user.
    """

    def __init__(self, run_dir, step, say=print):
        path = Path(run_dir) / METRICS
        self.lines = json_lines.repair(path, say, step)
        self._file = open(path, "a", encoding="utf-8")  # noqa: SIM115 - it stays open as long as the run
        self._events = Events(path.with_name("tensorboard"), step, say)

    def add(self, step, split, **values):
        """Writes one line.

        Args:
            step: Integer, number of steps made.
            split: `"train"`, `"test"` or `"holdout"`.
            **values: Numbers by name, means over the images since the last line: losses in nats, errors as fractions.
        """
        self.lines.append({"step": step, "split": split, **values})
        self._file.write(json.dumps(self.lines[-1]) + "\n")
        self._file.flush()
        self._events.add(step, split, values)

    def flush(self):
        """Makes sure that all lines are on the disk."""
        os.fsync(self._file.fileno())
        self._events.flush()

    def close(self):
        """Closes the files."""
        # What a failed write left in memory is written once more here. On a full disk this fails again, and the first
        # error is the one to report.
        for log in (self._file, self._events):
            with contextlib.suppress(OSError):
                log.close()


def watched(lines):
    """Returns the lines by which a run in progress is judged: the holdout lines or, without any, the test lines."""
    held_out = [line for line in lines if line["split"] == HOLDOUT]
    return held_out or [line for line in lines if line["split"] == "test"]


def best_line(lines):
    """Returns the first of the lines with the lowest error among those that `watched` returns, or None."""
    return min(watched(lines), key=lambda line: line["error"], default=None)


def summary(lines):
    """Returns a sentence with the last and the best test accuracy of a run."""
    tests = [line for line in lines if line["split"] == "test"]
    if not tests:
        return "It was never evaluated."
    name = "held-out accuracy" if any(line["split"] == HOLDOUT for line in lines) else "accuracy"
    return (
        f"Test accuracy {1 - tests[-1]['error']:.2%} at step {tests[-1]['step']:,}; "
        f"best {name} {1 - best_line(lines)['error']:.2%} at step {best_line(lines)['step']:,}."
    )


def describe_evaluation(result, split):
    """Returns the loss and the errors of an evaluation as text."""
    return (
        f"{split} loss {result['loss']:.4f}, {split} error {result['error']:.2%}, "
        f"top-5 {result['top5_error']:.2%} ({result['images']:,} images)"
    )


def plot_curves(run_dir, title=""):
    """Draws curves.png: training and test error (figure 1 of the paper) and losses against steps.

    Args:
        run_dir: Path of a directory with a metrics.jsonl, and an evaluations.jsonl if another process evaluated the
            checkpoints.
        title: String.

    Returns:
        Path of the figure.

    Raises:
        BadInput: if there are no metrics yet, or the figure cannot be written.
    """
    lines = _lines_to_draw(run_dir)
    figure, panels = new_figure(10, 4, columns=2)
    for axes, name, scale, label in zip(
        panels, ("error", "loss"), (100, 1), ("error (%)", "cross-entropy (nats)"), strict=True
    ):
        dots = {"marker": "o", "ms": 3, "clip_on": False}  # markers at 0 and at 100 % are whole
        styles = {"train": {"color": "C0", "lw": 1}, HOLDOUT: {"color": "C2", **dots}, "test": {"color": "C3", **dots}}
        for split, style in styles.items():
            _draw(axes, lines, split, name, scale, label=split, **style)
        if name == "error":
            split = HOLDOUT if any(line["split"] == HOLDOUT for line in lines) else "test"
            _draw(axes, lines, split, "top5_error", scale, label=f"{split}, top-5", color="C3", ls=":", lw=1)
        axes.set(xlabel="step", ylabel=label, ylim=(0, None))
        if axes.lines:
            axes.legend()
    add_grids(figure)
    figure.suptitle(plain(title))
    path = Path(run_dir) / "curves.png"
    try:
        save_figure(figure, path, dpi=120)
    except OSError as error:
        raise BadInput(f"{path} cannot be written: {error.strerror or error}") from error
    return path


def plot_runs(runs, path):
    """Draws the errors of several runs over each other, the training errors dashed and the others solid (figure 1).

    Args:
        runs: Dictionary from the name of each run in the legend to the path of its directory. The errors on held-out
            images are drawn where a run has them, and otherwise those on the test images.
        path: Path of the figure. Its suffix is that of a format of Matplotlib, such as `.png` or `.pdf`.

    Returns:
        The path.

    Raises:
        BadInput: if a run has no metrics yet, or the figure cannot be written.
    """
    longest = max(map(len, runs))
    columns = 2 if len(runs) > 1 and longest < 30 else 1  # beside each other, longer names would be cut off
    figure, axes = new_figure(max(8, 2 + 0.09 * longest), 4.5 + 0.5 * len(runs) / columns)
    for number, (name, run_dir) in enumerate(runs.items()):
        lines = _lines_to_draw(run_dir)
        split = HOLDOUT if any(line["split"] == HOLDOUT for line in lines) else "test"
        style = {"color": f"C{number % 10}", "lw": 1.2}
        _draw(axes, lines, "train", "error", 100, label=plain(f"{name}, train"), ls="--", **style)
        _draw(axes, lines, split, "error", 100, label=plain(f"{name}, {split}"), marker="o", ms=3, **style)
    axes.set(xlabel="step", ylabel="error (%)", xlim=(0, None), ylim=(0, None))
    add_grids(figure)
    figure.legend(fontsize="small", loc="outside lower center", ncols=columns)
    try:
        save_figure(figure, path, dpi=120)
    except (OSError, ValueError) as error:
        raise BadInput(f"{path} cannot be written: {getattr(error, 'strerror', None) or error}") from error
    return path


def _lines_to_draw(run_dir):
    """Returns the lines of a run and those of `evaluate --follow`, in order of their steps.

    Evaluations of the training images are left out. They would be mixed with the lines of training, which are means
    over the steps.

    Raises:
        BadInput: if it has no metrics yet, or is no run directory.
    """
    evaluations = [line for line in read_metrics(run_dir, EVALUATIONS) if line["split"] != "train"]
    lines = sorted(read_metrics(run_dir) + evaluations, key=lambda line: line["step"])
    if not lines:
        read_recipe(run_dir)  # raises if it is no run directory
        raise BadInput(f"{run_dir} has no metrics yet, so there is nothing to draw")
    return lines


def _draw(axes, lines, split, name, scale, label, **style):
    points = [(line["step"], line[name] * scale) for line in lines if line["split"] == split and name in line]
    if points:
        axes.plot(*zip(*points, strict=True), label=f"{label}: {points[-1][1]:.3g} at the end", **style)
