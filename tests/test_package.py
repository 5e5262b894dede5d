import re
import textwrap
from configparser import ConfigParser
from pathlib import Path

import pytest
from check_jsonschema.builtin_schemas import get_builtin_schema
from jsonschema.validators import validator_for
from ruamel.yaml import YAML

import allconv_resnet as acr

ROOT = Path(__file__).resolve().parent.parent

GROUND_FLOOR = textwrap.dedent("""
    import sys
    sys.modules["tensorflow"] = None  # any import of it would now fail
    import numpy as np, keras, allconv_resnet as acr
    from allconv_resnet import blocks, cpu, errors, initializers, layers, mirror, model, optimizers, recipes, schedules
    model = acr.AllConvResNet((8, 8, 3), 4, stem=(4, 3, 1, 1), stages=[(1, 8, 1), (1, 16, 2)])
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(acr.Momentum(acr.StepDecay(0.5, [20], 0.1), weight_decay=1e-4, global_clipnorm=1.0), loss)
    x = np.random.default_rng(0).standard_normal((64, 8, 8, 3)).astype("float32")
    y = np.argmax(x[:, :4, :4, 0].mean((1, 2))[:, None] * [[-2, -1, 1, 2]], axis=1)
    losses = model.fit(x, y, batch_size=16, epochs=12, verbose=0).history["loss"]
    assert losses[-1] < 0.9 * losses[0], losses
    projection = model.get_layer("projection").kernel.numpy()
    model.save(sys.argv[1])
    loaded = keras.saving.load_model(sys.argv[1])
    np.testing.assert_array_equal(model.predict(x, verbose=0), loaded.predict(x, verbose=0))
    np.testing.assert_array_equal(projection, loaded.get_layer("projection").kernel.numpy())
    model = acr.AllConvResNet((8, 8, 3), 4, stem=(9, 3, 1, 1), stages=[(1, 12, 2)], trainable_stem=False)
    acr.whiten_stem(model, (64 * x + 128).clip(0, 255).astype("uint8"))
    stem = model.get_layer("stem").kernel.numpy()
    model.compile(acr.Muon(acr.LinearDecay(0.05, 48), weight_decay=0.1), loss)
    losses = model.fit(x, y, batch_size=16, epochs=12, verbose=0).history["loss"]
    assert losses[-1] < 0.9 * losses[0], losses
    np.testing.assert_array_equal(stem, model.get_layer("stem").kernel.numpy())
    assert keras.backend.backend() == "jax" and sys.modules["tensorflow"] is None
    print("trained without TensorFlow")
""")


@pytest.mark.slow
def test_ground_floor_trains_on_jax_where_tensorflow_cannot_be_imported(run_python, tmp_path):
    done = run_python("-c", GROUND_FLOOR, tmp_path / "model.keras", KERAS_BACKEND="jax")
    assert done.returncode == 0, done.stderr
    assert "trained without TensorFlow" in done.stdout


def test_public_names_are_all_there():
    assert all(hasattr(acr, name) for name in acr.__all__)
    assert acr.recipes.CIFAR10.data.dataset == "cifar10"


def test_the_citation_is_valid():
    schema = get_builtin_schema("vendor.citation-file-format")
    citation = YAML(typ="safe", pure=True).load(ROOT / "CITATION.cff")
    assert [error.message for error in validator_for(schema)(schema).iter_errors(citation)] == []
    papers = [identifier["value"] for paper in citation["references"] for identifier in paper["identifiers"]]
    assert papers == ["arXiv:1611.04231", "arXiv:1804.06739", "arXiv:1809.08848"]


def test_the_version_is_written_the_same_everywhere():
    setup = ConfigParser()
    setup.read(ROOT / "setup.cfg")
    version = setup["metadata"]["version"]
    citation = YAML(typ="safe", pure=True).load(ROOT / "CITATION.cff")
    releases = re.findall(r"^## \[(.+?)\](?: - (\S+))?$", (ROOT / "CHANGELOG.md").read_text(), re.M)
    assert releases[0] == ("Unreleased", "")
    assert releases[1] == (version, citation["date-released"]) and citation["version"] == version


def test_every_file_that_the_map_names_is_there():
    text = (ROOT / "CONTRIBUTING.md").read_text()
    names = set(re.findall(r"`([\w./]+\.(?:py|md|cfg|cff)|[\w./]+/)`", text)) - {"dist/"}
    assert len(names) > 25
    for name in names:
        if not re.search(r"[A-Z]{4}|seedN", name):  # PAPER, DOOR, NAME
            assert (ROOT / name).exists() or (ROOT / "allconv_resnet" / name).exists(), name
    for test in re.findall(r"`(test_a_new_\w+)`", text):
        assert f"def {test}(" in (ROOT / "tests/recipes/test_parts.py").read_text()
