"""What the experiments of `allconv-resnet theory` have in common: their helps and the checks of their options."""

import re
from importlib import import_module

import numpy as np
import pytest

from allconv_resnet.errors import BadInput
from allconv_resnet.theory.commands import THEORY, network_spectra, theory_command

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
    with pytest.raises(
        BadInput, match=f"output_dir must be a directory that can be written to.*{re.escape(str(tmp_path))}"
    ):
        theory_command([name, "--output-dir", str(tmp_path / "file")])


def test_a_home_directory_may_be_part_of_the_output_directory(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    given = []
    monkeypatch.setattr(import_module("allconv_resnet.theory.commands.linear"), "run", given.append)
    assert theory_command(["linear", "--output-dir=~/figures"]) == 0
    assert [options.output_dir for options in given] == [tmp_path / "figures"]


def test_run_directories_that_would_have_one_name_are_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(network_spectra, "load_images", lambda *_: (np.zeros((32, 32, 32, 3), "uint8"), np.zeros(32)))
    monkeypatch.setattr(network_spectra, "load_run", lambda _: (None, 7))
    monkeypatch.setattr(network_spectra, "check_stages", lambda *_: None)
    run_dirs = [tmp_path / folder / "runs" / "a" for folder in "xy"]
    with pytest.raises(BadInput, match=r"whose last two names differ\. Received: runs/a, step 7 twice"):
        network_spectra.measure_networks(tmp_path, None, run_dirs, 0, False)
