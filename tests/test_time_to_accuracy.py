"""The commands of benchmarks/time_to_accuracy.py are trainings, and its table is that of their logs."""

import json
from pathlib import Path

import pytest

from allconv_resnet import job

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture
def script(monkeypatch):
    monkeypatch.syspath_prepend(ROOT / "benchmarks")
    import time_to_accuracy

    return time_to_accuracy


def write_run(folder, seed, steps, lines):
    run_dir = folder / f"seed{seed}"
    run_dir.mkdir(parents=True)
    if steps is not None:
        (run_dir / "config.json").write_text(json.dumps({"run": {"steps": steps}}))
        (run_dir / "environment.json").write_text(json.dumps({"sessions": [{"commit": "abc"}, {"commit": "def"}]}))
    (run_dir / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))


@pytest.mark.parametrize("name", ["ours", "keras"])
def test_the_plans_are_trainings_of_their_length(script, name):
    for target, (_, steps) in script.PLANS[name].items():
        words = script.command(name, target, 1, "data", Path("runs/one"))
        parsed = job.parse_job(tuple(job.RECIPES), words[2:])
        assert parsed.recipe.run.steps == steps and parsed.recipe.seed == 1
        assert 0 <= parsed.recipe.schedule.warmup_steps < steps
        parsed.recipe.build_model()


def test_a_run_of_the_training_program_has_ended(script):
    accuracy, minutes, commits = script.ended(ROOT / "results" / "cifar10-wide" / "seed0")
    assert accuracy == pytest.approx(94.59) and minutes == pytest.approx(120.0, abs=0.1) and len(commits) == 2


def test_the_table_has_the_trainings_that_ended(script, tmp_path, capsys):
    train = {"split": "train", "step": 10, "error": 0.1, "cpu_seconds": 60.0}
    write_run(
        tmp_path / script.folder("ours", 90.0),
        0,
        20,
        [train, train | {"step": 20}, {"split": "test", "step": 20, "error": 0.095}],
    )
    write_run(tmp_path / script.folder("ours", 90.0), 1, 20, [train, {"split": "test", "step": 20, "error": 0.11}])
    write_run(
        tmp_path / script.folder("ours", 90.0), 2, 20, [train, {"split": "test", "step": 10, "error": 0.01}]
    )  # it goes on
    test = {"split": "test", "step": 5, "error": 0.07, "cpu_seconds": 90.0, "commit": "abc"}
    write_run(tmp_path / script.folder("torch", 92.0), 0, None, [test])
    write_run(tmp_path / "torch-92-7", 1, None, [test])  # of another plan
    first, second = script.table(tmp_path)
    assert first["contender"] == "ours" and (first["runs"], first["reached"]) == (2, 1)
    assert first["accuracy"] == pytest.approx([90.5, 89.0]) and first["processor_minutes"] == [2.0, 1.0]
    assert second["contender"] == "torch" and second["processor_minutes"] == [1.5]
    assert first["commits"] == ["abc", "def"] and second["commits"] == ["abc"] and second["runs"] == 1
    script.show([first, second])
    assert "1 of 2" in capsys.readouterr().out
