"""The papers' theorems as float64 functions: `linear`, `expressivity`, `landscape`, `isometry`.

Modules load on first use, so that importing the package stays as quick as importing Keras.
"""

from importlib import import_module

__all__ = ["expressivity", "isometry", "landscape", "linear"]


def __getattr__(name):
    if name in __all__:
        return import_module(f"{__name__}.{name}")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__():
    return __all__
