"""The default run directory, whose name says what differs from the recipe.

Different commands therefore have different directories, and the same command continues its run.
"""

import hashlib
import re
from pathlib import Path

from allconv_resnet.recipes import RECIPES, Recipe
from allconv_resnet.recipes.parts import KINDS
from allconv_resnet.recipes.recipe import MAY_CHANGE

LONGEST = 100  # characters, so that names of files beside the directory stay below the limit of 255 bytes


def default_run_dir(recipe, base):
    """Returns the default run directory of a recipe, such as `runs/cifar10-initialization=standard-seed=1`.

    Fields that may change when a run is continued, such as the number of steps, are not in the name.

    Args:
        recipe: `Recipe`.
        base: String, name of the recipe that it was made from, or path of its JSON file.

    Returns:
        Path.
    """
    origin = RECIPES.get(recipe.name) or (Recipe.read(base) if base.endswith(".json") else RECIPES[base])
    kinds = {name: getattr(recipe, name).kind for name in KINDS}
    changed = {name: kind for name, kind in kinds.items() if kind != getattr(origin, name).kind}
    for name, kind in changed.items():
        origin = origin.with_kind(name, kind)
    leave_out = {"name", *MAY_CHANGE} - ({"steps"} if recipe.schedule.depends_on_steps else set())
    before = origin.flat()
    changed |= {
        name: value for name, value in recipe.flat().items() if name not in leave_out and value != before.get(name)
    }
    whole = "-".join([recipe.name, *(f"{name}={_text(value)}" for name, value in changed.items())])
    short = re.sub(r"[^A-Za-z0-9._=,+-]", "_", whole)[:LONGEST].lstrip(".")
    if short != whole:
        short += "-" + hashlib.sha256(whole.encode()).hexdigest()[:8]
    return Path("runs") / short


def _text(value):
    """Returns the value of a field as text, for instance `1,16,1` for a tuple of one stage."""
    if isinstance(value, tuple):
        return ",".join(map(_text, value))
    return str(value)
