"""Nothing of a run directory is lost, and what cannot be used is named in one sentence."""

import json
import os
import shlex
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import tensorflow as tf
from training.runs import SMALL, command_line

import allconv_resnet as acr
from allconv_resnet import cli, files, recipes
from allconv_resnet.errors import BadInput
from allconv_resnet.recipes.recipe import MAY_CHANGE
from allconv_resnet.training import evaluate, events, exporting, json_lines, reports, run_directory
from allconv_resnet.training.checkpoints import Checkpoints, steps_on_disk
from allconv_resnet.training.engines.reasons import tensorflow_reason
from allconv_resnet.training.exporting import export_run
from allconv_resnet.training.loop import train
from allconv_resnet.training.run_name import default_run_dir

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    run_dir = tmp_path_factory.mktemp("finished") / "run"
    assert train(SMALL, run_dir) is None
    return run_dir


@pytest.fixture
def run_dir(finished, tmp_path):
    """A copy of a finished run."""
    return shutil.copytree(finished, tmp_path / "run")


def command(*arguments):
    """Returns the exit status of `allconv-resnet`."""
    with pytest.raises(SystemExit) as stop:
        cli.main([str(argument) for argument in arguments])
    return stop.value.code


def train_again(capsys, recipe, run_dir, *more):
    """Returns the exit status of the training command, and what it says."""
    capsys.readouterr()
    with pytest.raises(SystemExit) as stop:
        cli.train_command(("digits",), command_line(recipe, run_dir, *more))
    return stop.value.code, " ".join(capsys.readouterr().err.split())


def contents(directory):
    return {path: path.read_bytes() for path in directory.rglob("*") if path.is_file() and path.name != ".lock"}


# Paths


@pytest.mark.parametrize("name", ["lr[0.05]", "a*b?", "back\\slash", "two words", "ä"])
def test_directories_of_any_name(finished, tmp_path, name, capsys, write_image):
    run_dir = shutil.copytree(finished, tmp_path / name)
    assert train(SMALL.replace(steps=8), run_dir) is None
    assert steps_on_disk(run_dir / "checkpoints") == [4, 6, 8]
    assert command("evaluate", run_dir) == 0
    path = exporting.export_run(run_dir, output_dir=tmp_path / "exports" / name)
    assert command("predict", path.parent, write_image()) == 0


@pytest.fixture
def write_image(tmp_path):
    def write():
        from PIL import Image

        Image.fromarray(np.zeros((8, 8, 3), np.uint8)).save(tmp_path / "image.png")
        return tmp_path / "image.png"

    return write


def test_a_directory_that_is_no_run_is_not_taken_over(tmp_path, capsys):
    (tmp_path / "labels.txt").write_text("the user's own")
    for more in ((), ("--overwrite",)):
        status, said = train_again(capsys, SMALL, tmp_path, *more)
        assert status == 2 and "must be new or empty" in said and "labels.txt" in said
    assert [path.name for path in tmp_path.iterdir()] == ["labels.txt"]


