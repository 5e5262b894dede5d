"""Nothing of a run directory is lost, and what cannot be used is named in one sentence."""

import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
from training.finished_runs import command, contents, damage, train_again
from training.runs import SMALL

import allconv_resnet as acr
from allconv_resnet import files, recipes
from allconv_resnet.errors import BadInput
from allconv_resnet.recipes.recipe import MAY_CHANGE
from allconv_resnet.training import evaluate, exporting
from allconv_resnet.training.checkpoints import Checkpoints, steps_on_disk
from allconv_resnet.training.exporting import export_run
from allconv_resnet.training.loop import train
from allconv_resnet.training.run_name import default_run_dir


def test_directories_of_any_name(finished, tmp_path, capsys, write_image):
    name = "lr[0.05] a*b? back\\slash ä"
    run_dir = shutil.copytree(finished, tmp_path / name)
    assert train(SMALL.replace(steps=8), run_dir) is None
    assert steps_on_disk(run_dir / "checkpoints") == [4, 6, 8]
    assert command("evaluate", run_dir) == 0
    path = exporting.export_run(run_dir, output_dir=tmp_path / "exports" / name)
    assert command("predict", path.parent, write_image()) == 0


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
