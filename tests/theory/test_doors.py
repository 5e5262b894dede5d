"""The public face of isometry and landscape: names, examples, JAX, and the commands on small cases."""

import doctest
import json
from importlib import import_module

import keras
import numpy as np
import pytest

import allconv_resnet as acr
from allconv_resnet.errors import BadInput
from allconv_resnet.theory import isometry
from allconv_resnet.theory.commands import isometry as isometry_command
from allconv_resnet.theory.commands import landscape as landscape_command
from allconv_resnet.theory.commands import projected_runs, residual_against_linear, same_cumulant, simulated_spectra
from allconv_resnet.theory.predictors import Problem

MODULES = [
    "activations",
    "isometry",
    "jacobians",
    "landscape",
    "linear_optimum",
    "linear_path",
    "losses",
    "mean_field",
    "outlier",
    "predictors",
    "regret",
    "simulation",
    "spectrum",
]


@pytest.mark.parametrize("name", MODULES)
def test_docstring_examples_run(name):
    results = doctest.testmod(import_module(f"allconv_resnet.theory.{name}"))
    assert results.attempted > 0 and results.failed == 0


def test_public_names():
    for name in ("spectral_density", "spectral_edges", "effective_cumulant", "weight_scale_for"):
        assert callable(getattr(acr.theory.isometry, name))
    for name in ("linear_optimum", "gradient_lower_bound", "negative_curvature", "certify", "ResidualWithLinearPath"):
        assert callable(getattr(acr.theory.landscape, name))


ON_JAX = """
import sys
import keras, numpy as np
from allconv_resnet.theory import isometry, landscape
assert keras.backend.backend() == "jax"
print(isometry.effective_cumulant("tanh", 1.0, 0.5, 10), isometry.outlier("relu", 1.0, 0.0, 10))
net = keras.Sequential([keras.Input((6,)), keras.layers.Dense(5, "tanh")])
net.layers[0].kernel.assign(np.sin(np.arange(30.0) ** 2).reshape(6, 5))
for options in ({}, {"k": 1, "method": "lanczos"}):
    print(*isometry.jacobian_singular_values(net, np.ones(6) / 10, **options))
x = np.cos(np.arange(40.0)).reshape(10, 4)
problem = landscape.Problem(x, x[:, :1], lambda p, y: keras.ops.sum(keras.ops.sqrt(1 + (p - y) ** 2), axis=1))
branch = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3, "tanh")])
branch.layers[0].kernel.assign(np.sin(np.arange(12.0)).reshape(4, 3))
certificate = landscape.certify(problem, np.zeros((1, 4)), np.ones((4, 3)), landscape.features_of(branch, x))
print(certificate.objective, certificate.direction.curvature)
run = landscape.fit_projected(landscape.ResidualWithLinearPath(branch), problem, 5, 1.0)
print(*run.objective)
print("tensorflow" in sys.modules, file=sys.stderr)
"""


def test_everything_runs_on_jax_and_gives_the_same_numbers(run_python):
    outputs = {}
    for backend in ("jax", "tensorflow"):
        script = ON_JAX.replace('== "jax"', f'== "{backend}"')
        done = run_python("-c", script, KERAS_BACKEND=backend)
        assert done.returncode == 0, done.stderr
        outputs[backend] = np.array(done.stdout.split(), float)
        if backend == "jax":
            assert done.stderr.strip().endswith("False")  # TensorFlow was not loaded
    np.testing.assert_allclose(outputs["jax"], outputs["tensorflow"], rtol=1e-5)


def test_spectra_command(tmp_path, capsys):
    simulated_spectra.run(tmp_path, width=60, depth=10)
    content = json.loads((tmp_path / "spectra.json").read_text())
    assert [r["activation"] for r in content["results"]] == list(simulated_spectra.SCALES)
    assert all(len(r["values"]) == 60 and r["kolmogorov_smirnov"] < 0.2 for r in content["results"])
    assert content["environment"]["versions"]["keras"] == keras.__version__
    assert (tmp_path / "spectra.png").stat().st_size > 10_000
    assert "softplus" in capsys.readouterr().out


