"""`allconv-resnet theory expressivity` on small cases."""

import json

import pytest

from allconv_resnet.errors import BadInput
from allconv_resnet.theory.commands.expressivity import Options, run


def test_results_and_figures(tmp_path, capsys):
    run(Options(data="normal", points=(20, 50), widths=(8,), dimension=5, seed=7, output_dir=tmp_path / "out"))
    names = {path.name for path in (tmp_path / "out").iterdir()}
    assert names == {"expressivity.json", "parameters.png", "margin.png"}
    written = json.loads((tmp_path / "out" / "expressivity.json").read_text())
    assert [row["blocks"] for row in written["rows"] if row["construction"] == "points"] == [3, 7]
    assert all(row["wrong"] == row["inexact"] == 0 for row in written["rows"])
    assert written["options"]["seed"] == 7 and written["dimension"] == 5
    assert "theorem parameters" in capsys.readouterr().out
    for bad in ({"points": ()}, {"widths": (0,)}, {"dimension": 0}, {"data": "digits", "points": (10_000,)}):
        with pytest.raises(BadInput, match=r"Received"):
            run(Options(**bad, output_dir=tmp_path / "none"))
    for bad in ({"dimension": 5}, {"data": "normal", "data_dir": tmp_path}):
        with pytest.raises(BadInput, match=r"does not use must not be given"):
            run(Options(**bad, output_dir=tmp_path / "none"))
    assert not (tmp_path / "none").exists()
