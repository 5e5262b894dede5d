"""The experiments of `allconv-resnet theory landscape` on small cases."""

import json

import numpy as np
import pytest

from allconv_resnet.errors import BadInput
from allconv_resnet.theory.commands import residual_against_linear
from allconv_resnet.theory.commands.landscape import Options, cifar10_problems, run
from allconv_resnet.theory.commands.projected_runs import compare_branches
from allconv_resnet.theory.landscape import Problem


def small_problem():
    rng = np.random.default_rng(0)
    x = rng.standard_normal((80, 5))
    return Problem(x, np.sign(x[:, :1] * x[:, 1:2] + 0.3 * rng.standard_normal((80, 1))), "logistic")


def test_training_against_linear_command(tmp_path, capsys):
    residual_against_linear.compare_with_linear(tmp_path, {"logistic": small_problem()}, iterations=60, seed=0)
    results = {r["start"]: r for r in json.loads((tmp_path / "training.json").read_text())["results"]}
    assert set(results) == set(residual_against_linear.STARTS)
    assert results["saddle"]["first_verdict"] == "escapes along a direction"
    assert results["saddle"]["ended"] < results["saddle"]["linear"] < results["saddle"]["first_objective"]
    assert results["good"]["ended"] < results["good"]["linear"]
    assert all(r["ended"] <= r["linear"] + r["eps"] for r in results.values())
    assert "certified eps" in capsys.readouterr().out


def test_regret_command(tmp_path):
    compare_branches(tmp_path, small_problem(), steps=40, radius=1.0, seed=0)
    results = json.loads((tmp_path / "regret.json").read_text())["results"]
    assert len(results) == 4 and all(r["violations"] == 0 for r in results.values())


def test_problems_on_cifar10(prepared):
    problems = cifar10_problems(prepared, 100)
    assert {p.x.shape for p in problems.values()} == {(100, 65)}
    assert problems["cross_entropy"].outputs == 10 and set(np.unique(problems["logistic"].y)) == {-1, 1}


def test_bad_options_are_refused(tmp_path):
    with pytest.raises(BadInput, match="images"):
        run(Options(output_dir=tmp_path, images=0))
    assert not list(tmp_path.iterdir())
