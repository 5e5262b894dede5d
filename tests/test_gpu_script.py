"""benchmarks/gpu.py, the script for a GPU that is at hand for minutes, rehearsed on the CPU with the digits."""

import json
import os
import subprocess
import sys
import tarfile
from pathlib import Path

import numpy as np
import pytest

from allconv_resnet.data.arrays import from_npz
from allconv_resnet.data.source import load_data

ROOT = Path(__file__).resolve().parent.parent
TINY = [
    "--stem",
    "4",
    "3",
    "4",
    "1",
    "--stages",
    "1",
    "8",
    "1",
    "--batch-size",
    "16",
    "--steps",
    "6",
    "--log-every",
    "1",
]


def run(*arguments):
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "KERAS_BACKEND": "jax"}
    done = subprocess.run(
        [sys.executable, ROOT / "benchmarks" / "gpu.py", *map(str, arguments)],
        capture_output=True,
        text=True,
        env=environment,
        cwd=ROOT,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.slow
def test_images_travel_in_parts_and_the_run_continues(tmp_path):
    places = ["--store", tmp_path / "store", "--out", tmp_path / "out"]
    run("pack", tmp_path / "parts", "--dataset", "digits", "--wheels")
    parts = sorted((tmp_path / "parts").iterdir())
    assert [part.name for part in parts] == ["part-1", "part-2"]
    assert "x_train" not in run("receive", parts[1], *places)  # in any order
    said = run("receive", parts[0], *places)
    assert "'x_train': (1437, 32, 32, 3)" in said and "'y_test': (360,)" in said
    received, digits = from_npz(tmp_path / "store" / "cifar10-original.npz"), load_data("digits")
    assert received.label_names == digits.label_names
    for split in ("train", "test"):
        for ours, theirs in zip(received.arrays(split), digits.arrays(split), strict=True):
            np.testing.assert_array_equal(ours, theirs)

    run("train", "digits", *places, "--more", *TINY, "--steps", "3")
    run("train", "digits", *places, "--details", "--more", *TINY, "--steps", "6")
    run("collect", *places, "--weights", "digits")
    with tarfile.open(tmp_path / "out" / "logs.tar.gz") as logs:
        logs.extractall(tmp_path / "logs", filter="data")
    log = tmp_path / "logs" / "digits"
    lines = [json.loads(line) for line in (log / "metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines if line["split"] == "train"] == [1, 2, 3, 4, 5, 6]
    sessions = json.loads((log / "environment.json").read_text())["sessions"]
    assert [session["first_step"] for session in sessions] == [0, 3]
    with np.load(log / "details" / "logits.npz") as logits:
        assert logits["logits"].shape == (360, 10)
    model = (tmp_path / "store" / "runs" / "digits" / "model.keras").read_bytes()
    assert (tmp_path / "out" / "digits.keras.0").read_bytes() == model
