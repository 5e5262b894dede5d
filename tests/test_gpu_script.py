"""benchmarks/gpu.py, the script for a GPU that is at hand for minutes, rehearsed on the CPU with the digits."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

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
    assert "x_test" not in run("receive", parts[0], *places)
    said = run("receive", parts[1], *places)
    assert "'x_train': (1437, 32, 32, 3)" in said and "'y_test': (360,)" in said

    run("train", "digits", *places, "--more", *TINY, "--steps", "3")
    assert (tmp_path / "out" / "digits" / "step-3.npz").exists()
    run("train", "digits", *places, "--more", *TINY, "--steps", "6")
    lines = [json.loads(line) for line in (tmp_path / "out" / "digits" / "metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines if line["split"] == "train"] == [1, 2, 3, 4, 5, 6]
    assert (tmp_path / "out" / "digits" / "step-6.npz").exists()
    sessions = json.loads((tmp_path / "out" / "digits" / "environment.json").read_text())["sessions"]
    assert [session["first_step"] for session in sessions] == [0, 3]
