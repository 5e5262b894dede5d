from . import expressivity, gradients, isometry, landscape, linear

__all__ = ["expressivity", "gradients", "isometry", "landscape", "linear"]
