"""`allconv-resnet theory gradients` on a small case."""

import json

import numpy as np
import pytest

from allconv_resnet.errors import BadInput
from allconv_resnet.theory.commands import gradients
from allconv_resnet.theory.commands.gradients import Options, run


def test_results_and_figure(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(gradients, "DEPTHS", (1, 3))
    run(Options(images=8, size=4, channels=2, seeds=2, seed=5, output_dir=tmp_path / "out"))
    assert {path.name for path in (tmp_path / "out").iterdir()} == {"gradients.json", "gradients.png"}
    written = json.loads((tmp_path / "out" / "gradients.json").read_text())
    assert written["options"]["seed"] == 5 and written["options"]["images"] == 8
    assert {row["seed"] for row in written["rows"]} == {5, 6}
    assert len(written["rows"]) == 6 * 2 * 2 * 2
    assert "near identity" in capsys.readouterr().out


def test_inputs_are_means_of_pixels():
    images, labels = gradients.load_inputs(Options(images=3, size=8))
    assert images.shape == (3, 8, 8, 3) and len(labels) == 3
    np.testing.assert_allclose(images.mean(axis=(1, 2, 3)), 0, atol=1e-6)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"size": 5}, r"size must divide the height and width of the images, 32x32. Received: size=5"),
        ({"images": 5000}, "images must be at most 1437, the size of digits. Received: images=5000"),
        ({"seeds": 0}, "seeds must be an integer of at least 1"),
        ({"distance": 0.0}, r"distance must be a finite number above 0. Received: distance=0.0"),
    ],
)
def test_bad_options(options, message, tmp_path):
    with pytest.raises(BadInput, match=message):
        run(Options(**options, output_dir=tmp_path / "none"))
    assert not (tmp_path / "none").exists()
