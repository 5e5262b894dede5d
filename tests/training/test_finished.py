"""Evaluation, export and figures of runs that have finished or still train."""

import json
import shlex
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
import tensorflow as tf
from training.finished_runs import command, train_again
from training.runs import SMALL, command_line

from allconv_resnet import files
from allconv_resnet.errors import BadInput
from allconv_resnet.training import evaluate, exporting, reports, run_directory
from allconv_resnet.training.checkpoints import steps_on_disk
from allconv_resnet.training.engines.reasons import tensorflow_reason
from allconv_resnet.training.loop import train

ROOT = Path(__file__).resolve().parents[2]


def test_evaluation_remembers_the_directory_of_the_data(run_dir, tmp_path, monkeypatch):
    (tmp_path / "data").mkdir()
    train(SMALL.replace(steps=8), run_dir, tmp_path / "data")
    asked = []
    load = evaluate.load_for_recipe

    def note(data, splits, data_dir, seed):
        asked.append(data_dir)
        return load(data, splits, data_dir, seed)

    monkeypatch.setattr(evaluate, "load_for_recipe", note)
    evaluate.evaluate_run(run_dir)
    evaluate.evaluate_run(run_dir, tmp_path)
    (tmp_path / "data").rmdir()
    evaluate.evaluate_run(run_dir)
    assert asked == [str(tmp_path / "data"), tmp_path, None]


def test_following_evaluates_every_checkpoint_and_says_that_it_waits(run_dir, capsys):
    assert train(SMALL.replace(steps=6), run_dir) is None
    (run_dir / "evaluations.jsonl").write_text("garbage\n")
    config = json.loads((run_dir / "config.json").read_text())
    config["run"]["steps"] = 7
    (run_dir / "config.json").write_text(json.dumps(config))
    results = evaluate.follow_run(run_dir, pause=0.01)
    assert [next(results)["step"] for _ in range(3)] == [2, 4, 6]
    shutil.copy(run_dir / "checkpoints" / "step-6.npz", run_dir / "checkpoints" / "step-7.npz")
    assert [result["step"] for result in results] == [7]
    assert [line["step"] for line in run_directory.read_metrics(run_dir, "evaluations.jsonl")] == [2, 4, 6, 7]
    assert (run_dir / "evaluations.jsonl.damaged-1").read_text() == "garbage\n"


def test_an_evaluator_follows_a_job_that_prolongs_a_finished_run(run_dir, monkeypatch):
    """Its chief may write the new number of steps to config.json long after the evaluator has read the old one."""
    checkpoints = run_dir / "checkpoints"
    later = SimpleNamespace(
        monotonic=time.monotonic,
        sleep=lambda _: shutil.copy(checkpoints / "step-6.npz", checkpoints / "step-8.npz"),
    )
    monkeypatch.setattr(evaluate, "time", later)
    evaluate.follow_job(SMALL.replace(steps=8), run_dir)
    assert [line["step"] for line in run_directory.read_metrics(run_dir, "evaluations.jsonl")] == [2, 4, 6, 8]


def test_results_that_cannot_be_written(run_dir, monkeypatch):
    results = evaluate.follow_run(run_dir)
    assert next(results)["step"] == 2
    (run_dir / "evaluations.jsonl").unlink()
    (run_dir / "evaluations.jsonl").mkdir()
    with pytest.raises(BadInput, match=r"evaluations\.jsonl cannot be written: Is a directory"):
        next(results)
    (run_dir / "evaluations.jsonl").rmdir()

    def refuse(*_):
        raise OSError(30, "Read-only file system")

    monkeypatch.setattr(files, "write_text", refuse)
    with pytest.raises(BadInput, match=r"evaluations\.jsonl cannot be written: Read-only file system"):
        next(evaluate.follow_run(run_dir))


def test_following_a_finished_run_without_checkpoints_says_so(run_dir, capsys):
    shutil.rmtree(run_dir / "checkpoints")
    assert command("evaluate", run_dir, "--follow") == 0
    assert f"{run_dir} has finished and has no checkpoints: evaluate it without --follow" in capsys.readouterr().err


def test_what_the_export_of_a_jax_run_says_is_passed_on(run_dir, monkeypatch, capsys):
    done = subprocess.CompletedProcess([], 0, f"{run_dir / 'export' / '7'}\n", "The export of step 6 is version 7\n")
    monkeypatch.setattr(exporting.subprocess, "run", lambda *_, **__: done)
    assert exporting._export_on_tensorflow(run_dir, "latest", None, "savedmodel", None, None).name == "7"
    assert capsys.readouterr().err == "The export of step 6 is version 7\n"


def test_the_newest_version_is_the_last_export(run_dir):
    best = steps_on_disk(run_dir / "checkpoints" / "best")[-1]
    assert exporting.export_run(run_dir).name == "6"
    expected = "6" if best == 6 else "7"
    path = exporting.export_run(run_dir, "best")
    assert path.name == expected and f"{best} steps" in (path / "MODEL_CARD.md").read_text()
    (run_dir / "export" / path.name / "notes.txt").write_text("the user's own")
    assert int(exporting.export_run(run_dir).name) == int(path.name) + 1
    (run_dir / "export" / "9.int8.tflite").write_bytes(b"")
    assert exporting._next_version(run_dir / "export", 6, "litert", True) == 10
    assert (run_dir / "export" / path.name / "notes.txt").exists()
    (run_dir / "export" / "40").mkdir()
    assert exporting.export_run(run_dir).name == "41"
    assert train(SMALL.replace(steps=41), run_dir) is None
    assert exporting.export_run(run_dir).name == exporting.export_run(run_dir).name == "41"


