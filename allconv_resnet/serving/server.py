"""A model server for machines without Docker: TensorFlow Serving's REST protocol over uvicorn and Starlette.

KServe's Python server was considered and not used. It supports only `:predict` with `instances` of this protocol: it
has no versions, signatures, `inputs`, metadata or batching of requests, and another form of status. It needs more than
fifty packages, among them a Kubernetes client and pandas, and keeps protobuf below 7. This server uses directly what
KServe is built on, uvicorn and Starlette.
"""

import asyncio
import contextlib
import gc
import logging
import signal
import socket
import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import tensorflow as tf
import uvicorn
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from tensorflow.core.framework import types_pb2

from allconv_resnet.errors import BadInput
from allconv_resnet.serving.batching import Batcher
from allconv_resnet.serving.freezing import freeze
from allconv_resnet.serving.limits import Bodies, guarded_protocol
from allconv_resnet.serving.predict import load_export, reason
from allconv_resnet.serving.protocol import Refused, encode_answer, parse_request

SLICE = 256  # most images in one call of the network, which bounds its memory; the largest batch of benchmarks/speed.py
BACKLOG = 256  # connections accepted at once; each has a file descriptor before the limit on connections applies


class SavedModel:
    """An exported network that the server can call.

    Args:
        export: Path of an export, or of one version of it.

    Attributes:
        version: String, the version that was loaded.
        signatures: Dictionary from the name of each signature to the `tf.TensorSpec` of its input.
        outputs: Dictionary from the name of each signature to a dictionary of `tf.TensorSpec`.

    Raises:
        BadInput: if there is no export, or it cannot be loaded.
    """

    def __init__(self, export):
        self._loaded, directory = load_export(export)
        self.version = directory.name if directory.name.isdigit() else "1"
        functions = self._loaded.signatures
        self.signatures = {
            name: next(iter(function.structured_input_signature[1].values()))
            for name, function in functions.items()
            if not name.startswith("__")  # TensorFlow's own
        }
        self.outputs = {name: functions[name].structured_outputs for name in self.signatures}
        self._frozen, self._freezing = {}, threading.Lock()

    def __call__(self, signature, images):
        """Returns the outputs of a signature.

        Args:
            signature: String, name of the signature.
            images: Array `[n, ...]` as the signature takes it.

        Returns:
            Dictionary of arrays `[n, ...]`.

        Raises:
            Refused: with status 400 if the graph refuses the images, or 413 if they need too much memory.
        """
        spec, function = self.signatures[signature], self._function(signature)
        try:
            parts = [function(tf.constant(images[i : i + SLICE], spec.dtype)) for i in range(0, len(images), SLICE)]
            return {name: np.concatenate([part[name].numpy() for part in parts]) for name in parts[0]}
        except tf.errors.InvalidArgumentError as error:
            raise Refused(400, reason(error)) from error
        except tf.errors.ResourceExhaustedError as error:
            raise Refused(413, "The images need more memory than the server has") from error

    def _function(self, signature):
        with self._freezing:
            if signature not in self._frozen:  # at the first call, since each has a copy of the weights
                self._frozen[signature] = freeze(self._loaded.signatures[signature])
            return self._frozen[signature]


