"""The programs in examples/ do what they say."""

import json
import runpy

import keras
import numpy as np
import pytest

from allconv_resnet import AllConvResNet, recipes

SCRIPT = "examples/train_on_jax.py"


def train(run_python, folder, recipe, name, *options):
    done = run_python(
        SCRIPT, "train", "--recipe", recipe, "--arrays", folder / "digits.npz", "--run-dir", folder / name,
        "--precision", "float32", "--steps", 4, "--chunk", 2, *options, KERAS_BACKEND="jax",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout


def metrics(run_dir):
    lines = map(json.loads, (run_dir / "metrics.jsonl").read_text().splitlines())
    return [{key: value for key, value in line.items() if key != "images_per_second"} for line in lines]


@pytest.mark.slow
@pytest.mark.parametrize("recipe", ["digits", "resnet20", "all-cnn-c"])  # plain, batch statistics, dropout
def test_training_on_jax_in_pieces_is_training_in_one_go(recipe, run_python, tmp_path):
    done = run_python(SCRIPT, "prepare", "--recipe", "digits", "--arrays", tmp_path / "digits.npz")
    assert done.returncode == 0, done.stderr
    assert "has finished" in train(run_python, tmp_path, recipe, "whole")
    assert "has finished" not in train(run_python, tmp_path, recipe, "pieces", "--minutes", 0)
    assert "from step 2 of 4" in train(run_python, tmp_path, recipe, "pieces", "--minutes", 0)
    models = [keras.saving.load_model(tmp_path / name / "model.keras") for name in ("whole", "pieces")]
    assert all(isinstance(model, AllConvResNet) == (recipe == "digits") for model in models)
    for one, other in zip(*(model.weights for model in models), strict=True):
        np.testing.assert_array_equal(keras.ops.convert_to_numpy(one), keras.ops.convert_to_numpy(other))
    whole, pieces = (metrics(tmp_path / name) for name in ("whole", "pieces"))
    assert whole == pieces and [line["split"] for line in whole] == ["train", "test"]


@pytest.mark.parametrize("chunk", [1, 50, 10_000])
def test_no_log_test_or_checkpoint_is_stepped_over(chunk, pytestconfig):
    steps_ahead = runpy.run_path(str(pytestconfig.rootpath / SCRIPT))["steps_ahead"]
    recipe = recipes.DIGITS.replace(steps=1_000, log_every=100, evaluate_every=135, checkpoint_every=333)
    stops = [0]
    while stops[-1] < recipe.steps:
        stops.append(stops[-1] + steps_ahead(recipe, stops[-1], chunk))
    for every in (100, 135, 333):
        assert set(range(0, 1_001, every)) <= set(stops)
    assert stops[-1] == 1_000 and max(np.diff(stops)) <= chunk
    assert len(set(np.diff(stops))) <= 8  # each of them is compiled


def test_cutout_on_jax_is_the_mean_and_leaves_the_rest_as_it_was(pytestconfig):
    pytest.importorskip("jax")
    augment = runpy.run_path(str(pytestconfig.rootpath / SCRIPT))["augment"]
    images = np.random.default_rng(0).integers(0, 256, (200, 8, 12, 3), dtype=np.uint8)
    plain, cut = (np.asarray(augment(images, recipes.DIGITS.replace(cutout=size), 7)) for size in (0, 3))
    changed = cut != plain
    assert (cut[changed] == 0).all()
    areas = changed.any(-1).sum((1, 2))
    assert areas.max() == 9 and areas.min() == 4 and changed.any(0).all()


def test_other_backends_are_refused(run_python, tmp_path):
    done = run_python(SCRIPT, "train", "--arrays", tmp_path / "a.npz", "--run-dir", tmp_path / "run")
    assert done.returncode == 1 and "needs KERAS_BACKEND=jax. Received: tensorflow" in done.stderr
    assert not (tmp_path / "run").exists()
