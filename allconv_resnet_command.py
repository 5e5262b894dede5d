"""The entry points of the command lines. They settle what has to be settled before Keras and TensorFlow are imported.

This module stands outside of the package, so that `import allconv_resnet` in a user's own program changes no settings
and hides no messages.
"""

import contextlib
import os
import signal
import sys


@contextlib.contextmanager
def starting(needs_keras=True):
    """Returns a context manager in which a command line imports its modules. At its end it imports Keras.

    Help is shown without Keras, whose import takes seconds. TensorFlow's lines about itself are held back, see
    `allconv_resnet.startup`. A backend that Keras cannot import ends the process with one sentence and the status 2,
    and Ctrl-C ends it with the status 130.

    Args:
        needs_keras: Boolean, whether the command needs Keras if its arguments do not ask for help.
    """
    _open_closed_streams()
    stderr = os.dup(2)

    def end(*_):
        # An exception would not do: Keras's import and JAX's callbacks swallow it.
        os.write(stderr, b"Stopped by Ctrl-C\n")
        os._exit(130)

    if signal.getsignal(signal.SIGINT) is not signal.SIG_IGN:  # as in the background jobs of a script
        signal.signal(signal.SIGINT, end)  # until the command has its own
    from allconv_resnet import startup

    try:
        with startup.starting():
            yield
            if needs_keras and not {"-h", "--help"} & set(sys.argv):
                startup.start_keras()
    except (ImportError, ValueError) as error:
        if not _raised_by_keras(error):
            raise
        chosen = os.environ.get("KERAS_BACKEND", "that keras.json names")
        print(f"error: Keras cannot be imported with the backend {chosen}: {error}", file=sys.stderr)
        sys.exit(2)


def _open_closed_streams():
    """Opens standard streams that the shell has closed (`>&-`) on the null device, so that no other file gets there."""
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # the lowest number that is free
        if getattr(sys, name) is None:
            setattr(sys, name, open(number, "w" if number else "r", closefd=False))  # noqa: SIM115


def _raised_by_keras(error):
    traceback, files = error.__traceback__, []
    while traceback:
        files.append(traceback.tb_frame.f_code.co_filename)
        traceback = traceback.tb_next
    return any(f"{os.sep}keras{os.sep}" in file for file in files)


def main():
    """Runs `allconv-resnet COMMAND ...` and exits."""
    command = sys.argv[1:2]
    with starting(needs_keras=bool(command) and command[0] not in ("--version", "doctor")):
        from allconv_resnet import cli

        if command == ["doctor"]:
            with contextlib.suppress(Exception):  # whatever is wrong with Keras, the report says it
                import keras  # noqa: F401
    cli.main()


if __name__ == "__main__":
    main()
