"""Times by which requests must be finished, which come earlier when the server is told to stop."""

import asyncio
import contextlib

from allconv_resnet.serving.refused import Refused


class Deadlines:
    """The deadlines of all requests in progress."""

    def __init__(self):
        self._open, self._end = set(), None

    @property
    def stopping(self):
        """Whether the server has been told to stop."""
        return self._end is not None

    def __len__(self):
        return len(self._open)

    @contextlib.asynccontextmanager
    async def within(self, seconds, refused):
        """Returns a context manager whose block has so much time.

        Args:
            seconds: Float.
            refused: `Refused`, which is raised when the time is over.

        Raises:
            Refused: the same, or with status 503 if the server stops.
        """
        when = asyncio.get_running_loop().time() + seconds
        timeout = asyncio.timeout_at(min(when, self._end) if self.stopping else when)
        try:
            async with timeout:
                self._open.add(timeout)
                yield
        except TimeoutError as error:
            raise Refused(503, "The server is stopping") if self.stopping else refused from error
        finally:
            self._open.discard(timeout)

    def stop(self, seconds):
        """Leaves so many seconds to all requests, those in progress and those that are still to come.

        Args:
            seconds: Float.
        """
        self._end = asyncio.get_running_loop().time() + seconds
        for timeout in self._open:
            if timeout.expired():  # a moment ago, and its request has not run since
                continue
            timeout.reschedule(min(timeout.when(), self._end))
