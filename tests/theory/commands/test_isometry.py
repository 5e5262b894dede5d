"""The experiments of `allconv-resnet theory isometry` on small cases."""

import json

import keras
import numpy as np
import pytest

import allconv_resnet as acr
from allconv_resnet.errors import BadInput
from allconv_resnet.theory import isometry
from allconv_resnet.theory.commands import (
    dense_networks,
    network_spectra,
    outlier_growth,
    same_cumulant,
    simulated_spectra,
)
from allconv_resnet.theory.commands.isometry import Options, run


def test_spectra_command(tmp_path, capsys):
    simulated_spectra.compare_spectra(tmp_path, width=60, depth=10)
    content = json.loads((tmp_path / "spectra.json").read_text())
    assert [r["activation"] for r in content["results"]] == [*simulated_spectra.SCALES, *simulated_spectra.OPPOSED]
    assert content["seed"] == 0
    assert all(len(r["values"]) == 60 and r["kolmogorov_smirnov"] < 0.2 for r in content["results"])
    assert content["environment"]["versions"]["keras"] == keras.__version__
    assert (tmp_path / "spectra.png").stat().st_size > 10_000
    assert "softplus" in capsys.readouterr().out


def test_networks_of_the_training_experiment_have_the_cumulant_they_are_given():
    """The Keras network that is trained, and not a simulation of it, has the spectrum of c."""
    activation, width, depth, c = dense_networks.CENTERED, 120, 6, 0.3
    images = np.random.default_rng(0).integers(0, 256, (128, 8, 8, 1), np.uint8)
    for skip in (1.0, 0.9):
        model = dense_networks.build_network(activation, width, depth, 64, skip)
        scale = isometry.weight_scale_for(activation, c, depth, skip=skip)
        dense_networks.initialize(model, scale, width, depth, seed=0)
        body = keras.Model(model.get_layer("stem").output, model.get_layer("readout").input)
        x = keras.ops.convert_to_numpy(model.get_layer("stem")(dense_networks.inputs_of(images[:1])))
        values = isometry.jacobian_singular_values(body, x) ** 2
        assert isometry.kolmogorov_smirnov(values, c, depth, skip=skip) < 0.06
    losses = dense_networks.train_with_sgd(model, images, np.zeros(128, int), seed=0, steps=3)
    assert losses[2] < losses[0]
    labels = np.random.default_rng(1).integers(0, 10, 128)
    predicted = model.predict(dense_networks.inputs_of(images), verbose=0).argmax(axis=1)
    assert dense_networks.test_accuracy(model, images, labels) == pytest.approx(np.mean(predicted == labels))


@pytest.mark.slow
def test_late_command_on_the_digits_continues_where_it_was_stopped(tmp_path, capsys, monkeypatch):
    options = Options(experiment="late", output_dir=tmp_path, width=16, depth=2, seeds=2, epochs=2)
    run(options)
    content = json.loads((tmp_path / "late.json").read_text())
    assert content["settings"]["images"] == 1437 and content["settings"]["test_images"] == 360
    assert content["seeds"] == [0, 1] and len(content["results"]) == 10
    assert all(0.1 < r["low"] <= r["mean"] <= r["high"] <= 1 for r in content["results"])
    same_c = [r["c"] for r in content["results"] if r["arm"] == "same c"]
    assert same_c == pytest.approx([0.125] * 5)
    assert (tmp_path / "late.png").stat().st_size > 10_000
    (tmp_path / "late_runs" / "relu-same_c-1.json").unlink()
    stamps = {path: path.stat().st_mtime_ns for path in (tmp_path / "late_runs").iterdir()}
    run(options)
    assert {path: path.stat().st_mtime_ns for path in stamps} == stamps
    again = json.loads((tmp_path / "late.json").read_text())
    for a, b in zip(again["results"], content["results"], strict=True):
        assert (a["activation"], a["arm"], a["mean"]) == (b["activation"], b["arm"], pytest.approx(b["mean"], abs=0.02))
    assert "leaky_relu" in capsys.readouterr().out


def test_training_command_on_the_digits(tmp_path, capsys):
    run(Options(experiment="training", output_dir=tmp_path, width=16, depth=2, seeds=1, steps=4))
    content = json.loads((tmp_path / "training.json").read_text())
    assert content["settings"]["data"] == "digits" and content["settings"]["images"] == 1437
    assert content["seeds"] == [0]
    assert (tmp_path / "training.png").stat().st_size > 10_000
    assert "Training loss on digits" in capsys.readouterr().out


