"""The parts of recipes. Each kind of part is a frozen dataclass that checks its fields and builds its object.

The tables contain the kinds by name.
"""

from allconv_resnet.recipes.parts.data import DATA, Arrays, Records
from allconv_resnet.recipes.parts.network import NETWORKS, Airbench, AllCnn, AllConv, DenseNet, ResNet
from allconv_resnet.recipes.parts.optimizer import OPTIMIZERS, Momentum, Muon
from allconv_resnet.recipes.parts.run import Run
from allconv_resnet.recipes.parts.schedule import SCHEDULES, Epochs, Linear, Steps, Triangle

KINDS = {"data": DATA, "network": NETWORKS, "optimizer": OPTIMIZERS, "schedule": SCHEDULES}
"""The parts that come in several kinds, by their names in a recipe and on the command line."""

__all__ = [
    "KINDS",
    "Airbench",
    "AllCnn",
    "AllConv",
    "Arrays",
    "DenseNet",
    "Epochs",
    "Linear",
    "Momentum",
    "Muon",
    "Records",
    "ResNet",
    "Run",
    "Steps",
    "Triangle",
]
