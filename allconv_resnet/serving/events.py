"""What the server tells to those who watch it: the log of requests, and whatever counts and measures.

A listener is a function of one event. It is called in the server's event loop, so it must not wait for anything.
"""

from dataclasses import dataclass


@dataclass(frozen=True)
class Finished:
    """A request has been answered, or a call of gRPC."""

    method: str
    """HTTP's method, or `gRPC`."""
    path: str
    client: str
    """The address of the client, or an empty string on a Unix socket."""
    status: int
    """HTTP status of the answer. Calls of gRPC have the one that means the same, and 499 if the client went away."""
    seconds: float
    """From the end of the header to the end of the answer."""
    endpoint: str = ""
    """The name of the function that answered, or an empty string if none has."""
    model: str = ""
    """The name of the model, or an empty string for what is not about a known model."""
    version: int = 0
    images: int = 0
    received: int = 0
    """Bytes of the body."""


@dataclass(frozen=True)
class Batch:
    """The network has computed a batch, or refused it."""

    model: str
    signature: str
    images: int
    requests: int
    waited: float
    """Seconds that its first request waited for the network."""
    seconds: float
    """Seconds of computing."""
