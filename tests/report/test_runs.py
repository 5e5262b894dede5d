"""The logs of run directories, of all versions of config.json."""

import json
import shutil

import pytest
from logs import row, write_run, write_seeds

from allconv_resnet.errors import BadInput
from allconv_resnet.report import write_report
from allconv_resnet.report.runs import find_runs, flatten

NESTED = {
    "name": "digits",
    "seed": 1,
    "precision": "bfloat16",
    "data": {"kind": "arrays", "dataset": "digits", "image_size": [8, 8, 1]},
    "network": {"kind": "allconv_resnet", "stem": [4, 3, 1, 1]},
    "optimizer": {"kind": "momentum", "momentum": 0.9},
    "schedule": {"kind": "steps", "learning_rate": 0.1},
    "run": {"batch_size": 10, "steps": 40, "log_every": 5, "evaluate_every": 20, "checkpoint_every": 20},
}


def test_a_config_in_parts_has_the_fields_of_a_flat_one():
    assert flatten(NESTED) == {
        "name": "digits",
        "seed": 1,
        "precision": "bfloat16",
        "data": "arrays",
        "dataset": "digits",
        "image_size": [8, 8, 1],
        "network": "allconv_resnet",
        "stem": [4, 3, 1, 1],
        "optimizer": "momentum",
        "momentum": 0.9,
        "schedule": "steps",
        "learning_rate": 0.1,
        "batch_size": 10,
        "steps": 40,
        "log_every": 5,
        "evaluate_every": 20,
        "checkpoint_every": 20,
    }
    assert flatten(flatten(NESTED)) == flatten(NESTED)


def test_old_and_new_runs_are_seeds_of_one_training(tmp_path):
    fields = {"network": "allconv_resnet", "stem": [4, 3, 1, 1], "learning_rate": 0.1, "precision": "float32"}
    write_run(tmp_path / "digits" / "old", 0, 0.1, **fields)
    write_run(tmp_path / "digits" / "new", 1, 0.3, config=NESTED)
    assert row(write_report(tmp_path).read_text(), "`digits`")[6] == "20.00 ± 14.14"
    write_run(tmp_path / "digits" / "other", 2, 0.1, **(fields | {"stem": [8, 3, 1, 1]}))
    with pytest.raises(BadInput, match=r"digits/new and .*digits/other are not of one recipe: stem"):
        write_report(tmp_path)


def test_runs_that_finished_after_different_numbers_of_steps_have_no_mean(tmp_path):
    write_run(tmp_path / "digits" / "a", 0, 0.1)
    write_run(tmp_path / "digits" / "b", 1, 0.3, step=20, steps=80)  # it has not finished
    write_report(tmp_path)
    write_run(tmp_path / "digits" / "c", 2, 0.3, step=20, steps=20)
    with pytest.raises(BadInput, match="have finished after different numbers of steps"):
        write_report(tmp_path)


def test_a_run_that_diverged_is_not_a_part_of_the_mean(tmp_path):
    write_seeds(tmp_path / "digits", [0.04, 0.06])
    write_run(tmp_path / "digits" / "seed2", 2, 0.9, step=20)
    environment = tmp_path / "digits" / "seed2" / "environment.json"
    sessions = json.loads(environment.read_text())["sessions"]
    sessions[-1]["not_finite_at"] = 23
    environment.write_text(json.dumps({"sessions": sessions}))
    cells = row(write_report(tmp_path).read_text(), "`digits`")
    assert "5.00 ± 1.41; diverged at step 23" in cells
    assert not [cell for cell in cells if "33" in cell]


def test_only_seeds_of_one_recipe_have_a_mean(tmp_path):
    write_run(tmp_path / "digits" / "a", 0, 0.1, learning_rate=0.1)
    write_run(tmp_path / "digits" / "b", 1, 0.1, learning_rate=0.1, added_since=3, log_every=7)
    write_report(tmp_path)
    write_run(tmp_path / "digits" / "c", 2, 0.1, learning_rate=0.2)
    with pytest.raises(BadInput, match=r"digits/a and .*digits/c are not of one recipe: learning_rate"):
        write_report(tmp_path)
    write_run(tmp_path / "other" / "a", 1, 0.1)
    write_run(tmp_path / "other" / "b", 1, 0.1)
    shutil.rmtree(tmp_path / "digits")
    with pytest.raises(BadInput, match=r"other/a and .*other/b have the same seed, 1"):
        write_report(tmp_path)


@pytest.mark.parametrize(
    "field", ["seed", "precision", "steps", "log_every", "evaluate_every", "checkpoint_every", "bad_images"]
)
def test_seeds_may_differ_in_what_does_not_decide_their_weights(tmp_path, field):
    for seed in range(2):
        write_run(tmp_path / "digits" / f"seed{seed}", seed, 0.1, **({field: 40 + seed} if field != "seed" else {}))
    assert len(find_runs(tmp_path)["digits"]) == 2


def test_a_line_that_a_kill_cut_short_is_left_out(tmp_path):
    write_run(tmp_path / "digits" / "seed0", 0, 0.1)
    page = write_report(tmp_path).read_text()
    with open(tmp_path / "digits" / "seed0" / "metrics.jsonl", "a", encoding="utf-8") as log:
        log.write('{"step": 60, "spl')
    assert write_report(tmp_path).read_text() == page
