"""The report: every figure of its tables follows from the logs."""

import json
import re
import shutil

import numpy as np
import pytest
from scipy.stats import ttest_ind

from allconv_resnet import evidence
from allconv_resnet.errors import BadInput
from allconv_resnet.evidence.claims import CLAIMS, welch
from allconv_resnet.evidence.figures import at_common_steps
from allconv_resnet.evidence.report import report

ENVIRONMENT = {"cores": 2, "cpu": "Test CPU", "gpus": [], "commit": "0123456789+changes", "precision": "float32"}


def write_run(path, seed, error, step=40, **changes):
    """Writes the log of a run of 40 steps of 10 images at 5 images a second: 80 seconds."""
    path.mkdir(parents=True)
    lines = [
        {
            "step": at,
            "split": "train",
            "loss": 2 * error,
            "error": error / 2,
            "images_per_second": 5.0,
            "cpu_seconds": 60.0,
        }
        for at in range(20, step + 1, 20)
    ]
    lines.append({"step": step, "split": "test", "loss": 1.0, "error": error})
    (path / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    config = {"name": "digits", "seed": seed, "steps": 40, "batch_size": 10, **changes}
    (path / "config.json").write_text(json.dumps(config))
    sessions = [{**ENVIRONMENT, "command": ["train_cifar.py", "--recipe", "digits"]}]
    (path / "environment.json").write_text(json.dumps({"sessions": sessions}))


def row(text, start):
    (line,) = [line for line in text.splitlines() if line.startswith(f"| {start}")]
    return [cell.strip() for cell in line.strip("|").split("|")]


def test_trainings_are_summed_up_over_their_seeds(tmp_path):
    for seed, error in enumerate((0.1, 0.2, 0.3)):
        write_run(tmp_path / "digits" / f"seed{seed}", seed, error)
    text = report(tmp_path).read_text()
    cells = row(text, "`digits`")
    assert cells[2:9] == ["3", "40", "0.400 ± 0.200", "10.00 ± 5.00", "20.00 ± 10.00", "1.3 ± 0.0", "2.0 ± 0.0"]
    assert cells[9] == "2 cores of Test CPU, float32, 0123456+"
    links = "[seed0](digits/seed0) [seed1](digits/seed1) [seed2](digits/seed2) [curves](digits/curves.png)"
    assert cells[10] == links
    assert (tmp_path / "digits" / "curves.png").stat().st_size > 5000
    assert "](digits/curves.png)" in text


def test_trainings_of_one_budget_are_drawn_together(tmp_path):
    section = next(section for section in evidence.SECTIONS if section.figure)
    for training, error in zip(section.trainings[:2], (0.2, 0.3), strict=True):
        write_run(tmp_path / training.name / "seed0", 0, error)
    text = report(tmp_path).read_text()
    assert text.index(f"## {section.title}") < text.index(f"({section.figure})") < text.index("## Measurements")
    assert (tmp_path / section.figure).stat().st_size > 5000


@pytest.mark.parametrize(
    "errors, verdict",
    [
        ([0.20, 0.21, 0.22], "reproduces"),
        ([0.10, 0.11, 0.12], "**does not reproduce**"),
        ([0.15, 0.16, 0.17], "not decided"),
        ([0.20], "one seed"),
        ([], "*not run*"),
    ],
    ids=lambda value: value.strip("*") if isinstance(value, str) else "",
)
def test_a_claim_is_judged_by_the_interval_of_the_difference(tmp_path, errors, verdict):
    for name, values in (("cifar10-small-20", [0.15, 0.16, 0.18]), ("all-cnn-c-20", errors)):
        for seed, error in enumerate(values):
            write_run(tmp_path / name / f"seed{seed}", seed, error)
    write_run(tmp_path / "all-cnn-c-20" / "unfinished", 9, 0.9, step=20)
    cells = row(report(tmp_path).read_text(), "ours below All-CNN-C")
    assert cells[2:4] == ["test", "`cifar10-small-20` 16.33 (n = 3)"] and cells[6] == verdict
    if len(errors) < 2:
        assert cells[5] == ""
        return
    errors = [100 * error for error in errors]
    expected = ttest_ind(errors, [15, 16, 18], equal_var=False).confidence_interval(0.95)
    difference, half = welch([15, 16, 18], errors)
    np.testing.assert_allclose((difference - half, difference + half), (expected.low, expected.high))
    assert cells[5] == f"{difference:+.2f} ± {half:.2f}"


def test_seeds_that_were_tested_at_other_steps_are_drawn_together():
    seeds = [[(2, 80.0), (4, 60.0), (8, 40.0), (9, 30.0)], [(3, 75.0), (5, 50.0), (9, 20.0)]]
    steps, errors = at_common_steps(seeds)
    np.testing.assert_array_equal(steps, [3, 5, 9])
    np.testing.assert_allclose(errors, [[70, 75], [55, 50], [30, 20]])


def test_a_seed_is_drawn_no_further_than_it_went():
    seeds = [[(1, 10.0, 90.0), (2, 20.0, 80.0), (3, 30.0, 70.0)], [(1, 12.0, 92.0), (2, 22.0, 82.0)]]
    steps, minutes, errors = at_common_steps(seeds, columns=2)
    np.testing.assert_array_equal(steps, [1, 2])
    np.testing.assert_allclose(minutes, [[10, 12], [20, 22]])
    np.testing.assert_allclose(errors, [[90, 92], [80, 82]])
    steps, errors = at_common_steps([seeds[0], []])
    assert not len(steps) and errors.shape == (0, 2)


def test_seeds_that_agree_decide_nothing():
    assert welch([20.0, 20.0], [20.02, 20.02]) == (pytest.approx(0.02), float("inf"))


def test_every_claim_is_about_trainings_of_the_page():
    names = {training.name for section in evidence.SECTIONS for training in section.trainings}
    assert {name for claim in CLAIMS for name in (claim.lower, claim.higher)} <= names


def test_what_is_missing_or_unfinished_says_so(tmp_path):
    write_run(tmp_path / "cifar10-250", 0, 0.5, step=20)
    write_run(tmp_path / "of-the-user" / "a", 0, 0.5)
    text = report(tmp_path).read_text()
    assert row(text, "`cifar10-250`")[2:7] == ["1", "20 of 40", "1.000", "25.00", "50.00"]
    assert row(text, "`cifar10-small`")[2:] == ["0 of 3", *["*not run*"] * 8]
    assert row(text, "`of-the-user`")[1] == "`python train_cifar.py --recipe digits`"
    assert row(text, "images a second that the CIFAR")[1] == "*not run*"


def test_a_run_that_has_not_finished_is_no_part_of_the_mean(tmp_path):
    for seed, step in enumerate((40, 40, 20)):
        write_run(tmp_path / "digits" / f"seed{seed}", seed, 0.1 if step == 40 else 0.9, step)
    cells = row(report(tmp_path).read_text(), "`digits`")
    assert cells[2:7] == ["2 of 3, 1 unfinished", "40", "0.200 ± 0.000", "5.00 ± 0.00", "10.00 ± 0.00"]


def test_a_question_of_this_page_holds_or_does_not(tmp_path):
    for name, errors in (("small-4000", (0.15, 0.16, 0.17)), ("small-4000-no-identity", (0.25, 0.26, 0.27))):
        for seed, error in enumerate(errors):
            write_run(tmp_path / name / f"seed{seed}", seed, error)
    assert row(report(tmp_path).read_text(), "the identity matters")[6] == "holds"


def test_only_seeds_of_one_recipe_have_a_mean(tmp_path):
    write_run(tmp_path / "digits" / "a", 0, 0.1, learning_rate=0.1)
    write_run(tmp_path / "digits" / "b", 1, 0.1, learning_rate=0.1, added_since=3, log_every=7)
    report(tmp_path)
    write_run(tmp_path / "digits" / "c", 2, 0.1, learning_rate=0.2)
    with pytest.raises(BadInput, match=r"digits/a and .*digits/c are not of one recipe: learning_rate"):
        report(tmp_path)
    write_run(tmp_path / "other" / "a", 1, 0.1)
    write_run(tmp_path / "other" / "b", 1, 0.1)
    shutil.rmtree(tmp_path / "digits")
    with pytest.raises(BadInput, match=r"other/a and .*other/b have the same seed, 1"):
        report(tmp_path)


def test_a_measurement_is_read_from_its_json(tmp_path):
    spread = {"median": 1.00678, "min": 0.99, "max": 1.02, "n": 5}
    path = tmp_path / "benchmarks" / "train_step.json"
    path.parent.mkdir()
    path.write_text(json.dumps({"environment": ENVIRONMENT, "loop_over_bare": spread}))
    cells = row(report(tmp_path).read_text(), "time of a step in the training loop")
    assert cells[1] == "1.007 (0.990 to 1.020, n = 5)"
    path.write_text("{}")
    with pytest.raises(
        BadInput, match=r"train_step.json is not what `python benchmarks/train_step.py --pairs 6` writes"
    ):
        report(tmp_path)


def test_a_comparison_has_a_row_for_each_setting(tmp_path):
    """A peer that was not measured says so; the code versions are those of the row."""

    def peer(ratio, commit):
        memory = {"peak": 2e9, "beyond_import": 1e9 * ratio}
        spread = {"median": ratio, "min": ratio - 0.1, "max": ratio + 0.1, "n": 5}
        return {"ours_over_theirs": spread, "memory": memory, "ours": {"memory": memory}, "commit": commit}

    path = tmp_path / "benchmarks" / "speed-cifar-train-here.json"
    path.parent.mkdir()
    entries = [
        {"batch": 32, "precision": "float32", "contenders": {"torch_peer": peer(1.5, "aaaaaaaa")}},
        {"batch": 64, "precision": "float32", "contenders": {"torch_compiled": peer(2.0, "bbbbbbbb+changes")}},
    ]
    path.write_text(json.dumps({"what": "cifar-train", "environment": ENVIRONMENT, "entries": entries}))
    text = report(tmp_path).read_text()
    speed, memory = text[text.index("## Speed") :], text[text.index("## Memory") :]
    log = "[log](benchmarks/speed-cifar-train-here.json)"
    missing, here = "*not run*", "2 cores of Test CPU, float32"
    cells = row(speed[: speed.index("## Memory")], "cifar-train | 32")
    assert cells[3:] == [missing, "1.50 (1.40 to 1.60, n = 5)", missing, missing, f"{here}, aaaaaaa", log]
    cells = row(speed[: speed.index("## Memory")], "cifar-train | 64")
    assert cells[3:] == ["2.00 (1.90 to 2.10, n = 5)", missing, missing, missing, f"{here}, bbbbbbb+", log]
    assert row(memory, "cifar-train | 64")[3:7] == ["2.00", "2.00", missing, missing]
    assert row(speed, "`python benchmarks/speed.py cifar-infer --batch 1 32 256`")[1:] == [missing] * 8
    assert (tmp_path / "speed.png").stat().st_size > 5000

    path.write_text(json.dumps({"what": "cifar-train", "entries": entries}))
    with pytest.raises(BadInput, match=r"speed-cifar-train-here.json is not what `python benchmarks/speed.py cifar-t"):
        report(tmp_path)


def test_the_answers_of_a_server_keep_as_many_digits_as_they_have(tmp_path):
    run = {
        "requests_per_second": {"median": 998.4, "min": 90.123, "max": 1234.5, "n": 3},
        "p50_ms": {"median": 2.224},
        "p99_ms": {"median": 2371.0},
    }
    path = tmp_path / "benchmarks" / "serving.json"
    path.parent.mkdir()
    networks = {"small": {"SavedModel": dict.fromkeys(("1", "8", "32"), run)}}
    path.write_text(json.dumps({"environment": ENVIRONMENT, "networks": networks}))
    cells = row(report(tmp_path).read_text(), "small")
    assert cells[2:5] == ["998 (90.1 to 1230, n = 3); 2.2, 2400"] * 3


def test_a_broken_log_is_named_and_nothing_is_written(tmp_path):
    write_run(tmp_path / "digits" / "seed0", 0, 0.1)
    (tmp_path / "digits" / "seed0" / "environment.json").unlink()
    with pytest.raises(BadInput, match=r"digits/seed0 is not the log of a run.*environment.json"):
        report(tmp_path)
    with pytest.raises(BadInput, match="nowhere is not a directory"):
        report(tmp_path / "nowhere")
    write_run(tmp_path / "other" / "seed0", 0, 0.1)
    write_run(tmp_path / "other" / "seed1", 1, 0.1)
    log = tmp_path / "other" / "seed1" / "metrics.jsonl"
    log.write_text(log.read_text() + '{"step": 40, "split": "test", "loss": 1.0}\n')
    shutil.rmtree(tmp_path / "digits")
    with pytest.raises(BadInput, match=r"other/seed1 is not the log of a run: error missing in .*40"):
        report(tmp_path)
    assert not [*tmp_path.rglob("*.png"), *tmp_path.rglob("README.md")]


def test_a_line_that_a_kill_cut_short_is_left_out(tmp_path):
    write_run(tmp_path / "digits" / "seed0", 0, 0.1)
    page = report(tmp_path).read_text()
    with open(tmp_path / "digits" / "seed0" / "metrics.jsonl", "a") as log:
        log.write('{"step": 60, "spl')
    assert report(tmp_path).read_text() == page


def test_the_projects_own_page_is_what_the_command_writes(tmp_path, pytestconfig):
    """results/README.md is never edited by hand: from the same logs comes the same page."""
    results = pytestconfig.rootpath / "results"
    copy = tmp_path / "results"
    for path in results.rglob("*"):
        if path.suffix in (".json", ".jsonl"):
            (copy / path.relative_to(results)).parent.mkdir(parents=True, exist_ok=True)
            (copy / path.relative_to(results)).write_bytes(path.read_bytes())
    assert report(copy).read_text() == (results / "README.md").read_text()


def test_every_command_of_the_evidence_is_one_of_this_project(pytestconfig):
    trainings = [training for section in evidence.SECTIONS for training in section.trainings]
    commands = [entry.command for entry in (*trainings, *evidence.MEASUREMENTS)]
    for command in (*commands, *(c for comparison in evidence.COMPARISONS for c in comparison.commands.values())):
        script = re.match(r"(?:taskset -c 0 )?python (\S+\.py)", command)
        if script:
            assert (pytestconfig.rootpath / script[1]).is_file(), command
        else:
            assert re.match(r"allconv-resnet theory (linear|expressivity|landscape|isometry)", command)
