"""The page of a directory: every figure of its tables follows from the logs."""

import json
import os
import shutil
import tempfile
from pathlib import Path

import pytest
from logs import row, write_run, write_seeds
from privileges import without_privileges

from allconv_resnet import pretrained
from allconv_resnet.cli import main
from allconv_resnet.errors import BadInput
from allconv_resnet.report import Page, Section, Training, write_report
from allconv_resnet.report.figures import draw_curves, draw_ratios
from allconv_resnet.report.runs import find_runs, read_run
from allconv_resnet.report.write import MARKER

UNREADABLE = "$x_$^{"  # Matplotlib cannot read it as a formula
COMMAND = "python train_cifar.py --recipe digits"
TRAININGS = (Training("digits", "The digits.", COMMAND), Training("small", "A small network.", COMMAND, 1))
PAGE = Page("# Results\n", (Section("Short trainings", "All are short.", TRAININGS, notes=("One try failed.",)),))


def test_a_directory_without_a_page_has_one_table_of_all_trainings(tmp_path):
    write_seeds(tmp_path / "a b" / "digits", (0.1, 0.2, 0.3))
    write_run(tmp_path / "a b" / "once", 0, 0.5)
    text = write_report(tmp_path / "a b").read_text()
    assert text.startswith(f"{MARKER}\n# a b\n\nThis page shows the runs of this directory.")
    assert [line for line in text.splitlines() if line.startswith("#")] == ["# a b", "## Trainings"]
    assert row(text, "`digits`")[1:3] == [f"`{COMMAND}`", "3"] and row(text, "`once`")[2] == "1"
    assert "![digits: training and test error against steps](digits/curves.png)" in text
    for word in ("CIFAR", "JPEG", "Hardt", "Claims", "Measurements", "not run"):
        assert word not in text


def test_the_curves_of_a_single_run_are_those_that_it_drew(tmp_path):
    write_run(tmp_path / "once" / "a run", 0, 0.5)
    assert "curves.png" not in write_report(tmp_path).read_text()
    (tmp_path / "once" / "a run" / "curves.png").write_bytes(b"drawn by the run")
    assert "(once/a%20run/curves.png)" in write_report(tmp_path).read_text()
    assert (tmp_path / "once" / "a run" / "curves.png").read_bytes() == b"drawn by the run"


def test_trainings_are_summed_up_over_their_seeds(tmp_path):
    write_seeds(tmp_path / "digits", (0.1, 0.2, 0.3))
    text = write_report(tmp_path, PAGE).read_text()
    cells = row(text, "`digits`")
    assert cells[1] == f"The digits. `{COMMAND}`"
    assert cells[2:9] == ["3", "40", "0.400 ± 0.200", "10.00 ± 5.00", "20.00 ± 10.00", "1.3 ± 0.0", "2.0 ± 0.0"]
    assert cells[9] == "2 cores of Test CPU, float32, 0123456+"
    links = "[seed0](digits/seed0) [seed1](digits/seed1) [seed2](digits/seed2) [curves](digits/curves.png)"
    assert cells[10] == links
    assert (tmp_path / "digits" / "curves.png").stat().st_size > 5000
    assert "](digits/curves.png)" in text
    assert "\n\n- One try failed.\n" in text


def test_the_curves_of_one_run_are_drawn_where_the_page_asks_for_them(tmp_path):
    write_run(tmp_path / "digits" / "seed0", 0, 0.2)
    write_run(tmp_path / "small" / "seed0", 0, 0.3)
    section = PAGE.sections[0]._replace(curves=("small",))
    text = write_report(tmp_path, Page("# Results\n", (section,))).read_text()
    assert "](small/curves.png)" in text and "](digits/curves.png)" not in text
    assert (tmp_path / "small" / "curves.png").stat().st_size > 5000


def test_errors_on_held_out_images_are_shown_where_there_are_some(tmp_path):
    write_run(tmp_path / "digits", 0, 0.2)
    write_run(tmp_path / "small", 0, 0.3)
    assert "held-out error" not in write_report(tmp_path).read_text()
    with open(tmp_path / "small" / "metrics.jsonl", "a") as log:
        log.write(json.dumps({"step": 40, "split": "holdout", "loss": 1.0, "error": 0.25}) + "\n")
    text = write_report(tmp_path).read_text()
    assert "| train error | held-out error | test error |" in text
    assert row(text, "`small`")[5:8] == ["15.00", "25.00", "30.00"]
    assert row(text, "`digits`")[5:8] == ["10.00", "-", "20.00"]


def test_trainings_of_one_section_are_drawn_together(tmp_path):
    for training, error in zip(TRAININGS, (0.2, 0.3), strict=True):
        write_run(tmp_path / training.name / "seed0", 0, error)
    write_run(tmp_path / "other", 0, 0.1)
    text = write_report(tmp_path, Page("# Results", (Section("Both", "", TRAININGS, "both.png"),))).read_text()
    assert text.index("## Both") < text.index("](both.png)") < text.index("## Other trainings")
    assert (tmp_path / "both.png").stat().st_size > 5000


