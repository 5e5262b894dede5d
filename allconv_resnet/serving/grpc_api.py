"""TensorFlow Serving's gRPC services: Predict, metadata, the status of models, and gRPC's own health service.

Messages are limited so that all that can be at work together stay within `--max-buffered-mb`.
"""

import asyncio
import contextlib
import time
from contextvars import ContextVar
from urllib.parse import unquote

import grpc
import tensorflow as tf
from grpc_health.v1 import health_pb2, health_pb2_grpc
from tensorflow.core.framework import types_pb2
from tensorflow_serving.apis import (
    get_model_metadata_pb2,
    get_model_status_pb2,
    model_service_pb2_grpc,
    predict_pb2,
    prediction_service_pb2_grpc,
)

from allconv_resnet.errors import BadInput
from allconv_resnet.serving.access import is_known, read_keys
from allconv_resnet.serving.events import Finished
from allconv_resnet.serving.protocol import DEFAULT
from allconv_resnet.serving.refused import Refused
from allconv_resnet.serving.service import SMALL
from allconv_resnet.serving.tensors import shape_text, too_many

CALLS = 32  # at work together
LARGEST = 2**31 - 1  # gRPC's options are 32-bit integers
CODES = {
    400: grpc.StatusCode.INVALID_ARGUMENT,
    401: grpc.StatusCode.UNAUTHENTICATED,
    404: grpc.StatusCode.NOT_FOUND,
    408: grpc.StatusCode.DEADLINE_EXCEEDED,
    413: grpc.StatusCode.RESOURCE_EXHAUSTED,
    429: grpc.StatusCode.RESOURCE_EXHAUSTED,
    503: grpc.StatusCode.UNAVAILABLE,
}
STATUSES = {code: status for status, code in CODES.items()}  # RESOURCE_EXHAUSTED becomes 429
CANCELLED = 499  # HTTP's standard has no status for a client that went away; this one is common
VALUES = {  # the field of a TensorProto that has the values of a dtype, beside tensor_content
    tf.float32: "float_val",
    tf.float64: "double_val",
    tf.uint8: "int_val",
    tf.int32: "int_val",
    tf.int64: "int64_val",
    tf.string: "string_val",
}

_known = ContextVar("known")  # what becomes known about the call, for the event when it is finished


async def start(service):
    """Starts the gRPC server of a service in the running event loop.

    Args:
        service: `Service`.

    Returns:
        The `grpc.aio.Server` and its port.

    Raises:
        BadInput: if it cannot listen at the address.
    """
    options = service.options
    largest = int(min(options.max_body_mb, options.max_buffered_mb / CALLS) * 1e6)
    settings = [
        ("grpc.max_receive_message_length", min(largest, LARGEST)),
        ("grpc.max_metadata_size", min(int(options.max_header_kb * 1e3), LARGEST)),
        ("grpc.max_concurrent_streams", CALLS),
        ("grpc.max_connection_idle_ms", int(options.header_seconds * 1e3)),
        ("grpc.so_reuseport", 0),
    ]
    interceptors = [_Watched(service)]
    if options.api_key_file:
        interceptors.append(_Keys(read_keys(options.api_key_file)))
    server = grpc.aio.server(options=settings, maximum_concurrent_rpcs=CALLS, interceptors=interceptors)
    prediction_service_pb2_grpc.add_PredictionServiceServicer_to_server(_Prediction(service), server)
    model_service_pb2_grpc.add_ModelServiceServicer_to_server(_Status(service), server)
    health_pb2_grpc.add_HealthServicer_to_server(_Health(service), server)
    address = f"{f'[{options.host}]' if ':' in options.host else options.host}:{options.grpc_port}"
    try:
        if options.certificate:
            pair = (options.certificate_key.read_bytes(), options.certificate.read_bytes())
            port = server.add_secure_port(address, grpc.ssl_server_credentials([pair]))
        else:
            port = server.add_insecure_port(address)
    except RuntimeError as error:
        raise BadInput(f"The server cannot listen on {address} for gRPC: {error}") from error
    await server.start()
    return server, port


def _refusing(method):
    """Wraps a method so that `Refused` is answered with the status of gRPC."""

    async def wrapped(self, request, context):
        try:
            return await method(self, request)
        except Refused as error:
            code, reason = CODES.get(error.status, grpc.StatusCode.UNKNOWN), error.reason
        await context.abort(code, reason)

    return wrapped