def test_an_empty_path_and_a_home_directory(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    status, said = train_again(capsys, SMALL, "")
    assert status == 2 and "run_dir must be the path of a directory. Received: run_dir=''" in said
    assert [*tmp_path.iterdir()] == []
    train(SMALL.replace(steps=1), "~/x")
    assert (tmp_path / "home" / "x" / "config.json").exists() and not (tmp_path / "~").exists()
    with pytest.raises(BadInput, match="must name a home directory"):
        files.expand("~nobody-here/x", "data_dir")


def test_the_default_directory_says_what_was_changed():
    digits = recipes.DIGITS
    assert str(default_run_dir(digits, "digits")) == "runs/digits"
    changed = digits.replace(initialization="standard", seed=1)
    assert str(default_run_dir(changed, "digits")) == "runs/digits-initialization=standard-seed=1"
    assert str(default_run_dir(digits.replace(steps=7), "digits")) == "runs/digits"
    linear = digits.replace(schedule="linear")
    assert default_run_dir(linear, "digits") != default_run_dir(linear.replace(steps=7), "digits")
    long = digits.replace(stages=((1, 16, 1),) * 30)
    assert len(default_run_dir(long, "digits").name) < 120
    assert default_run_dir(long, "digits") != default_run_dir(long.replace(seed=1), "digits")


@pytest.mark.parametrize("name", sorted(recipes.RECIPES))
def test_recipes_that_differ_have_different_directories(name):
    recipe, found = recipes.RECIPES[name], set()
    assert str(default_run_dir(recipe, name)) == f"runs/{name}"
    changes = []
    for field, value in recipe.fields().items():
        if type(value) is int and field not in MAY_CHANGE:
            changes.append({field: value + 1})
    for change in changes:
        try:
            found.add(default_run_dir(recipe.replace(**change), name))
        except BadInput:
            found.add(json.dumps(change))
    assert len(found) == len(changes)


# Results without checkpoints


def test_a_finished_run_needs_no_checkpoints(run_dir, capsys):
    expected = evaluate.evaluate_run(run_dir)
    shutil.rmtree(run_dir / "checkpoints")
    before = contents(run_dir)
    status, said = train_again(capsys, SMALL, run_dir)
    assert status == 0 and "has already finished" in said
    assert contents(run_dir) == before
    assert evaluate.evaluate_run(run_dir) == expected
    assert exporting.export_run(run_dir).name == "6"


@pytest.mark.parametrize("left", ["model.keras", "metrics.jsonl", "export", "checkpoints/best", "evaluations.jsonl"])
def test_a_run_with_results_is_not_begun_anew(run_dir, tmp_path, capsys, left):
    if left == "export":
        exporting.export_run(run_dir)
    if left == "evaluations.jsonl":
        shutil.copy(run_dir / "metrics.jsonl", run_dir / left)
    (run_dir / "notes.txt").write_text("the user's own")
    kept = {"config.json", "notes.txt", left.split("/")[0]}
    for path in run_dir.iterdir():
        if path.name not in kept:
            shutil.rmtree(path) if path.is_dir() else path.unlink()
    if left == "checkpoints/best":
        for path in (run_dir / "checkpoints").glob("*.npz"):
            path.unlink()
    before = contents(run_dir)
    for recipe in (SMALL, SMALL.replace(learning_rate=0.01)):
        status, said = train_again(capsys, recipe, run_dir)
        assert status == 2 and "--overwrite" in said and "Traceback" not in said
        assert contents(run_dir) == before
    status, said = train_again(capsys, SMALL.replace(learning_rate=0.01), run_dir, "--overwrite")
    assert status == 0 and "from step 0" in said
    assert not (run_dir / "export").exists() and not (run_dir / "evaluations.jsonl").exists()
    assert (run_dir / "notes.txt").read_text() == "the user's own"


def test_a_run_that_failed_before_its_first_checkpoint_is_begun_anew(tmp_path, capsys):
    run_dir = tmp_path / "run"
    wild = SMALL.replace(learning_rate=1e6, log_every=6, evaluate_every=6, checkpoint_every=6)
    status, said = train_again(capsys, wild, run_dir)
    assert status == 1 and "not finite" in said
    status, said = train_again(capsys, SMALL, run_dir)
    assert status == 0 and "has finished" in said


def test_lines_before_the_first_checkpoint_are_written_again(run_dir, capsys):
    shutil.rmtree(run_dir / "checkpoints")
    (run_dir / "model.keras").unlink()
    first = (run_dir / "metrics.jsonl").read_text().splitlines(keepends=True)[:2]
    (run_dir / "metrics.jsonl").write_text("".join(first))
    status, said = train_again(capsys, SMALL, run_dir)
    assert status == 0 and "from step 0" in said


def test_foreign_files_among_the_checkpoints_are_passed_over(run_dir, capsys):
    for name, content in (("checkpoint", b""), ("checkpoint.old", bytes(range(256))), ("step-9.txt", b"")):
        (run_dir / "checkpoints" / name).write_bytes(content)
    (run_dir / "checkpoints" / "step-9.npz").mkdir()
    status, said = train_again(capsys, SMALL.replace(steps=8), run_dir)
    assert status == 0 and "from step 6" in said
    assert evaluate.evaluate_run(run_dir)["step"] == 8


def test_checkpoints_of_later_steps_give_way_to_new_ones(tmp_path):
    checkpoints = Checkpoints(tmp_path, keep=1)
    (tmp_path / "step-60.npz").write_bytes(b"damaged")
    checkpoints.save(40, lambda: {"model/0000": np.ones(3)})
    assert steps_on_disk(tmp_path) == [40]


def test_the_best_checkpoint_is_not_of_steps_that_are_made_again(run_dir):
    best = run_dir / "checkpoints" / "best"
    before = steps_on_disk(best)
    shutil.copy(best / f"step-{before[-1]}.npz", best / "step-7.npz")  # a kill before the checkpoint of step 7
    (run_dir / "model.keras").unlink()
    assert train(SMALL, run_dir) is None
    assert steps_on_disk(best) == before


def test_a_run_closes_its_files(tmp_path):
    assert train(SMALL, tmp_path / "run") is None
    opened = [os.readlink(link) for link in Path("/proc/self/fd").iterdir() if link.exists()]
    assert not [path for path in opened if path.startswith(str(tmp_path))]


def test_a_copy_without_times_has_finished(run_dir, capsys):
    for path in (run_dir / "checkpoints").iterdir():
        os.utime(path, (2e9, 2e9))
    status, said = train_again(capsys, SMALL, run_dir)
    assert status == 0 and "has already finished" in said


def test_overwriting_deletes_no_file_of_the_user_and_keeps_links(run_dir, tmp_path, capsys):
    (run_dir / "checkpoints").rename(tmp_path / "scratch")
    (run_dir / "checkpoints").symlink_to(tmp_path / "scratch")
    for place in ("checkpoints/notes.txt", "tensorboard/mine/notes.txt", "export/notes.txt", "export/6/notes.txt"):
        path = run_dir / place
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("the user's own")
        before = contents(run_dir)
        status, said = train_again(capsys, SMALL, run_dir, "--overwrite")
        assert status == 2 and "--overwrite would delete" in said and contents(run_dir) == before
        path.unlink()
        if path.parent.name != "checkpoints":
            path.parent.rmdir()
    status, said = train_again(capsys, SMALL, run_dir, "--overwrite")
    assert status == 0 and "from step 0" in said
    assert (run_dir / "checkpoints").is_symlink() and steps_on_disk(tmp_path / "scratch") == [2, 4, 6]


def test_overwriting_that_could_not_delete_everything_goes_on(run_dir, monkeypatch, capsys):
    unlink = Path.unlink

    def fail(self, missing_ok=False):
        if self.name == "step-2.npz":
            raise OSError(30, "Read-only file system")
        unlink(self, missing_ok)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "unlink", fail)
        status, said = train_again(capsys, SMALL, run_dir, "--overwrite")
        assert status == 1 and "can no longer be written to" in said
    assert (run_dir / "config.json").exists() and not (run_dir / "model.keras").exists()
    status, said = train_again(capsys, SMALL, run_dir, "--overwrite")
    assert status == 0 and "from step 0" in said


