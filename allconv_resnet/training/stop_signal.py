"""Signals that stop a run, which is then saved."""

import signal
import threading


class StopSignal:
    """A context manager that stores the first SIGTERM, SIGHUP, SIGALRM or Ctrl-C in its attribute `signal`.

    A second signal has its usual effect.

    Args:
        minutes: Number or None, minutes after which the process gets a SIGALRM.
    """

    SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGALRM)

    def __init__(self, minutes=None):
        self.signal, self.minutes = None, minutes

    def __enter__(self):
        self.handlers = {}
        if threading.current_thread() is threading.main_thread():  # Python allows no handlers in other threads
            self.handlers = {number: signal.signal(number, self._note) for number in self.SIGNALS}
            if self.minutes is not None:
                signal.setitimer(signal.ITIMER_REAL, max(60 * self.minutes, 1e-6))
        return self

    def _note(self, number, _):
        self.signal = number
        self._restore()

    def __exit__(self, *_):
        if self.handlers and self.minutes is not None:
            signal.setitimer(signal.ITIMER_REAL, 0)
        self._restore()

    def _restore(self):
        for number, handler in self.handlers.items():
            signal.signal(number, handler)
