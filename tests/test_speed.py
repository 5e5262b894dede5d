"""benchmarks/speed.py says why a contender has ended. The figures themselves are in results/benchmarks."""

import importlib
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture
def contender(monkeypatch):
    """A contender whose process ends at once, because there is none of its name."""
    monkeypatch.syspath_prepend(ROOT / "benchmarks")
    return importlib.import_module("speed").Contender("no_such_contender", "cifar", 1, "float32", "weights.npz")


def test_the_reason_is_shown(contender):
    said = r"(?s)No module named.*no_such_contender ended with status 1"
    with pytest.raises(SystemExit, match=said), contender:
        contender.read()


def test_the_reason_is_shown_if_it_ended_between_two_answers(contender):
    contender.process.wait()
    with pytest.raises(SystemExit, match="No module named"), contender:
        contender.ask("train 1")


def test_an_error_ends_a_process_that_waits(contender):
    contender.process = subprocess.Popen(
        [sys.executable, "-c", "input()"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    with pytest.raises(ZeroDivisionError), contender:
        raise ZeroDivisionError
    assert contender.process.returncode == -9
