"""The entry points of the command lines. They settle what has to be settled before Keras and TensorFlow are imported.

This module stands outside of the package, so that `import allconv_resnet` in a user's own program changes no settings
and hides no messages.
"""

import contextlib
import os
import re
import signal
import sys
import tempfile

# TensorFlow writes these lines with absl before a log level can be set: informational ones, and what belongs to them.
CHATTER = re.compile(r"[IW]\d{4} [\d:.]+ .*|WARNING: All log messages before absl.*|To enable the following instr.*")


@contextlib.contextmanager
def starting(needs_keras=True):
    """Returns a context manager in which a command line imports its modules. At its end it imports Keras.

    Help is shown without Keras, whose import takes seconds.

    TensorFlow then prints only errors, unless the environment variable TF_CPP_MIN_LOG_LEVEL is set. On a machine
    without a GPU of NVIDIA it does not print either that CUDA finds none. A backend that Keras cannot import ends the
    process with one sentence and the status 2, and Ctrl-C ends it with the status 130.

    Args:
        needs_keras: Boolean, whether the command needs Keras if its arguments do not ask for help.
    """
    stderr = os.dup(2)

    def end(*_):
        # An exception would not do: Keras's import and JAX's callbacks swallow it.
        os.write(stderr, b"Stopped by Ctrl-C\n")
        os._exit(130)

    signal.signal(signal.SIGINT, end)  # until the command has its own
    try:
        if "TF_CPP_MIN_LOG_LEVEL" in os.environ:
            chatter = contextlib.nullcontext()
        else:
            os.environ["TF_CPP_MIN_LOG_LEVEL"] = "2" if os.path.exists("/dev/nvidiactl") else "3"
            chatter = _without_chatter()
        with chatter:
            yield
            if needs_keras and not {"-h", "--help"} & set(sys.argv):
                import keras  # noqa: F401
                from absl import logging

                logging.set_verbosity(logging.ERROR)  # tensorflow-datasets warns of its own use of old names
    except (ImportError, ValueError) as error:
        if not _raised_by_keras(error):
            raise
        chosen = os.environ.get("KERAS_BACKEND", "that keras.json names")
        print(f"error: Keras cannot be imported with the backend {chosen}: {error}", file=sys.stderr)
        sys.exit(2)


@contextlib.contextmanager
def _without_chatter():
    """Holds back standard error, also that of C++ code, and prints it at the end without the lines of `CHATTER`."""
    with tempfile.TemporaryFile() as held:
        sys.stderr.flush()
        stderr = os.dup(2)
        os.dup2(held.fileno(), 2)
        try:
            yield
        finally:
            sys.stderr.flush()
            os.dup2(stderr, 2)
            os.close(stderr)
            held.seek(0)
            lines = held.read().decode(errors="replace").splitlines()
            sys.stderr.write("".join(f"{line}\n" for line in lines if not CHATTER.fullmatch(line)))


def _raised_by_keras(error):
    traceback, files = error.__traceback__, []
    while traceback:
        files.append(traceback.tb_frame.f_code.co_filename)
        traceback = traceback.tb_next
    return any(f"{os.sep}keras{os.sep}" in file for file in files)


def main():
    """Runs `allconv-resnet COMMAND ...` and exits."""
    with starting(needs_keras=len(sys.argv) > 1):
        from allconv_resnet import cli
    cli.main()


if __name__ == "__main__":
    main()