def application(model, options):
    """Returns the Starlette application that serves a model.

    Args:
        model: `SavedModel`, or another callable with its attributes.
        options: `ServeOptions`.
    """
    pool = ThreadPoolExecutor(options.threads, thread_name_prefix="predict")
    batcher = Batcher(model, pool, options.batch, options.batch_wait_ms / 1e3)
    bodies = Bodies(options)

    async def predict(request):
        _require_model(request, model, options)
        async with bodies.read(request) as body:
            run = asyncio.get_running_loop().run_in_executor
            asked = await run(pool, parse_request, body, model.signatures)
            if len(asked.images) > options.max_images:
                count = f"Received: {len(asked.images):,}"
                raise Refused(413, f"A request must have at most {options.max_images:,} images. {count}")
            outputs = await batcher(asked.signature, asked.images)
            return Response(await run(pool, encode_answer, outputs, asked.rows), media_type="application/json")

    async def status(request):
        _require_model(request, model, options)
        state = {"state": "AVAILABLE", "status": {"error_code": "OK", "error_message": ""}}
        return JSONResponse({"model_version_status": [{"version": model.version, **state}]})

    async def metadata(request):
        _require_model(request, model, options)
        return JSONResponse(
            {
                "model_spec": {"name": options.name, "signature_name": "", "version": model.version},
                "metadata": {"signature_def": {"signature_def": signature_definitions(model)}},
            }
        )

    async def refused(_, error):
        return JSONResponse({"error": error.reason}, status_code=error.status)

    async def no_such_address(_, error):
        text = f"{error.detail}: the addresses are /v1/models/{options.name}, and the same with :predict or /metadata"
        return JSONResponse({"error": text}, status_code=error.status_code, headers=error.headers)

    async def failed(_, error):
        return JSONResponse({"error": f"The server failed: {type(error).__name__}"}, status_code=500)

    routes = []
    for place in ("/v1/models/{name}", "/v1/models/{name}/versions/{version}"):
        routes += [
            Route(f"{place}:predict", predict, methods=["POST"]),
            Route(f"{place}/metadata", metadata),
            Route(place, status),
        ]
    handlers = {Refused: refused, HTTPException: no_such_address, Exception: failed}
    return Starlette(routes=routes, exception_handlers=handlers)


def signature_definitions(model):
    """Returns the signatures of a model as a dictionary in the form of TensorFlow Serving's metadata."""

    def tensor(spec):
        dims = [{"size": str(-1 if size is None else size), "name": ""} for size in spec.shape]
        dtype = types_pb2.DataType.Name(spec.dtype.as_datatype_enum)
        return {"dtype": dtype, "tensor_shape": {"dim": dims, "unknown_rank": False}}

    return {
        name: {
            "inputs": {spec.name: tensor(spec)},
            "outputs": {key: tensor(value) for key, value in model.outputs[name].items()},
            "method_name": "tensorflow/serving/predict",
        }
        for name, spec in model.signatures.items()
    }


def serve(model, options):
    """Serves a model until SIGTERM or Ctrl-C, and then finishes the requests in progress.

    Args:
        model: See `application`.
        options: `ServeOptions`.

    Raises:
        BadInput: if the server cannot listen at the address.
    """
    try:
        family = socket.AF_INET6 if ":" in options.host else socket.AF_INET
        listening = socket.create_server((options.host, options.port), family=family, backlog=BACKLOG)
    except OSError as error:
        raise BadInput(f"The server cannot listen on {options.host} port {options.port}: {error.strerror}") from error
    host, port = listening.getsockname()[:2]
    config = uvicorn.Config(
        application(model, options),
        http=guarded_protocol(options),
        ws="none",
        lifespan="off",
        log_level=logging.WARNING,
        access_log=False,
        server_header=False,
        backlog=BACKLOG,
        timeout_graceful_shutdown=options.stop_seconds,
    )
    # TensorFlow's own objects live as long as the process. Without this every full collection, about one in some
    # hundred requests, would visit all of them and stop the server for 0.2 s.
    gc.collect()
    gc.freeze()
    address = f"http://{f'[{host}]' if ':' in host else host}:{port}/v1/models/{options.name}"
    server = _Server(config)
    server.greeting = f"Serving version {model.version} at {address}:predict, until Ctrl-C"
    server.run(sockets=[listening])
    print("Stopped", flush=True)


class _Server(uvicorn.Server):
    async def startup(self, sockets=None):
        await super().startup(sockets)
        print(self.greeting, flush=True)  # the server now handles requests and signals

    @contextlib.contextmanager
    def capture_signals(self):
        # uvicorn would end by killing itself with the same signal, but a server that was told to stop has not failed.
        handlers = {number: signal.signal(number, self.handle_exit) for number in (signal.SIGTERM, signal.SIGINT)}
        try:
            yield
        finally:
            for number, handler in handlers.items():
                signal.signal(number, handler)


def _require_model(request, model, options):
    name, version = request.path_params["name"], request.path_params.get("version")
    if name != options.name:
        raise Refused(404, f"There is no model {name[:100]}: the model is {options.name}")
    if version not in (None, model.version):
        raise Refused(404, f"There is no version {version[:100]} of {name}: the version is {model.version}")
