"""What `allconv-resnet serve` can be told, and what a server takes from strangers at most."""

import os
import re
from dataclasses import dataclass, fields

from allconv_resnet.errors import BadInput


@dataclass(frozen=True)
class ServeOptions:
    """Of one server. Whoever can reach the port can send what they like, so everything they send has a limit."""

    name: str = "model"
    """The model's name in the address: /v1/models/NAME:predict."""
    host: str = "127.0.0.1"
    """Address to listen on. 0.0.0.0: every network of the machine."""
    port: int = 8501
    """Port to listen on, that of TensorFlow Serving's REST. 0: any free one, which is printed."""
    threads: int = os.cpu_count() or 1
    """Requests, or batches of them, that are worked on at the same time."""
    batch: int = 1
    """Images of several requests that are put through the network together, at most. 1: each request by itself."""
    batch_wait_ms: float = 5.0
    """Milliseconds that the first request of a batch waits for others."""

    max_body_mb: float = 32.0
    """Largest body of a request, in millions of bytes."""
    max_buffered_mb: float = 128.0
    """Bodies of all requests that are read or worked on, together, in millions of bytes."""
    max_images: int = 1024
    """Images of a request. However small they come, the network takes each in its own size."""
    max_header_kb: float = 64.0
    """Largest header of a request, in thousands of bytes."""
    max_connections: int = 512
    """Open connections. When all are taken, a new one takes the place of the one that has been silent for longest."""
    max_pipeline: int = 32
    """Requests of a connection that wait for the answer to the one before them."""
    header_seconds: float = 10.0
    """Time for the header of a request, from its first byte."""
    body_seconds: float = 30.0
    """Time for the body of a request."""
    write_seconds: float = 30.0
    """Time that a client may leave an answer unread."""
    stop_seconds: float = 10.0
    """Time for the requests at work when the server is told to stop."""

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
