"""The routes of KServe's open inference protocol, version 2 (https://kserve.github.io/website/docs/concepts/architecture/data-plane/v2-protocol).

Kubernetes and Triton's clients speak it. Its health routes need no API key. In JSON, files are base64 texts of the
datatype BYTES. Of its extensions, the one for binary tensors is here, see `allconv_resnet.serving.kserve_binary`.
"""

from dataclasses import dataclass
from importlib.metadata import version

import msgspec
import numpy as np
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from allconv_resnet.serving import kserve_binary as binary
from allconv_resnet.serving.protocol import as_lists, decode
from allconv_resnet.serving.refused import Refused
from allconv_resnet.serving.tensors import base64_list, flat_numbers, shape_text, too_many

OPEN = ("/v2/health/live", "/v2/health/ready")  # without an API key
DATATYPES = {"float32": "FP32", "float64": "FP64", "uint8": "UINT8", "int32": "INT32", "int64": "INT64"}
DATATYPES["string"] = "BYTES"


class Parameters(msgspec.Struct):
    """The parameters that have an effect. Clients send others, such as Triton's `priority`."""

    binary_data_size: int | None = None
    """An input has it if its values follow the JSON: their number of bytes."""
    binary_data: bool | None = None
    """An output with it says whether it shall be binary. Otherwise `binary_data_output` of the request decides."""
    binary_data_output: bool = False
    """A request says with it whether its outputs shall be binary."""
    classification: int = 0
    """An output with it asks for so many best classes, as Triton has it. This is refused."""


class Tensor(msgspec.Struct):
    """An input of a request."""

    name: str
    shape: list[int]
    datatype: str
    data: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET
    parameters: Parameters | None = None


class Output(msgspec.Struct):
    """An output that is asked for."""

    name: str
    parameters: Parameters | None = None


class Body(msgspec.Struct):
    """The body of a request.

    Other members have no effect, for instance `model_name`, which KServe's client sends.
    """

    inputs: list[Tensor]
    id: str | None = None
    outputs: list[Output] | None = None
    parameters: Parameters | None = None


@dataclass(frozen=True)
class Asked:
    """The content of a request body."""

    signature: str
    images: np.ndarray
    id: str | None
    outputs: dict | None
    """Whether each output that is asked for shall be binary, by its name, or None for all outputs."""
    binary: bool
    """Whether all outputs shall be binary if `outputs` is None."""


def routes(service):
    """Returns the routes.

    Args:
        service: `Service`.
    """

    async def server(_):
        return JSONResponse(
            {"name": "allconv_resnet", "version": version("allconv_resnet"), "extensions": [binary.NAME]}
        )

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
        length = request.headers.get(binary.HEADER)
        most = service.options.max_images
        text, values = await service.answer(request, lambda body, model: parse(body, length, model, most), encode)
        if not values:
            return Response(text, media_type="application/json")
        headers = {binary.HEADER: str(len(text))}
        return Response(b"".join([text, *values]), headers=headers, media_type="application/octet-stream")

    found = [Route("/v2", server), Route(OPEN[0], live), Route(OPEN[1], ready)]
    for end in ("", "/versions/{version:name}"):
        place = "/v2/models/{name:name}" + end
        found += [
            Route(place, metadata),
            Route(f"{place}/ready", model_ready),
            Route(f"{place}/infer", infer, methods=["POST"]),
        ]
    return found


def parse(body, length, model, max_images):
    """Returns what a body asks of a model. The datatype of the input chooses the signature.

    Args:
        body: Bytes of a JSON object with one input. Its data may be flat or nested; files are base64. Instead of data
            it may have the parameter `binary_data_size`; then the values follow the JSON.
        length: String with the length of the JSON, or None if there is nothing after it.
        model: `SavedModel`.
        max_images: Integer, most images of a request.

    Returns:
        `Asked`.

    Raises:
        Refused: with status 400 if the body does not have this form, or 413 if it has too many images.
    """
    text, rest = binary.split(body, length)
    values = decode(text, Body, 'a JSON object with "inputs", each with name, shape, datatype and data')
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
    images = _values(given, rest, spec, expected)
    if images.size != np.prod(given.shape, dtype=object):
        raise Refused(400, f"The shape {shape_text(given.shape)} does not fit the data. Received: {images.size} values")
    asked = {output.name: output.parameters or Parameters() for output in values.outputs or ()}
    if any(parameters.classification for parameters in asked.values()):
        raise Refused(400, "The parameter classification is not supported: the output classes has the best classes")
    all_binary = (values.parameters or Parameters()).binary_data_output
    wanted = {name: all_binary if p.binary_data is None else p.binary_data for name, p in asked.items()}
    return Asked(signatures[given.datatype], images.reshape(given.shape), values.id, wanted or None, all_binary)


def _values(given, rest, spec, expected):
    """Returns the values of an input as an array of one dimension, from its data or from the bytes after the JSON."""
    size = (given.parameters or Parameters()).binary_data_size
    if (size is None) == (given.data is msgspec.UNSET):
        raise Refused(400, f"{spec.name} must have either data or the parameter binary_data_size")
    if (size or 0) != len(rest):
        raise Refused(400, f"binary_data_size must be {len(rest)}, the bytes after the JSON. Received: {size or 0}")
    if size is not None:
        as_files = given.datatype == "BYTES"
        return binary.files(rest, given.shape[0]) if as_files else binary.numbers(rest, spec.dtype.as_numpy_dtype)
    text = bytes(given.data)
    return base64_list(text, spec.name) if given.datatype == "BYTES" else flat_numbers(text, spec.dtype, expected)


def encode(outputs, asked, model):
    """Returns the JSON of an answer, with flat data, and a list of the binary values after it.

    Args:
        outputs: Dictionary of arrays `[n, ...]`; bytes become text.
        asked: `Asked`.
        model: `SavedModel`.

    Raises:
        Refused: with status 400 if an output is asked for that there is not.
    """
    wanted = dict.fromkeys(outputs, asked.binary) if asked.outputs is None else asked.outputs
    if unknown := [name for name in wanted if name not in outputs]:
        raise Refused(400, f"The outputs are {', '.join(sorted(outputs))}. Received: {unknown[0][:100]!r}")
    specs, content, values = model.outputs[asked.signature], [], []
    for name, is_binary in wanted.items():
        array = outputs[name]
        content.append({"name": name, "datatype": DATATYPES[specs[name].dtype.name], "shape": list(array.shape)})
        if is_binary:
            values.append(binary.to_bytes(array))
            content[-1]["parameters"] = {"binary_data_size": len(values[-1])}
        else:
            content[-1]["data"] = as_lists({name: array.ravel()})[name]
    answer = {"model_name": model.name, "model_version": str(model.version), "outputs": content}
    return msgspec.json.encode(answer | ({} if asked.id is None else {"id": asked.id})), values


def _description(name, spec):
    shape = [-1 if size is None else size for size in spec.shape]
    return {"name": name, "datatype": DATATYPES.get(spec.dtype.name, spec.dtype.name), "shape": shape}