# Damaged checkpoints


def test_the_network_of_a_finished_run_is_read_in_place_of_a_damaged_checkpoint(run_dir, capsys, write_image):
    expected = evaluate.evaluate_run(run_dir)
    damage(run_dir, 6)
    capsys.readouterr()
    said = f"checkpoint of step 6 in {run_dir / 'checkpoints'} is damaged: model.keras, of step 6, is read instead"
    assert evaluate.evaluate_run(run_dir) == expected and said in capsys.readouterr().err
    assert export_run(run_dir).name == "6" and said in capsys.readouterr().err
    assert command("predict", run_dir, write_image()) == 0 and said in capsys.readouterr().err
    loaded = acr.load(run_dir)
    assert said in capsys.readouterr().err
    for value, other in zip(loaded.get_weights(), acr.load(run_dir / "model.keras").get_weights(), strict=True):
        np.testing.assert_array_equal(value, other)
    damage(run_dir, 4)
    damage(run_dir, 2)
    assert evaluate.evaluate_run(run_dir) == expected
    assert "No checkpoint in" in (err := capsys.readouterr().err) and "model.keras, of step 6, is read instead" in err


def test_the_checkpoint_before_a_damaged_one_is_named(run_dir, capsys):
    (run_dir / "model.keras").unlink()
    damage(run_dir, 6)
    assert evaluate.evaluate_run(run_dir)["step"] == 4
    assert "is damaged: the checkpoint of step 4 is read instead" in capsys.readouterr().err


def damage(run_dir, step):
    path = run_dir / "checkpoints" / f"step-{step}.npz"
    path.write_bytes(path.read_bytes()[:1000])


