"""Starts Keras without the lines that TensorFlow writes about itself."""

import contextlib
import os
import re
import sys
import tempfile

# TensorFlow writes these lines with absl before a log level can be set: informational ones, and what belongs to them.
CHATTER = re.compile(r"[IW]\d{4} [\d:.]+ .*|WARNING: All log messages before absl.*|To enable the following instr.*")


def quiet() -> None:
    """Imports Keras, and holds back what TensorFlow writes while it starts, unless TF_CPP_MIN_LOG_LEVEL is set.

    TensorFlow then prints only errors. On a machine without a GPU of NVIDIA it does not print either that CUDA finds
    none. Call it at the beginning of a program, before Keras or TensorFlow is imported. Importing the package alone
    changes no setting.

    Example:

    >>> acr.quiet()
    """
    with starting():
        start_keras()


@contextlib.contextmanager
def starting():
    """Returns a context manager in which Keras can be imported, see `quiet`. Other lines are printed at its end."""
    if "TF_CPP_MIN_LOG_LEVEL" in os.environ:
        yield
        return
    os.environ["TF_CPP_MIN_LOG_LEVEL"] = "2" if os.path.exists("/dev/nvidiactl") else "3"
    with tempfile.TemporaryFile() as held:
        sys.stderr.flush()
        stderr = os.dup(2)
        os.dup2(held.fileno(), 2)  # the lines of C++ code too
        try:
            yield
        finally:
            sys.stderr.flush()
            os.dup2(stderr, 2)
            os.close(stderr)
            held.seek(0)
            lines = held.read().decode(errors="replace").splitlines()
            sys.stderr.write("".join(f"{line}\n" for line in lines if not CHATTER.fullmatch(line)))


def start_keras():
    """Imports Keras, and silences the warnings of tensorflow-datasets about its own use of old names."""
    import keras  # noqa: F401
    from absl import logging

    logging.set_verbosity(logging.ERROR)
