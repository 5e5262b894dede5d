"""The experiments of `allconv-resnet theory landscape` on small cases."""

import json

import numpy as np
import pytest

from allconv_resnet.errors import BadInput
from allconv_resnet.theory.commands import certified_network, chained_blocks, residual_against_linear, stationary_points
from allconv_resnet.theory.commands.image_problems import image_problems
from allconv_resnet.theory.commands.landscape import Options, run
from allconv_resnet.theory.commands.projected_runs import compare_branches
from allconv_resnet.theory.landscape import Problem

SETTINGS = {"data": "normal", "images": 80, "seed": 0}


def small_problem():
    rng = np.random.default_rng(0)
    x = rng.standard_normal((80, 5))
    return Problem(x, np.sign(x[:, :1] * x[:, 1:2] + 0.3 * rng.standard_normal((80, 1))), "logistic")


def wide_problem():
    """A problem with more inputs than two blocks of a chain have neurons."""
    rng = np.random.default_rng(0)
    x = rng.standard_normal((80, 2 * chained_blocks.HIDDEN + 2))
    return Problem(x, np.sign(x[:, :1] * x[:, 1:2] + 0.3 * rng.standard_normal((80, 1))), "logistic")


def test_training_against_linear_command(tmp_path, capsys):
    problems = {"logistic": small_problem()}
    residual_against_linear.compare_with_linear(tmp_path, problems, iterations=60, settings=SETTINGS)
    content = json.loads((tmp_path / "training.json").read_text())
    assert {key: content[key] for key in SETTINGS} == SETTINGS and content["iterations"] == 60
    results = {r["start"]: r for r in content["results"]}
    assert set(results) == set(residual_against_linear.STARTS)
    assert results["saddle"]["first_verdict"] == "escapes along a direction"
    assert results["saddle"]["ended"] < results["saddle"]["linear"] < results["saddle"]["first_objective"]
    assert results["good"]["ended"] < results["good"]["linear"]
    assert all(r["gradient_bound"] <= r["gradient_norm"] * (1 + 1e-9) for r in results.values())
    good = [r["verdict"] == "at least as good as linear" for r in results.values()]
    assert f"{sum(good)} at least as good as linear" in capsys.readouterr().out
    assert (tmp_path / "training.png").stat().st_size > 10_000


def test_separable_classes_with_cross_entropy_and_few_iterations(tmp_path):
    """From W = 0 the rows of W sum to zero for ever, and both F and F_lin tend to zero."""
    rng = np.random.default_rng(1)
    images, labels = rng.standard_normal((60, 8, 8, 1)), rng.integers(10, size=60)
    problems = {"cross_entropy": image_problems(images, labels)["cross_entropy"]}
    residual_against_linear.compare_with_linear(tmp_path, problems, iterations=40, settings=SETTINGS)
    results = {r["start"]: r for r in json.loads((tmp_path / "training.json").read_text())["results"]}
    assert len(results) == 6
    assert results["zero"]["verdict"] == "at least as good as linear"


def test_finished_runs_are_written_if_a_later_one_fails(tmp_path, monkeypatch):
    train = residual_against_linear.train_from

    def fails(start, *arguments):
        if start == "saddle":
            raise BadInput("a failure")
        return train(start, *arguments)

    monkeypatch.setattr(residual_against_linear, "train_from", fails)
    with pytest.raises(BadInput, match="a failure"):
        residual_against_linear.compare_with_linear(tmp_path, {"logistic": small_problem()}, 5, SETTINGS)
    results = json.loads((tmp_path / "training.json").read_text())["results"]
    assert [r["start"] for r in results] == ["good", "zero"]


def test_regret_command(tmp_path):
    compare_branches(tmp_path, small_problem(), steps=40, radius=1.0, settings=SETTINGS)
    content = json.loads((tmp_path / "regret.json").read_text())
    assert {key: content[key] for key in SETTINGS} == SETTINGS
    assert len(content["results"]) == 4 and all(r["violations"] == 0 for r in content["results"].values())


def test_stationary_command(tmp_path):
    stationary_points.measure_excess(tmp_path, {"logistic": small_problem()}, SETTINGS, count=3)
    results = json.loads((tmp_path / "stationary.json").read_text())["results"]
    assert len(results) == 6
    assert all(r["excess"] <= r["bound"] <= r["bound_of_all"] for r in results)
    (first, *_, last) = [r for r in results if r["family"] == stationary_points.FAMILIES[1]]
    assert first["epsilon"] < 1e-6 * last["epsilon"] and first["excess"] == pytest.approx(last["excess"])
    assert first["size"] == pytest.approx(1e6 * last["size"])


