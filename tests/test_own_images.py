"""The commands of the page about one's own images, on a folder that is written out of real CIFAR-10."""

import os
import re
import socket
import stat
import subprocess
import sys
from pathlib import Path

import pytest
from data.image_folders import write_folder
from training.runs import lines

from allconv_resnet.data.source import load_data
from allconv_resnet.training import run_directory

ROOT = Path(__file__).resolve().parent.parent


def commands_of_the_page():
    page = (ROOT / "docs" / "train" / "own-images.md").read_text(encoding="utf-8")
    return re.search(r"```sh\n(.*?)```", page, re.DOTALL)[1]


@pytest.mark.slow
def test_from_a_folder_to_answers_by_the_commands_of_the_page(prepared, tmp_path):
    source = load_data("cifar10", prepared)
    for split, count in (("train", 1_000), ("test", 200)):
        images, labels = source.arrays(split)
        write_folder(tmp_path / "photos" / split, images[:count], labels[:count], source.label_names)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    script = commands_of_the_page().replace("8501", str(port))
    assert "$HOME/photos" in script and "--evaluate-every 100" in script
    script = script.replace("--evaluate-every 100", "--evaluate-every 40")  # patience ends the run sooner
    command = tmp_path / "bin" / "allconv-resnet"
    command.parent.mkdir()
    command.write_text(f'#!/bin/sh\nexec {sys.executable} {ROOT}/allconv_resnet_command.py "$@"\n')
    command.chmod(command.stat().st_mode | stat.S_IXUSR)
    (tmp_path / "examples").symlink_to(ROOT / "examples")
    path = os.pathsep.join([str(command.parent), os.path.dirname(sys.executable), os.environ["PATH"]])
    done = subprocess.run(
        ["bash", "-euc", f"set -m\n{script}"],
        cwd=tmp_path,
        env={**os.environ, "HOME": str(tmp_path), "PATH": path, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=1_200,
    )
    assert done.returncode == 0, done.stderr
    run_dir = tmp_path / "runs" / "photos"
    recipe = run_directory.read_recipe(run_dir)
    assert (recipe.data.num_classes, recipe.data.image_size, recipe.data.kind) == (10, (32, 32, 3), "arrays")
    assert run_directory.read_labels(run_dir) == list(source.label_names)
    held, (test,) = lines(run_dir, "holdout"), lines(run_dir, "test")
    assert held[0]["images"] == 100 and test["images"] == 200
    assert test["step"] < recipe.run.steps and "No lower holdout error in 3 tests" in done.stderr  # stopped early
    best = min(held, key=lambda line: line["error"])
    assert best["error"] < 0.85  # ten classes
    evaluated, *answers = done.stdout.splitlines()
    exported = next(line for line in answers if "/export/" in line and "png" not in line)
    details = {path.name for path in (tmp_path / "runs" / "photos-details").iterdir()}
    assert {"confusion.png", "mistakes.png"} <= details and any(name.endswith(".csv") for name in details)
    assert evaluated.startswith(f"step {best['step']:,}: test loss") and "(200 images)" in evaluated
    assert (tmp_path / exported / "MODEL_CARD.md").exists()
    predicted = [line for line in answers if re.search(r"photos/test/\w+/\d+\.png: \w+ [\d.]+%", line)]
    assert len(predicted) == 200
    right = sum(line.split("/")[-2] == re.search(r"png: (\w+)", line)[1] for line in predicted)
    assert 1 - right / 200 == pytest.approx(float(re.search(r"test error ([\d.]+)%", evaluated)[1]) / 100, abs=0.006)
    served = [line for line in answers if re.search(r"photos/test/\w+/\d+\.png: \w+ \(", line)]
    assert len(served) == 3
