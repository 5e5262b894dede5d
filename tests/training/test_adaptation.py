"""A recipe adapts to its data in what the user has not set, says so, and writes it to config.json."""

import json

import numpy as np
import pytest
from data.image_folders import random_images, write_folder
from data.jpegs import write_records
from training.runs import lines

from allconv_resnet import cli, recipes
from allconv_resnet.errors import BadInput
from allconv_resnet.training import run_directory
from allconv_resnet.training.adaptation import adapt
from allconv_resnet.training.loop import train as train_run

NETWORK = ["--stem", "4", "3", "2", "1", "--stages", "1", "8", "2"]
SMALL = [*NETWORK, "--steps", "3", "--batch-size", "8", "--evaluate-every", "3", "--no-export"]
NAMES = ("cat", "dog", "frog")
LABELS = np.arange(24) % 3


def train(capsys, *options):
    capsys.readouterr()
    with pytest.raises(SystemExit) as stop:
        cli.main(["train", *(str(option) for option in options)])
    return stop.value.code, " ".join(capsys.readouterr().err.split())


@pytest.fixture(scope="module")
def grey(tmp_path_factory):
    """A folder with 24 grey images of 28x28 pixels of three classes, and 6 to test on."""
    directory = tmp_path_factory.mktemp("grey")
    images = random_images(30, (28, 28, 1))
    write_folder(directory / "train", images[:24], LABELS, NAMES)
    write_folder(directory / "val", images[24:], LABELS[:6], NAMES)
    return directory


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    """A folder with 24 photos of three classes and all sizes, in the folders of the classes alone."""
    directory = tmp_path_factory.mktemp("photos")
    write_folder(directory, random_images(24, (None, None, 3)), LABELS, NAMES, ".jpg")
    return directory


def test_classes_size_and_splits_come_from_the_data(grey, tmp_path, capsys):
    status, said = train(capsys, "--dataset", grey, *SMALL, "--run-dir", tmp_path / "run")
    assert status == 0
    expected = f"Adapted to the data of {grey}: num_classes=3, image_size=(28, 28, 1), test_split=val"
    assert expected in said
    recipe = run_directory.read_recipe(tmp_path / "run")
    assert (recipe.data.num_classes, recipe.data.image_size, recipe.data.test_split) == (3, (28, 28, 1), "val")
    assert run_directory.read_labels(tmp_path / "run") == list(NAMES)
    assert lines(tmp_path / "run", "test")[-1]["images"] == 6
    status, said = train(capsys, "--dataset", grey, *SMALL, "--run-dir", tmp_path / "run")
    assert status == 0 and "has already finished" in said


def test_what_the_user_set_is_not_changed(grey, tmp_path, capsys):
    status, said = train(capsys, "--dataset", grey, "--num-classes", 5, *SMALL, "--run-dir", tmp_path / "run")
    assert status == 2 and "The recipe has num_classes=5, but" in said and "has 3 classes" in said
    status, said = train(capsys, "--dataset", grey, "--test-split", "test", *SMALL, "--run-dir", tmp_path / "run")
    assert status == 2 and "has no split 'test'" in said
    assert not (tmp_path / "run").exists()


def test_any_split_can_be_trained_or_tested_on(grey, tmp_path, capsys):
    options = ["--dataset", grey, "--train-split", "val", "--test-split", "train"]
    status, said = train(capsys, *options, *SMALL, "--run-dir", tmp_path / "run")
    assert status == 0 and "test_split" not in said
    assert lines(tmp_path / "run", "test")[-1]["images"] == 24


def test_a_split_that_is_not_used_is_named(tmp_path, capsys):
    write_folder(tmp_path / "data" / "train", random_images(24, (8, 8, 3)), LABELS, NAMES)
    for split in ("test", "val"):
        write_folder(tmp_path / "data" / split, random_images(3, (8, 8, 3)), LABELS[:3], NAMES)
    status, said = train(capsys, "--dataset", tmp_path / "data", *SMALL, "--run-dir", tmp_path / "run")
    assert status == 0 and "The images of these splits are not used: val" in said


@pytest.mark.parametrize("validation", ["val", "valid", "validation"])
@pytest.mark.parametrize("recipe", [recipes.CIFAR10_SMALL, recipes.IMAGENET_TINY], ids=["arrays", "records"])
def test_photos_are_tested_on_the_folder_test(recipe, validation, tmp_path):
    for split in ("train", "test", validation):
        write_folder(tmp_path / split, random_images(3, (None, None, 3)), LABELS[:3], NAMES)
    recipe = recipe.replace(dataset=str(tmp_path), image_size=(16, 16, 3), batch_size=1)
    adapted, _, said = adapt(recipe, {"dataset", "image_size"}, tmp_path / "run")
    assert adapted.data.test_split == "test" and said[-1] == f"The images of these splits are not used: {validation}"
    chosen = recipe.with_kind("data", "records").replace(dataset=str(tmp_path), test_split=validation)
    adapted, *_ = adapt(chosen, {"dataset", "image_size", "test_split"}, tmp_path / "run")
    assert adapted.data.test_split == validation