def test_networks_of_the_training_experiment_have_the_cumulant_they_are_given():
    """The Keras network that is trained, not a simulation of it."""
    activation, width, depth, c = same_cumulant.CENTERED, 120, 6, 0.3
    model = same_cumulant.build(activation, width, depth)
    scale = isometry.weight_scale_for(activation, c, depth)
    images = np.random.default_rng(0).standard_normal((128, 32, 32, 3)).astype("float32")
    same_cumulant.initialize(model, scale, width, depth, seed=0)
    body = keras.Model(model.get_layer("stem").output, model.get_layer("readout").input)
    x = keras.ops.convert_to_numpy(model.get_layer("stem")(images[:1].reshape(1, -1)))
    assert isometry.kolmogorov_smirnov(isometry.jacobian_singular_values(body, x) ** 2, c) < 0.06
    losses = same_cumulant.train(model, images, np.zeros(128, int), seed=0, steps=3)
    assert losses[2] < losses[0]


def test_spreads_leave_out_what_diverged():
    def entry(name, arm, losses):
        return {"activation": name, "arm": arm, "seed": 0, "scale": 1.0, "losses": losses}

    flat = {arm: np.linspace(2, 1, 120) for arm in same_cumulant.ARMS}
    results = []
    for i, activation in enumerate(same_cumulant.NETWORKS):
        for arm in same_cumulant.ARMS:
            shift = i * (1.0 if arm == same_cumulant.ARMS[0] else 0.1)
            losses = [None] * 120 if (i, arm) == (2, same_cumulant.ARMS[0]) else list(flat[arm] + shift)
            results.append(entry(activation.name, arm, losses))
    summary = same_cumulant.summarize(results, depth=4, weight_scale=1.0, c=0.1)
    assert summary["diverged"] == {"same weight scale": ["selu"], "same c": []}
    assert "selu" not in summary["groups"]["all"]
    early = [summary["spreads"]["all"][arm]["early"] for arm in same_cumulant.ARMS]
    assert early == pytest.approx([7.0, 0.7])


def small_problem():
    rng = np.random.default_rng(0)
    x = rng.standard_normal((80, 5))
    return Problem(x, np.sign(x[:, :1] * x[:, 1:2] + 0.3 * rng.standard_normal((80, 1))), "logistic")


def test_training_against_linear_command(tmp_path, capsys):
    residual_against_linear.run(tmp_path, {"logistic": small_problem()}, iterations=60, seed=0)
    results = {r["start"]: r for r in json.loads((tmp_path / "training.json").read_text())["results"]}
    assert set(results) == set(residual_against_linear.STARTS)
    assert results["saddle"]["first_verdict"] == "escapes along a direction"
    assert results["saddle"]["ended"] < results["saddle"]["linear"] < results["saddle"]["first_objective"]
    assert results["good"]["ended"] < results["good"]["linear"]
    assert all(r["ended"] <= r["linear"] + r["eps"] for r in results.values())
    assert "certified eps" in capsys.readouterr().out


def test_regret_command(tmp_path):
    projected_runs.run(tmp_path, small_problem(), steps=40, radius=1.0, seed=0)
    results = json.loads((tmp_path / "regret.json").read_text())["results"]
    assert len(results) == 4 and all(r["violations"] == 0 for r in results.values())


def test_real_problems(prepared):
    problems = landscape_command.real_problems(prepared, 100)
    assert {p.x.shape for p in problems.values()} == {(100, 65)}
    assert problems["cross_entropy"].outputs == 10 and set(np.unique(problems["logistic"].y)) == {-1, 1}


@pytest.mark.parametrize("options", [{"c": 0.0}, {"depth": 0}, {"width": -3}, {"seeds": 0}])
def test_bad_options_are_refused(options, tmp_path):
    with pytest.raises(BadInput):
        isometry_command.run(isometry_command.Options(output_dir=tmp_path, **options))
    with pytest.raises(BadInput):
        landscape_command.run(landscape_command.Options(output_dir=tmp_path, images=0))
    assert not list(tmp_path.iterdir())
