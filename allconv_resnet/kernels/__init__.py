"""Two operations in C for processors with AVX512-BF16, which setuptools compiles when the package is built.

They also use AMX where the processor has it. Where there was no C compiler, or where the processor does not have
AVX512-BF16, `available` says no, and the package computes with TensorFlow's own operations. The compiled file is not a
module that can be imported: `tf.load_op_library` loads it. benchmarks/NOTES.md has the measurements.
"""

import functools
import importlib.machinery
import inspect
from pathlib import Path

import keras

from allconv_resnet import environment

# With 32 channels and filters, the convolution was 7 % faster than oneDNN's, and the filter gradient 5 % slower.
# With 16, both were slower, because the code rounds these numbers up.
FEWEST_CHANNELS = 48

# With AMX, a batch of 16 images of 32x32x64 took 1.25 of oneDNN's time, and one of 32 images 0.9 of it (convolution and
# both gradients, one thread of a Xeon of family 6, model 207, with other work beside, minimum of 4 measurements).
FEWEST_IMAGES_WITH_AMX = 16

# The kernels use at most so many threads (MOST_THREADS of kernels.h). They were measured on two cores.
MOST_CORES = 16

# The operations and their arguments. A library that was compiled from an older version of the package has others.
OPERATIONS = {
    "allconv_convolution": {"x", "kernel", "other", "threads", "amx", "transposed", "last"},
    "allconv_filter_gradient": {"x", "dy", "threads", "amx"},
}
LAST_STEPS = ("nothing", "add", "relu", "mask")  # in the order of kernels.h


@functools.cache
def available():
    """Returns whether the operations can be used on this machine."""
    return reason_against() is None


def faster(images, channels, filters):
    """Returns whether the operations can be used, and are expected to be faster than those of TensorFlow.

    Args:
        images: Integer, or None if it is not known.
        channels: Integer.
        filters: Integer.
    """
    if min(channels, filters) < FEWEST_CHANNELS or not available():
        return False
    return images is None or images >= FEWEST_IMAGES_WITH_AMX or not has_amx()


def reason_against():
    """Returns why the operations are not used on this machine, as the end of a sentence, or None if they are."""
    _, flags = environment.processor()
    if keras.backend.backend() != "tensorflow":
        return "they are for TensorFlow"
    if "avx512_bf16" not in flags:
        return "the processor does not have AVX512-BF16"
    if environment.cores() > MOST_CORES:
        return f"this process may use more than {MOST_CORES} cores, and they use no more than that"
    if _operations() is None:
        return "they were not compiled when this version was installed, or TensorFlow cannot load them"
    return None


def has_amx():
    """Returns whether the processor has AMX. The operations then use it, where Linux permits that."""
    _, flags = environment.processor()
    return "amx_bf16" in flags


def convolution(x, kernel, transposed=False, last="nothing", other=None):
    """Returns a 3x3 convolution, SAME and with stride 1; see convolution*.c.

    Where the output is infinite, it may instead be not a number: without AMX, sums and differences of inputs are taken.

    Args:
        x: bfloat16 tensor `[n, h, w, c]`.
        kernel: bfloat16 tensor `[3, 3, c, k]`, or `[3, 3, k, c]` if `transposed`.
        transposed: Whether to return the gradient with respect to the input of the convolution that has this kernel,
            when `x` is the gradient with respect to its output.
        last: What is done to the result in the end, before it is rounded: `"nothing"`, `"add"` for the sum with
            `other`, `"relu"`, or `"mask"` for zeros where `other` is not positive.
        other: bfloat16 tensor `[n, h, w, k]` for `"add"` and `"mask"`, otherwise None.

    Returns:
        bfloat16 tensor `[n, h, w, k]`.
    """
    if (other is None) == (last in ("add", "mask")):
        raise ValueError(f"other must be given for add and mask alone. Received: last={last!r}, other={other}")
    y = _operations().allconv_convolution(
        x,
        kernel,
        other=[] if other is None else [other],
        threads=_threads(),
        amx=has_amx(),
        transposed=transposed,
        last=LAST_STEPS.index(last),
    )
    y.set_shape([*x.shape[:3], kernel.shape[2 if transposed else 3]])
    return y


def filter_gradient(x, dy):
    """Returns the gradient of a 3x3 convolution with respect to its kernel; see filter_gradient*.c.

    Args:
        x: bfloat16 tensor `[n, h, w, c]`, the input of a SAME convolution with stride 1.
        dy: bfloat16 tensor `[n, h, w, k]`, the gradient with respect to its output.

    Returns:
        bfloat16 tensor `[3, 3, c, k]`.
    """
    taps = _operations().allconv_filter_gradient(x, dy, threads=_threads(), amx=has_amx())
    taps.set_shape([3, 3, x.shape[-1], dy.shape[-1]])
    return taps


def _threads():
    import tensorflow as tf

    return tf.config.threading.get_intra_op_parallelism_threads() or environment.cores()


@functools.cache
def _operations():
    """Returns the module with the operations, or None if they were not compiled or TensorFlow cannot load them."""
    for suffix in importlib.machinery.EXTENSION_SUFFIXES:
        path = Path(__file__).with_name(f"compiled{suffix}")
        if path.is_file():
            import tensorflow as tf

            try:
                operations = tf.load_op_library(str(path))
            except tf.errors.OpError:  # compiled for another system
                return None
            return operations if all(_arguments(operations, name) == OPERATIONS[name] for name in OPERATIONS) else None
    return None


def _arguments(operations, name):
    """Returns the names of the arguments of an operation, or None if there is none of this name."""
    operation = getattr(operations, name, None)
    return operation and set(inspect.signature(operation).parameters) - {"name"}