def test_the_centre_of_an_image_is_a_number(grey, tmp_path, capsys):
    recipe = recipes.CIFAR10_SMALL.replace(dataset=str(grey), centre=None)
    with pytest.raises(BadInput, match="centre must be a number"):
        adapt(recipe, {"dataset", "centre"}, tmp_path / "run")
    status, said = train(capsys, "--dataset", grey, "--centre", 0.5, *SMALL, "--run-dir", tmp_path / "run")
    assert status == 2 and "centre must be 1 for images in memory" in said


@pytest.mark.parametrize("recipe", ["cifar10", "cifar10-fast", "resnet20", "all-cnn-c", "densenet-bc", "airbench-60"])
def test_the_network_of_every_kind_adapts(recipe, grey, tmp_path):
    few = {
        "cifar10": {"stages": ((1, 16, 2),)},
        "densenet-bc": {"depth": 10},
        "cifar10-fast": {"stages": ((1, 96, 2),)},
    }
    asked = recipes.RECIPES[recipe].replace(dataset=str(grey), steps=1, batch_size=8, **few.get(recipe, {}))
    adapted, _, said = adapt(asked, {"dataset"}, tmp_path / "run")
    assert "image_size=(28, 28, 1)" in said[0] and ("stem=(9, 3, 1, 1)" in said[0]) == (recipe == "cifar10-fast")
    model = adapted.build_model()
    assert model.input_shape == (None, 28, 28, 1) and model.output_shape == (None, 3)
    if recipe == "cifar10-fast":  # its first layer is made of the images
        assert train_run(adapted, tmp_path / "run", given={"dataset"}) is None


def test_a_network_says_which_size_it_needs(tmp_path, capsys):
    write_folder(tmp_path / "data", random_images(24, (8, 8, 3)), LABELS, NAMES)
    options = [
        "--recipe",
        "all-cnn-c",
        "--dataset",
        tmp_path / "data",
        "--holdout",
        0.25,
        "--run-dir",
        tmp_path / "run",
    ]
    status, said = train(capsys, *options)
    assert status == 2 and "all_cnn_c needs images of at least 9 x 9 pixels. Received: image_size=(8, 8, 3)" in said
    assert not (tmp_path / "run").exists()
    # Every image of a folder can be resized.
    options += ["--data", "records", "--image-size", 16, 16, 3, "--steps", 1, "--batch-size", 8, "--no-export"]
    status, said = train(capsys, *options, "--recipe", "all-cnn-c")
    assert status == 0 and "16, 16" in str(run_directory.read_recipe(tmp_path / "run").data)


def test_a_folder_of_classes_alone_needs_a_holdout(photos, tmp_path, capsys):
    options = ["--dataset", photos, "--image-size", 16, 16, 3, *SMALL, "--run-dir", tmp_path / "run"]
    status, said = train(capsys, *options)
    assert status == 2 and "has no test images, so --holdout must say how many" in said
    assert not (tmp_path / "run").exists()
    status, said = train(capsys, *options, "--holdout", 6, "--no-flip", "--cutout", 3)
    assert status == 0 and "data=records" in said and "the test error will be that of the held-out images" in said
    recipe = run_directory.read_recipe(tmp_path / "run")
    assert (recipe.data.kind, recipe.data.flip, recipe.data.erasing.cutout) == ("records", False, 3)
    assert lines(tmp_path / "run", "holdout")[-1]["images"] == 6
    config = json.loads((tmp_path / "run" / "config.json").read_text())
    assert config["data"]["test_split"] == "holdout" and config["data"]["image_size"] == [16, 16, 3]
    with pytest.raises(SystemExit) as stop:
        cli.main(["evaluate", str(tmp_path / "run"), "--split", "holdout"])
    assert stop.value.code == 0 and "(6 images)" in capsys.readouterr().out


def test_an_option_without_effect_on_such_data_is_refused(photos, tmp_path, capsys):
    options = ["--dataset", photos, "--holdout", 6, "--run-dir", tmp_path / "run"]
    status, said = train(capsys, *options, "--padding", 2)
    assert status == 2 and "--padding is an option of --data arrays, but" in said and "--data records" in said
    status, said = train(capsys, *options, "--data", "records", "--shuffle-buffer", 9)
    assert status == 2 and "--shuffle-buffer has no effect on the images of the folder" in said


def test_epochs_are_those_of_the_data(photos, tmp_path, capsys):
    options = [
        "--recipe",
        "imagenet-tiny",
        "--dataset",
        photos,
        "--holdout",
        0.25,
        *SMALL,
        "--run-dir",
        tmp_path / "run",
    ]
    status, said = train(capsys, *options)
    assert status == 0 and "epoch_images=18" in said
    assert run_directory.read_recipe(tmp_path / "run").schedule.epoch_images == 18


def test_a_part_of_records_is_held_out(tmp_path, capsys):
    write_records(tmp_path / "data", shards=(15, 15), splits=("train",), name="some")
    options = ["--dataset", "some", "--data-dir", tmp_path / "data", "--image-size", 16, 16, 3, "--holdout", 10]
    status, said = train(capsys, *options, *SMALL, "--run-dir", tmp_path / "run")
    assert status == 0 and "Reading the labels of 30 records of some" in said and "num_classes=30" in said
    assert lines(tmp_path / "run", "holdout")[-1]["images"] == 10


def test_a_recipe_that_fits_its_data_is_not_changed(tmp_path, capsys):
    status, said = train(capsys, "--recipe", "digits", *SMALL, "--run-dir", tmp_path / "run")
    assert status == 0 and "Adapted" not in said
