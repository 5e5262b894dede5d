"""Watches requests: tells the listeners of a service what was answered, and writes the log of requests."""

import contextlib
import json
import sys
import time
from datetime import UTC, datetime

from allconv_resnet.errors import BadInput
from allconv_resnet.serving.events import Finished


class Watched:
    """ASGI middleware that tells `service.listeners` of every request that has been answered.

    It also lets go of the connection then. Granian closes a connection whose body was refused as soon as Python has no
    reference to it any more, and exceptions keep references until the garbage collector comes.

    Args:
        app: ASGI application.
        service: `Service`.
    """

    def __init__(self, app, service):
        self.app, self.service = app, service

    async def __call__(self, scope, receive, send):
        if scope["type"] != "http":
            return await self.app(scope, receive, send)
        began, connection = time.monotonic(), _Connection(receive, send)
        scope["known"] = {}
        try:
            await self.app(scope, connection.receive, connection.send)
        finally:
            status, connection.ends = connection.status, None
            client, seconds = (scope.get("client") or ("",))[0], time.monotonic() - began
            endpoint = getattr(scope.get("endpoint"), "__name__", "")  # Starlette's router has entered it
            known = {"endpoint": endpoint} | scope["known"]
            self.service.tell(Finished(scope["method"], scope["path"], client, status, seconds, **known))


class _Connection:
    """The two ends of a request, which can be let go."""

    def __init__(self, receive, send):
        self.ends, self.status = (receive, send), 500

    async def receive(self):
        return await self.ends[0]()

    async def send(self, message):
        self.status = message.get("status", self.status)
        await self.ends[1](message)


def request_log(path):
    """Returns a listener that writes a line of JSON for every request.

    Args:
        path: Path of the file, to which lines are added, or `-` for standard output.

    Raises:
        BadInput: if the file cannot be written to.
    """
    try:
        stream = sys.stdout if str(path) == "-" else open(path, "a", encoding="utf-8", buffering=1)  # noqa: SIM115
    except OSError as error:
        raise BadInput(f"The log of requests {path} cannot be written: {error.strerror}") from error

    def write(event):
        if isinstance(event, Finished):
            line = {"time": datetime.now(UTC).isoformat(timespec="milliseconds")} | vars(event)
            line["seconds"] = round(event.seconds, 6)
            with contextlib.suppress(OSError, ValueError):  # nobody reads it any more, or the disk is full
                print(json.dumps(line), file=stream, flush=True)

    return write
