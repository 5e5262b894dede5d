"""Limits of the connections themselves, with an application that answers with as many bytes as the body says."""

import asyncio
import contextlib
import os
import re
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from serving.servers import MB, wait_for

CODE = """
import asyncio, types
from starlette.applications import Starlette
from starlette.responses import Response
from starlette.routing import Route
from allconv_resnet.serving import app
from allconv_resnet.serving.listening import listen
from allconv_resnet.serving.options import ServeOptions
from allconv_resnet.serving.server import _Server
from allconv_resnet.serving.service import Service

limits = dict(write_seconds=1, header_seconds=2, body_seconds=2, max_header_kb=9, max_body_mb=1, max_connections=8)
service = Service(None, ServeOptions(port=0, **limits))

async def respond(request):
    async with service.bodies.read(request) as body:
        return Response(b"x" * int(body[-9:]))

app.ROUTES = (types.SimpleNamespace(routes=lambda service: [Route("/", respond, methods=["POST"])]),)
listening, address = listen(service.options)

async def main():
    print(address, flush=True)
    await _Server(app.application(service), listening, service.options).serve()

asyncio.run(main())
"""


@pytest.fixture(scope="module")
def process():
    process = subprocess.Popen([sys.executable, "-c", CODE], stdout=subprocess.PIPE, text=True)
    process.port = int(process.stdout.readline().rsplit(":")[-1])
    with connection(process.port) as opened:  # the server opens further sockets of its own before it answers
        opened.sendall(post(b"1", b"connection: close"))
        assert read_all(opened).endswith(b"x")
    yield process
    process.kill()
    process.wait()


@pytest.fixture
def port(process):
    return process.port


@contextlib.contextmanager
def connection(port):
    with socket.create_connection(("127.0.0.1", port), timeout=30) as opened:
        yield opened


def post(body, *headers, length=None):
    head = [b"POST / HTTP/1.1", b"host: x", *headers]
    if length != 0:
        head.append(b"content-length: %d" % (length or len(body)))
    return b"\r\n".join([*head, b"", body])


def read_all(opened):
    with opened.makefile("rb") as stream:
        return stream.read()


def memory(process):
    return int(re.search(r"VmRSS:\s+(\d+) kB", Path(f"/proc/{process.pid}/status").read_text())[1]) * 1024


def sockets(process):
    found = 0
    for name in os.listdir(f"/proc/{process.pid}/fd"):
        with contextlib.suppress(OSError):
            found += "socket" in os.readlink(f"/proc/{process.pid}/fd/{name}")
    return found


def test_a_connection_serves_many_requests_and_a_pipeline(port):
    with connection(port) as opened:
        for size in (3, 70_000, 1):
            opened.sendall(post(b"%d" % size))
            received = b""
            while not received.partition(b"\r\n\r\n")[2].endswith(b"x" * size):
                received += opened.recv(65536)
        opened.sendall(post(b"2") * 200 + post(b"7", b"connection: close"))
        assert read_all(opened).count(b"HTTP/1.1 200") == 201


def test_answers_that_are_not_read_are_not_kept(process):
    before, count = memory(process), sockets(process)
    with contextlib.ExitStack() as stack:
        for _ in range(7):
            stack.enter_context(connection(process.port)).sendall(post(b"60000000"))
        wait_for(lambda: memory(process) > before + 100 * MB)
        wait_for(lambda: sockets(process) <= count)  # while the clients hold their ends
    wait_for(lambda: memory(process) < before + 100 * MB)


def test_more_connections_than_there_may_be_wait_for_others(process):
    with contextlib.ExitStack() as stack:
        for _ in range(20):
            stack.enter_context(connection(process.port)).sendall(b"POST / HT")
        with connection(process.port) as opened:
            opened.sendall(post(b"5", b"connection: close"))
            assert sockets(process) < 20
            assert read_all(opened).endswith(b"x" * 5)


def test_trailers_without_end_are_refused(port):
    with connection(port) as opened:
        opened.sendall(post(b"", b"transfer-encoding: chunked", length=0) + b"1\r\n3\r\n0\r\n")
        opened.sendall(b"a: " + b"b" * 20_000)
        assert opened.recv(1000).startswith(b"HTTP/1.1 4")


def test_small_chunks_and_their_sizes_are_a_body(port):
    with connection(port) as opened:
        opened.sendall(post(b"", b"transfer-encoding: chunked", length=0) + b"1\r\n0\r\n" * 3_000 + b"0\r\n\r\n")
        assert opened.recv(1000).startswith(b"HTTP/1.1 200")


def test_what_is_left_of_a_refused_body_is_read_and_forgotten(port):
    with connection(port) as opened:
        opened.sendall(post(b"1" * 5_000_000) + post(b"4", b"connection: close"))
        answers = read_all(opened)
        assert answers.startswith(b"HTTP/1.1 413") and answers.endswith(b"xxxx")


def test_memory_of_all_bodies_together_is_given_back(port):
    for _ in range(150):  # of one million bytes each, which is more than the server has for all together
        with connection(port) as opened:
            opened.sendall(post(b"0" * 999_990 + b"5", b"connection: close"))
            assert read_all(opened).startswith(b"HTTP/1.1 200")


@pytest.mark.parametrize("sent", [b"{", b"1" * 500_000], ids=["a byte", "half"])
def test_a_connection_whose_body_does_not_come_is_closed(port, sent):
    with contextlib.ExitStack() as stack:
        opened = [stack.enter_context(connection(port)) for _ in range(6)]
        for each in opened:
            each.sendall(post(sent, length=900_000))
        assert all(read_all(each).startswith(b"HTTP/1.1 408") for each in opened)


def test_deadlines_come_earlier_when_the_server_stops():
    from allconv_resnet.serving.deadlines import Deadlines
    from allconv_resnet.serving.refused import Refused

    async def run():
        deadlines = Deadlines()

        async def wait(seconds):
            async with deadlines.within(seconds, Refused(408, "late")):
                await asyncio.sleep(3600)

        early = asyncio.create_task(wait(0.01))
        waiting = asyncio.create_task(wait(3600))
        (first,) = await asyncio.gather(early, return_exceptions=True)
        deadlines.stop(0.01)
        others = await asyncio.gather(waiting, wait(3600), return_exceptions=True)
        return [(error.status, error.reason) for error in (first, *others)], len(deadlines)

    errors, left = asyncio.run(run())
    assert errors == [(408, "late"), (503, "The server is stopping"), (503, "The server is stopping")] and left == 0


def test_a_server_that_stops_in_the_moment_in_which_a_request_is_late():
    from allconv_resnet.serving.deadlines import Deadlines
    from allconv_resnet.serving.refused import Refused

    async def run():
        deadlines = Deadlines()

        async def wait(seconds):
            async with deadlines.within(seconds, Refused(408, "late")):
                await asyncio.sleep(3600)

        late, other = asyncio.create_task(wait(0.0)), asyncio.create_task(wait(3600))
        while not any(timeout.expired() for timeout in deadlines._open):
            await asyncio.sleep(0)
        assert not late.done()
        deadlines.stop(0.01)
        return [error.status for error in await asyncio.gather(late, other, return_exceptions=True)]

    assert asyncio.run(run()) == [503, 503]
