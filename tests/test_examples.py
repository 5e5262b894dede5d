"""The examples run, and what they train learns."""

import importlib.util
import sys
from pathlib import Path

import keras
import numpy as np
import pytest
from training.runs import SMALL

import allconv_resnet as acr
from allconv_resnet.training.loop import train

EXAMPLES = Path(__file__).resolve().parent.parent / "examples"


def example(name):
    """Returns the module of an example."""
    spec = importlib.util.spec_from_file_location(name, EXAMPLES / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # AutoGraph looks for the source of its functions there
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def network(tmp_path_factory):
    """A run that has learned the digits a little."""
    run_dir = tmp_path_factory.mktemp("network") / "run"
    recipe = SMALL.replace(stem=(8, 3, 2, 1), stages=((1, 16, 2), (1, 32, 2)), initialization="he", batch_size=32)
    assert train(recipe.replace(steps=120, boundaries=(90,), evaluate_every=120, log_every=40), run_dir) is None
    return run_dir


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Digits as PNG files, one folder a class."""
    directory = tmp_path_factory.mktemp("folder")
    for number, (image, label) in enumerate(zip(*acr.load_data("digits").arrays("train"), strict=True)):
        place = directory / f"digit {label}"
        place.mkdir(exist_ok=True)
        keras.utils.save_img(place / f"{number}.png", image, scale=False)
    return directory


@pytest.mark.slow
def test_fit_from_a_folder(folder, tmp_path):
    path = tmp_path / "digits.keras"
    assert example("fit_folder").main(folder, path, epochs=6) > 0.6
    assert acr.load(path).output_shape == (None, 10)
    with pytest.raises(SystemExit, match="exists"):  # what was trained is not overwritten
        example("fit_folder").main(folder, path)


def test_fine_tune_with_frozen_stages(network):
    model, accuracy = example("fine_tune").main(network, epochs=4)
    assert accuracy > 0.75
    trained = acr.load(network)
    for name, same in (("stem", True), ("stage1_block1", True), ("stage2_block1", False)):
        a, b = (each.get_layer(name).get_weights() for each in (model, trained))
        assert all(np.array_equal(*pair) for pair in zip(a, b, strict=True)) == same, name


def test_extract_features(network):
    assert example("extract_features").main(network) > 0.85


def test_own_loop():
    assert example("own_loop").main(steps=120) > 0.6


@pytest.mark.slow
def test_fit_under_a_mirrored_strategy(run_python):
    done = run_python(EXAMPLES / "fit_mirrored.py", CUDA_VISIBLE_DEVICES="-1", PYTHONPATH=str(EXAMPLES.parent))
    assert done.returncode == 0, done.stderr
    accuracy, devices = done.stdout.splitlines()[-1].split("training accuracy ")[1].split("% on ")
    assert float(accuracy) > 40 and devices == "2 devices"


def test_every_example_is_tested():
    tests = Path(__file__).read_text() + (EXAMPLES.parent / "tests/serving/test_round_trip.py").read_text()
    tests += (EXAMPLES.parent / "tests/serving/test_server.py").read_text()
    for path in EXAMPLES.glob("*.py"):
        assert path.stem in tests, path
