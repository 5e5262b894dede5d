"""The blocks of code of README.md and of the site run, or say why they do not; their commands and links exist."""

import importlib.util
import re
import shlex
from pathlib import Path

import pytest

import allconv_resnet as acr
from allconv_resnet import cli
from allconv_resnet.job import parse_job
from allconv_resnet.recipes import IMAGENETS, RECIPES, SMALL_IMAGES

ROOT = Path(__file__).resolve().parent.parent
PAGES = [
    *(ROOT / name for name in ("README.md", "CONTRIBUTING.md", "docker/README.md")),
    *sorted((ROOT / "docs").rglob("*.md")),
]
NAMES = [str(page.relative_to(ROOT)) for page in PAGES]
INLINE = re.compile(r"(?<!`)`((?:KERAS_BACKEND=jax )?(?:allconv-resnet|python train_\w+\.py) [^`]+)`(?!`)")
PROGRAMS = {  # with their recipes
    "allconv-resnet": tuple(RECIPES),
    "train_cifar.py": tuple(recipe.name for recipe in SMALL_IMAGES),
    "train_imagenet.py": tuple(recipe.name for recipe in IMAGENETS),
}
COMMAND = re.compile(rf"(?<![\w./])({'|'.join(map(re.escape, PROGRAMS))})(?= )")
LANGUAGES = {"sh", "python", "text", "json", "yaml", "output", "unseen", "figure"}


def load_pages():
    spec = importlib.util.spec_from_file_location("pages", ROOT / "docs" / "pages.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


pages = load_pages()
BLOCKS = {name: pages.blocks(page.read_text(encoding="utf-8")) for name, page in zip(NAMES, PAGES, strict=True)}


def kinds_that_run(name):
    return {block.kind for block in BLOCKS[name] if block.not_run is None} & {"sh", "python"}


def is_slow(name):
    return "sh" in kinds_that_run(name) or "tutorials" in name


PARAMETERS = [
    pytest.param(name, marks=[pytest.mark.slow] if is_slow(name) else []) for name in NAMES if kinds_that_run(name)
]


@pytest.mark.parametrize("name", PARAMETERS)
def test_the_blocks_of_a_page_run_and_print_what_it_shows(name, tmp_path, monkeypatch):
    monkeypatch.setenv("MPLBACKEND", "Agg")
    page = ROOT / name
    text, figures = pages.run(page, tmp_path)
    for shown, printed in zip(BLOCKS[name], pages.blocks(text), strict=True):
        if shown.kind == "output":
            message = f"{name}:{shown.line} shows\n{shown.code}\nand prints\n{printed.code}"
            assert pages.same_words(shown.code, printed.code), message
    for place, figure in figures.items():
        assert place.is_file() and figure, place


@pytest.mark.parametrize("name", NAMES)
def test_every_block_has_a_language_and_a_reason_if_it_is_not_run(name):
    for block in BLOCKS[name]:
        assert block.kind in LANGUAGES, f"{name}:{block.line}"
        assert block.not_run is None or len(block.not_run.split()) > 2, f"{name}:{block.line}"
    comments = re.findall(r"<!-- (not run|unseen|output|figure)", (ROOT / name).read_text(encoding="utf-8"))
    read = [b for b in BLOCKS[name] if b.not_run is not None or b.kind in ("unseen", "output", "figure")]
    assert len(comments) == len(read)  # each comment belongs to a block


def commands(name):
    """Yields the words of every command of this package on a page, from its name on."""
    text = (ROOT / name).read_text(encoding="utf-8")
    shell = [block.code for block in BLOCKS[name] if block.kind in ("sh", "unseen")]
    for line in "\n".join([*shell, *INLINE.findall(text)]).replace("\\\n", " ").splitlines():
        for start in COMMAND.finditer(line):
            words = shlex.split(line[start.start() :], comments=True)
            ends = [i for i, word in enumerate(words) if word in ("|", "&&", "&", ";", ">", "<")]
            yield words[: min(ends, default=None)]


@pytest.mark.parametrize("name", [name for name in NAMES if any(True for _ in commands(name))])
def test_the_commands_of_a_page_have_the_options_that_it_gives_them(name, capsys):
    recipe = ROOT / "results" / "digits" / "seed0" / "config.json"
    for program, *arguments in commands(name):
        arguments = [str(recipe) if word.endswith(".json") else word for word in arguments if word != "..."]
        if program == "allconv-resnet" and arguments[0] != "train":
            options = {word.partition("=")[0] for word in arguments if word.startswith("--")}
            names = arguments[: 2 if arguments[0] == "theory" else 1]
            with pytest.raises(SystemExit) as ended:
                cli.main([*(word for word in names if not word.startswith("--")), "--help"])
            known = set(re.findall(r"--[\w-]+", capsys.readouterr().out))
            assert ended.value.code == 0 and options <= known, (program, arguments)
            continue
        options = arguments[1:] if program == "allconv-resnet" else arguments
        if {"--help", "--list"} & set(options):
            continue
        parse_job(PROGRAMS[program], options, program)


@pytest.mark.parametrize("name", NAMES)
def test_links_lead_to_files_of_the_repository(name):
    """The links of the site are checked when it is built."""
    for link in re.findall(r"\]\((?!https?://|#)([^)#\s]+)", (ROOT / name).read_text(encoding="utf-8")):
        assert (ROOT / name).parent.joinpath(link).exists(), link


def test_the_api_reference_has_every_public_name():
    text = "".join(page.read_text(encoding="utf-8") for page in (ROOT / "docs" / "api").glob("*.md"))
    for name in sorted(set(acr.__all__) - {"recipes", "theory"}):
        module = getattr(acr, name).__module__
        options = re.search(rf"^::: {re.escape(module)}(\.{name})?$(.*?)(?=^:::|\Z)", text, re.DOTALL | re.MULTILINE)
        assert options, f"{module}.{name}"
        assert "members:" not in options[2] or re.search(rf"\b{name}\b", options[2]), f"{module}.{name}"


def test_readme_is_short():
    assert len((ROOT / "README.md").read_text(encoding="utf-8").splitlines()) <= 120
