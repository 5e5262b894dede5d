"""All-convolutional residual networks without normalization, after Hardt & Ma (arXiv 1611.04231).

The examples of all docstrings assume `import allconv_resnet as acr`, `import keras` and `import numpy as np`.

`__init__.pyi` has the public names. Each is imported on first use, so that command lines that do without Keras begin at
once.
"""

import importlib

import lazy_loader
import wrapt

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)


@wrapt.when_imported("keras")
def _register(_):
    """Registers the layers, optimizers and schedules with Keras, so that `keras.saving.load_model` finds them."""
    for module in ("model", "baselines", "optimizers", "schedules"):
        importlib.import_module(f"{__name__}.{module}")
