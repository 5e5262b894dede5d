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


@pytest.mark.parametrize(
    "options, message",
    [
        (["--seed", "-1"], "seed must be an integer of at least 0. Received: seed=-1"),
        (["--output-dir", "FILE"], "output_dir must be the path of a directory. Received: output_dir=FILE, and "),
    ],
    ids=["seed", "output_dir"],
)
@pytest.mark.parametrize("name", THEORY)
def test_what_is_wrong_with_the_options_of_all_experiments_is_said_at_once(name, options, message, tmp_path):
    if (name, options[0]) == ("isometry", "--seed"):
        pytest.skip("isometry has no option --seed")
    (tmp_path / "file").write_text("")
    file = str(tmp_path / "file")
    with pytest.raises(BadInput, match=re.escape(message.replace("FILE", file))):
        theory_command([name, *(word.replace("FILE", file) for word in options)])
