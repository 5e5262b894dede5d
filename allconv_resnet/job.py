"""The command line of training: what is trained, and where."""

import argparse
import shutil
import sys
from pathlib import Path
from typing import Annotated, Literal

import tyro

from allconv_resnet import usage
from allconv_resnet.errors import BadInput
from allconv_resnet.part import Int32, Minutes, Seconds, part
from allconv_resnet.recipes import RECIPES, Recipe
from allconv_resnet.recipes.parts import KINDS
from allconv_resnet.recipes.recipe import kinds_with
from allconv_resnet.usage import DATA_DIR, default


@part
class Job:
    """A recipe, and options of where it runs, which do not change the weights."""

    recipe: Annotated[Recipe, tyro.conf.arg(name="")]
    base: Annotated[str, tyro.conf.arg(name="recipe", metavar="NAME|FILE.json")] = "cifar10"
    """Recipe with the defaults of the options: a name, or a JSON file such as the config.json of a run."""
    data_kind: Annotated[Literal[tuple(KINDS["data"])], tyro.conf.arg(name="data")] = "arrays"
    """Kind of data: images of one size in memory (arrays), or JPEG and PNG files of all sizes (records). By default it
    is that of the dataset."""
    network_kind: Annotated[Literal[tuple(KINDS["network"])], tyro.conf.arg(name="network")] = "allconv_resnet"
    """Kind of network: the paper's, or one that it is compared with."""
    optimizer_kind: Annotated[Literal[tuple(KINDS["optimizer"])], tyro.conf.arg(name="optimizer")] = "momentum"
    """Kind of optimizer."""
    schedule_kind: Annotated[Literal[tuple(KINDS["schedule"])], tyro.conf.arg(name="schedule")] = "steps"
    """Kind of learning-rate schedule."""
    run_dir: Annotated[str | None, default("runs/NAME, where NAME has what differs from the recipe", "DIR")] = None
    """Run directory. The same command with the same directory continues the run."""
    overwrite: bool = False
    """Begin anew, and delete what an earlier run has written to the run directory."""
    data_dir: Annotated[str | None, DATA_DIR] = None
    """Directory of tensorflow-datasets, which may be in a bucket, gs://..."""
    strategy: Literal["auto", "one", "mirrored", "multi-worker", "parameter-server"] = "auto"
    """One device, mirrored over the accelerators of this machine, or several machines of TF_CONFIG, in step with each
    other (multi-worker) or asynchronously (parameter-server). auto means the strategy that TF_CONFIG describes or, if
    it is not set, all accelerators of this machine."""
    replicas: Annotated[Int32 | None, default("all accelerators", "INT")] = None
    """Number of devices to mirror over. Without accelerators the CPU is split, which is only useful for tests."""
    peer_timeout: Seconds = 300
    """Seconds to wait for the other machines of TF_CONFIG."""
    minutes: Annotated[Minutes | None, default("no limit", "FLOAT")] = None
    """Stop and save after this many minutes. The same command continues the run."""
    export: bool = True
    """Export the network when the run has finished, to RUN_DIR/export."""
    given: tyro.conf.Suppress[tuple[str, ...]] = ()
    """Names of the options of the command line, which are not adapted to the data."""


def parse_job(names, arguments=None, program=None):
    """Returns the `Job` of a command line, in which every field of the recipe's parts is an option.

    Args:
        names: Names in `RECIPES` of the recipes of the script. The first is the default.
        arguments: List of strings. Defaults to the command line.
        program: String, the command of the script for its help. Defaults to the name of the script.

    Raises:
        BadInput: if the recipe or a kind is unknown, or an option belongs to a kind that was not chosen.
    """
    arguments = sys.argv[1:] if arguments is None else list(arguments)
    # The recipe and the kinds are read first because they determine the options and their defaults.
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    parser.add_argument("--recipe", default=names[0])
    parser.add_argument("--list", action="store_true")
    for kind in KINDS:
        parser.add_argument(f"--{kind}")
    chosen, rest = parser.parse_known_args(arguments)
    if chosen.list:
        _list_recipes(names)
        sys.exit(0)
    if chosen.recipe.endswith(".json"):
        recipe = Recipe.read(chosen.recipe)
        if recipe.data.centre is None:  # that of version 0.1, which had it in environment.json
            recipe = recipe.replace(centre=type(recipe.data)().centre)
    elif chosen.recipe in names:
        recipe = RECIPES[chosen.recipe]
    else:
        raise BadInput(f"recipe must be a .json file or one of {', '.join(names)}. Received: recipe={chosen.recipe!r}")
    for name in KINDS:
        if kind := getattr(chosen, name):
            recipe = recipe.with_kind(name, kind)
    _refuse_other_kinds(recipe, rest)
    kinds = {f"{name}_kind": getattr(chosen, name) or getattr(recipe, name).kind for name in KINDS}
    program = program or Path(sys.argv[0]).name
    text = "Trains the network of a recipe, or continues its run. Every field of the recipe is an option."
    papers = "Sections and tables are those of Hardt & Ma (arXiv 1611.04231)."
    description = f"{text} {program} --list shows the recipes. {papers}"
    command = f"python {program}" if program.endswith(".py") else program
    example = f"{command} --recipe {names[0]} --steps 1000 --run-dir runs/short"
    options = (tyro.conf.OmitArgPrefixes,)  # short names, which the help still groups by part
    job = Job(recipe, chosen.recipe, **kinds, given=_given(arguments))
    return usage.parse(Job, rest, program, example, default=job, description=description, config=options)


def _given(arguments):
    """Returns the names of the fields that a command line sets, without repetitions."""
    names = [argument[2:].partition("=")[0].replace("-", "_") for argument in arguments if argument.startswith("--")]
    return tuple(dict.fromkeys(name.removeprefix("no_") for name in names))


def _list_recipes(names):
    from allconv_resnet.recipes import catalog

    columns = min(max(shutil.get_terminal_size().columns, 40), 100)
    for line in catalog.lines([RECIPES[name] for name in names], columns):
        print(line)


def _refuse_other_kinds(recipe, arguments):
    fields = recipe.fields()
    for argument in arguments:
        if not argument.startswith("--"):
            continue
        name = argument[2:].partition("=")[0].replace("-", "_")
        for field in (name, name.removeprefix("no_")):
            owners = kinds_with(field)
            if owners and field not in fields:
                owner, kinds = owners[0][0], " or ".join(dict.fromkeys(kind for _, kind in owners))
                raise BadInput(
                    f"{argument} is an option of --{owner} {kinds}. "
                    f"This recipe has --{owner} {getattr(recipe, owner).kind}"
                )
