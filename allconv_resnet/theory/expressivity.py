"""Finite-sample expressivity, section 3 of Hardt & Ma (arXiv 1611.04231).

`memorize` returns a residual network as a Keras model that fits any labels of any distinct points (theorem 3.2);
`predict_labels` evaluates it, `theorem_parameters` is the number of weights that the theorem states, and
`MemorizationReport` says what was built. Import this module before `keras.saving.load_model` reads such a model: it
registers the layers.

The examples assume `from allconv_resnet.theory.expressivity import *`, `import keras` and `import numpy as np`.
"""

from allconv_resnet.theory.hardt_ma.memorization import (
    MemorizationReport,
    memorize,
    predict_labels,
    theorem_parameters,
)

__all__ = ["MemorizationReport", "memorize", "predict_labels", "theorem_parameters"]
