"""Progress of a long job. A terminal shows one line that is rewritten; other streams get a line every 30 seconds.

A job goes on if nobody reads its messages any more, for instance after `2>&1 | head` or on a full disk.
"""

import contextlib
import sys
import time


class Progress:
    """Shows the progress of a job on a stream.

    Args:
        total: Integer, units of work of the whole job.
        done: Integer, units of work done before this process began.
        stream: Text stream to write to. Defaults to standard error, which is None if the shell has closed it.
    """

    def __init__(self, total, done=0, stream=None):
        self.total, self.first, self.stream = total, done, stream or sys.stderr
        self.terminal = self.stream is not None and self.stream.isatty()
        self.began = self.shown = time.monotonic()

    def elapsed(self):
        """Returns the seconds since this process began."""
        return time.monotonic() - self.began

    def due(self):
        """Returns whether it is time for a line."""
        return time.monotonic() - self.shown >= (1 if self.terminal else 30)

    def show(self, done, message):
        """Shows a message and the estimated time that is left.

        Args:
            done: Integer, units of work done.
            message: String without a line end.
        """
        self.shown = time.monotonic()
        left = self.elapsed() / max(1, done - self.first) * (self.total - done)
        line = f"{message}  {duration(left)} left"
        self._print(f"\r\033[K{line}" if self.terminal else line, end="" if self.terminal else "\n")

    def say(self, message):
        """Shows a message on a separate line."""
        self._print(f"\r\033[K{message}" if self.terminal else message, end="\n")

    def _print(self, text, end):
        _print(text, end, self.stream)


def say(message):
    """Prints a message on standard error."""
    _print(message, "\n", sys.stderr)


def _print(text, end, stream):
    if stream is not None:
        with contextlib.suppress(OSError, ValueError):  # closed, or a file on a full disk
            print(text, end=end, file=stream, flush=True)


def duration(seconds):
    """Returns a time in seconds as text, for instance `2 h 05 min`."""
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02} min" if hours else f"{minutes} min {seconds:02} s" if minutes else f"{seconds} s"
