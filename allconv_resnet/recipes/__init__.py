"""The experiments, one `Recipe` each: those of the paper, those it is compared with, and small ones for a CPU."""

from allconv_resnet.recipes.compared import *
from allconv_resnet.recipes.compared import COMPARED, SIXTY_MINUTES, SMALL_4000, SMALL_ABLATIONS, TWENTY_MINUTES
from allconv_resnet.recipes.paper import (
    CIFAR10,
    CIFAR10_SHORT,
    CIFAR100,
    IMAGENET,
    IMAGENET_PLAIN,
    IMAGENET_TINY,
    IMAGENETS,
)
from allconv_resnet.recipes.parts import *
from allconv_resnet.recipes.recipe import Recipe
from allconv_resnet.recipes.small import CIFAR10_FAST, CIFAR10_FIXED_NORM, CIFAR10_SMALL, CIFAR10_WIDE, DIGITS

SMALL_IMAGES = (
    CIFAR10,
    CIFAR100,
    CIFAR10_SHORT,
    CIFAR10_SMALL,
    DIGITS,
    *COMPARED,
    *TWENTY_MINUTES,
    *SIXTY_MINUTES,
    CIFAR10_FIXED_NORM,
    CIFAR10_WIDE,
    SMALL_4000,
    *SMALL_ABLATIONS,
)
"""The recipes of train_cifar.py. The first is the default."""

RECIPES = {recipe.name: recipe for recipe in (*SMALL_IMAGES, *IMAGENETS)}
"""All recipes by name, as in `--recipe NAME`."""
