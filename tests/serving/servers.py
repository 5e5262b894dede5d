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
from pathlib import Path

import numpy as np
from PIL import Image

IMAGES = np.random.default_rng(0).integers(0, 256, (6, 32, 32, 3), dtype=np.uint8)
LIMITS = ["--max-connections", "100", "--header-seconds", "1.5", "--body-seconds", "1.5", "--max-header-kb", "16"]
BATCH = ["--batch", "8", "--batch-wait-ms", "20"]
MB = 2**20


class Server:
    """`allconv-resnet serve` in a process of its own, on a free port."""

    def __init__(self, *arguments):
        code = "from allconv_resnet import cli; cli.main()"
        command = [sys.executable, "-c", code, "serve", *map(str, arguments), "--port", "0"]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
        line = self.process.stdout.readline()  # ends when the process does
        assert "Serving version" in line, line
        self.port = int(line.split("127.0.0.1:")[1].split("/")[0])

    def ask(self, method, path, body=None):
        """Returns the status and the JSON of an answer."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        with contextlib.closing(connection):
            connection.request(method, path, body)
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


def encode(image, kind="PNG"):
    file = io.BytesIO()
    Image.fromarray(image).save(file, kind)
    return file.getvalue()


def b64(content):
    content = content if isinstance(content, bytes) else encode(content)
    return {"b64": base64.b64encode(content).decode()}
