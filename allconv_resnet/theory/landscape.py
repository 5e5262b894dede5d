"""Residual networks and the best linear predictor (Shamir, arXiv 1804.06739).

No local minimum of a residual network is worse than a linear predictor. `certify` shows why a point is not a bad local
minimum, from `gradient_lower_bound` (theorem 1) and `negative_curvature`; `escape` leaves a saddle. `linear_optimum`
computes the best linear predictor of a `Problem`. `excess_of_point` and `excess_of_points` bound what points lose that
are stationary only nearly (theorem 3). `last_block` writes a network of this project in the form of the theorem, and
`certify_network` measures the same alternatives for any Keras network. `ResidualWithLinearPath`, `projected_sgd` and
`fit_projected` are section 4: an architecture whose training ends no worse than the best linear predictor, with the
regret bound at every step.

The examples assume `from allconv_resnet.theory.landscape import *`, `import keras` and `import numpy as np`.
"""

from allconv_resnet.theory.shamir.approximate_points import excess_of_point, excess_of_points, smallest_eigenvalue
from allconv_resnet.theory.shamir.block_chains import BlockChain, Coverage
from allconv_resnet.theory.shamir.certificates import (
    Certificate,
    certify,
    gradient_lower_bound,
)
from allconv_resnet.theory.shamir.curvature import Direction, escape, negative_curvature
from allconv_resnet.theory.shamir.eigenvalues import ExtremeEigenvalues, extreme_eigenvalues
from allconv_resnet.theory.shamir.last_block import LastBlock, last_block
from allconv_resnet.theory.shamir.linear_optimum import LinearOptimum, linear_optimum
from allconv_resnet.theory.shamir.linear_path import ResidualWithLinearPath
from allconv_resnet.theory.shamir.losses import LOSSES, Loss
from allconv_resnet.theory.shamir.networks import NetworkCertificate, certify_network
from allconv_resnet.theory.shamir.predictors import Problem, features_of
from allconv_resnet.theory.shamir.regret import Regret, adversary, fit_projected, projected_sgd

__all__ = [
    "LOSSES",
    "BlockChain",
    "Certificate",
    "Coverage",
    "Direction",
    "ExtremeEigenvalues",
    "LastBlock",
    "LinearOptimum",
    "Loss",
    "NetworkCertificate",
    "Problem",
    "Regret",
    "ResidualWithLinearPath",
    "adversary",
    "certify",
    "certify_network",
    "escape",
    "excess_of_point",
    "excess_of_points",
    "extreme_eigenvalues",
    "features_of",
    "fit_projected",
    "gradient_lower_bound",
    "last_block",
    "linear_optimum",
    "negative_curvature",
    "projected_sgd",
    "smallest_eigenvalue",
]
