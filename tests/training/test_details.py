"""`evaluate --details` and `plot` of several runs."""

import csv
import json
import shutil

import numpy as np
import pytest
from data.image_folders import random_images, write_folder
from training.runs import TINY, lines

import allconv_resnet as acr
from allconv_resnet import cli, pretrained
from allconv_resnet.plotting import new_figure, save_figure
from allconv_resnet.recipes import IMAGENET_TINY
from allconv_resnet.training.details import write_details
from allconv_resnet.training.loop import train
from allconv_resnet.training.reports import plot_curves, plot_runs

UNREADABLE = "$x_$^{"  # Matplotlib cannot read it as a formula


def command(*arguments):
    with pytest.raises(SystemExit) as stop:
        cli.main([str(argument) for argument in arguments])
    return stop.value.code


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    place = tmp_path_factory.mktemp("runs")
    assert train(TINY.replace(learning_rate=0.02), place / "one") is None
    assert train(TINY.replace(steps=20, boundaries=(), holdout=0.1, learning_rate=0.01), place / "two") is None
    return place / "one", place / "two"


def table(path):
    with open(path, newline="") as file:
        return list(csv.DictReader(file))


def test_details_are_those_of_the_network(runs, tmp_path, capsys):
    assert command("evaluate", runs[0], "--details", tmp_path / "details") == 0
    error = float(capsys.readouterr().out.split("test error ")[1].split("%")[0])
    images, labels = acr.load_data("digits").arrays("test")
    logits = acr.load(runs[0]).predict(acr.standardize(images), verbose=0)
    predicted = logits.argmax(1)
    assert 5 < error < 95  # there are both kinds of images
    rows = table(tmp_path / "details" / "predictions.csv")
    assert [int(row["image"]) for row in rows] == list(range(360))
    assert [row["class"] for row in rows] == [str(label) for label in labels]
    assert [row["predicted"] for row in rows] == [str(label) for label in predicted]
    assert all(0.1 <= float(row["probability"]) <= 1 for row in rows)
    assert np.mean([row["class"] != row["predicted"] for row in rows]) * 100 == pytest.approx(error, abs=0.005)
    for row in table(tmp_path / "details" / "classes.csv"):
        own = labels == int(row["class"])
        assert (int(row["images"]), int(row["wrong"])) == (own.sum(), (predicted[own] != int(row["class"])).sum())
        assert float(row["error"]) == pytest.approx(int(row["wrong"]) / int(row["images"]), abs=1e-6)
    with np.load(tmp_path / "details" / "logits.npz") as kept:
        assert kept["logits"].dtype == np.float16
        np.testing.assert_allclose(kept["logits"], logits, rtol=2e-3, atol=1e-3)
        np.testing.assert_array_equal(kept["labels"], labels)
    for name in ("confusion.png", "mistakes.png"):
        picture = (tmp_path / "details" / name).read_bytes()
        assert picture.startswith(b"\x89PNG") and len(picture) > 10_000


def test_images_have_their_numbers_beside_a_damaged_one(tmp_path):
    write_folder(tmp_path, random_images(9, (None, None, 3)), range(9), "abcdefghi")
    (tmp_path / "d" / "00003.png").write_bytes(b"no image")
    recipe = IMAGENET_TINY.replace(dataset=str(tmp_path), num_classes=9, batch_size=4)
    source = acr.load_data(str(tmp_path)).as_kind("records")
    write_details(recipe.build_model(), source, "train", recipe, tmp_path / "details")
    rows = table(tmp_path / "details" / "predictions.csv")
    expected = [(number, "abcdefghi"[label]) for number, label in enumerate(source.labels("train")) if label != 3]
    assert [(int(row["image"]), row["class"]) for row in rows] == expected


def test_details_overwrite_their_own_files_alone(runs, tmp_path, capsys):
    (tmp_path / "predictions.csv").write_text("the user's own")
    assert command("evaluate", runs[0], "--details", tmp_path) == 2
    assert "predictions.csv would be overwritten" in capsys.readouterr().err
    assert (tmp_path / "predictions.csv").read_text() == "the user's own" and len(list(tmp_path.iterdir())) == 1
    for _ in range(2):
        assert command("evaluate", runs[0], "--details", tmp_path / "details") == 0


def test_details_of_one_checkpoint_alone(runs, tmp_path, capsys):
    assert command("evaluate", runs[0], "--details", tmp_path / "details", "--follow") == 2
    assert "give --follow or --details, but not both" in capsys.readouterr().err
    assert command("evaluate", runs[0], "--checkpoint", "best", "--follow") == 2
    assert "give --follow or --checkpoint, but not both" in capsys.readouterr().err
    (tmp_path / "file").write_text("")
    assert command("evaluate", runs[0], "--details", tmp_path / "file") == 2
    assert "details must be a directory that can be written to" in capsys.readouterr().err


