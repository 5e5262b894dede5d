"""Claims, which the intervals of the differences decide."""

import numpy as np
import pytest
from logs import row, write_diverged, write_run, write_seeds
from scipy import stats

from allconv_resnet.report import Claim, Page, Section, Training, write_report
from allconv_resnet.report.claims import welch

TRAININGS = (Training("ours", "Ours.", "python a.py"), Training("theirs", "Theirs.", "python b.py"))
PAGE = Page(
    "# Results",
    (Section("Trainings", "", TRAININGS),),
    (
        Claim("Ours is better.", "table 2", "ours", "theirs"),
        Claim("Ours fits better.", "asked here", "ours", "theirs", "train", verdicts=("holds", "**does not hold**")),
    ),
    "Welch's test decides.",
)
OURS = [0.15, 0.16, 0.18]


@pytest.mark.parametrize(
    "errors, verdict, answer",
    [
        ([0.20, 0.21, 0.22], "reproduces", "holds"),
        ([0.10, 0.11, 0.12], "**does not reproduce**", "**does not hold**"),
        ([0.15, 0.16, 0.17], "not decided", "not decided"),
        ([0.20], "one seed", "one seed"),
        ([], "*not run*", "*not run*"),
    ],
    ids=lambda value: value.strip("*") if isinstance(value, str) else "",
)
def test_a_claim_is_judged_by_the_interval_of_the_difference(tmp_path, errors, verdict, answer):
    write_seeds(tmp_path / "ours", OURS)
    write_seeds(tmp_path / "theirs", errors)
    write_run(tmp_path / "theirs" / "unfinished", 9, 0.9, step=20)
    text = write_report(tmp_path, PAGE).read_text()
    assert "## Claims\n\nWelch's test decides.\n\n| claim |" in text
    cells = row(text, "Ours is better.")
    assert cells[2:4] == ["test", "`ours` 16.33 (n = 3)"] and cells[6] == verdict
    fits = row(text, "Ours fits better.")
    assert fits[2:4] == ["train", "`ours` 8.17 (n = 3)"] and fits[6] == answer
    if len(errors) < 2:
        assert cells[5] == ""
        return
    middle, half = _interval([100 * error for error in OURS], [100 * error for error in errors])
    assert cells[5] == f"{middle:+.2f} ± {half:.2f}"


@pytest.mark.parametrize(
    "finished, verdict", [([], "reproduces"), ([0.2], "not decided")], ids=["all diverged", "one of three finished"]
)
def test_a_run_that_diverged_has_the_highest_error(tmp_path, finished, verdict):
    write_seeds(tmp_path / "ours", OURS)
    write_seeds(tmp_path / "theirs", finished)
    for seed in range(len(finished), 3):
        write_diverged(tmp_path / "theirs" / f"seed{seed}", seed, at=seed + 2)
    text = write_report(tmp_path, PAGE).read_text()
    cells = row(text, "Ours is better.")
    assert cells[4:] == [f"`theirs` diverged in {3 - len(finished)} of 3", "", verdict]
    training = row(text, "`theirs`")
    assert training[2] == "3" and training[6].endswith(f"diverged at step {len(finished) + 2} to 4")
    swapped = Page("# Results", PAGE.sections, (Claim("Theirs is better.", "table 2", "theirs", "ours"),))
    opposite = {"reproduces": "**does not reproduce**", "not decided": "not decided"}[verdict]
    assert row(write_report(tmp_path, swapped).read_text(), "Theirs is better.")[6] == opposite


def test_the_interval_is_welchs():
    rng = np.random.default_rng(0)
    for _ in range(10):
        first, second = rng.normal(20, 1, 3).tolist(), rng.normal(21, 3, 5).tolist()
        np.testing.assert_allclose(welch(first, second), _interval(first, second))


def test_one_sample_may_be_constant(recwarn):
    np.testing.assert_allclose(welch([20.02] * 3, [21.0, 22.0, 23.0]), _interval([20.02] * 3, [21.0, 22.0, 23.0]))
    assert not recwarn


def test_seeds_that_agree_decide_nothing():
    assert welch([20.0, 20.0], [20.02, 20.02]) == (pytest.approx(0.02), float("inf"))


def _interval(first, second):
    """Welch's interval of 95 % by the formulas: Welch (1947), with the degrees of freedom of Satterthwaite (1946)."""
    parts = np.var(first, ddof=1) / len(first), np.var(second, ddof=1) / len(second)
    freedom = sum(parts) ** 2 / (parts[0] ** 2 / (len(first) - 1) + parts[1] ** 2 / (len(second) - 1))
    return np.mean(second) - np.mean(first), stats.t.ppf(0.975, freedom) * np.sqrt(sum(parts))
