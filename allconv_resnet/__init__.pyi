from . import recipes, theory
from .architectures import Stage, Stem
from .blocks import ResidualBlock
from .data.augmented import augmented
from .data.source import load_data
from .initializers import NearIdentityNormal
from .layers import RandomProjection, Standardization, standardize
from .model import AllConvResNet, cifar_resnet, imagenet_resnet, whiten_stem
from .optimizers import Momentum, Muon
from .schedules import EpochExponentialDecay, LinearDecay, StepDecay, Triangle, WarmUp
from .startup import quiet
from .training.loading import load

__all__ = [
    "AllConvResNet",
    "EpochExponentialDecay",
    "LinearDecay",
    "Momentum",
    "Muon",
    "NearIdentityNormal",
    "RandomProjection",
    "ResidualBlock",
    "Stage",
    "Standardization",
    "Stem",
    "StepDecay",
    "Triangle",
    "WarmUp",
    "augmented",
    "cifar_resnet",
    "imagenet_resnet",
    "load",
    "load_data",
    "quiet",
    "recipes",
    "standardize",
    "theory",
    "whiten_stem",
]