def test_a_run_that_patience_ended_has_finished(tmp_path):
    for seed, step in enumerate((40, 20, 20)):
        write_run(tmp_path / "digits" / f"seed{seed}", seed, 0.1, step, planned=40)
    cells = row(write_report(tmp_path, PAGE).read_text(), "`digits`")
    assert cells[2:4] == ["3", "20 to 40"]
    log = tmp_path / "digits" / "seed2" / "metrics.jsonl"
    later = {"step": 30, "split": "train", "loss": 1.0, "error": 0.1, "images_per_second": 1.0}
    log.write_text(f"{log.read_text()}{json.dumps(later)}\n")  # it got more patience, and has not ended again
    cells = row(write_report(tmp_path, PAGE).read_text(), "`digits`")
    assert cells[2:4] == ["2 of 3, 1 unfinished", "20 to 40"]


def test_what_is_missing_or_unfinished_says_so(tmp_path):
    write_run(tmp_path / "small", 0, 0.5, step=20)
    write_run(tmp_path / "of-the-user" / "a", 0, 0.5)
    text = write_report(tmp_path, PAGE).read_text()
    assert row(text, "`small`")[2:7] == ["1", "20 of 40", "1.000", "25.00", "50.00"]
    assert row(text, "`digits`")[2:] == ["0 of 3", *["*not run*"] * 8]
    assert row(text, "`of-the-user`")[1] == f"`{COMMAND}`"


def test_a_run_that_has_not_finished_is_no_part_of_the_mean(tmp_path):
    for seed, step in enumerate((40, 40, 20)):
        write_run(tmp_path / "digits" / f"seed{seed}", seed, 0.1 if step == 40 else 0.9, step)
    cells = row(write_report(tmp_path, PAGE).read_text(), "`digits`")
    assert cells[2:7] == ["2 of 3, 1 unfinished", "40", "0.200 ± 0.000", "5.00 ± 0.00", "10.00 ± 0.00"]


def test_runs_in_progress_are_compared_at_a_step_that_all_have(tmp_path):
    for seed, (step, error) in enumerate([(20, 0.4), (30, 0.1)]):
        write_run(tmp_path / "digits" / f"seed{seed}", seed, error, step=step)
        log = tmp_path / "digits" / f"seed{seed}" / "metrics.jsonl"
        log.write_text('{"step": 10, "split": "test", "loss": 1.0, "error": 0.5}\n' * (seed == 0) + log.read_text())
    lines = [json.loads(line) for line in log.read_text().splitlines()]
    lines.insert(1, {"step": 20, "split": "test", "loss": 1.0, "error": 0.2})
    log.write_text("".join(json.dumps(line) + "\n" for line in lines))
    cells = row(write_report(tmp_path).read_text(), "`digits`")
    assert (
        cells[2:4] == ["2", "20 to 30 of 40, figures of step 20"] and cells[6] == "30.00 ± 14.14"
    )  # 40 and 20 % at step 20
    assert cells[7:9] == ["0.7 ± 0.0", "1.0 ± 0.0"]  # of 20 steps


def test_runs_in_progress_that_logged_at_different_steps_are_compared_between_them(tmp_path):
    for seed, steps in enumerate([(10, 20, 30), (15, 25)]):
        write_run(tmp_path / "digits" / f"seed{seed}", seed, 0.4, step=steps[-1])
        log = tmp_path / "digits" / f"seed{seed}" / "metrics.jsonl"
        train = [line for line in log.read_text().splitlines() if json.loads(line)["split"] == "train"]
        tests = [{"step": step, "split": "test", "loss": 1.0, "error": step / 100} for step in steps]
        log.write_text("".join(f"{line}\n" for line in [*train, *map(json.dumps, tests)]))
    cells = row(write_report(tmp_path).read_text(), "`digits`")
    assert cells[3] == "25 to 30 of 40, figures of step 20 and 25" and cells[6] == "25.00 ± 0.00"


def test_the_command_of_a_run_is_that_of_its_last_session_as_a_shell_takes_it(tmp_path):
    write_run(tmp_path / "once", 0, 0.5)
    path = tmp_path / "once" / "environment.json"
    (first,) = json.loads(path.read_text())["sessions"]
    last = {**first, "command": ["train_cifar.py", "--run-dir", "my runs/$x"]}
    path.write_text(json.dumps({"sessions": [first, last]}))
    assert row(write_report(tmp_path).read_text(), "`once`")[1] == "`python train_cifar.py --run-dir 'my runs/$x'`"


def test_packed_networks_have_rows_without_a_command(tmp_path):
    shutil.copytree(pretrained.find("cifar10-wide"), tmp_path / "wide")
    cells = row(write_report(tmp_path).read_text(), "`wide`")
    assert cells[1] == "" and float(cells[6]) < 6


