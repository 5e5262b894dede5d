"""The routes of KServe's open inference protocol, version 2 (https://kserve.github.io/website/docs/concepts/architecture/data-plane/v2-protocol).

Kubernetes and Triton's clients speak it. Its health routes need no API key. Its binary extension is not here: large
images are sent as files, base64 within JSON, as the datatype BYTES.
"""

from dataclasses import dataclass
from importlib.metadata import version

import msgspec
import numpy as np
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from allconv_resnet.serving.protocol import as_lists, decode
from allconv_resnet.serving.refused import Refused
from allconv_resnet.serving.tensors import base64_list, flat_numbers, shape_text, too_many

OPEN = ("/v2/health/live", "/v2/health/ready")  # without an API key
DATATYPES = {"float32": "FP32", "float64": "FP64", "uint8": "UINT8", "int32": "INT32", "int64": "INT64"}
DATATYPES["string"] = "BYTES"


class Tensor(msgspec.Struct):
    """An input of a request."""

    name: str
    shape: list[int]
    datatype: str
    data: msgspec.Raw


class Output(msgspec.Struct):
    """An output that is asked for."""

    name: str
    parameters: dict[str, object] | None = None


class Body(msgspec.Struct):
    """The body of a request.

    Other members have no effect: KServe's client sends `model_name`, and Triton's asks in `parameters` for binary
    outputs unless told otherwise, although it reads JSON too.
    """

    inputs: list[Tensor]
    id: str | None = None
    outputs: list[Output] | None = None


@dataclass(frozen=True)
class Asked:
    """The content of a request body."""

    signature: str
    images: np.ndarray
    id: str | None
    outputs: list | None
    """Names of the outputs that are asked for, or None for all."""


def routes(service):
    """Returns the routes.

    Args:
        service: `Service`.
    """

    async def server(_):
        return JSONResponse({"name": "allconv_resnet", "version": version("allconv_resnet"), "extensions": []})

    async def live(_):
        return JSONResponse({"live": True})

    async def ready(_):
        is_ready = service.models.ready and not service.deadlines.stopping
        return JSONResponse({"ready": is_ready}, 200 if is_ready else 503)

    async def model_ready(request):
        model = service.find(request)
        return JSONResponse({"name": model.name, "ready": True})

    async def metadata(request):
        model, signature = service.find(request), None
        versions = [str(version) for version, why in service.models.states(model.name) if not why]
        inputs = [_description(spec.name, spec) for spec in model.signatures.values()]
        signature = next(iter(model.signatures))
        outputs = [_description(name, spec) for name, spec in model.outputs[signature].items()]
        platform = "tensorflow_savedmodel"
        content = {"name": model.name, "versions": versions, "platform": platform, "inputs": inputs, "outputs": outputs}
        return JSONResponse(content)

    async def infer(request):
        body = await service.answer(request, lambda body, model: parse(body, model, service.options.max_images), encode)
        return Response(body, media_type="application/json")

    found = [Route("/v2", server), Route(OPEN[0], live), Route(OPEN[1], ready)]
    for end in ("", "/versions/{version:name}"):
        place = "/v2/models/{name:name}" + end
        found += [
            Route(place, metadata),
            Route(f"{place}/ready", model_ready),
            Route(f"{place}/infer", infer, methods=["POST"]),
        ]
    return found


def parse(body, model, max_images):
    """Returns what a body asks of a model. The datatype of the input chooses the signature.

    Args:
        body: Bytes of a JSON object with one input. Its data may be flat or nested; files are base64.
        model: `SavedModel`.
        max_images: Integer, most images of a request.

    Returns:
        `Asked`.

    Raises:
        Refused: with status 400 if the body does not have this form, or 413 if it has too many images.
    """
    values = decode(body, Body, 'a JSON object with "inputs", each with name, shape, datatype and data')
    if len(values.inputs) != 1:
        raise Refused(400, f"A request must have one input. Received: {len(values.inputs)}")
    (given,) = values.inputs
    signatures = {DATATYPES.get(spec.dtype.name): name for name, spec in model.signatures.items()}
    if given.datatype not in signatures:
        known = ", ".join(sorted(filter(None, signatures)))
        raise Refused(400, f"datatype must be one of {known}. Received: {given.datatype[:50]!r}")
    spec = model.signatures[signatures[given.datatype]]
    if given.name != spec.name:
        raise Refused(400, f"The name of the input must be {spec.name}. Received: {given.name[:100]!r}")
    if spec.dtype.name == "string" and len(given.shape) == 2 and given.shape[1] == 1:  # some clients send [n, 1]
        given.shape.pop()
    expected = f"{spec.name} must be {given.datatype} of shape {shape_text(spec.shape)}"
    fits = len(given.shape) == len(spec.shape) and min(given.shape) > 0
    if not fits or any(e not in (None, r) for e, r in zip(spec.shape, given.shape, strict=True)):
        raise Refused(400, f"{expected}. Received: shape {shape_text(given.shape)}")
    if given.shape[0] > max_images:
        raise too_many(given.shape[0], max_images)
    text = bytes(given.data)
    images = base64_list(text, spec.name) if given.datatype == "BYTES" else flat_numbers(text, spec.dtype, expected)
    if images.size != np.prod(given.shape, dtype=object):
        raise Refused(400, f"The shape {shape_text(given.shape)} does not fit the data. Received: {images.size} values")
    if any((output.parameters or {}).get("classification") for output in values.outputs or ()):
        raise Refused(400, "The parameter classification is not supported: the output classes has the best classes")
    wanted = None if values.outputs is None else [output.name for output in values.outputs]
    return Asked(signatures[given.datatype], images.reshape(given.shape), values.id, wanted)


def encode(outputs, asked, model):
    """Returns the body of an answer, as bytes of JSON, with flat data.

    Args:
        outputs: Dictionary of arrays `[n, ...]`; bytes become text.
        asked: `Asked`.
        model: `SavedModel`.

    Raises:
        Refused: with status 400 if an output is asked for that there is not.
    """
    wanted = asked.outputs or list(outputs)
    if unknown := [name for name in wanted if name not in outputs]:
        raise Refused(400, f"The outputs are {', '.join(sorted(outputs))}. Received: {unknown[0][:100]!r}")
    flat = as_lists({name: outputs[name].ravel() for name in wanted})
    specs = model.outputs[asked.signature]
    content = [
        {
            "name": name,
            "datatype": DATATYPES[specs[name].dtype.name],
            "shape": list(outputs[name].shape),
            "data": flat[name],
        }
        for name in wanted
    ]
    answer = {"model_name": model.name, "model_version": str(model.version), "outputs": content}
    return msgspec.json.encode(answer | ({} if asked.id is None else {"id": asked.id}))


def _description(name, spec):
    shape = [-1 if size is None else size for size in spec.shape]
    return {"name": name, "datatype": DATATYPES.get(spec.dtype.name, spec.dtype.name), "shape": shape}