def test_no_export_of_another_run_is_replaced(run_dir, tmp_path, capsys):
    first = exporting.export_run(run_dir, output_dir=tmp_path / "shared")
    before = {path: path.stat().st_mtime_ns for path in first.rglob("*")}
    assert (first.name, exporting.export_run(run_dir, output_dir=tmp_path / "shared").name) == ("6", "7")
    assert f"version 7, since {tmp_path / 'shared'} has version 6 already" in " ".join(capsys.readouterr().err.split())
    assert {path: path.stat().st_mtime_ns for path in first.rglob("*")} == before
    for suffix, kind in ((".onnx", "onnx"), (".tflite", "litert")):
        (tmp_path / "shared" / f"6{suffix}").write_bytes(b"")
        assert exporting._next_version(tmp_path / "shared", 6, kind, False) == 7
    own = exporting.export_run(run_dir)
    assert exporting.export_run(run_dir, output_dir=own.parent) == own


def test_a_plot_of_no_metrics(run_dir, capsys):
    (run_dir / "metrics.jsonl").unlink()
    (run_dir / "curves.png").unlink()
    assert command("plot", run_dir) == 2
    assert "has no metrics yet" in capsys.readouterr().err and not (run_dir / "curves.png").exists()


def test_markers_at_100_percent_are_whole(tmp_path, monkeypatch):
    line = {"step": 1, "split": "test", "loss": 1.0, "error": 1.0, "top5_error": 1.0}
    (tmp_path / "metrics.jsonl").write_text(json.dumps(line) + "\n")
    drawn = []
    monkeypatch.setattr(reports, "save_figure", lambda figure, path, **_: drawn.append(figure))
    reports.plot_curves(tmp_path)
    marked = [line for axes in drawn[0].axes for line in axes.lines if line.get_marker() == "o"]
    assert marked and not any(line.get_clip_on() for line in marked)


@pytest.mark.parametrize(
    ("message", "reason"),
    [
        (
            "Graph execution error:\n\nDetected at node X\n<stack traces unavailable>\nSocket closed\n",
            " (Socket closed)",
        ),
        ("Graph execution error:", ""),
        ("{{function_node __wrapped__X}} Connection reset by peer [Op:X]", " (Connection reset by peer)"),
        ("", ""),
    ],
)
def test_the_reason_of_an_error_is_tensorflows_own(message, reason):
    assert tensorflow_reason(tf.errors.UnavailableError(None, None, message)) == reason


@pytest.mark.parametrize("name", ["train", "evaluate", "follow", "export", "plot", "report", "predict", "theory"])
def test_ctrl_c_ends_every_command_in_one_line(name, run_dir, monkeypatch, capsys, write_image):
    def interrupt(*_, **__):
        raise KeyboardInterrupt

    for target in (
        "allconv_resnet.training.loop.load_for_recipe",
        "allconv_resnet.training.evaluate.load_for_recipe",
        "allconv_resnet.training.exporting.load_model",
        "allconv_resnet.training.predict.load_model",
        "allconv_resnet.training.reports.plot_curves",
        "allconv_resnet.report.write_report",
        "allconv_resnet.theory.commands.linear.run",
    ):
        monkeypatch.setattr(target, interrupt)
    if name == "train":
        status, said = train_again(capsys, SMALL.replace(steps=8), run_dir)
    else:
        arguments = {"follow": ("evaluate", run_dir, "--follow"), "predict": (name, run_dir, write_image())}
        arguments |= {"theory": ("theory", "linear"), "report": ("report", run_dir)}
        status = command(*arguments.get(name, (name, run_dir)))
        said = capsys.readouterr().err.strip()
    assert (status, said) == (130, "Stopped by Ctrl-C")


@pytest.mark.slow
@pytest.mark.parametrize("delay", [1, 2, 3, 4, 5, 6])
def test_ctrl_c_at_any_time_ends_the_process(tmp_path, delay):
    options = command_line(SMALL.replace(steps=100_000), tmp_path / "run")
    with open(tmp_path / "log", "wb") as log:
        process = subprocess.Popen([sys.executable, "train_cifar.py", *options], cwd=ROOT, stdout=log, stderr=log)
        time.sleep(delay)
        process.send_signal(signal.SIGINT)
        assert process.wait(60) == 130
    said = (tmp_path / "log").read_text()
    assert said.count("Stopped by Ctrl-C") + said.count("Stopped by SIGINT") == 1


def test_an_interrupt_that_is_swallowed_ends_the_process(run_python):
    program = """
import os, signal, time
from allconv_resnet import interrupts
interrupts.PATIENCE = 0.1
with interrupts.interruptible():
    try:
        os.kill(os.getpid(), signal.SIGINT)
    except KeyboardInterrupt:
        pass
    time.sleep(60)
"""
    done = run_python("-c", program)
    assert (done.returncode, done.stderr.splitlines()[-1]) == (130, "Stopped by Ctrl-C")


@pytest.mark.slow
def test_a_closed_output_does_not_end_a_run(tmp_path, run_python):
    run_dir = tmp_path / "run"
    program = "import subprocess, sys; sys.exit(subprocess.run(sys.argv[1], shell=True).returncode)"
    options = [option for option in command_line(SMALL, run_dir) if option != "--no-export"]
    script = shlex.join([sys.executable, "train_cifar.py", *options])
    done = run_python("-c", program, f"({script}; echo $? > {tmp_path}/status) 2>&1 | head -1")
    assert done.returncode == 0
    assert (tmp_path / "status").read_text() == "0\n"
    assert (run_dir / "model.keras").exists() and (run_dir / "export" / "6" / "MODEL_CARD.md").exists()
