"""`allconv-resnet theory linear` on small cases."""

import json

import pytest

from allconv_resnet.errors import BadInput
from allconv_resnet.theory.commands.linear import Options, run
from allconv_resnet.theory.commands.linear_dynamics import certified_paths, draw_phases, phase_diagram


def test_the_phase_diagram_of_a_few_steps_is_drawn(tmp_path):
    draw_phases(phase_diagram(3, 1, 1), tmp_path / "phases.png", 1)
    assert (tmp_path / "phases.png").stat().st_size > 10_000


def test_the_seed_moves_the_random_starts_alone():
    first, second = (certified_paths(3, 5, 3, seed=seed) for seed in (0, 1))
    moved = [a["initialization"] for a, b in zip(first, second, strict=True) if a["risk"] != b["risk"]]
    assert moved == ["near_identity", "standard"]
    first, second = (phase_diagram(3, 5, 1, seed) for seed in (0, 1))
    assert {a["initialization"] for a, b in zip(first, second, strict=True) if a["risk"] != b["risk"]} == set(moved)


def test_results_and_figures(tmp_path, capsys):
    run(
        Options(
            dimension=3, matrices=14, networks=200, steps=20, phase_steps=60, phase_seeds=1, output_dir=tmp_path / "out"
        )
    )
    assert {path.name for path in (tmp_path / "out").iterdir()} == {
        "linear.json",
        "norm.png",
        "gradient.png",
        "descent.png",
        "phases.png",
        "path.png",
    }
    written = json.loads((tmp_path / "out" / "linear.json").read_text())
    assert written["corrected_bound"]["broken"] == 0 < written["printed_bound"]["broken"]
    assert written["factorizations"]["error"] < 1e-9 and written["environment"]["versions"]["numpy"]
    assert written["options"]["seed"] == 0 and written["bound_for_any_norm"]["broken"] == 0
    assert {row["initialization"] for row in written["phases"]} == {path["initialization"] for path in written["paths"]}
    assert "corrected gradient bound" in capsys.readouterr().out
    with pytest.raises(BadInput, match=r"networks must be an integer of at least 1. Received: networks=0"):
        run(Options(networks=0, output_dir=tmp_path / "none"))
    with pytest.raises(BadInput, match=r"phase_dimension must be at least 3. Received: phase_dimension=2"):
        run(Options(phase_dimension=2, output_dir=tmp_path / "none"))
    assert not (tmp_path / "none").exists()
