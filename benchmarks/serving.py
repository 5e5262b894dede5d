"""Measures latency and throughput of the server with and without batching, and of the same server on `model.predict`.

    python benchmarks/serving.py [--recipes cifar10-small cifar10] [--clients 1 8 32] [--seconds 3] [--repeats 3]

Each client keeps one connection and sends one image per request as a JSON tensor, and the next one as soon as it has
the answer. All servers of a network run from the beginning and are measured in turn. The weights are random, which does
not affect the times. Clients and servers share the machine. A request without an answer, or with other logits than
those of its own image, ends the benchmark. "protocol" is the same server with a model that computes nothing: what the
server itself costs, and the clients.
"""

import argparse
import contextlib
import http.client
import itertools
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import keras
import numpy as np
from harness import spread, write_figures

from allconv_resnet.layers import standardize
from allconv_resnet.recipes import RECIPES
from allconv_resnet.serving.export import export_savedmodel
from allconv_resnet.serving.options import ServeOptions

IMAGES = np.random.default_rng(0).integers(0, 256, (64, 32, 32, 3), dtype=np.uint8)
BATCH = ["--batch", "32"]
SERVERS = {
    "SavedModel, batching off": ("serve", []),
    "SavedModel, batching on": ("serve", BATCH),
    "model.predict, batching off": ("predict", []),
    "model.predict, batching on": ("predict", BATCH),
    "protocol": ("nothing", []),
}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--recipes", nargs="+", default=["cifar10-small", "cifar10"], choices=RECIPES)
    parser.add_argument("--clients", nargs="+", type=int, default=[1, 8, 32])
    parser.add_argument("--seconds", type=float, default=3, help="seconds of one measurement")
    parser.add_argument("--repeats", type=int, default=3, help="measurements of each server")
    options = parser.parse_args()
    results = {name: measure(RECIPES[name].replace(precision="float32"), options) for name in options.recipes}
    figures = {"load_average": os.getloadavg(), "seconds": options.seconds, "batch": BATCH, "networks": results}
    write_figures("serving", figures)


def measure(recipe, options):
    """Returns the spread of the figures over the repeats for each server and number of clients."""
    model = recipe.build_model()
    logits = model.predict(standardize(IMAGES), verbose=0)
    figures = {}
    with tempfile.TemporaryDirectory() as directory, contextlib.ExitStack() as stack:
        export_savedmodel(model, range(recipe.data.num_classes), directory, version=1)
        model.save(Path(directory) / "model.keras")
        ports = {name: stack.enter_context(running(directory, *server)) for name, server in SERVERS.items()}
        for port in ports.values():
            drive(port, None, clients=32, seconds=1)  # so that every batch size has been compiled
        for repeat, clients in itertools.product(range(options.repeats), options.clients):
            for name, port in ports.items():
                latencies, seconds = drive(port, None if name == "protocol" else logits, clients, options.seconds)
                once = {
                    "p50_ms": 1e3 * float(np.percentile(latencies, 50)),
                    "p99_ms": 1e3 * float(np.percentile(latencies, 99)),
                    "requests_per_second": len(latencies) / seconds,
                    "requests": len(latencies),
                }
                figures.setdefault(name, {}).setdefault(clients, []).append(once)
                print(
                    f"{recipe.name:14} {name:28} {clients:3} clients, {repeat + 1}: p50 {once['p50_ms']:7.1f} ms, "
                    f"p99 {once['p99_ms']:7.1f} ms, {once['requests_per_second']:7.1f} requests/s "
                    f"({once['requests']} answered correctly)",
                    flush=True,
                )
    return {
        name: {clients: {key: spread([once[key] for once in runs]) for key in runs[0]} for clients, runs in all.items()}
        for name, all in figures.items()
    }


def drive(port, logits, clients, seconds):
    """Sends requests for some seconds, and returns the latencies of all of them and the total time in seconds.

    Args:
        port: Integer.
        logits: Array of the logits of all images, or None if they are not compared.
        clients: Integer.
        seconds: Float.

    Raises:
        AssertionError: if a request has no answer or that of another request.
    """
    bodies = [json.dumps({"signature_name": "serve_uint8", "instances": [image.tolist()]}) for image in IMAGES]
    began = time.perf_counter()
    latencies, failures = [], []

    def client(first):
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=120)
        with contextlib.closing(connection):
            for i in itertools.count(first):
                sent = time.perf_counter()
                if sent - began > seconds or failures:
                    return
                try:
                    connection.request("POST", "/v1/models/model:predict", bodies[i % len(bodies)])
                    answer = connection.getresponse()
                    content = answer.read()
                    latencies.append(time.perf_counter() - sent)
                    (row,) = json.loads(content)["predictions"]
                    if logits is not None:
                        np.testing.assert_allclose(row["logits"], logits[i % len(bodies)], rtol=1e-3, atol=1e-3)
                except Exception as error:
                    failures.append(error)

    threads = [threading.Thread(target=client, args=(7 * number,)) for number in range(clients)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if failures:
        raise AssertionError("A request has no answer or a wrong one") from failures[0]
    return latencies, time.perf_counter() - began


@contextlib.contextmanager
def running(directory, kind, arguments):
    """Returns a context manager that runs a server in its own process and yields its port."""
    code = "from allconv_resnet import cli; cli.main()" if kind == "serve" else f"import serving; serving.run({kind!r})"
    command = [sys.executable, "-c", code, "serve", directory, "--port", "0", *arguments]
    process = subprocess.Popen(
        command, cwd=Path(__file__).parent, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    )
    try:
        line = process.stdout.readline()
        yield int(line.split("127.0.0.1:")[1].split("/")[0])
    finally:
        process.terminate()
        process.wait()


class Predict:
    """Stands for a `SavedModel` of the server, but calls `model.predict`."""

    def __init__(self, directory, name, version):
        from allconv_resnet.serving.savedmodel import SavedModel

        exported = SavedModel(directory, name, version)
        self.name, self.version, self.signatures, self.outputs = name, version, exported.signatures, exported.outputs
        self.model, self.lock = keras.saving.load_model(directory.parent / "model.keras"), threading.Lock()

    def warm_up(self):
        pass

    def __call__(self, signature, images, **_):
        with self.lock:  # predict is not thread-safe
            return {"logits": self.model.predict(standardize(images), verbose=0)}


class Nothing(Predict):
    """Computes nothing."""

    def __call__(self, signature, images, **_):
        return {"logits": np.zeros((len(images), 10), np.float32)}


def run(kind):
    """Serves one of these with the options of `allconv-resnet serve`."""
    import tyro

    from allconv_resnet.serving.models import Models
    from allconv_resnet.serving.server import serve
    from allconv_resnet.serving.sources import Source

    sources = {"model": Source("model", Path(sys.argv[2]))}
    load = {"predict": Predict, "nothing": Nothing}[kind]
    serve(Models(lambda: sources, load), tyro.cli(ServeOptions, args=sys.argv[3:]))


if __name__ == "__main__":
    main()
