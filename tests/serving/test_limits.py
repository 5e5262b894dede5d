"""Limits of the connections themselves, on a server that answers with whatever is asked of it."""

import contextlib
import logging
import socket
import threading
import time

import pytest
import uvicorn
from starlette.applications import Starlette
from starlette.responses import Response
from starlette.routing import Route

from allconv_resnet.serving.limits import Bodies, guarded_protocol
from allconv_resnet.serving.options import ServeOptions
from allconv_resnet.serving.protocol import Refused

OPTIONS = ServeOptions(
    write_seconds=0.5, header_seconds=5, body_seconds=5, max_header_kb=8, max_body_mb=1, max_connections=8
)


@pytest.fixture(scope="module")
def server():
    """A server whose one address answers with as many bytes as the end of the body says."""
    bodies = Bodies(OPTIONS)

    async def respond(request):
        try:
            async with bodies.read(request) as body:
                return Response(b"x" * int(body[-9:]))
        except Refused as error:
            return Response(error.reason, error.status)

    app = Starlette(routes=[Route("/", respond, methods=["POST"])])
    listening = socket.create_server(("127.0.0.1", 0))
    config = uvicorn.Config(app, http=guarded_protocol(OPTIONS), lifespan="off", log_level=logging.CRITICAL)
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]})
    thread.start()
    server.port = listening.getsockname()[1]
    yield server
    server.should_exit = True
    thread.join()


@pytest.fixture
def port(server):
    return server.port


@contextlib.contextmanager
def connection(port):
    with socket.create_connection(("127.0.0.1", port), timeout=30) as opened:
        yield opened


def post(body, *headers, length=None):
    head = [b"POST / HTTP/1.1", b"host: x", *headers]
    if length != 0:
        head.append(b"content-length: %d" % (length or len(body)))
    return b"\r\n".join([*head, b"", body])


def receive(opened, count):
    received = bytearray()
    while len(received) < count and (part := opened.recv(count - len(received))):
        received += part
    return received


def of_client(server, opened):
    """The server's side of a connection, if it is still there."""
    return [each for each in server.server_state.connections if each.client == opened.getsockname()]


def wait_for(condition):
    end = time.monotonic() + 10
    while not (result := condition()):
        assert time.monotonic() < end
        time.sleep(0.01)
    return result


def test_a_connection_serves_many_requests_and_a_pipeline(port):
    with connection(port) as opened:
        for size in (3, 70_000, 1):
            opened.sendall(post(b"%d" % size))
            head = b""
            while b"\r\n\r\n" not in head:
                head += opened.recv(1)
            assert receive(opened, size) == b"x" * size
        opened.sendall(post(b"2") * 5 + post(b"7", b"connection: close"))
        with opened.makefile("rb") as stream:
            assert stream.read().count(b"HTTP/1.1 200") == 6


def test_an_answer_is_sent_at_once(server):
    with connection(server.port) as opened:
        opened.sendall(post(b"1"))
        assert opened.recv(1000).startswith(b"HTTP/1.1 200")
        used = {guarded.client: guarded.transport for guarded in server.server_state.connections}[opened.getsockname()]
        assert used.get_extra_info("socket").getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)


@pytest.mark.parametrize("more", [b"", b"\x16\x03 nonsense\r\n\r\n"], ids=["alone", "and nonsense"])
def test_an_answer_that_is_not_read_is_not_kept(port, more):
    with connection(port) as opened:
        opened.sendall(post(b"60000000") + more)
        time.sleep(2)  # the server gives it half a second
        received = len(receive(opened, 60_000_000))
    assert 0 < received < 30_000_000  # what the system had buffered, and not what the server had


@pytest.mark.parametrize("end", ["the answer is the last", "the client has half closed"])
def test_the_end_of_an_answer_that_is_not_read_is_not_kept(server, end):
    with connection(server.port) as opened:
        opened.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        (guarded,) = wait_for(lambda: of_client(server, opened))
        # So little that the system does not take all of the answer, and asyncio tells nobody of the rest.
        guarded.transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
        if end == "the answer is the last":
            opened.sendall(post(b"110000", b"connection: close"))
        else:
            opened.sendall(post(b"110000"))
            wait_for(lambda: guarded.transport.get_write_buffer_size())
            opened.shutdown(socket.SHUT_WR)
        assert wait_for(lambda: guarded.transport.get_write_buffer_size()) < 64 * 1024
        wait_for(lambda: not of_client(server, opened))


def test_connections_that_make_room_count_until_they_are_gone(server):
    with contextlib.ExitStack() as stack:
        opened = [stack.enter_context(connection(server.port)) for _ in range(3 * OPTIONS.max_connections)]
        for each in opened:
            with contextlib.suppress(OSError):  # refused
                each.sendall(post(b"20000000"))
        time.sleep(0.3)
        held = sum(each.transport.get_write_buffer_size() for each in server.server_state.connections)
        assert 0 < held <= OPTIONS.max_connections * 20_001_000
        assert len(server.server_state.connections) <= OPTIONS.max_connections
        wait_for(lambda: not any(each.transport.get_write_buffer_size() for each in server.server_state.connections))


def test_a_pipeline_has_an_end(port):
    with connection(port) as opened:
        opened.sendall(post(b"1") * 200)
        with contextlib.suppress(OSError), opened.makefile("rb") as stream:
            assert stream.read().count(b"HTTP/1.1 200") <= OPTIONS.max_pipeline + 1
    with connection(port) as opened:
        opened.sendall(post(b"1") * OPTIONS.max_pipeline + post(b"1", b"connection: close"))
        with opened.makefile("rb") as stream:
            assert stream.read().count(b"HTTP/1.1 200") == OPTIONS.max_pipeline + 1


def test_trailers_without_end_are_refused(port):
    with connection(port) as opened:
        opened.sendall(post(b"", b"transfer-encoding: chunked", length=0) + b"1\r\n3\r\n0\r\n")
        opened.sendall(b"a: " + b"b" * 20_000)
        assert opened.recv(1000).startswith(b"HTTP/1.1 431")


def test_small_chunks_and_their_sizes_are_a_body(port):
    with connection(port) as opened:
        opened.sendall(post(b"", b"transfer-encoding: chunked", length=0) + b"1\r\n0\r\n" * 20_000 + b"0\r\n\r\n")
        assert opened.recv(1000).startswith(b"HTTP/1.1 200")


def test_what_is_left_of_a_refused_body_is_read_and_forgotten(port):
    with connection(port) as opened:
        opened.sendall(post(b"1" * 5_000_000) + post(b"4", b"connection: close"))
        with opened.makefile("rb") as stream:
            answers = stream.read()
        assert answers.startswith(b"HTTP/1.1 413") and answers.endswith(b"xxxx")


def test_memory_of_all_bodies_together_is_given_back(port):
    for _ in range(150):  # of one million bytes each, which is more than the server has for all together
        with connection(port) as opened:
            opened.sendall(post(b"0" * 999_990 + b"5", b"connection: close"))
            assert opened.recv(1000).startswith(b"HTTP/1.1 200")
