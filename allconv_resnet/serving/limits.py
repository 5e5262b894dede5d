"""Limits on the connections, time and memory that clients may use.

uvicorn and Starlette leave this to a proxy in front of the server. These limits protect a server without a proxy: they
bound the size and time of a header and of a body, the size of all bodies together, the time that an answer is left
unread, and the number of connections.
"""

import asyncio
import json
import socket
from http import HTTPStatus

from starlette.requests import ClientDisconnect
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from allconv_resnet.serving.protocol import Refused

FRAMING = 8  # received bytes allowed for each byte of a body: a chunk of one byte takes six


class Bodies:
    """Reads the bodies of requests within the limits: `async with bodies.read(request) as body`.

    Args:
        options: `ServeOptions`.
    """

    def __init__(self, options):
        self.limit, self.seconds = int(options.max_body_mb * 1e6), options.body_seconds
        self.free = int(options.max_buffered_mb * 1e6)

    def read(self, request):
        """Returns a context manager that reads the body of a request and, at its end, counts its memory as free.

        Args:
            request: Starlette `Request`.

        Raises:
            Refused: on entry, with status 413 if the body is too large (before it is read, if its length is declared),
                408 if it does not arrive in time, or 429 if all bodies together are too large.
        """
        return _Body(self, request)


class _Body:
    def __init__(self, bodies, request):
        self.bodies, self.request, self.size = bodies, request, 0

    async def __aenter__(self):
        if int(self.request.headers.get("content-length", 0)) > self.bodies.limit:
            raise self._too_large()
        content = bytearray()
        try:
            async with asyncio.timeout(self.bodies.seconds):
                async for part in self.request.stream():
                    self._take(len(part))
                    content += part
        except TimeoutError as error:
            self._give_back()
            raise Refused(408, f"The body did not come within {self.bodies.seconds:g} s") from error
        except ClientDisconnect as error:
            self._give_back()
            raise Refused(400, "The connection ended within the body") from error
        except Refused:
            self._give_back()
            raise
        return bytes(content)

    async def __aexit__(self, *_):
        self._give_back()

    def _take(self, count):
        if self.size + count > self.bodies.limit:
            raise self._too_large()
        if count > self.bodies.free:
            raise Refused(429, "The server is busy with other requests: try again later")
        self.size += count
        self.bodies.free -= count

    def _give_back(self):
        self.bodies.free += self.size
        self.size = 0

    def _too_large(self):
        return Refused(413, f"A body must have at most {self.bodies.limit:,} bytes")


def guarded_protocol(options):
    """Returns uvicorn's protocol class with the limits of `ServeOptions`, for one server."""

    class Guarded(GuardedProtocol):
        limits = options
        silent = {}  # noqa: RUF012 - the server's connections that are between requests, the oldest first

    return Guarded


class GuardedProtocol(HttpToolsProtocol):
    """uvicorn's HTTP/1.1 connection, with limits. It refuses with JSON, like all errors of the server."""

    def connection_made(self, transport):
        super().connection_made(transport)
        # asyncio sets this only for sockets with an explicit protocol number. Without it an answer, which is sent in
        # two parts, waits 40 ms for the acknowledgement of the first part.
        transport.get_extra_info("socket").setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.deadline = self.write_deadline = None
        self.unread = 0  # bytes received outside of bodies: the header, chunk sizes and trailers
        self.silent[self] = None
        self._start_deadline()
        if len(self.connections) > self.limits.max_connections:
            # The connection that has been silent for longest may be this one.
            next(iter(self.silent)).make_room()

    def connection_lost(self, exc):
        self._stop_deadline()
        self._stop_write_deadline()
        self.silent.pop(self, None)
        super().connection_lost(exc)

    def data_received(self, data):
        self.unread += len(data)
        super().data_received(data)
        self.unread = max(0, self.unread)
        if self.transport.is_closing():
            return
        if self.unread > self.limits.max_header_kb * 1e3:
            self.refuse(431, f"A header must have at most {self.limits.max_header_kb * 1e3:,.0f} bytes")
        elif len(self.pipeline) > self.limits.max_pipeline:
            self.refuse(429, f"At most {self.limits.max_pipeline} requests may wait for answers")
        elif self in self.silent and self.deadline is None:
            self._start_deadline()  # uvicorn's own limit ends with the first byte

    def on_body(self, body):
        self.unread -= FRAMING * len(body)
        super().on_body(body)

    def on_headers_complete(self):
        self.silent.pop(self, None)
        self._stop_deadline()
        super().on_headers_complete()

    def on_message_complete(self):
        self.unread = 0
        super().on_message_complete()

    def on_response_complete(self):
        super().on_response_complete()
        if self.transport.is_closing():
            self._start_write_deadline()
        elif self.cycle.response_complete:  # otherwise another request of the pipeline follows
            self.silent[self] = None

    def pause_writing(self):
        super().pause_writing()
        self._start_write_deadline()

    def resume_writing(self):
        super().resume_writing()
        self._stop_write_deadline()
        if self.transport.is_closing():  # pause_writing is not called again for the little that is left
            self._start_write_deadline()

    def eof_received(self):
        self._start_write_deadline()  # asyncio closes the connection
        return super().eof_received()

    def timeout_keep_alive_handler(self):
        super().timeout_keep_alive_handler()
        self._start_write_deadline()

    def send_400_response(self, msg):
        self.refuse(400, msg)

    def make_room(self):
        """Closes the connection, without delay if the client has left an answer unread."""
        if self.transport.get_write_buffer_size():
            self.silent.pop(self)
            self.transport.abort()
        else:
            self.refuse(429, "All connections are taken: try again later")

    def refuse(self, status, reason):
        """Answers with an error, unless an answer is being sent already, and closes the connection.

        The connection counts until it is closed. After `write_seconds` what the client has not read is dropped.

        Args:
            status: Integer, HTTP status.
            reason: String, the error message.
        """
        self._stop_deadline()
        self.silent.pop(self, None)
        if self.cycle is None or self.cycle.response_complete or not self.cycle.response_started:
            body = json.dumps({"error": reason}).encode()
            phrase = HTTPStatus(status).phrase
            head = f"HTTP/1.1 {status} {phrase}\r\ncontent-type: application/json\r\ncontent-length: {len(body)}\r\n"
            self.transport.write(f"{head}connection: close\r\n\r\n".encode() + body)
        self.transport.close()
        self._start_write_deadline()

    def _start_deadline(self):
        seconds = self.limits.header_seconds
        reason = f"The header of the request did not come within {seconds:g} s"
        self.deadline = self.loop.call_later(seconds, self.refuse, 408, reason)

    def _stop_deadline(self):
        if self.deadline:
            self.deadline.cancel()
        self.deadline = None

    def _start_write_deadline(self):
        if self.write_deadline is None and self.transport.get_write_buffer_size():
            self.write_deadline = self.loop.call_later(self.limits.write_seconds, self.transport.abort)

    def _stop_write_deadline(self):
        if self.write_deadline:
            self.write_deadline.cancel()
        self.write_deadline = None
