"""Counters of the server for Prometheus, at TensorFlow Serving's address for them.

| metric | labels | |
|---|---|---|
| `allconv_resnet_requests_total` | `endpoint`, `model`, `status` | answered requests; errors have 4xx or 5xx |
| `allconv_resnet_request_seconds` | `endpoint`, `model` | histogram: from the header of a request to its answer |
| `allconv_resnet_request_bytes_total` | `model` | bytes of all bodies |
| `allconv_resnet_requests_in_progress` | | requests that are being computed, or wait for it |
| `allconv_resnet_queue` | | requests that wait for the network |
| `allconv_resnet_batch_images` | `model`, `signature` | histogram: images that go through the network together |
| `allconv_resnet_batch_requests` | `model`, `signature` | histogram: requests of these images |
| `allconv_resnet_batch_wait_seconds` | `model`, `signature` | histogram: time that the first of these has waited |
| `allconv_resnet_batch_seconds` | `model`, `signature` | histogram: time of computing |
| `allconv_resnet_loaded` | `model`, `version` | 1 for each version that answers |
| `process_resident_memory_bytes`, ... | | memory, processor time, file descriptors and start of the process |

The labels have few values, whatever clients send: an endpoint is the name of the function that answers and not an
address, and a model is one that is loaded.
"""

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector, exposition
from prometheus_client.core import GaugeMetricFamily
from starlette.responses import Response
from starlette.routing import Route

from allconv_resnet.serving.events import Batch, Finished

ADDRESS = "/monitoring/prometheus/metrics"
SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)
COUNTS = (1, 2, 4, 8, 16, 32, 64, 128, 256, 1024)


def routes(service):
    """Returns the routes, and listens to the events of the service.

    Args:
        service: `Service`.
    """
    registry = CollectorRegistry()
    service.listeners.append(_counters(registry))
    ProcessCollector(registry=registry)
    registry.register(_Loaded(service.models))
    in_progress = Gauge(
        "allconv_resnet_requests_in_progress", "Requests that are computed, or wait for it.", registry=registry
    )
    in_progress.set_function(lambda: len(service.deadlines))
    queue = Gauge("allconv_resnet_queue", "Requests that wait for the network.", registry=registry)
    queue.set_function(lambda: service.batcher.waiting)

    async def metrics(request):
        encode, content_type = exposition.choose_encoder(request.headers.get("accept", ""))
        return Response(encode(registry), headers={"Content-Type": content_type})

    return [Route(ADDRESS, metrics)]


def _counters(registry):
    """Returns a listener that counts events in a registry."""

    def histogram(name, text, labels, buckets):
        return Histogram(f"allconv_resnet_{name}", text, labels, buckets=buckets, registry=registry)

    request, batch = ("endpoint", "model"), ("model", "signature")
    requests = Counter(
        "allconv_resnet_requests", "Requests that were answered.", (*request, "status"), registry=registry
    )
    received = Counter("allconv_resnet_request_bytes", "Bytes of all bodies.", ("model",), registry=registry)
    seconds = histogram("request_seconds", "Seconds from a header to the end of the answer.", request, SECONDS)
    images = histogram("batch_images", "Images that go through the network together.", batch, COUNTS)
    together = histogram("batch_requests", "Requests whose images go through the network together.", batch, COUNTS)
    waited = histogram("batch_wait_seconds", "Seconds that the first of these has waited.", batch, SECONDS)
    computed = histogram("batch_seconds", "Seconds of computing.", batch, SECONDS)

    def count(event):
        if isinstance(event, Finished):
            requests.labels(event.endpoint, event.model, event.status).inc()
            seconds.labels(event.endpoint, event.model).observe(event.seconds)
            received.labels(event.model).inc(event.received)
        if isinstance(event, Batch):
            labels = (event.model, event.signature)
            images.labels(*labels).observe(event.images)
            together.labels(*labels).observe(event.requests)
            waited.labels(*labels).observe(event.waited)
            computed.labels(*labels).observe(event.seconds)

    return count


class _Loaded:
    """Shows which versions are loaded at the time of a look."""

    def __init__(self, models):
        self.models = models

    def describe(self):
        return [GaugeMetricFamily("allconv_resnet_loaded", "Versions that answer.", labels=("model", "version"))]

    def collect(self):
        (family,) = self.describe()
        for model in self.models.loaded:
            family.add_metric((model.name, str(model.version)), 1)
        yield family
