"""The one command of the page about serving: train -> export -> serve -> predict."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.slow
def test_the_round_trip_of_the_page(tmp_path):
    assert "PATH=$PWD/.venv/bin:$PATH examples/round_trip.sh" in (ROOT / "docs" / "use" / "serve.md").read_text()
    environment = {**os.environ, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    done = subprocess.run(
        [ROOT / "examples" / "round_trip.sh", tmp_path / "run"],
        env=environment,
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert done.returncode == 0, done.stderr
    served, alone = done.stdout.splitlines()
    assert served.startswith("examples/seven.png: 7 (") and alone.startswith("examples/seven.png: 7 ")
    assert f"Exported to {tmp_path / 'run' / 'export' / '600'}" in done.stderr