# Logs and side files


@pytest.mark.parametrize("without", ["", "tensorboard.summary"], ids=["with events", "without events"])
def test_a_log_on_a_full_disk_ends_the_run_in_a_sentence(start, tmp_path, without):
    recipe = SMALL.replace(steps=600, boundaries=(), evaluate_every=10_000, checkpoint_every=10_000)
    run = start(recipe, tmp_path / "run", file_size_limit=20_000, WITHOUT_MODULES=without)
    assert run.wait() == 1
    said = run.output()
    last = said.strip().splitlines()[-1]
    assert last.startswith("failed: ") and "can no longer be written to" in last
    assert "Traceback" not in said or not without  # TensorBoard shows one of its own thread
    assert ("package tensorboard is not installed" in said) == bool(without)


def test_what_fails_beside_the_log_is_an_error_of_the_operating_system(tmp_path):
    class Full:
        def fail(self, *_):
            raise tf.errors.ResourceExhaustedError(None, None, "events; No space left on device")

        add_scalar = flush = close = fail

    log = events.Events(tmp_path, 0, print)
    log._new_writer = lambda directory: Full()
    for call in (lambda: log.add(1, "train", {"loss": 1.0}), log.flush, log.close):
        with pytest.raises(OSError, match="TensorBoard events cannot be written: events; No space left on device"):
            call()


def test_a_log_that_cannot_be_closed_hides_no_other_error_and_keeps_no_lock(tmp_path):
    class Full:
        def close(self):
            raise OSError(28, "No space left on device")

    metrics = reports.Metrics(tmp_path, 0, print)
    metrics._file.close()
    metrics._file = metrics._events = Full()
    with pytest.raises(ZeroDivisionError), run_directory.RunDirectory(tmp_path) as run:
        run.closing(metrics)
        raise ZeroDivisionError
    with pytest.raises(OSError, match="No space left"), run_directory.RunDirectory(tmp_path) as run:
        run.closing(Full())
    with run_directory.RunDirectory(tmp_path):
        pass


GARBAGE = {
    "binary": bytes(range(128, 256)).replace(b"\n", b""),
    "a number": b"42",
    "no step": b'{"split": "test", "loss": 1.0, "error": 0.1}',
    "no error": b'{"split": "test", "loss": 1.0, "step": 1}',
    "a step that is text": b'{"split": "test", "loss": 1.0, "error": 0.1, "step": "1"}',
    "an error that is text": b'{"split": "test", "loss": 1.0, "error": "0.1", "step": 1}',
    "a long step": b'{"split": "test", "loss": 1.0, "error": 0.1, "step": ' + b"9" * 30 + b"}",
    "a list": b"[" * 100_000,
    "empty": b"",
}


@pytest.mark.parametrize("kind", GARBAGE)
def test_a_damaged_line_is_left_out_and_only_that_line(run_dir, capsys, kind):
    path = run_dir / "metrics.jsonl"
    whole = run_directory.read_metrics(run_dir)
    rows = path.read_bytes().splitlines()
    rows.insert(3, GARBAGE[kind])
    path.write_bytes(b"\n".join([*rows, b'{"step": 7, "spl']))
    damaged = path.read_bytes()
    for _ in range(2):
        assert run_directory.read_metrics(run_dir) == whole
    assert capsys.readouterr().err.count("line 4 cannot be read and is left out") == 1
    assert command("plot", run_dir) == command("evaluate", run_dir) == 0
    status, said = train_again(capsys, SMALL.replace(steps=8), run_dir)
    assert status == 0 and said.count("line 4 cannot be read and is left out") == 1
    assert run_directory.read_metrics(run_dir)[: len(whole)] == whole
    assert (run_dir / "metrics.jsonl.damaged-1").read_bytes() == damaged
    train(SMALL.replace(steps=8), run_dir)
    assert not (run_dir / "metrics.jsonl.damaged-2").exists()


def test_a_line_that_a_kill_cut_short_is_no_damage(tmp_path, capsys):
    path = tmp_path / "metrics.jsonl"
    line = '{"step": 1, "split": "test", "loss": 1.0, "error": 0.5}'
    path.write_text(line + '\n{"step": 2, "spl')
    assert len(json_lines.read(path)) == len(json_lines.repair(path, print)) == 1
    assert path.read_text() == line + "\n" and capsys.readouterr().err == ""
    assert [*tmp_path.iterdir()] == [path]


