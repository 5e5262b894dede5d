"""Two files of a run directory are damaged at random, and every command ends in a result or in one sentence.

No command shows a traceback, and none loses a file of the user, a whole checkpoint, a whole network or a line of a log.
"""

import gc
import json
import random
import shutil

import keras
import numpy as np
import pytest
from training.runs import SMALL, command_line

from allconv_resnet import cli
from allconv_resnet.training import run_directory, run_state
from allconv_resnet.training.checkpoints import read_checkpoint, steps_on_disk

COMMANDS = ("train", "evaluate", "export", "plot", "report", "predict")
PAIRS = 84  # with six commands each, 504 cases
NOTES = "The user's own notes.\n"


def call(*arguments):
    """Returns the exit status of a command, which may raise nothing else than `SystemExit`."""
    with pytest.raises(SystemExit) as stop:
        if arguments[0] == "train":
            cli.train_command(("digits",), [argument for argument in arguments[1:] if argument != "--no-export"])
        else:
            cli.main([str(argument) for argument in arguments])
    return stop.value.code


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A finished run with an export, an evaluation and notes of the user."""
    run_dir = tmp_path_factory.mktemp("whole") / "digits" / "run"
    assert call("train", *command_line(SMALL, run_dir)) == 0
    line = {"split": "test", "step": 4, "loss": 1.0, "error": 0.5, "top5_error": 0.1, "images": 360}
    (run_dir / "evaluations.jsonl").write_text(json.dumps(line) + "\n")
    (run_dir / "notes.txt").write_text(NOTES)
    return run_dir


@pytest.fixture(scope="module")
def image(tmp_path_factory):
    path = tmp_path_factory.mktemp("image") / "image.png"
    keras.utils.save_img(path, np.zeros((8, 8, 1)), scale=False)
    return path


def damage(path, draw):
    """Damages a file or a directory in one of five ways, and returns what was done."""
    if path.is_dir():
        how = draw.choice(["removed", "emptied", "made a file"])
        shutil.rmtree(path)
        if how == "emptied":
            path.mkdir()
        elif how == "made a file":
            path.write_text("")
        return how
    how = draw.choice(["removed", "emptied", "cut", "made binary", "made a directory"])
    content = path.read_bytes()
    if how == "emptied":
        path.write_bytes(b"")
    elif how == "cut":
        path.write_bytes(content[: draw.randrange(len(content) + 1)])
    elif how == "made binary":
        path.write_bytes(draw.randbytes(draw.randrange(1, 2000)))
    else:
        path.unlink()
        if how == "made a directory":
            path.mkdir()
            (path / "notes.txt").write_text(NOTES)
    return how


def readable_steps(directory):
    steps = []
    for step in steps_on_disk(directory):
        try:
            read_checkpoint(directory / f"step-{step}.npz")
            steps.append(step)
        except ValueError:
            pass
    return steps


def treasures(run_dir):
    """What no command may lose: notes of the user, the newest whole checkpoint, a whole network, lines of the log."""
    try:
        lines = {(line["step"], line["split"]) for line in run_directory.read_metrics(run_dir)}
    except ValueError:
        lines = set()
    return {
        "notes": {path.relative_to(run_dir) for path in run_dir.rglob("notes.txt") if path.read_text() == NOTES},
        "checkpoint": max(readable_steps(run_dir / "checkpoints"), default=0),
        "network": run_state.is_whole(run_dir / "model.keras"),
        "lines": lines,
    }


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(PAIRS))
def test_no_traceback_and_nothing_lost(whole, image, tmp_path, capfd, seed):
    draw = random.Random(seed)
    run_dir = tmp_path / "digits" / "run"
    shutil.copytree(whole, run_dir)
    for path in draw.sample(sorted(path for path in run_dir.rglob("*") if path.name != "notes.txt"), 2):
        if path.exists() and path.parent.is_dir():
            print(path.relative_to(run_dir), damage(path, draw))
    arguments = {
        "train": command_line(SMALL, run_dir),
        "evaluate": [run_dir],
        "export": [run_dir],
        "plot": [run_dir],
        "report": [tmp_path],
        "predict": [run_dir, image],
    }
    for name in draw.sample(COMMANDS, len(COMMANDS)):
        before = treasures(run_dir)
        capfd.readouterr()
        status = call(name, *arguments[name])
        said = capfd.readouterr()
        print(name, status, said.err[-300:])
        assert status in (0, 1, 2) and "Traceback" not in said.out + said.err
        if status:
            errors = [line for line in said.err.splitlines() if line.startswith(("error: ", "failed: "))]
            assert len(errors) == 1
        after = treasures(run_dir)
        assert before["notes"] <= after["notes"] and before["lines"] <= after["lines"]
        assert before["checkpoint"] <= after["checkpoint"] and before["network"] <= after["network"]
    keras.utils.clear_session()
    gc.collect()
