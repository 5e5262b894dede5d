"""The programs in examples/ do what they say."""

import json
import runpy

import keras
import numpy as np
import pytest

from allconv_resnet import AllConvResNet, recipes

SCRIPT = "examples/train_on_jax.py"


PIECES = """
import runpy
import jax
import numpy as np
from allconv_resnet import baselines, recipes
functions = runpy.run_path("examples/train_on_jax.py")
rng = np.random.default_rng(0)
images, labels = rng.integers(0, 256, (40, 16, 16, 3), dtype=np.uint8), rng.integers(0, 4, 40)
data = jax.device_put({"images": images, "labels": labels, "test_images": images, "test_labels": labels})
recipe = recipes.DIGITS.replace(batch_size=8, num_classes=4)
for model in (baselines.resnet(4, 8, input_shape=(16, 16, 3)), baselines.all_cnn_c(4, (16, 16, 3))):
    optimizer = recipe.build_optimizer()
    optimizer.build(model.trainable_variables)
    advance, test = functions["make_functions"](model, optimizer, recipe, data)
    variables = [*model.trainable_variables, *model.non_trainable_variables, *optimizer.variables]
    begin = [np.asarray(variable) for variable in variables]
    ends = []
    for counts in ((4,), (1, 3)):
        state, step = begin, 0
        for count in counts:
            state, _ = advance([np.array(part) for part in state], step, count)  # as from a checkpoint
            step += count
        ends.append([np.asarray(part) for part in state])
    for one, other in zip(*ends, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-6)
    first = len(model.trainable_variables)
    for at, variable in enumerate(model.non_trainable_variables, start=first):
        print(variable.path, not np.array_equal(begin[at], ends[0][at]))
    assert 0 <= test(state)[1] <= 1
"""


def train(run_python, folder, name, *options):
    done = run_python(
        SCRIPT, "train", "--recipe", "digits", "--arrays", folder / "digits.npz", "--run-dir", folder / name,
        "--precision", "float32", "--steps", 4, "--chunk", 2, *options, KERAS_BACKEND="jax",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout


def metrics(run_dir):
    lines = map(json.loads, (run_dir / "metrics.jsonl").read_text().splitlines())
    return [{key: value for key, value in line.items() if key != "images_per_second"} for line in lines]


@pytest.mark.slow
def test_training_on_jax_in_pieces_is_training_in_one_go(run_python, tmp_path):
    done = run_python(SCRIPT, "prepare", "--recipe", "digits", "--arrays", tmp_path / "digits.npz")
    assert done.returncode == 0, done.stderr
    assert "has finished" in train(run_python, tmp_path, "whole")
    assert "has finished" not in train(run_python, tmp_path, "pieces", "--minutes", 0)
    assert "from step 2 of 4" in train(run_python, tmp_path, "pieces", "--minutes", 0)
    models = [keras.saving.load_model(tmp_path / name / "model.keras") for name in ("whole", "pieces")]
    assert all(isinstance(model, AllConvResNet) for model in models)
    for one, other in zip(*(model.weights for model in models), strict=True):
        np.testing.assert_array_equal(keras.ops.convert_to_numpy(one), keras.ops.convert_to_numpy(other))
    whole, pieces = (metrics(tmp_path / name) for name in ("whole", "pieces"))
    assert whole == pieces and [line["split"] for line in whole] == ["train", "test"]


@pytest.mark.slow
def test_batch_statistics_and_dropout_on_jax_go_on_in_pieces(run_python):
    """They are state beside the weights: of the ResNets of He et al., and of All-CNN-C."""
    done = run_python("-c", PIECES, KERAS_BACKEND="jax")
    assert done.returncode == 0, done.stderr
    changed = dict(line.split() for line in done.stdout.splitlines())
    kinds = {kind: {changed[path] for path in changed if kind in path} for kind in ("moving_mean", "seed")}
    assert kinds == {"moving_mean": {"True"}, "seed": {"True"}}, changed


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
