"""Logs of a run: metrics.jsonl, TensorBoard events and curves.png."""

import json
import os
from pathlib import Path

from allconv_resnet import files
from allconv_resnet.data.holdout import HOLDOUT
from allconv_resnet.training.run_directory import read_metrics

EVALUATIONS = "evaluations.jsonl"  # written by a process beside training, see evaluate.follow_run


class Metrics:
    """Writes metrics.jsonl and the TensorBoard events of a run.

    Args:
        run_dir: Path of the run directory.
        step: Integer, step from which the run continues. Lines of later steps, which a process wrote after its last
            checkpoint, are dropped because they will be written again.
        say: Function that shows a message to the user.
    """

    def __init__(self, run_dir, step, say=print):
        self.path = Path(run_dir) / "metrics.jsonl"
        self.lines = [line for line in read_metrics(run_dir) if line["step"] <= step]
        files.write_text(self.path, "".join(json.dumps(line) + "\n" for line in self.lines))
        self._file = open(self.path, "a")  # noqa: SIM115 - it stays open as long as the run
        self._writers, self._new_writer = {}, None
        try:
            from tensorboard.summary import Writer
        except ImportError:
            say("TensorBoard events are not written, since the package tensorboard is not installed")
        else:
            self._new_writer = Writer

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
        if self._new_writer:
            if split not in self._writers:
                self._writers[split] = self._new_writer(str(self.path.parent / "tensorboard" / split))
            for name, value in values.items():
                self._writers[split].add_scalar(name, value, step)

    def flush(self):
        """Makes sure that all lines are on the disk."""
        os.fsync(self._file.fileno())
        for writer in self._writers.values():
            writer.flush()


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
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    lines = sorted(read_metrics(run_dir) + read_metrics(run_dir, EVALUATIONS), key=lambda line: line["step"])
    figure = Figure(figsize=(10, 4), layout="constrained")
    FigureCanvasAgg(figure)
    for axes, name, scale, label in zip(
        figure.subplots(1, 2), ("error", "loss"), (100, 1), ("error (%)", "cross-entropy (nats)"), strict=True
    ):
        dots = {"marker": "o", "ms": 3}
        styles = {"train": {"color": "C0", "lw": 1}, HOLDOUT: {"color": "C2", **dots}, "test": {"color": "C3", **dots}}
        for split, style in styles.items():
            _draw(axes, lines, split, name, scale, label=split, **style)
        if name == "error":
            split = HOLDOUT if any(line["split"] == HOLDOUT for line in lines) else "test"
            _draw(axes, lines, split, "top5_error", scale, label=f"{split}, top-5", color="C3", ls=":", lw=1)
        axes.set(xlabel="step", ylabel=label, ylim=(0, None))
        axes.grid(alpha=0.3)
        axes.legend()
    figure.suptitle(title)
    path = Path(run_dir) / "curves.png"
    figure.savefig(path, dpi=120)
    return path


def _draw(axes, lines, split, name, scale, label, **style):
    points = [(line["step"], line[name] * scale) for line in lines if line["split"] == split and name in line]
    if points:
        axes.plot(*zip(*points, strict=True), label=f"{label}: {points[-1][1]:.3g} at the end", **style)
