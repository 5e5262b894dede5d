"""Ctrl-C in a command that does not handle it itself."""

import contextlib
import os
import signal
import threading

STATUS = 128 + signal.SIGINT
PATIENCE = 5  # seconds for the code that was interrupted to clean up


@contextlib.contextmanager
def interruptible():
    """Returns a context manager in which Ctrl-C raises `KeyboardInterrupt`, and ends the process if that is swallowed.

    Python ignores an exception that is raised in a callback of the garbage collector, and JAX has such a callback.
    """
    ignored = signal.getsignal(signal.SIGINT) is signal.SIG_IGN  # as in the background jobs of a script
    if ignored or threading.current_thread() is not threading.main_thread():  # where Python allows no handlers
        yield
        return
    timers = []

    def interrupt(*_):
        timers.append(threading.Timer(PATIENCE, _end))
        timers[-1].daemon = True
        timers[-1].start()
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGINT, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
        for timer in timers:
            timer.cancel()


def _end():
    with contextlib.suppress(OSError):
        os.write(2, b"Stopped by Ctrl-C\n")
    os._exit(STATUS)