def test_runs_without_a_recipe_are_named(tmp_path):
    write_run(tmp_path / "once" / "seed0", 0, 0.5)
    (tmp_path / "once" / "seed0" / "config.json").unlink()
    with pytest.raises(BadInput, match=r"log of a run in .*once/seed0. Received: .*config.json"):
        write_report(tmp_path)


def test_directories_that_cannot_be_read_are_named(capsys):
    with tempfile.TemporaryDirectory() as folder:  # pytest's own directories are closed to others
        os.chmod(folder, 0o755)
        for name in ("once", "other"):
            write_run(Path(folder, name), 0, 0.5)
        os.chmod(f"{folder}/other", 0)
        with without_privileges():
            assert [*find_runs(Path(folder))] == ["once"]
    assert f"{folder}/other cannot be read and is left out" in capsys.readouterr().err


def test_names_may_have_any_letters(tmp_path):
    for name in ("_rate=$1", "$a$ b", "^_{x", UNREADABLE):
        write_seeds(tmp_path / name, (0.1, 0.2))
    section = Section("All $ of_ them", "", tuple(Training(p.name, "", COMMAND) for p in tmp_path.iterdir()), "all.svg")
    text = write_report(tmp_path, Page("# Results\n", (section,))).read_text()
    assert "`_rate=$1`" in text
    # Matplotlib writes the texts of an SVG as comments before their outlines.
    drawing = (tmp_path / "all.svg").read_text()
    for name in ("All $ of_ them", " _rate=$1: 15.00", "$a$ b: 15.00", "^_{x: 15.00", f"{UNREADABLE}: 15.00"):
        assert f"<!-- {name}" in drawing
    values = {"min": 1.0, "median": 1.5, "max": 2.0}
    draw_ratios([(UNREADABLE, {UNREADABLE: values})], UNREADABLE, UNREADABLE, tmp_path / "ratios.svg")
    assert f"<!-- over {UNREADABLE} -->" in (tmp_path / "ratios.svg").read_text()


def test_errors_on_held_out_images_are_drawn(tmp_path):
    write_run(tmp_path / "once", 0, 0.5)
    log = tmp_path / "once" / "metrics.jsonl"
    lines = [{"step": step, "split": "holdout", "loss": 1.0, "error": 0.25} for step in (20, 40)]
    log.write_text(log.read_text() + "".join(json.dumps(line) + "\n" for line in lines))
    draw_curves([read_run(tmp_path / "once")], "once", tmp_path / "once.svg")
    assert "<!-- holdout: 25.00 % at step 40 -->" in (tmp_path / "once.svg").read_text()


def test_a_readme_that_somebody_else_wrote_is_left_as_it_is(tmp_path):
    write_seeds(tmp_path / "digits", (0.1, 0.2))
    readme = tmp_path / "README.md"
    readme.write_text("# My own notes\n")
    with pytest.raises(BadInput, match=r"Received: .*README.md, which does not begin with <!-- Written by"):
        write_report(tmp_path)
    assert readme.read_text() == "# My own notes\n" and not [*tmp_path.rglob("*.png")]
    readme.unlink()
    page = write_report(tmp_path).read_text()
    assert write_report(tmp_path).read_text() == page


def test_a_broken_log_is_named_and_nothing_is_written(tmp_path):
    write_run(tmp_path / "digits" / "seed0", 0, 0.1)
    (tmp_path / "digits" / "seed0" / "environment.json").unlink()
    with pytest.raises(BadInput, match=r"log of a run in .*digits/seed0. Received: .*environment.json"):
        write_report(tmp_path)
    write_seeds(tmp_path / "other", (0.1, 0.1))
    log = tmp_path / "other" / "seed1" / "metrics.jsonl"
    log.write_text(log.read_text() + '{"step": 40, "split": "train", "loss": 1.0, "error": 0.1}\n')
    shutil.rmtree(tmp_path / "digits")
    with pytest.raises(BadInput, match=r"log of a run in .*other/seed1. Received: images_per_second missing in .*40"):
        write_report(tmp_path)
    assert not [*tmp_path.rglob("*.png"), *tmp_path.rglob("README.md")]


def test_a_directory_without_runs_is_refused(tmp_path):
    with pytest.raises(BadInput, match="nowhere is not a directory"):
        write_report(tmp_path / "nowhere")
    with pytest.raises(BadInput, match="Received: none that can be read"):
        write_report(tmp_path)
    assert "*not run*" in write_report(tmp_path, PAGE).read_text()


def test_the_command_says_which_page_it_uses(tmp_path, capsys):
    write_run(tmp_path / "digits", 0, 0.1)
    for source in (None, "from allconv_resnet.report import Page\n\nPAGE = Page('# Mine')\n"):
        if source:
            (tmp_path / "page.py").write_text(source)
        with pytest.raises(SystemExit) as ended:
            main(["report", str(tmp_path)])
        assert ended.value.code == 0
        out = capsys.readouterr().out
        assert str(tmp_path / "README.md") in out and ("page.py" in out) == bool(source)
    assert (tmp_path / "README.md").read_text().splitlines()[1] == "# Mine"
