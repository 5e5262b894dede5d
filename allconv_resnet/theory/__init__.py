"""The theorems of four papers as float64 functions: `linear`, `expressivity`, `landscape`, `isometry`, `gradients`.

The five modules are the public doors. The code behind them is ordered by paper: `hardt_ma` (arXiv 1611.04231), `shamir`
(arXiv 1804.06739), `tarnowski` (arXiv 1809.08848) and `balduzzi` (arXiv 1702.08591); `autodiff` and `checks` serve all
of them, and `commands` has the experiments of `allconv-resnet theory`. Modules are loaded on first use, so that `import
allconv_resnet` takes no longer than `import keras`.
"""

from importlib import import_module

__all__ = ["expressivity", "gradients", "isometry", "landscape", "linear"]


def __getattr__(name):
    if name in __all__:
        return import_module(f"{__name__}.{name}")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__():
    return __all__