@pytest.mark.parametrize(
    "content", ["", "{}", '{"sessions": []}', '{"sessions": [{}]}', '{"sessions": 3}', '{"sess', "[]"]
)
def test_environments_that_cannot_be_read(run_dir, capsys, content):
    path = run_dir / "environment.json"
    path.write_text(content)
    assert "not recorded" in (exporting.export_run(run_dir) / "MODEL_CARD.md").read_text()
    assert train_again(capsys, SMALL.replace(steps=8), run_dir)[0] == 0
    assert run_directory.read_sessions(run_dir)[-1]["first_step"] == 6
    if "{}]" not in content:
        assert (run_dir / "environment.json.damaged-1").read_text() == content


@pytest.mark.parametrize("content", [None, b"", b"one\ntwo\n", b"\xff\xfe\n" * 10])
@pytest.mark.parametrize("checkpoints", [True, False])
def test_labels_are_named_and_written_again(run_dir, capsys, write_image, content, checkpoints):
    path = run_dir / "labels.txt"
    whole = path.read_bytes()
    path.unlink() if content is None else path.write_bytes(content)
    if not checkpoints:
        shutil.rmtree(run_dir / "checkpoints")
    for arguments in (("export", run_dir), ("predict", run_dir, write_image())):
        capsys.readouterr()
        assert command(*arguments) == 2
        assert "the training command of this run writes the file again" in capsys.readouterr().err
    status, said = train_again(capsys, SMALL, run_dir)
    assert status == 0 and "has already finished" in said
    assert path.read_bytes() == whole


@pytest.mark.parametrize("size", [0, 100, 5000])
def test_a_truncated_network_is_written_again(run_dir, capsys, size):
    model = run_dir / "model.keras"
    whole = model.read_bytes()
    model.write_bytes(whole[:size])
    status, said = train_again(capsys, SMALL, run_dir)
    assert status == 0 and "from step 6" in said
    assert len(model.read_bytes()) == len(whole)


@pytest.mark.parametrize("name", [*run_directory.FILES, *run_directory.DIRECTORIES])
def test_a_file_in_place_of_a_directory_and_the_reverse(run_dir, capsys, name):
    path = run_dir / name
    if name in run_directory.FILES:
        path.unlink(missing_ok=True)
        path.mkdir()
        (path / "notes.txt").write_text("the user's own")
    else:
        shutil.rmtree(path, ignore_errors=True)
        path.write_text("the user's own")
    status, said = train_again(capsys, SMALL.replace(steps=8), run_dir)
    assert status == 2 and said.startswith("error: ") and name in said and "Traceback" not in said
    assert (path / "notes.txt" if path.is_dir() else path).read_text() == "the user's own"


def test_after_a_kill_events_are_not_written_twice_and_nothing_is_left_over(run_dir):
    for place in (".", "checkpoints", "checkpoints/best", "tensorboard"):
        (run_dir / place / ".allconv_resnet-99999999.step-9.npz").write_text("")
        (run_dir / place / ".allconv_resnet-99999999.directory").mkdir()
    (run_dir / "export").mkdir()
    (run_dir / "export" / ".allconv_resnet-99999999.old.5").mkdir()  # a kill between two renames
    for path in (run_dir / "checkpoints").glob("step-6*"):
        path.unlink()
    (run_dir / "model.keras").unlink()
    assert train(SMALL, run_dir) is None
    assert not [path for path in run_dir.rglob(".*") if path.name != ".lock"]
    assert (run_dir / "export" / "5").is_dir()
    for split in ("train", "test"):
        steps = []
        for path in (run_dir / "tensorboard" / split).iterdir():
            for event in tf.compat.v1.train.summary_iterator(str(path)):
                steps += [event.step for value in event.summary.value if value.tag == "loss"]
        assert sorted(steps) == [line["step"] for line in run_directory.read_metrics(run_dir) if line["split"] == split]


def test_events_that_cannot_be_read_are_left_alone(tmp_path):
    path = tmp_path / "events.out.tfevents.1"
    for content in (b"", b"no events at all" * 10):
        path.write_bytes(content)
        events.remove_later_events(path, 3)
        assert path.read_bytes() == content


# Evaluation, export, figures, ends


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
