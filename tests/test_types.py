"""What type checkers know of the package: all of the public names, and a good part of the rest."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from test_docstrings import DOORS, OBJECTS

ROOT = Path(__file__).resolve().parent.parent
SMALLEST_SHARE = 0.67
"""Share of all names of the package, public or not, whose types are known. It may rise, and then this number does."""
EXPORTED = re.compile(rf"allconv_resnet\.(\w+|recipes\.\w+|theory\.({'|'.join(DOORS)})\.\w+)")


@pytest.mark.slow
def test_types_of_public_names_are_known_and_those_of_the_others_do_not_become_fewer():
    command = [Path(sys.executable).with_name("basedpyright"), "--pythonpath", sys.executable, "--outputjson"]
    done = subprocess.run(
        [*command, "--verifytypes", "allconv_resnet", "--ignoreexternal"],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
    )
    found = json.loads(done.stdout)["typeCompleteness"]
    public = [
        symbol
        for symbol in found["symbols"]
        if EXPORTED.fullmatch(symbol["name"])
        or any(symbol["name"] == name or symbol["name"].startswith(f"{name}.") for name in OBJECTS)
    ]
    assert len(public) > 600
    unknown = {
        symbol["name"]: [each["message"] for each in symbol["diagnostics"]]
        for symbol in public
        if symbol["isTypeAmbiguous"] or not symbol["isTypeKnown"]
    }
    assert unknown == {}
    assert found["completenessScore"] >= SMALLEST_SHARE
