"""Gradients of residual networks at initialization, after Balduzzi et al. (arXiv 1702.08591).

`measure_gradients` returns the norms of gradients, the spectrum of the Jacobian and the correlation of gradients at
close inputs, for the initializations of this project, Fixup, SkipInit and networks without the identity, with and
without batch normalization. Everything is NumPy in float64; the kernels come from the initializers of the networks.

The examples assume `from allconv_resnet.theory.gradients import *`, `import keras` and `import numpy as np`.
"""

from allconv_resnet.theory.balduzzi.gradient_measures import GradientMeasures, measure_gradients
from allconv_resnet.theory.balduzzi.matrix_networks import VARIANTS, initial_blocks

__all__ = ["VARIANTS", "GradientMeasures", "initial_blocks", "measure_gradients"]
