"""A model server for machines without Docker: the REST protocols of TensorFlow Serving and KServe, over Granian.

Servers were compared with hostile requests to a small ASGI application on two cores (2 s for a header of 16 kB, 3 s to
stop). Hypercorn 0.18 (H), uvicorn 0.54 with h11 (U) and uvicorn with limits that this project had written (O), for
which it overrode 14 methods of uvicorn's protocol class in 218 lines:

| | Granian 2.8 | H | U | O |
|---|---|---|---|---|
| half a header, or silence | closed after 2 s | after 2 s | never closed | 408 after 2 s |
| header of 50 kB in one read with its body | 431 | 200 | 200 | 200 |
| `Upgrade: h2c` with a body | 200 | 200 | 200 | 400, and the body is read as a request |
| 1,000 half headers, then a good request | 0.0 s (at most 100 connections: 5.7 s) | 0.0 s | 0.0 s | 0.1 s |
| most connections | has a limit | no limit | no limit | has a limit |
| 5 unread answers of 60 MB | kept; with the option below freed in 2 s | kept | kept | freed |
| SIGTERM during 30 s of computing | gone after 3.0 s | after 29.6 s | 3.1 s, plain-text 500 | 3.2 s |
| requests/s, 8 clients, bodies of 10 kB | 2,500 to 6,500 | 4,000 | 6,200 | 5,500 |

A proxy in front of uvicorn (nginx, Caddy, Envoy) has the limits too, but a user of `pip install` does not have the
proxy, so this was not measured.
Granian reads connections in Rust, outside of Python's lock, so a slow client costs a few kilobytes and no Python. What
it lacks is here: an unread answer is the system's to end (`TCP_USER_TIMEOUT`), and a Python thread that does not come
back must not keep the process. Its embedded server is used, which calls itself experimental, because it leaves the
process, its signals and the socket to us.

KServe's own Python server was not used. It supports only `:predict` with `instances` of TensorFlow Serving's protocol,
needs more than fifty packages, among them a Kubernetes client and pandas, and keeps protobuf below 7.
"""

import asyncio
import contextlib
import os
import signal
import threading

from granian.constants import HTTPModes, Interfaces
from granian.http import HTTP1Settings
from granian.net import SocketHolder
from granian.server.embed import Server

from allconv_resnet.errors import BadInput
from allconv_resnet.serving import grpc_api
from allconv_resnet.serving.app import application
from allconv_resnet.serving.listening import BACKLOG, allow_files, check_certificate, listen
from allconv_resnet.serving.service import Service
from allconv_resnet.serving.watching import request_log

STOP_SHARE = 0.8  # of the time to stop: requests in progress that need longer are refused, which takes the rest


def serve(models, options):
    """Serves models until SIGTERM or Ctrl-C, and then ends the process.

    SIGHUP looks for new versions at once. SIGUSR1 and SIGUSR2 do nothing.

    Args:
        models: `Models`.
        options: `ServeOptions`.

    Raises:
        BadInput: if no model can be loaded, or the server cannot listen at the address.
    """
    for number in (signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2):  # they would end the process
        signal.signal(number, signal.SIG_IGN)
    service = Service(models, options)
    if options.request_log:
        service.listeners.append(request_log(options.request_log))
    app = application(service)
    check_certificate(options)
    listening, address = listen(options)
    try:
        models.look()
        if not models.loaded:
            raise BadInput(models.failures[0] if models.failures else f"There is {models.nothing}")
        asyncio.run(_run(_Server(app, listening, options), service, address))
    except BadInput:
        if options.unix_socket:
            options.unix_socket.unlink(missing_ok=True)
        raise


async def _run(server, service, address):
    loop, options = asyncio.get_running_loop(), service.options

    def stop():
        if service.deadlines.stopping:  # told for the second time
            _end(options)
        timer = threading.Timer(options.stop_seconds, _end, [options])
        timer.daemon = True
        timer.start()
        service.deadlines.stop(STOP_SHARE * options.stop_seconds)
        server.stop()

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop)
    now = asyncio.Event()
    loop.add_signal_handler(signal.SIGHUP, now.set)
    if options.grpc_port is not None:
        calls, port = await grpc_api.start(service)
    watcher = asyncio.create_task(_look(service.models, now, options.poll_seconds))
    for model in service.models.loaded:
        _print(f"Serving version {model.version} at {address}/v1/models/{model.name}:predict, until Ctrl-C")
    if options.grpc_port is not None:
        _print(f"Serving gRPC on port {port}")
    await server.serve()
    if options.grpc_port is not None:
        await calls.stop(options.stop_seconds)
    watcher.cancel()
    _end(options, 0 if service.deadlines.stopping else 1)


async def _look(models, now, seconds):
    """Looks for new versions again and again."""
    while True:
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(now.wait(), seconds or None)
        again = now.is_set()
        now.clear()
        await asyncio.to_thread(models.look, again)


def _print(text):
    with contextlib.suppress(OSError, ValueError):  # nobody reads it any more
        print(text, flush=True)


def _end(options, status=0):
    """Ends the process, also if a thread is still computing, for which Python would wait."""
    if options.unix_socket:
        options.unix_socket.unlink(missing_ok=True)
    _print("Stopped")
    os._exit(status)


class _Server(Server):
    """Granian within this process, on a socket that is open already."""

    def __init__(self, app, listening, options):
        header = {"header_read_timeout": int(options.header_seconds * 1e3)}
        super().__init__(
            app,
            interface=Interfaces.ASGINL,
            http=HTTPModes.http1,
            websockets=False,
            backlog=BACKLOG,
            backpressure=allow_files(options.max_connections),
            http1_settings=HTTP1Settings(max_buffer_size=int(options.max_header_kb * 1e3), **header),
            ssl_cert=options.certificate,
            ssl_key=options.certificate_key,
            log_enabled=False,
        )
        self.listening, self.on_path = listening, options.unix_socket is not None

    def _init_shared_socket(self):
        self._shd = SocketHolder(self.listening.fileno(), self.on_path, BACKLOG)
