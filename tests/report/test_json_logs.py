"""Measurements and comparisons, from the JSON files of benchmarks."""

import json

import pytest
from logs import ENVIRONMENT, row

from allconv_resnet.errors import BadInput
from allconv_resnet.report import Comparison, Measurement, Page, spread, write_report

COMMAND = "python benchmarks/step.py"
SPREAD = {"median": 1.00678, "min": 0.99, "max": 1.02, "n": 5}
MEASURED = Page(
    "# Results", measurements=(Measurement("step-*.json", "A step | ours.", COMMAND, lambda d: spread(d["time"])),)
)
COMPARED = Page(
    "# Results",
    comparisons=(
        Comparison(
            "Speed",
            "Ours over theirs.",
            {"speed-*.json": COMMAND, "later.json": "python later.py"},
            ("batch", "ratio"),
            lambda d: [((str(batch), spread(d["ratios"][str(batch)])), commits) for batch, commits in d["rows"]],
            "speed.png",
            lambda d: [(f"batch {batch}", {"theirs": ratio}) for batch, ratio in d["ratios"].items()],
        ),
    ),
)


def test_a_measurement_has_a_row_for_each_file(tmp_path):
    assert row(write_report(tmp_path, MEASURED).read_text(), "A step")[2:] == ["*not run*", f"`{COMMAND}`", "", ""]
    for name in ("a", "b"):
        (tmp_path / f"step-{name}.json").write_text(json.dumps({"environment": ENVIRONMENT, "time": SPREAD}))
    text = write_report(tmp_path, MEASURED).read_text()
    for name in ("a", "b"):
        cells = (
            f"1.01 (0.99 to 1.02, n = 5) | `{COMMAND}` | 2 cores of Test CPU, float32, 0123456+ | [step-{name}.json]"
        )
        assert f"| A step \\| ours. | {cells}(step-{name}.json) |" in text


@pytest.mark.parametrize("content", ["{}", "[]", "{", json.dumps({"environment": ENVIRONMENT})])
def test_a_file_that_its_command_did_not_write_is_refused(tmp_path, content):
    (tmp_path / "step-a.json").write_text(content)
    with pytest.raises(BadInput, match=rf"Expected what `{COMMAND}` writes in .*step-a.json. Received: "):
        write_report(tmp_path, MEASURED)
    assert not (tmp_path / "README.md").exists()


def test_a_comparison_has_a_row_for_each_setting(tmp_path):
    """The code versions are those of the row, and of the file where the row has none."""
    ratios = {"32": SPREAD, "64": {**SPREAD, "median": 1.0}}
    rows = [(32, ["aaaaaaaa", "bbbbbbbb+changes"]), (64, [])]
    log = {"environment": ENVIRONMENT, "ratios": ratios, "rows": rows}
    (tmp_path / "speed-here.json").write_text(json.dumps(log))
    text = write_report(tmp_path, COMPARED).read_text()
    assert f"## Speed\n\nOurs over theirs. `{COMMAND}`, `python later.py`.\n\n| batch | ratio | where | log |" in text
    here, link = "2 cores of Test CPU, float32", "[log](speed-here.json)"
    assert row(text, "32") == ["32", "1.01 (0.99 to 1.02, n = 5)", f"{here}, aaaaaaa, bbbbbbb+", link]
    assert row(text, "64") == ["64", "1 (0.99 to 1.02, n = 5)", f"{here}, 0123456+", link]
    assert row(text, "`python later.py`")[1:] == ["*not run*"] * 3
    assert "![Speed: ratios to the peers](speed.png)" in text and (tmp_path / "speed.png").stat().st_size > 5000
    (tmp_path / "speed-here.json").write_text("{}")
    with pytest.raises(BadInput, match=r"speed-here\.json"):
        write_report(tmp_path, COMPARED)
