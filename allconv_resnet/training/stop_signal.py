"""Signals that stop a run, which is then saved."""

import signal
import threading

from allconv_resnet.errors import BadInput

LONGEST = 1e9  # seconds: Python's timers overflow at ten times as many


class StopSignal:
    """A context manager that stores the first SIGTERM, SIGHUP, SIGALRM or Ctrl-C in its attribute `signal`.

    A second signal has its usual effect. A signal that the process was started to ignore, as `nohup` does with SIGHUP,
    stays ignored.

    Args:
        minutes: Number or None, minutes after which the process gets a SIGALRM.

    Raises:
        BadInput: on entering in another thread than the main one, if there are `minutes`. Signals do not reach it.
    """

    SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGALRM)

    def __init__(self, minutes=None):
        self.signal, self.minutes = None, minutes

    def __enter__(self):
        self.handlers = {}
        if threading.current_thread() is threading.main_thread():  # Python allows no handlers in other threads
            noted = [number for number in self.SIGNALS if signal.getsignal(number) is not signal.SIG_IGN]
            self.handlers = {number: signal.signal(number, self._note) for number in noted}
            if self.minutes is not None:
                signal.setitimer(signal.ITIMER_REAL, min(max(60 * self.minutes, 1e-6), LONGEST))
        elif self.minutes is not None:
            raise BadInput("minutes can stop a run in the main thread of a program alone")
        return self

    def _note(self, number, _):
        self.signal = number
        self._restore()

    def __exit__(self, *_):
        self._restore()

    def _restore(self):
        if self.handlers and self.minutes is not None:  # or it would end the process while the run is being saved
            signal.setitimer(signal.ITIMER_REAL, 0)
        for number, handler in self.handlers.items():
            signal.signal(number, handler)
