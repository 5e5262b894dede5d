"""What the isometry and landscape commands share: tables, a JSON with the environment, progress, real images."""

import importlib.metadata
import json
import os
import platform
import sys
import time
from datetime import UTC, datetime
from pathlib import Path

import keras
import numpy as np

from allconv_resnet.provenance import commit, processor


def environment():
    """Returns what a command ran on: versions, processor, commit; a dictionary for JSON."""
    packages = ("allconv_resnet", "keras", keras.backend.backend(), "numpy", "scipy")
    return {
        "measured": datetime.now(UTC).isoformat(timespec="seconds"),
        "commit": commit(),
        "python": platform.python_version(),
        "versions": {name: importlib.metadata.version(name) for name in packages},
        "backend": keras.backend.backend(),
        "cpu": processor()[0],
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
    }


def write_json(path, content):
    """Writes numbers as JSON, through a temporary file: what is there is whole."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(".partial")
    partial.write_text(json.dumps(_plain(content), indent=1, allow_nan=False) + "\n")
    partial.replace(path)


def _plain(value):
    """The same with JSON's types: numbers to seven digits, null where they are not finite."""
    if isinstance(value, dict):
        return {key: _plain(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple | np.ndarray):
        return [_plain(entry) for entry in value]
    if isinstance(value, float | np.floating):
        return float(f"{value:.7g}") if np.isfinite(value) else None
    if isinstance(value, np.generic):
        return value.item()
    return str(value) if isinstance(value, Path) else value


def print_table(headings, rows):
    """Prints rows under headings: floats with four significant digits, None as a dash."""

    def cell(value):
        return "-" if value is None else f"{value:.4g}" if isinstance(value, float | np.floating) else str(value)

    lines = [list(headings), *([cell(value) for value in row] for row in rows)]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    for line in lines:
        print(
            "  ".join(
                text.rjust(width) if i else text.ljust(width)
                for i, (text, width) in enumerate(zip(line, widths, strict=True))
            )
        )


class Progress:
    """Says on standard error how far a long job is: a line that is rewritten in a terminal, else one every half minute.

    Args:
        label: What is being done.
    """

    def __init__(self, label):
        self.label, self.terminal = label, sys.stderr.isatty()
        self.began = self.shown = time.monotonic()

    def __call__(self, done, total):
        """Shows that `done` of (at most) `total` is done, if it is time."""
        now = time.monotonic()
        if now - self.shown < (0.5 if self.terminal else 30) and not (self.terminal and done == total):
            return
        self.shown = now
        left = (now - self.began) / max(done, 1) * (total - done)
        line = f"{self.label}: {done}/{total}, at most {left:.0f} s left"
        print(
            f"\r\033[K{line}" if self.terminal else line, end="" if self.terminal else "\n", file=sys.stderr, flush=True
        )
        if self.terminal and done == total:
            print(file=sys.stderr)


def cifar10(data_dir):
    """Returns CIFAR-10, each image with mean 0 and deviation 1: `[n, 32, 32, 3]` float32 and labels, of train and test.

    Args:
        data_dir: Directory of tensorflow-datasets.
    """
    from allconv_resnet.data import sources  # brings TensorFlow along, which the theory itself does without

    data = sources.load("cifar10", data_dir)
    return *_standardized(data.train_images, data.train_labels), *_standardized(data.test_images, data.test_labels)


def _standardized(images, labels):
    images = images.astype(np.float32)
    images -= images.mean(axis=(1, 2, 3), keepdims=True)
    deviation = images.std(axis=(1, 2, 3), keepdims=True)
    return images / np.maximum(deviation, 1 / np.sqrt(images[0].size)), labels
