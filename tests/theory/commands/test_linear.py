"""`allconv-resnet theory linear` on small cases."""

import json

import pytest

from allconv_resnet.errors import BadInput
from allconv_resnet.theory.commands.linear import Options, run


def test_results_and_figures(tmp_path, capsys):
    run(Options(dimension=3, matrices=14, networks=200, steps=20, output_dir=tmp_path / "out"))
    assert {path.name for path in (tmp_path / "out").iterdir()} == {
        "linear.json",
        "norm.png",
        "gradient.png",
        "descent.png",
    }
    written = json.loads((tmp_path / "out" / "linear.json").read_text())
    assert written["corrected_bound"]["broken"] == 0 < written["printed_bound"]["broken"]
    assert written["factorizations"]["error"] < 1e-9 and written["environment"]["versions"]["numpy"]
    assert "corrected gradient bound" in capsys.readouterr().out
    with pytest.raises(BadInput, match=r"networks must be an integer of at least 1. Received: networks=0"):
        run(Options(networks=0, output_dir=tmp_path / "none"))
    assert not (tmp_path / "none").exists()