@pytest.mark.slow
def test_network_command(tmp_path):
    rng = np.random.default_rng(2)
    images, labels = rng.standard_normal((30, 8, 8, 3)).astype("float32"), np.arange(30) % 10
    certified_network.certify_along_training(tmp_path, images, labels, 2, {**SETTINGS, "images": 30})
    results = json.loads((tmp_path / "network.json").read_text())["results"]
    saddle, *_ = results
    assert (saddle["start"], saddle["training_step"]) == ("saddle", 0)
    assert saddle["relative_gradient"] < 1e-6 and saddle["smallest"] < 0 < saddle["decrease"]
    assert saddle["verdict"] == "escapes along a direction"
    middle = len(saddle["values"]) // 2
    assert saddle["values"][middle] == pytest.approx(saddle["objective"], rel=1e-5)
    assert min(saddle["values"]) < saddle["objective"]


@pytest.mark.parametrize(
    ("shape", "labels", "message"),
    [
        ((8, 8), np.arange(3) + 9, "10 classes"),
        ((28, 28), np.arange(3), "multiple of 8 pixels a side. Received: 28x28"),
        ((8, 16), np.arange(3), "square images"),
    ],
)
def test_images_that_do_not_fit_the_network_are_refused(shape, labels, message, tmp_path):
    with pytest.raises(BadInput, match=message):
        certified_network.certify_along_training(tmp_path, np.ones((3, *shape, 3), "float32"), labels, 1, SETTINGS)
    assert not list(tmp_path.iterdir())


def test_problems_of_images():
    images = np.random.default_rng(3).standard_normal((100, 8, 8, 3))
    problems = image_problems(images, np.arange(100) % 10)
    assert {p.x.shape for p in problems.values()} == {(100, 65)}
    assert problems["cross_entropy"].outputs == 10 and set(np.unique(problems["logistic"].y)) == {-1, 1}
    np.testing.assert_allclose(problems["squared"].x.T @ problems["squared"].x / 100, np.eye(65), atol=1e-8)
    with pytest.raises(BadInput, match="10 classes"):
        image_problems(images, np.arange(100))
    with pytest.raises(BadInput, match="principal components"):
        image_problems(images[:5], np.arange(5))


def test_bad_options_are_refused(tmp_path):
    for options in ({"images": 0}, {"images": 5_000}, {"iterations": 0}, {"steps": 0}):
        with pytest.raises(BadInput, match=next(iter(options))):
            run(Options(output_dir=tmp_path, **options))
    for options in (
        {"steps": 5},
        {"experiment": "chain", "iterations": 5},
        {"experiment": "network", "radius": 2.0},
        {"experiment": "regret", "iterations": 5},
    ):
        with pytest.raises(BadInput, match="does not use"):
            run(Options(output_dir=tmp_path, **options))
    with pytest.raises(BadInput, match="--data digits"):
        run(Options(output_dir=tmp_path, data="cifar10", data_dir=tmp_path))
    assert not list(tmp_path.iterdir())


def test_the_options_need_no_keras(run_python):
    """`--help` must be shown at once."""
    code = (
        "import importlib.util, sys; "
        "sys.modules['allconv_resnet'] = importlib.util.module_from_spec(importlib.util.find_spec('allconv_resnet')); "
        "import allconv_resnet.theory.commands.landscape; print('keras' in sys.modules, 'scipy' in sys.modules)"
    )
    assert run_python("-c", code).stdout.split() == ["False", "False"]


def test_chain_command(tmp_path):
    chained_blocks.measure_chains(tmp_path, {"logistic": wide_problem()}, SETTINGS, stops=(0, 20, 200))
    results = json.loads((tmp_path / "chain.json").read_text())["results"]
    assert [(r["start"], r["iterations"]) for r in results] == [
        (start, stop) for start in chained_blocks.STARTS for stop in (0, 20, 200)
    ]
    assert all(r["excess"] <= r["bound"] for r in results)
    saddle, *_, last = results[:3]
    assert saddle["gradient"] < 1e-10 and saddle["gradient_bound"] is None and saddle["smallest"] < 0 < saddle["excess"]
    assert last["excess"] < 0.1 * saddle["excess"]
    assert (tmp_path / "chain.png").stat().st_size > 10_000
