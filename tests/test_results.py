"""The page of results/: what results/page.py asks for, and what the committed page shows."""

import json
import re
import subprocess

import pytest

from allconv_resnet.report import read_page, write_report

ENVIRONMENT = {"cores": 2, "cpu": "Test CPU", "gpus": [], "commit": "0123456789+changes", "precision": "float32"}
MISSING = "*not run*"


@pytest.fixture
def page(pytestconfig):
    return read_page(pytestconfig.rootpath / "results")


def test_the_committed_page_is_what_the_command_writes(tmp_path, pytestconfig):
    """README.md is never edited by hand. Files of results/ that are not committed or staged do not matter here."""

    def git(*arguments, **options):
        return subprocess.run(
            ["git", *arguments], cwd=pytestconfig.rootpath, check=True, capture_output=True, **options
        )

    try:
        files = git("ls-files", "-z", "--", "results").stdout
    except (OSError, subprocess.CalledProcessError) as error:
        pytest.skip(f"git does not tell which logs are committed: {error}")
    if not files:
        pytest.skip("results/ is not in this git repository")
    git("checkout-index", "-z", "--stdin", f"--prefix={tmp_path}/", input=files)
    results = tmp_path / "results"
    committed = (results / "README.md").read_text()
    told = "`allconv-resnet report` and `git add results` bring the committed page up to date"
    assert write_report(results, read_page(results)).read_text() == committed, told


def test_every_claim_names_trainings_of_the_page(page):
    names = set(page.names())
    assert page.claims
    assert {name for claim in page.claims for name in (claim.lower, claim.higher)} <= names


def test_every_command_is_one_of_this_project(page, pytestconfig):
    trainings = [training for section in page.sections for training in section.trainings]
    commands = [entry.command for entry in (*trainings, *page.measurements)]
    for command in (*commands, *(c for comparison in page.comparisons for c in comparison.commands.values())):
        script = re.match(r"(?:taskset -c 0 |KERAS_BACKEND=jax )?python (\S+\.py)", command)
        if script:
            assert (pytestconfig.rootpath / script[1]).is_file(), command
        else:
            assert re.match(r"allconv-resnet theory (linear|expressivity|landscape|isometry|gradients)", command)


def test_a_peer_that_was_not_measured_says_so(page, tmp_path):
    def peer(ratio, commit):
        memory = {"peak": 2e9, "beyond_import": 1e9 * ratio}
        spread = {"median": ratio, "min": ratio - 0.1, "max": ratio + 0.1, "n": 5}
        return {"ours_over_theirs": spread, "memory": memory, "ours": {"memory": memory}, "commit": commit}

    path = tmp_path / "benchmarks" / "speed-cifar-train-2-here.json"
    path.parent.mkdir()
    entries = [
        {"batch": 32, "precision": "float32", "contenders": {"torch_peer": peer(1.5, "aaaaaaaa")}},
        {"batch": 64, "precision": "float32", "contenders": {"torch_compiled": peer(2.0, "bbbbbbbb+changes")}},
    ]
    path.write_text(json.dumps({"what": "cifar-train", "environment": ENVIRONMENT, "entries": entries}))
    rows = _rows(write_report(tmp_path, page))
    log, here = "[log](benchmarks/speed-cifar-train-2-here.json)", "2 cores of Test CPU, float32"
    ratio = "1.50 (1.40 to 1.60, n = 5)"
    speed, memory = rows["cifar-train", "32"]
    assert speed[3:] == [MISSING, ratio, MISSING, MISSING, f"{here}, aaaaaaa", log]
    assert memory[3:] == ["1.50", MISSING, "1.50", MISSING, f"{here}, aaaaaaa", log]
    speed, memory = rows["cifar-train", "64"]
    assert speed[3:] == ["2.00 (1.90 to 2.10, n = 5)", MISSING, MISSING, MISSING, f"{here}, bbbbbbb+", log]
    assert memory[3:7] == ["2.00", "2.00", MISSING, MISSING]


def test_a_gpu_has_a_table_of_its_own(page, tmp_path):
    rate = {"median": 17847.4, "min": 17438.5, "max": 18429.6, "n": 3}
    ratio = {"median": 2.05, "min": 1.99, "max": 2.07, "n": 3}
    contender = {"ours_over_theirs": ratio, "ours": {"images_per_second": rate}, "commit": "aaaaaaaa"}
    path = tmp_path / "benchmarks" / "speed-cifar-train-jax-nvidia-h200.json"
    path.parent.mkdir()
    entries = [{"batch": 128, "precision": "bfloat16", "contenders": {"torch_compiled": contender}}]
    path.write_text(json.dumps({"what": "cifar-train", "environment": ENVIRONMENT, "entries": entries}))
    (cells,) = _rows(write_report(tmp_path, page))["cifar-train", "128"]
    assert cells[3:6] == ["17,847 (17,438 to 18,430, n = 3)", "2.05 (1.99 to 2.07, n = 3)", MISSING]


def test_the_answers_of_a_server_keep_as_many_digits_as_they_have(page, tmp_path):
    run = {
        "requests_per_second": {"median": 998.4, "min": 90.123, "max": 1234.5, "n": 3},
        "p50_ms": {"median": 2.224},
        "p99_ms": {"median": 2371.0},
    }
    path = tmp_path / "benchmarks" / "serving.json"
    path.parent.mkdir()
    networks = {"small": {"SavedModel": dict.fromkeys(("1", "8", "32"), run)}}
    path.write_text(json.dumps({"environment": ENVIRONMENT, "networks": networks}))
    (cells,) = _rows(write_report(tmp_path, page))["small", "SavedModel"]
    assert cells[2:5] == ["998 (90.1 to 1230, n = 3); 2.2, 2400"] * 3


def _rows(path):
    """Returns the rows of a page's tables, by their first two cells."""
    rows = {}
    for line in path.read_text().splitlines():
        if line.startswith("| "):
            cells = [cell.strip() for cell in line.strip("|").split("|")]
            rows.setdefault((cells[0], cells[1]), []).append(cells)
    return rows