def _find(service, spec):
    version = str(spec.version.value) if spec.HasField("version") else None
    model = service.models.find(spec.name, version, spec.version_label or None)
    _note(model=model.name, version=model.version)
    return model


def _note(**known):
    _known.get().update(known)


class _Prediction(prediction_service_pb2_grpc.PredictionServiceServicer):
    def __init__(self, service):
        self.service = service

    @_refusing
    async def Predict(self, request):  # noqa: N802 - the protocol's
        model = _find(self.service, request.model_spec)
        name = request.model_spec.signature_name or DEFAULT
        if name not in model.signatures:
            raise Refused(
                400, f"signature_name must be one of {', '.join(sorted(model.signatures))}. Received: {name!r}"
            )
        arguments = request.inputs, model.signatures[name], self.service.options.max_images
        images = await self.service.in_thread(request.ByteSize() > SMALL, _images, *arguments)
        _note(images=len(images))
        outputs = await self.service.compute(model, name, images)
        wanted = list(request.output_filter) or list(outputs)
        if unknown := [name for name in wanted if name not in outputs]:
            raise Refused(400, f"The outputs are {', '.join(sorted(outputs))}. Received: {unknown[0][:100]!r}")
        answer = predict_pb2.PredictResponse()
        _describe(answer.model_spec, model, name)
        for key in wanted:
            answer.outputs[key].CopyFrom(tf.make_tensor_proto(outputs[key], model.outputs[name][key].dtype))
        return answer

    @_refusing
    async def GetModelMetadata(self, request):  # noqa: N802
        model = _find(self.service, request.model_spec)
        if list(request.metadata_field) != ["signature_def"]:
            raise Refused(400, f"metadata_field must be signature_def. Received: {list(request.metadata_field)}")
        found = get_model_metadata_pb2.SignatureDefMap()
        for name, spec in model.signatures.items():
            signature = found.signature_def[name]
            signature.method_name = "tensorflow/serving/predict"
            for tensors, specs in ((signature.inputs, {spec.name: spec}), (signature.outputs, model.outputs[name])):
                for key, each in specs.items():
                    tensors[key].dtype = each.dtype.as_datatype_enum
                    tensors[key].tensor_shape.CopyFrom(each.shape.as_proto())
        answer = get_model_metadata_pb2.GetModelMetadataResponse()
        _describe(answer.model_spec, model, "")
        answer.metadata["signature_def"].Pack(found)
        return answer


class _Status(model_service_pb2_grpc.ModelServiceServicer):
    def __init__(self, service):
        self.service = service

    @_refusing
    async def GetModelStatus(self, request):  # noqa: N802
        answer, states = get_model_status_pb2.GetModelStatusResponse(), get_model_status_pb2.ModelVersionStatus
        spec = request.model_spec
        found = dict(self.service.models.states(spec.name))
        _note(model=spec.name)
        if spec.HasField("version") and spec.version.value in found:
            found = {spec.version.value: found[spec.version.value]}
        elif spec.HasField("version") or spec.version_label:
            found = {_find(self.service, spec).version: ""}
        for version, why in found.items():
            status = answer.model_version_status.add(version=version, state=states.END if why else states.AVAILABLE)
            status.status.error_code, status.status.error_message = (2, why) if why else (0, "")
        return answer


class _Health(health_pb2_grpc.HealthServicer):
    def __init__(self, service):
        self.service = service

    async def Check(self, request, context):  # noqa: N802
        is_ready = self.service.models.ready and not self.service.deadlines.stopping
        states = health_pb2.HealthCheckResponse
        return states(status=states.SERVING if is_ready else states.NOT_SERVING)


