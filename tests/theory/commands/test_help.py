"""`allconv-resnet theory --help` and the help of its experiments need no Keras."""

import pytest

from allconv_resnet.theory.commands import THEORY

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
