"""All-convolutional residual networks without normalization, after Hardt & Ma (arXiv 1611.04231)."""

from allconv_resnet import recipes, theory
from allconv_resnet.blocks import ResidualBlock
from allconv_resnet.data.source import load_data
from allconv_resnet.initializers import NearIdentityNormal
from allconv_resnet.layers import RandomProjection, Standardization, standardize
from allconv_resnet.model import AllConvResNet, Stage, Stem, cifar_resnet, imagenet_resnet, whiten_stem
from allconv_resnet.optimizers import Momentum, Muon
from allconv_resnet.schedules import EpochExponentialDecay, LinearDecay, StepDecay, WarmUp
from allconv_resnet.training.loading import load

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
    "WarmUp",
    "cifar_resnet",
    "imagenet_resnet",
    "load",
    "load_data",
    "recipes",
    "standardize",
    "theory",
    "whiten_stem",
]
