"""The experiments of `allconv-resnet theory isometry` on small cases."""

import json

import keras
import numpy as np
import pytest

from allconv_resnet.errors import BadInput
from allconv_resnet.theory import isometry
from allconv_resnet.theory.commands import same_cumulant, simulated_spectra
from allconv_resnet.theory.commands.isometry import Options, run


def test_spectra_command(tmp_path, capsys):
    simulated_spectra.compare_spectra(tmp_path, width=60, depth=10)
    content = json.loads((tmp_path / "spectra.json").read_text())
    assert [r["activation"] for r in content["results"]] == list(simulated_spectra.SCALES)
    assert all(len(r["values"]) == 60 and r["kolmogorov_smirnov"] < 0.2 for r in content["results"])
    assert content["environment"]["versions"]["keras"] == keras.__version__
    assert (tmp_path / "spectra.png").stat().st_size > 10_000
    assert "softplus" in capsys.readouterr().out


def test_networks_of_the_training_experiment_have_the_cumulant_they_are_given():
    """The Keras network that is trained, and not a simulation of it, has the spectrum of c."""
    activation, width, depth, c = same_cumulant.CENTERED, 120, 6, 0.3
    model = same_cumulant.build_network(activation, width, depth)
    scale = isometry.weight_scale_for(activation, c, depth)
    images = np.random.default_rng(0).standard_normal((128, 32, 32, 3)).astype("float32")
    same_cumulant.initialize(model, scale, width, depth, seed=0)
    body = keras.Model(model.get_layer("stem").output, model.get_layer("readout").input)
    x = keras.ops.convert_to_numpy(model.get_layer("stem")(images[:1].reshape(1, -1)))
    assert isometry.kolmogorov_smirnov(isometry.jacobian_singular_values(body, x) ** 2, c) < 0.06
    losses = same_cumulant.train_with_sgd(model, images, np.zeros(128, int), seed=0, steps=3)
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


@pytest.mark.parametrize("options", [{"c": 0.0}, {"depth": 0}, {"width": -3}, {"seeds": 0}])
def test_bad_options_are_refused(options, tmp_path):
    with pytest.raises(BadInput):
        run(Options(output_dir=tmp_path, **options))
    assert not list(tmp_path.iterdir())
