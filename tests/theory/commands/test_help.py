"""What the experiments of `allconv-resnet theory` have in common: their helps and the checks of their options."""

import re

import pytest

from allconv_resnet.errors import BadInput
from allconv_resnet.theory.commands import THEORY, theory_command

PROGRAM = """
import sys
import allconv_resnet_command
sys.argv = ["allconv-resnet", "theory", *sys.argv[1:], "--help"]
try:
    allconv_resnet_command.main()
except SystemExit as stop:
    heavy = [name for name in ("keras", "tensorflow", "jax", "matplotlib") if name in sys.modules]
    print("status", stop.code, *heavy)
"""


@pytest.mark.parametrize("name", ["", "linear", "expressivity", "gradients"])
def test_help_imports_nothing_heavy(name, run_python):
    done = run_python("-c", PROGRAM, *([name] if name else []))
    assert done.stdout.splitlines()[-1] == "status 0", done.stdout + done.stderr
    if name:
        assert "--output-dir" in done.stdout and "--seed" in done.stdout
    else:
        assert all(experiment in done.stdout for experiment in THEORY)


@pytest.mark.parametrize("name", [name for name in THEORY if name != "isometry"])  # which has no option --seed
def test_a_negative_seed_is_refused(name):
    with pytest.raises(BadInput, match=r"seed must be an integer of at least 0\. Received: seed=-1"):
        theory_command([name, "--seed", "-1"])


@pytest.mark.parametrize("name", THEORY)
def test_a_directory_that_cannot_be_made_is_refused_before_the_experiment(name, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(BadInput, match=f"output_dir must be the path of a directory.*{re.escape(str(tmp_path))}"):
        theory_command([name, "--output-dir", str(tmp_path / "file")])