@pytest.mark.slow
def test_outliers_command(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(outlier_growth, "DEPTHS", (5, 10))
    run(Options(experiment="outliers", output_dir=tmp_path, width=60, seeds=1))
    content = json.loads((tmp_path / "outliers.json").read_text())
    entries = [e for side in ("above", "below") for curve in content[side] for e in curve["entries"]]
    assert len(entries) == 18 and content["seeds"] == [0]
    assert all(abs(np.log(e["simulated"] / e["predicted"])) < 0.6 for e in entries)
    assert (tmp_path / "outliers.png").stat().st_size > 10_000
    lines = capsys.readouterr().out.split("\n\n")[0].splitlines()  # the table of activations
    verdicts = {line.split()[0]: line.split()[-1] for line in lines}
    assert (verdicts["tanh"], verdicts["relu"]) == ("isometric", "not")


@pytest.mark.slow
def test_stage_of_the_cifar_network_follows_the_law_of_its_blocks():
    """The law of Gaussian layers and the universal law are further away, and more so for larger weights."""
    image = np.random.default_rng(0).standard_normal((32, 32, 3)).astype("float32")
    model = acr.AllConvResNet((32, 32, 3), 10, stem=(16, 3, 1, 1), stages=[(9, 32, 1)], initialization="he")
    r = network_spectra.measure_stage(model, image, "he")
    values = np.maximum(r["squared_singular_values"], 1e-300)
    own, gaussian, universal = (
        isometry.kolmogorov_smirnov(values, r["c"], **law) for law in network_spectra.LAWS.values()
    )
    assert own < 0.05 < gaussian < universal
    network_spectra.print_tables([{"network": "he", **r}])


def test_networks_with_another_law_are_refused():
    def network(**options):
        stages = [(9, 2), (9, 3, 2), (9, 4, 2)]
        return acr.AllConvResNet((8, 8, 3), 10, stem=(2, 3), **{"stages": stages, **options})

    network_spectra.check_stages(network(), "run")
    for options in (
        {"stages": [(2, 2), (4, 3, 2), (2, 4, 2)]},
        {"shortcut": None},
        {"activation": "tanh"},
        {"normalization": "batch"},
        {"block": "scaled"},
    ):
        with pytest.raises(BadInput, match="nine ResidualBlocks"):
            network_spectra.check_stages(network(**options), "run")


def test_spreads_leave_out_what_diverged():
    def entry(name, arm, losses):
        return {"activation": name, "arm": arm, "seed": 0, "scale": 1.0, "losses": losses}

    flat = {arm: np.linspace(2, 1, 120) for arm in dense_networks.ARMS}
    results = []
    for i, activation in enumerate(dense_networks.NETWORKS):
        for arm in dense_networks.ARMS:
            shift = i * (1.0 if arm == dense_networks.ARMS[0] else 0.1)
            losses = [None] * 120 if (i, arm) == (2, dense_networks.ARMS[0]) else list(flat[arm] + shift)
            results.append(entry(activation.name, arm, losses))
    summary = same_cumulant.summarize(results, depth=4, weight_scale=1.0, c=0.1)
    assert summary["diverged"] == {"same weight scale": ["selu"], "same c": []}
    assert "selu" not in summary["groups"]["all"]
    early = [summary["spreads"]["all"][arm]["early"] for arm in dense_networks.ARMS]
    assert early == pytest.approx([7.0, 0.7])
    for result in results:
        result["losses"] = [None] * 120
    summary = same_cumulant.summarize(results, depth=4, weight_scale=1.0, c=0.1)
    assert summary["groups"] == summary["spreads"] == {}
    same_cumulant.print_summary(summary, "digits", 1)


@pytest.mark.parametrize(
    "options", [{"c": 0.0}, {"depth": 0}, {"width": -3}, {"seeds": 0}, {"epochs": 0}, {"skip": -1.0}]
)
def test_bad_options_are_refused(options, tmp_path):
    with pytest.raises(BadInput):
        run(Options(output_dir=tmp_path, **options))
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("experiment", "options"),
    [
        ("spectra", {"c": 0.5}),
        ("outliers", {"depth": 3}),
        ("training", {"skip": 0.9}),
        ("late", {"steps": 3}),
        ("network", {"data": "cifar10"}),
    ],
)
def test_options_without_effect_are_refused(experiment, options, tmp_path):
    with pytest.raises(BadInput, match=f"{experiment} does not use must not be given. Received: {next(iter(options))}"):
        run(Options(experiment=experiment, output_dir=tmp_path, **options))
    assert not list(tmp_path.iterdir())


def test_finished_runs_are_known_by_rounded_settings(tmp_path, monkeypatch):
    """The JSON file has seven digits of c."""
    options = Options("training", tmp_path, width=8, depth=2, seeds=1, steps=2, c=1 / 3)
    monkeypatch.setattr(same_cumulant, "NETWORKS", dense_networks.NETWORKS[:1])
    run(options)

    def again(*_):
        raise AssertionError("a finished run was repeated")

    monkeypatch.setattr(same_cumulant, "train_with_sgd", again)
    run(options)


def test_help_needs_no_keras(run_python):
    """An import of Keras takes seconds. The package itself imports it, so that its `__init__` is left out here."""
    program = """
import importlib.util, sys
spec = importlib.util.find_spec("allconv_resnet")
sys.modules["allconv_resnet"] = importlib.util.module_from_spec(spec)
from allconv_resnet.theory.commands.isometry import Options
print(Options.experiment, sorted({"keras", "tensorflow", "jax", "matplotlib"} & set(sys.modules)))
"""
    done = run_python("-c", program)
    assert done.stdout == "spectra []\n", done.stderr