def test_several_runs_are_drawn_over_each_other(runs, tmp_path, capsys):
    assert command("plot", *runs, "--output", tmp_path / "both.svg") == 0
    assert capsys.readouterr().out.strip() == str(tmp_path / "both.svg")
    assert command("plot", *runs, "--output", tmp_path / "both.png") == 0
    # Matplotlib writes the texts of an SVG as comments before their outlines.
    drawing = (tmp_path / "both.svg").read_text()
    for name, split in ((runs[0], "train"), (runs[0], "test"), (runs[1], "train"), (runs[1], "holdout")):
        assert f"{name}, {split}: {100 * lines(name, split)[-1]['error']:.3g} at the end" in drawing
    assert drawing.count("stroke-dasharray") == 4  # two training errors, and their lines in the legend
    assert command("plot", *runs, "--output", tmp_path / "both.txt") == 2
    assert "both.txt cannot be written" in capsys.readouterr().err
    assert command("plot", runs[0], tmp_path) == 2
    assert "is not a run directory" in capsys.readouterr().err
    shutil.copy(runs[0] / "config.json", tmp_path)
    assert command("plot", runs[0], tmp_path) == 2
    assert "has no metrics yet" in capsys.readouterr().err
    assert command("plot") == 2


def test_names_in_figures_may_have_any_letters(tmp_path):
    for name in ("_rate=$1", "$a$", UNREADABLE):
        write_folder(tmp_path / "images", random_images(2, (32, 32, 3)), [0, 1], (name, f"{name}$b"))
        recipe = IMAGENET_TINY.replace(dataset=str(tmp_path / "images"), num_classes=2, image_size=(32, 32, 3))
        source = acr.load_data(str(tmp_path / "images")).as_kind("records")
        write_details(recipe.build_model(), source, "train", recipe, tmp_path / "details")
        run = tmp_path / name
        run.mkdir()
        (run / "metrics.jsonl").write_text('{"step": 1, "split": "test", "loss": 1.0, "error": 0.5}\n')
        (run / "config.json").write_text("{}")
        assert plot_curves(run, name).stat().st_size > 5_000
        shutil.rmtree(tmp_path / "images")
    names = ("_rate=$1", "$a$", UNREADABLE)
    plot_runs({name: tmp_path / name for name in names}, tmp_path / "all.svg")
    drawing = (tmp_path / "all.svg").read_text()
    assert all(f"{name}, test: 50 at the end" in drawing for name in names)


def test_letters_that_the_font_does_not_have_are_one_sentence(tmp_path, capsys):
    figure, axes = new_figure(4, 3)
    axes.set_title("猫 犬")
    save_figure(figure, tmp_path / "cats.png")
    said = capsys.readouterr()
    path = tmp_path / "cats.png"
    assert said.err == f"The font of {path} does not have all letters of its texts. They are drawn as boxes.\n"


def test_the_legend_has_the_names_that_were_given(tmp_path, capsys):
    assert command("plot", "cifar10-wide", "cifar10-fast", "--output", tmp_path / "both.svg") == 0
    drawing = (tmp_path / "both.svg").read_text()
    assert "<!-- cifar10-wide, test: 5.41 at the end -->" in drawing and "<!-- cifar10-fast, holdout: " in drawing


def test_evaluations_of_the_training_images_are_no_lines_of_training(runs, tmp_path):
    run = tmp_path / "run"
    shutil.copytree(runs[0], run)
    added = [{"split": split, "step": 10**6, "loss": 0.1, "error": 0.901} for split in ("train", "test")]
    (run / "evaluations.jsonl").write_text("".join(json.dumps(line) + "\n" for line in added))
    plot_runs({"run": run}, tmp_path / "run.svg")
    drawing = (tmp_path / "run.svg").read_text()
    assert "test: 90.1 at the end" in drawing and "train: 90.1 at the end" not in drawing


def test_a_network_of_the_package_is_drawn_outside_of_it(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert command("plot", "cifar10-wide") == 0
    assert capsys.readouterr().out.strip() == "curves.png" and (tmp_path / "curves.png").exists()
    assert not (pretrained.find("cifar10-wide") / "curves.png").exists()


@pytest.mark.slow
def test_on_jax_a_run_has_the_same_details_and_is_loaded(runs, tmp_path, run_python):
    assert command("evaluate", runs[0], "--details", tmp_path / "tensorflow") == 0
    options = ("-m", "allconv_resnet", "evaluate", runs[0], "--details", tmp_path / "jax")
    done = run_python(*options, KERAS_BACKEND="jax")
    assert done.returncode == 0, done.stderr
    ours, theirs = (table(tmp_path / name / "predictions.csv") for name in ("jax", "tensorflow"))
    assert [row["class"] for row in ours] == [row["class"] for row in theirs]
    for a, b in zip(ours, theirs, strict=True):
        assert a["predicted"] == b["predicted"] or abs(float(a["probability"]) - float(b["probability"])) < 1e-3
    program = f"import allconv_resnet as acr; print(*acr.load({str(runs[0])!r}).label_names)"
    assert run_python("-c", program, KERAS_BACKEND="jax").stdout.split() == [*"0123456789"]
