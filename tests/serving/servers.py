"""The server in a process of its own, and images to ask it about."""

import base64
import contextlib
import http.client
import io
import json
import re
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from PIL import Image

IMAGES = np.random.default_rng(0).integers(0, 256, (6, 32, 32, 3), dtype=np.uint8)
LIMITS = ["--header-seconds", "3", "--body-seconds", "3", "--max-header-kb", "16"]
BATCH = ["--batch", "8"]
MB = 2**20


class Server:
    """`allconv-resnet serve` in a process of its own, on a free port."""

    def __init__(self, *arguments):
        code = "from allconv_resnet import cli; cli.main()"
        command = [sys.executable, "-c", code, "serve", *map(str, arguments), "--port", "0"]
        self.errors = tempfile.TemporaryFile("w+", errors="replace")  # noqa: SIM115 - it lives as long as the server
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=self.errors, text=True)
        self.line = self.process.stdout.readline()  # ends when the process does
        assert "Serving version" in self.line, self.said()
        if "127.0.0.1:" in self.line:
            self.port = int(self.line.split("127.0.0.1:")[1].split("/")[0])
        if "--grpc-port" in arguments:
            self.grpc_port = int(self.process.stdout.readline().split()[-1])

    def said(self):
        """Returns what the server has written on standard error."""
        self.errors.seek(0)
        return self.errors.read()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.kill()
        self.process.wait()

    def ask(self, method, path, body=None, headers={}):  # noqa: B006 - not changed
        """Returns the status and the JSON of an answer."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        with contextlib.closing(connection):
            connection.request(method, path, body, headers)
            answer = connection.getresponse()
            return answer.status, json.loads(answer.read())

    def predict(self, path="/v1/models/digits:predict", **body):
        return self.ask("POST", path, json.dumps(body))

    def connect(self, *parts):
        """Returns a connection on which some bytes have been sent."""
        connection = socket.create_connection(("127.0.0.1", self.port), timeout=30)
        for part in parts:
            connection.sendall(part)
        return connection

    def peak_memory(self):
        """Returns the most bytes of memory that the process has held so far."""
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        return int(re.search(r"VmHWM:\s+(\d+) kB", status)[1]) * 1024


def wait_for(condition, seconds=60):
    """Returns the first true value of a function that is called again and again."""
    end = time.monotonic() + seconds
    while not (result := condition()):
        assert time.monotonic() < end
        time.sleep(0.02)
    return result


def encode(image, kind="PNG"):
    file = io.BytesIO()
    Image.fromarray(image).save(file, kind)
    return file.getvalue()


def b64(content):
    content = content if isinstance(content, bytes) else encode(content)
    return {"b64": base64.b64encode(content).decode()}
