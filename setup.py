"""The compiled part of the package. All else is in setup.cfg.

Without a C compiler the package is built without it, and computes with TensorFlow's own operations.
"""

import platform
import sys

from setuptools import Extension, setup

FOLDER = "allconv_resnet/kernels"
fits = sys.platform == "linux" and platform.machine() == "x86_64"  # for other machines nothing is compiled
extension = Extension(
    "allconv_resnet.kernels.compiled",
    [
        f"{FOLDER}/{name}.c"
        for name in (
            "convolution",
            "convolution_amx",
            "filter_gradient",
            "filter_gradient_amx",
            "threads",
            "operations",
        )
    ],
    depends=[f"{FOLDER}/{name}.h" for name in ("kernels", "vectors", "amx")],
    extra_compile_args=["-O3", "-pthread", "-fvisibility=hidden"],
    extra_link_args=["-pthread"],
    libraries=["dl"],
    optional=True,
)
setup(ext_modules=[extension] if fits else [])
