"""Reads the bodies of requests within the limits on their size, their time, and the memory of all of them."""

import asyncio
import contextlib
import zlib

from starlette.requests import ClientDisconnect

from allconv_resnet.serving.refused import Refused

UNPACKED_AT_ONCE = 2**20  # bytes, in about a millisecond


class Bodies:
    """Reads the bodies of requests within the limits: `async with bodies.read(request) as body`.

    Args:
        options: `ServeOptions`.
        deadlines: `Deadlines`.
    """

    def __init__(self, options, deadlines):
        self.limit, self.seconds, self.deadlines = int(options.max_body_mb * 1e6), options.body_seconds, deadlines
        self.free = int(options.max_buffered_mb * 1e6)

    @contextlib.asynccontextmanager
    async def read(self, request):
        """Returns a context manager that reads the body of a request and, at its end, counts its memory as free.

        A body with `Content-Encoding: gzip` is unpacked, and its limits are those of what it unpacks to.

        Args:
            request: Starlette `Request`.

        Raises:
            Refused: on entry, with status 413 if the body is too large, 408 if it does not arrive in time, 429 if all
                bodies together are too large, 415 for another encoding, or 400 if it ends too early.
        """
        body = _Body(self, request)
        try:
            late = Refused(408, f"The body did not come within {self.seconds:g} s")
            try:
                async with self.deadlines.within(self.seconds, late):
                    await body.receive()
            except Refused as error:
                raise body.refused or error from error
            yield body.content()
        except ClientDisconnect as error:
            raise Refused(400, "The connection ended within the body") from error
        finally:
            body.give_back()


class _Body:
    def __init__(self, bodies, request):
        self.bodies, self.request, self.size, self.parts = bodies, request, 0, []
        encoding = request.headers.get("content-encoding", "identity").lower()
        self.unpack = zlib.decompressobj(zlib.MAX_WBITS | 16) if encoding in ("gzip", "x-gzip") else None
        self.refused = None
        if self.unpack is None and encoding != "identity":
            self.refused = Refused(415, f"A body must be sent as it is or with gzip. Received: {encoding[:50]}")
        elif int(request.headers.get("content-length", 0)) > bodies.limit:
            self.refused = self._too_large()

    async def receive(self):
        """Reads all parts. The rest of a refused body is read and forgotten: only then do clients read the answer."""
        if self.refused and "expect" in self.request.headers:  # the client has not sent it
            raise self.refused
        async for part in self.request.stream():
            if not self.refused:
                try:
                    await self._keep(part)
                except Refused as error:
                    self.refused = error
                    self.give_back()
        if self.unpack and not self.unpack.eof and not self.refused:
            self.refused = Refused(400, "The body is not gzip, or is cut off")
        if self.refused:
            raise self.refused

    async def _keep(self, part):
        if not self.unpack:
            self._add(part)
            return
        unpacked = b""
        # Some bytes can wait in zlib although it has read the whole part.
        while part or len(unpacked) == UNPACKED_AT_ONCE:
            try:
                unpacked = self.unpack.decompress(part, UNPACKED_AT_ONCE)
            except zlib.error as error:
                raise Refused(400, "The body is not gzip, as its Content-Encoding says") from error
            if self.unpack.unused_data:
                raise Refused(400, "The body goes on after the end of what gzip packed")
            self._add(unpacked)
            part = self.unpack.unconsumed_tail
            await asyncio.sleep(0)  # a small body can unpack to a thousand times its size: other requests go on

    def _add(self, part):
        if self.size + len(part) > self.bodies.limit:
            raise self._too_large()
        if len(part) > self.bodies.free:
            raise Refused(429, "The server is busy with other requests: try again later")
        self.parts.append(part)
        self.size += len(part)
        self.bodies.free -= len(part)

    def content(self):
        self.parts[:] = [b"".join(self.parts)]  # the parts themselves are not kept
        return self.parts[0]

    def give_back(self):
        self.parts.clear()
        self.bodies.free += self.size
        self.size = 0

    def _too_large(self):
        return Refused(413, f"A body must have at most {self.bodies.limit:,} bytes")
