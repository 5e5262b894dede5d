"""The list of recipes for `train_cifar.py --list`: what each is, its size, and how long it trains where that is known.

The descriptions are the docstrings under the recipes, which stand in the modules of the experiments alone.
"""

import ast
import inspect
import itertools
import textwrap

from allconv_resnet.recipes import compared, paper, small
from allconv_resnet.recipes.recipe import Recipe

MODULES = (paper, small, compared)

TIMES = {
    "cifar10": "20 to 63 h on 2 cores; 24 h on a Tesla K40 (the paper); 11 min on an H200",
    "cifar10-short": "2 to 6 h on 2 cores; 2 min on an H200",
    "imagenet": "53 days on 2 cores; a week on 48 GPUs (the paper)",
    "digits": "under a minute on 2 cores",
    "cifar10-small": "9 min on 2 cores",
    "cifar10-fast": "30 to 60 min on 2 cores",
    "cifar10-fixed-norm": "60 min on 1 core",
    "cifar10-wide": "2 h on 1 core",
    "cifar10-small-20": "20 min on 1 core",
    "resnet20-20": "20 min on 1 core",
    "resnet20-plain-20": "21 min on 1 core",
    "all-cnn-c-20": "21 min on 1 core",
    "resnet20-60": "65 min on 2 cores",
    "small-4000": "7 min on 1 core",
    "small-4000-near-identity": "7 min on 1 core",
    "small-4000-standard": "7 min on 1 core",
    "small-4000-trained-head": "7 min on 1 core",
    "small-4000-batch-norm": "9 min on 1 core",
    "small-4000-no-identity": "7 min on 1 core",
    "small-4000-deep": "14 min on 1 core",
    "small-4000-deep-near-identity": "17 min on 1 core",
    "small-4000-deep-no-identity": "16 min on 1 core",
}
"""Times of the training steps on an AMD EPYC (Zen 4 or 5) in bfloat16, as the logs under results/ have them. Those of
`cifar10` and `imagenet` on CPUs follow from the speed of their first steps."""


def descriptions():
    """Returns what each recipe is, by its name.

    Returns:
        Dictionary from the name of a recipe to the docstring under it.
    """
    texts = {}
    for module in MODULES:
        body = ast.parse(inspect.getsource(module)).body
        for statement, after in itertools.pairwise(body):
            documented = isinstance(after, ast.Expr) and isinstance(after.value, ast.Constant)
            if isinstance(statement, ast.Assign) and documented:
                value = getattr(module, statement.targets[0].id)
                if isinstance(value, Recipe):
                    texts[value.name] = " ".join(after.value.value.split())
    return texts


def lines(recipes, width=80):
    """Yields the lines of the list of some recipes.

    Args:
        recipes: Sequence of `Recipe`.
        width: Integer, number of columns of the terminal.
    """
    texts = descriptions()
    for recipe in recipes:
        weights, _ = recipe.sizes()
        yield f"{recipe.name}"
        facts = f"{weights:,} parameters"
        if recipe.name in TIMES:
            facts += f"; {TIMES[recipe.name]}"
        for paragraph in (facts, texts[recipe.name]):
            yield from textwrap.wrap(paragraph, max(width, 30), initial_indent="    ", subsequent_indent="    ")