class _Watched(grpc.aio.ServerInterceptor):
    """Tells `service.listeners` of every call that has been answered, with the HTTP status that means the same.

    Calls that never reach a method are not told: messages that are too large, and methods that do not exist.
    """

    def __init__(self, service):
        self.service = service

    async def intercept_service(self, continuation, details):
        handler = await continuation(details)
        if handler is None or handler.unary_unary is handler.stream_unary is None:
            return handler

        # gRPC itself would wait for the message of a call without a limit on the time.
        async def watched(requests, context):
            began, known, status = time.monotonic(), {}, 500
            _known.set(known)
            try:
                if handler.stream_unary:  # it refuses the call, and does not wait for the message
                    answer = await handler.stream_unary(requests, context)
                else:
                    request = await self._message(requests, context)
                    known["received"] = request.ByteSize()
                    answer = await handler.unary_unary(request, context)
                status = 200
                return answer
            except asyncio.CancelledError:
                status = CANCELLED
                raise
            finally:
                seconds, (_, _, method) = time.monotonic() - began, details.method.rpartition("/")
                status = STATUSES.get(context.code(), status)
                client = _address(context.peer())
                self.service.tell(Finished("gRPC", details.method, client, status, seconds, method, **known))

        return grpc.stream_unary_rpc_method_handler(watched, handler.request_deserializer, handler.response_serializer)

    async def _message(self, requests, context):
        """Returns the message of a call, within the time that the body of a request has."""
        seconds = self.service.options.body_seconds
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                message = await anext(aiter(requests), None)
            if message is not None:
                return message
            await context.abort(CODES[400], "The call has no message")
        await context.abort(CODES[408], f"The message did not come within {seconds:g} s")


def _address(peer):
    """Returns the address of a client of gRPC, such as 127.0.0.1 for `ipv4:127.0.0.1:4242`."""
    kind, _, rest = unquote(peer).partition(":")
    return rest.rpartition(":")[0].strip("[]") if kind in ("ipv4", "ipv6") else ""


class _Keys(grpc.aio.ServerInterceptor):
    """Refuses calls without a key, except those of the health service."""

    def __init__(self, keys):
        self.keys = keys

    async def intercept_service(self, continuation, details):
        given = dict(details.invocation_metadata).get("authorization", "").encode()
        if details.method.startswith("/grpc.health.v1.") or is_known(given, self.keys):
            return await continuation(details)

        async def refuse(_, context):
            await context.abort(CODES[401], 'The call needs the metadata "authorization: Bearer KEY" with a known key')

        return grpc.stream_unary_rpc_method_handler(refuse)


def _images(inputs, spec, max_images):
    if list(inputs) != [spec.name]:
        raise Refused(400, f"The inputs must be {spec.name}. Received: {', '.join(sorted(inputs))[:100] or 'none'}")
    expected = f"{spec.name} must be {spec.dtype.name} of shape {shape_text(spec.shape)}"
    tensor = inputs[spec.name]
    shape = [dim.size for dim in tensor.tensor_shape.dim]
    fits = tensor.dtype == spec.dtype.as_datatype_enum and len(shape) == len(spec.shape) and min(shape) > 0
    if not fits or any(e not in (None, r) for e, r in zip(spec.shape, shape, strict=True)):
        known = tensor.dtype in types_pb2.DataType.values()
        kind = types_pb2.DataType.Name(tensor.dtype) if known else "another dtype"
        raise Refused(400, f"{expected}. Received: {kind} of shape {shape_text(shape)}")
    if shape[0] > max_images:
        raise too_many(shape[0], max_images)
    count = 1
    for size in shape:
        count *= size
    fields = {field.name for field, _ in tensor.ListFields()} - {"dtype", "tensor_shape", "version_number"}
    field = VALUES.get(spec.dtype, "tensor_content")
    if spec.dtype != tf.string and fields == {"tensor_content"}:
        given = len(tensor.tensor_content) / spec.dtype.size
    elif fields <= {field}:  # the values of other fields would be ignored
        given = len(getattr(tensor, field))
    else:
        raise Refused(400, f"{expected}, with its values in {field} alone. Received: {', '.join(sorted(fields))}")
    if count != given:  # one value may not stand for many
        raise Refused(400, f"{expected}. Received: shape {shape_text(shape)} with another number of values")
    if spec.dtype == tf.uint8 and fields == {field} and not 0 <= min(tensor.int_val) <= max(tensor.int_val) <= 255:
        raise Refused(400, f"{expected}. Received: values that are not integers from 0 to 255")
    return tf.make_ndarray(tensor)


def _describe(spec, model, signature):
    spec.name, spec.version.value, spec.signature_name = model.name, model.version, signature
