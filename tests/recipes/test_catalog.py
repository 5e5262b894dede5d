"""`train_cifar.py --list`."""

import pytest

from allconv_resnet import cli, recipes
from allconv_resnet.recipes import catalog

SCRIPTS = {"cifar": recipes.SMALL_IMAGES, "imagenet": recipes.IMAGENETS}


def test_every_recipe_is_described():
    texts = catalog.descriptions()
    assert set(texts) == set(recipes.RECIPES) and all(texts.values())
    assert texts["digits"].startswith("scikit-learn's 1,797 real handwritten digits")
    assert set(catalog.TIMES) <= set(recipes.RECIPES)


@pytest.mark.parametrize("columns", [40, 80])
@pytest.mark.parametrize("script", SCRIPTS)
def test_the_list_fits_into_the_terminal(script, columns, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", str(columns))
    with pytest.raises(SystemExit) as stop:
        cli.parse_job(tuple(recipe.name for recipe in SCRIPTS[script]), ["--list"])
    said = capsys.readouterr().out
    assert stop.value.code == 0 and max(map(len, said.splitlines())) <= columns
    for recipe in SCRIPTS[script]:
        assert f"\n{recipe.name}\n" in f"\n{said}"
    if script == "cifar":
        assert "13,541,296 parameters; 20 to 63 h on" in said and "9 min on 2" in said


def test_the_help_tells_defaults_once(capsys):
    with pytest.raises(SystemExit):
        cli.parse_job(("cifar10", "digits"), ["--help"])
    said = " ".join(capsys.readouterr().out.replace("│", " ").split())
    assert "--list shows the recipes." in said and "(default: runs/NAME" in said
    assert "Default:" not in said
    for text in ("Sections and tables are those", "Name of the split that is trained on", "Fraction of each label"):
        assert text in said, "parts and fields have their docstrings, also inherited ones"
