"""Counters of the server for Prometheus, at TensorFlow Serving's address for them."""

import time

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector, exposition
from starlette.responses import Response
from starlette.routing import Route

ADDRESS = "/monitoring/prometheus/metrics"
SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)
IMAGES = (1, 2, 4, 8, 16, 32, 64, 128, 256, 1024)


class Metrics:
    """The counters of one server, in a registry of their own.

    | metric | labels | |
    |---|---|---|
    | `allconv_resnet_requests_total` | `endpoint`, `status` | answered requests; an error is a status of 4xx or 5xx |
    | `allconv_resnet_request_seconds` | `endpoint` | histogram: from the header of a request to the end of its answer |
    | `allconv_resnet_requests_in_progress` | | requests between these two |
    | `allconv_resnet_queue` | | tasks that wait for a thread |
    | `allconv_resnet_batch_images` | `signature` | histogram: images in one call of the network |
    | `allconv_resnet_batch_seconds` | `signature` | histogram: time of one call of the network |
    | `process_resident_memory_bytes`, ... | | the process: memory, processor time, file descriptors, start |

    The labels have few values: an endpoint is the name of the function that answers, and not an address.
    """

    def __init__(self):
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)

        def create(kind, name, text, labels=(), **options):
            return kind(f"allconv_resnet_{name}", text, labels, registry=self.registry, **options)

        self._requests = create(Counter, "requests", "Requests that were answered.", ("endpoint", "status"))
        self._seconds = create(
            Histogram, "request_seconds", "Seconds from a request to the end of its answer.", ("endpoint",),
            buckets=SECONDS,
        )  # fmt: skip
        self._progress = create(Gauge, "requests_in_progress", "Requests that are not answered yet.")
        self._queue = create(Gauge, "queue", "Tasks that wait for a thread.")
        self._images = create(
            Histogram, "batch_images", "Images in one call of the network.", ("signature",), buckets=IMAGES
        )
        self._calls = create(
            Histogram, "batch_seconds", "Seconds of one call of the network.", ("signature",), buckets=SECONDS
        )

    def measure(self, run):
        """Returns a function like `run`, (signature, images) -> outputs, whose calls are counted."""

        def measured(signature, images):
            began = time.perf_counter()
            outputs = run(signature, images)
            self._calls.labels(signature).observe(time.perf_counter() - began)
            self._images.labels(signature).observe(len(images))
            return outputs

        return measured

    def watch_queue(self, size):
        """Shows as the queue what a function without arguments returns."""
        self._queue.set_function(size)

    def count(self, app):
        """Returns an ASGI application that answers as `app` does, and counts its requests."""

        async def counted(scope, receive, send):
            if scope["type"] != "http":
                return await app(scope, receive, send)
            status, began = [500], time.perf_counter()

            async def note(message):
                if message["type"] == "http.response.start":
                    status[0] = message["status"]
                await send(message)

            with self._progress.track_inprogress():
                try:
                    await app(scope, receive, note)
                finally:
                    endpoint = getattr(scope.get("endpoint"), "__name__", "none")  # Starlette's router enters it
                    self._requests.labels(endpoint, status[0]).inc()
                    self._seconds.labels(endpoint).observe(time.perf_counter() - began)

        return counted

    def routes(self):
        """Returns the route of the metrics, as a list."""

        async def metrics(request):
            encode, content_type = exposition.choose_encoder(request.headers.get("accept"))
            return Response(encode(self.registry), headers={"Content-Type": content_type})

        return [Route(ADDRESS, metrics)]
