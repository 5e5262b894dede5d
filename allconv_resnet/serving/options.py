"""Options of `allconv-resnet serve`, including the limits on what clients may send."""

import os
import re
from dataclasses import dataclass, fields
from pathlib import Path

from allconv_resnet.errors import BadInput

LONGEST = 1_000_000  # seconds; timers and sockets refuse much larger numbers


@dataclass(frozen=True)
class ModelOptions:
    """What is served."""

    name: str = "model"
    """The name of the export in the address: /v1/models/NAME:predict."""
    model: tuple[str, ...] = ()
    """Further models, each as NAME=DIR."""
    model_config: Path | None = None
    """File of models, with their versions and labels, in the form of TensorFlow Serving's --model_config_file."""
    poll_seconds: float = 2.0
    """Seconds between two looks for new and removed versions. 0 means that only SIGHUP looks for them."""


@dataclass(frozen=True)
class AddressOptions:
    """Where the server listens."""

    host: str = "127.0.0.1"
    """Address to listen on. 0.0.0.0 means every network of the machine."""
    port: int = 8501
    """Port to listen on. The default is that of TensorFlow Serving's REST; 0 means any free port, which is printed."""
    grpc_port: int | None = None
    """Port for TensorFlow Serving's gRPC, usually 8500. Not set: no gRPC."""
    unix_socket: Path | None = None
    """Unix socket to listen on, instead of the address and the port."""


@dataclass(frozen=True)
class AccessOptions:
    """Who may ask, and what is noted."""

    certificate: Path | None = None
    """PEM file of a certificate and those that sign it. The server then speaks HTTPS."""
    certificate_key: Path | None = None
    """PEM file of the certificate's private key, in the form PKCS #8 ("BEGIN PRIVATE KEY")."""
    api_key_file: Path | None = None
    """File of keys, one a line. Requests need one, as "Authorization: Bearer KEY", except those about its health."""
    cors: tuple[str, ...] = ()
    """Origins whose web pages may ask the server, such as https://example.org, or "*"."""
    request_log: Path | None = None
    """File to which a line of JSON is added for every request, by HTTP or gRPC. "-" means standard output."""


@dataclass(frozen=True)
class ComputingOptions:
    """How the network computes."""

    threads: int = os.cpu_count() or 1
    """Number of requests, or batches of them, that the network computes at the same time."""
    batch: int = 1
    """Most images in a batch of several requests, which came while the network was busy. 1 turns batching off."""


@dataclass(frozen=True)
class LimitOptions:
    """Limits on what strangers may take."""

    max_body_mb: float = 32.0
    """Largest body of a request, in millions of bytes."""
    max_buffered_mb: float = 128.0
    """Largest total size of the bodies of all requests in progress, in millions of bytes."""
    max_images: int = 1024
    """Most images in a request. Small images cost as much as large ones, since all are resized to one size."""
    max_megapixels: float = 100.0
    """Most pixels of all encoded images of a request, in millions. Ten scans of a progressive JPEG count once."""
    max_header_kb: float = 64.0
    """Largest header of a request, in thousands of bytes; at least 8.2."""
    max_connections: int = 8192
    """Most open connections. Further ones wait until one of them is closed."""
    header_seconds: float = 10.0
    """Seconds in which the header of a request must arrive, and for which a connection may be idle; at most 60."""
    body_seconds: float = 30.0
    """Seconds in which the body of a request must arrive."""
    predict_seconds: float = 30.0
    """Seconds in which a request must be answered, once its body has arrived."""
    write_seconds: float = 30.0
    """Seconds for which a client may leave an answer unread. Only Linux keeps this limit."""
    stop_seconds: float = 10.0
    """Seconds after which the process has ended when it is told to stop. Requests in progress may finish until then."""


@dataclass(frozen=True)
class ServeOptions(LimitOptions, ComputingOptions, AccessOptions, AddressOptions, ModelOptions):
    """Options of a server. Anyone who can reach the port can send anything, so everything that is sent has a limit."""

    def __post_init__(self):
        if not re.fullmatch(r"[A-Za-z0-9._-]+", self.name):
            raise BadInput(f"name must be made of letters, digits, -, _ and dots. Received: name={self.name!r}")
        if not 0 <= self.port < 2**16:
            raise BadInput(f"port must lie in [0, 65535]. Received: port={self.port}")
        if self.grpc_port is not None and not 0 <= self.grpc_port < 2**16:
            raise BadInput(f"grpc_port must lie in [0, 65535]. Received: grpc_port={self.grpc_port}")
        if not self.poll_seconds >= 0:
            raise BadInput(f"poll_seconds must not be negative. Received: poll_seconds={self.poll_seconds}")
        if not 8.192 <= self.max_header_kb <= 4e6:
            raise BadInput(f"max_header_kb must lie in [8.192, 4e6]. Received: max_header_kb={self.max_header_kb}")
        if not 0.001 <= self.header_seconds <= 60:
            raise BadInput(f"header_seconds must lie in [0.001, 60]. Received: header_seconds={self.header_seconds}")
        if (self.certificate is None) != (self.certificate_key is None):
            given = f"certificate={self.certificate}, certificate_key={self.certificate_key}"
            raise BadInput(f"HTTPS needs a certificate and its key. Received: {given}")
        for field in fields(self):
            value = getattr(self, field.name)
            number = isinstance(value, int | float) and field.name not in ("port", "grpc_port", "poll_seconds")
            if number and not 0 < value < float("inf"):
                raise BadInput(f"{field.name} must be positive and finite. Received: {field.name}={value}")
            if field.name.endswith("_seconds") and value > LONGEST:
                raise BadInput(f"{field.name} must be at most {LONGEST:,}. Received: {field.name}={value}")


@dataclass(frozen=True)
class ServeGroups:
    """The same options in the groups of the help."""

    models: ModelOptions = ModelOptions()
    address: AddressOptions = AddressOptions()
    access: AccessOptions = AccessOptions()
    computing: ComputingOptions = ComputingOptions()
    limits: LimitOptions = LimitOptions()

    def options(self):
        """Returns the options as `ServeOptions`, which checks them."""
        return ServeOptions(**{name: value for group in vars(self).values() for name, value in vars(group).items()})
