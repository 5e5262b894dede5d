"""Options of `allconv-resnet serve`, including the limits on what clients may send."""

import os
import re
from dataclasses import dataclass, fields

from allconv_resnet.errors import BadInput


@dataclass(frozen=True)
class ServeOptions:
    """Options of a server. Anyone who can reach the port can send anything, so everything that is sent has a limit."""

    name: str = "model"
    """The model's name in the address: /v1/models/NAME:predict."""
    host: str = "127.0.0.1"
    """Address to listen on. 0.0.0.0 means every network of the machine."""
    port: int = 8501
    """Port to listen on. The default is that of TensorFlow Serving's REST; 0 means any free port, which is printed."""
    threads: int = os.cpu_count() or 1
    """Number of requests, or batches of them, that are processed at the same time."""
    batch: int = 1
    """Most images in a batch of several requests. 1 turns batching off."""
    batch_wait_ms: float = 5.0
    """Milliseconds that the first request of a batch waits for others."""

    max_body_mb: float = 32.0
    """Largest body of a request, in millions of bytes."""
    max_buffered_mb: float = 128.0
    """Largest total size of the bodies of all requests in progress, in millions of bytes."""
    max_images: int = 1024
    """Most images in a request. Small images cost as much as large ones, since all are resized to one size."""
    max_header_kb: float = 64.0
    """Largest header of a request, in thousands of bytes."""
    max_connections: int = 512
    """Most open connections. A further one replaces the connection that has been silent for longest."""
    max_pipeline: int = 32
    """Most requests of a connection that wait for the answer to an earlier one."""
    header_seconds: float = 10.0
    """Seconds in which the header of a request must arrive, from its first byte."""
    body_seconds: float = 30.0
    """Seconds in which the body of a request must arrive."""
    write_seconds: float = 30.0
    """Seconds for which a client may leave an answer unread."""
    stop_seconds: float = 10.0
    """Seconds in which the requests in progress may finish when the server is told to stop."""

    def __post_init__(self):
        if not re.fullmatch(r"[A-Za-z0-9._-]+", self.name):
            raise BadInput(f"name must be made of letters, digits, -, _ and dots. Received: name={self.name!r}")
        if not 0 <= self.port < 2**16:
            raise BadInput(f"port must lie in [0, 65535]. Received: port={self.port}")
        if not self.batch_wait_ms >= 0:
            raise BadInput(f"batch_wait_ms must not be negative. Received: batch_wait_ms={self.batch_wait_ms}")
        for field in fields(self):
            value = getattr(self, field.name)
            if field.name not in ("name", "host", "port", "batch_wait_ms") and not value > 0:
                raise BadInput(f"{field.name} must be positive. Received: {field.name}={value}")
