"""The socket on which the server listens, and the limits that the operating system keeps for it."""

import contextlib
import resource
import socket
import ssl
import stat

from allconv_resnet.errors import BadInput

BACKLOG = 1024  # connections that wait to be accepted
SPARE_FILES = 64  # files and sockets of the server's own


def listen(options):
    """Returns a listening socket and the address at which clients find it, as text.

    Args:
        options: `ServeOptions`.

    Raises:
        BadInput: if the server cannot listen there.
    """
    scheme = "https" if options.certificate else "http"
    try:
        if options.unix_socket:
            return _listen_on_path(options.unix_socket), f"{scheme}+unix://{options.unix_socket}"
        family = socket.AF_INET6 if ":" in options.host else socket.AF_INET
        listening = socket.create_server((options.host, options.port), family=family, backlog=BACKLOG)
    except OSError as error:
        place = options.unix_socket or f"{options.host} port {options.port}"
        raise BadInput(f"The server cannot listen on {place}: {error.strerror or error}") from error
    if hasattr(socket, "TCP_USER_TIMEOUT"):  # Linux
        # Connections inherit this. The system closes them when an answer has been left unread for so long.
        listening.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, max(1, round(options.write_seconds * 1e3)))
    host, port = listening.getsockname()[:2]
    return listening, f"{scheme}://{f'[{host}]' if ':' in host else host}:{port}"


def _listen_on_path(path):
    listening = socket.socket(socket.AF_UNIX)
    with contextlib.suppress(FileNotFoundError):
        if stat.S_ISSOCK(path.stat().st_mode):
            try:
                listening.connect(str(path))
            except ConnectionRefusedError:  # left by a server that was killed
                path.unlink()
            finally:
                listening.close()
                listening = socket.socket(socket.AF_UNIX)
    listening.bind(str(path))
    listening.listen(BACKLOG)
    return listening


def check_certificate(options):
    """Raises `BadInput` if the certificate or its key cannot be used."""
    if options.certificate:
        try:
            ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(options.certificate, options.certificate_key)
        except (OSError, ssl.SSLError) as error:
            files = f"certificate={options.certificate}, certificate_key={options.certificate_key}"
            raise BadInput(f"The certificate and its key must be PEM files ({error}). Received: {files}") from error


def allow_files(connections):
    """Lets the process open as many files as it needs, and returns how many connections it can have.

    Args:
        connections: Integer, most connections.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < connections + SPARE_FILES:
        soft = connections + SPARE_FILES if hard == resource.RLIM_INFINITY else min(hard, connections + SPARE_FILES)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    return max(1, min(connections, soft - SPARE_FILES))
