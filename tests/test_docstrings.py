"""Every public name has a docstring with an example, and the examples run as they stand.

An example may use `np`, `keras` and `acr`, and in `acr.theory.DOOR` also the public names of the door. Nothing else is
given, so that whoever copies it gets what it shows.
"""

import ast
import doctest
import inspect
import re
from importlib import import_module
from pathlib import Path

import keras
import numpy as np
import pytest

import allconv_resnet as acr

ROOT = Path(__file__).resolve().parent.parent
DOORS = ("linear", "expressivity", "landscape", "isometry", "gradients")
OPTIONS = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE
SLOW = {"imagenet_resnet", "train", "cifar_resnet"}  # some seconds each


def members_of(page):
    """Yields the module and the names that an API page of the site shows, as mkdocstrings reads it."""
    for entry in re.split(r"^:::", page, flags=re.M)[1:]:
        target, *options = entry.split("\n", 1)
        target = target.strip()
        listed = re.search(r"members: \[([^]]*)]", options[0] if options else "")
        try:
            module = import_module(target)
        except ModuleNotFoundError:  # it is a name in a module
            module, _, name = target.rpartition(".")
            yield import_module(module), name
            continue
        own = [name for name, value in vars(module).items() if getattr(value, "__module__", None) == target]
        names = re.findall(r"\w+", listed[1]) if listed else getattr(module, "__all__", own)
        yield from ((module, name) for name in names if not name.startswith("_"))


def public_objects():
    """Returns all public functions and classes with the names that their examples may use, by their full names."""
    found = {}
    given = {"np": np, "keras": keras, "acr": acr}
    names = [(acr, name) for name in acr.__all__] + [(acr.recipes, name) for name in acr.recipes.__all__]
    for page in sorted((ROOT / "docs" / "api").glob("*.md")):
        names += members_of(page.read_text())
    for door in DOORS:
        module = getattr(acr.theory, door)
        names += [(module, name) for name in module.__all__]
    for module, name in names:
        value = getattr(module, name)
        door = module.__name__.rpartition(".")[2]
        is_door = module.__name__ == f"allconv_resnet.theory.{door}" and door in DOORS
        if inspect.isfunction(value) or inspect.isclass(value):
            extra = {each: getattr(module, each) for each in module.__all__} if is_door else {}
            found[f"{value.__module__}.{value.__qualname__}"] = (value, {**given, **extra})
    return found


OBJECTS = public_objects()


def test_the_list_is_that_of_the_package_and_of_the_site():
    assert len(OBJECTS) > 110
    for name in ("model.AllConvResNet", "data.source.load_data", "recipes.recipe.Recipe", "training.loop.train"):
        assert f"allconv_resnet.{name}" in OBJECTS
    stub = ast.parse((ROOT / "allconv_resnet" / "__init__.pyi").read_text())
    exported = {alias.name for node in stub.body if isinstance(node, ast.ImportFrom) for alias in node.names}
    assert exported == set(acr.__all__)


@pytest.mark.parametrize(
    "name", [pytest.param(n, marks=pytest.mark.slow if n.rpartition(".")[2] in SLOW else ()) for n in sorted(OBJECTS)]
)
def test_examples_run(name):
    value, given = OBJECTS[name]
    text = inspect.getdoc(value)
    if shown_by := re.match(r"The result of `(\w+)`", text):  # an example of that function shows it
        assert ">>>" in inspect.getdoc(given[shown_by[1]])
        return
    test = doctest.DocTestParser().get_doctest(text, dict(given), name, None, 0)
    assert test.examples, f"{name} has no example"
    said = []
    doctest.DocTestRunner(optionflags=OPTIONS).run(test, out=said.append)
    assert said == [], "".join(said)


@pytest.mark.parametrize("name", sorted(OBJECTS))
def test_every_argument_is_described_and_has_a_type(name):
    value, _ = OBJECTS[name]
    if fields := getattr(value, "__pydantic_fields__", None):  # parts of recipes describe each field below it
        bases = [getattr(base, "__pydantic_fields__", {}) for base in value.__mro__]
        for part, field in fields.items():
            described = any(base[part].description for base in bases if part in base)
            assert described or hasattr(field.annotation, "__pydantic_fields__"), f"{name} does not describe {part}"
        return
    called = value.__init__ if inspect.isclass(value) and "__init__" in vars(value) else value
    if not inspect.isfunction(called) or getattr(value, "_is_protocol", False):
        return
    text = inspect.getdoc(value)
    for parameter in list(inspect.signature(called).parameters.values())[called is not value :]:
        assert re.search(rf"^    \*{{0,2}}{parameter.name}: ", text, re.M), f"{name} does not describe {parameter.name}"
        assert parameter.annotation is not parameter.empty, f"{parameter.name} of {name} has no type"
    if called is value:
        assert inspect.signature(called).return_annotation is not inspect.Signature.empty
