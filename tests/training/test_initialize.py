"""Runs that begin with the weights of another network, and layers that keep them."""

import json

import keras
import numpy as np
import pytest
from training.runs import ENGINES, SMALL, Run, lines, state

import allconv_resnet as acr
from allconv_resnet.training.loop import train
from allconv_resnet.training.weights import load_model
from allconv_resnet.transfer import arrays_by_name

TWO = SMALL.replace(stages=((1, 8, 1), (1, 16, 2)), learning_rate=0.01)


@pytest.fixture(scope="module")
def first(tmp_path_factory):
    """The directory of a run that others begin with."""
    run_dir = tmp_path_factory.mktemp("first") / "run"
    assert train(SMALL.replace(seed=7), run_dir) is None
    return run_dir


@pytest.mark.parametrize(
    "engine", ["synchronous", *(pytest.param(name, marks=pytest.mark.slow) for name in ("jax", "asynchronous"))]
)
def test_a_run_begins_with_the_weights_of_another_one_and_resumes_without_it(engine, first, tmp_path):
    recipe = TWO.replace(initialize_from=str(first), freeze=("stem", "stage1"), checkpoint_every=1)
    run_dir = tmp_path / "run"
    run = ENGINES[engine](recipe.replace(steps=3), run_dir)
    assert run.wait() == 0
    assert "3 of 6 weights are those of" in run.output() and "stage2_block1/conv1/kernel (there is none" in run.output()
    assert "projection/kernel (its shape is (8, 10) there and (16, 10) here)" in run.output()
    ours, theirs = (arrays_by_name(load_model(each)[0]) for each in (run_dir, first))
    kept = ["stem/kernel", "stage1_block1/conv1/kernel", "stage1_block1/conv2/kernel"]
    for name in kept:  # they are frozen, so that they still are what they were
        np.testing.assert_array_equal(ours[name], theirs[name], err_msg=name)
    (session,) = json.loads((run_dir / "environment.json").read_text())["sessions"]
    assert session["initialized"]["taken"] == kept and session["initialized"]["from"] == str(first)
    config = json.loads((run_dir / "config.json").read_text())["run"]
    assert (config["initialize_from"], config["freeze"]) == (str(first), ["stem", "stage1"])

    away = first.rename(first.with_name("away"))  # the resumed run does not need it
    try:
        run = ENGINES[engine](recipe, run_dir)
        assert run.wait() == 0 and "from step 3 to 6" in run.output() and "weights are those" not in run.output()
    finally:
        away.rename(first)
    final = arrays_by_name(load_model(run_dir)[0])
    changed = {name for name in final if (final[name] != ours[name]).any()}
    assert changed == {"stage2_block1/conv1/kernel", "stage2_block1/conv2/kernel"}
    slots = [key for key in state(run_dir, 6) if key.startswith("optimizer/")]
    assert len(slots) == 1 + 2  # the number of steps, and a velocity for each kernel that is trained
    loaded = keras.saving.load_model(run_dir / "model.keras")
    assert {weight.path.split("/")[0] for weight in loaded.trainable_weights} == {"stage2_block1"}


def test_a_run_from_its_own_kind_continues_where_the_other_one_ended(first, tmp_path):
    """With every weight taken over, the error before the first step would be that of the other run."""
    recipe = SMALL.replace(seed=1, initialize_from=str(first), learning_rate=1e-12, boundaries=(), steps=1)
    assert train(recipe.replace(evaluate_every=1), tmp_path / "run") is None
    loss = {name: lines(run_dir, "test")[-1]["loss"] for name, run_dir in (("old", first), ("new", tmp_path / "run"))}
    assert loss["new"] == pytest.approx(loss["old"], rel=1e-5)


def test_weights_that_this_network_has_no_place_for_are_named(first, tmp_path):
    wide = TWO.replace(steps=1)
    assert train(wide, tmp_path / "wide") is None
    run = Run(SMALL.replace(initialize_from=str(tmp_path / "wide"), steps=1), tmp_path / "run")
    assert run.wait() == 0
    names = "stage2_block1/conv1/kernel, stage2_block1/conv2/kernel"
    assert f"not used, because this network has no such weights: {names}" in run.output()


def test_a_file_of_keras_and_another_number_of_classes(first, tmp_path):
    model = acr.AllConvResNet((32, 32, 3), 4, stem=(4, 3, 4, 1), stages=((1, 8, 1),), seed=3)
    model.save(tmp_path / "own.keras")
    run = Run(SMALL.replace(initialize_from=str(tmp_path / "own.keras"), steps=1), tmp_path / "run")
    assert run.wait() == 0
    assert "3 of 4 weights are those of" in run.output()
    assert "new: projection/kernel (its shape is (8, 4) there and (8, 10) here)" in run.output()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"freeze": ("stage4",)}, "freeze must name layers that are trained, such as stem, stage1. Received: 'stage4'"),
        ({"freeze": ("stem", "stage1")}, "freeze must leave a layer that is trained"),
        ({"initialize_from": "nowhere"}, "There is no file, directory or network of the package called nowhere"),
        ({"initialize_from": "old.h5"}, "A network is read from a .keras file, and not from HDF5"),
        ({"network": "resnet20", "initialize_from": "FIRST"}, "weights of the same names and shapes as this one"),
    ],
)
def test_what_cannot_be_is_refused_before_anything_is_written(change, message, first, tmp_path):
    change = {key: str(first) if value == "FIRST" else value for key, value in change.items()}
    run = Run(SMALL.replace(**change), tmp_path / "run")
    assert run.wait() == 2 and message in run.output() and "Traceback" not in run.output()
    assert not (tmp_path / "run").exists()


def test_a_resumed_run_keeps_its_frozen_layers(first, tmp_path):
    recipe = TWO.replace(freeze=("stem",), steps=2)
    assert train(recipe, tmp_path / "run") is None
    run = Run(recipe.replace(freeze=(), steps=4), tmp_path / "run")
    assert run.wait() == 2 and "freeze is ('stem',) there and () here" in run.output()
