"""Asks a model server for the classes of image files. Needs Python alone.

    python examples/client.py http://127.0.0.1:8501/v1/models/model IMAGE...

The same works with `allconv-resnet serve` and with TensorFlow Serving.
"""

import base64
import json
import sys
import urllib.error
import urllib.request
from pathlib import Path


def predict(address, files):
    """Returns the answers for JPEG or PNG files: dictionaries with `labels`, `probabilities`, `classes` and `logits`.

    Raises:
        SystemExit: with the server's reason, if it refuses.
    """
    images = [{"b64": base64.b64encode(Path(file).read_bytes()).decode()} for file in files]
    body = json.dumps({"signature_name": "serve_bytes", "instances": images}).encode()
    try:
        with urllib.request.urlopen(f"{address}:predict", body, timeout=60) as answer:
            return json.load(answer)["predictions"]
    except urllib.error.HTTPError as error:
        sys.exit(f"{error.code}: {json.load(error)['error']}")


if __name__ == "__main__":
    for file, answer in zip(sys.argv[2:], predict(sys.argv[1], sys.argv[2:]), strict=True):
        print(f"{file}: {answer['labels'][0]} ({answer['probabilities'][0]:.1%})")
