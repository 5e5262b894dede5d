"""The routes of TensorFlow Serving's REST protocol (https://www.tensorflow.org/tfx/serving/api_rest)."""

import numpy as np
from starlette.convertors import Convertor, register_url_convertor
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from tensorflow.core.framework import types_pb2

from allconv_resnet.serving.protocol import Request, encode_answer, parse_request
from allconv_resnet.serving.refused import Refused
from allconv_resnet.serving.service import note

IMAGES = ("image/jpeg", "image/png")


class _Name(Convertor):
    regex = "[^/:]+"

    def convert(self, value):
        return value

    def to_string(self, value):
        return value


register_url_convertor("name", _Name())


def routes(service):
    """Returns the routes.

    Args:
        service: `Service`.
    """

    async def predict(request):
        kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()

        def parse(body, model):
            if kind in IMAGES:
                return _one_file(body, model)
            return parse_request(body, model.signatures, service.options.max_images)

        body = await service.answer(request, parse, lambda outputs, asked, _: encode_answer(outputs, asked.rows))
        return Response(body, media_type="application/json")

    async def status(request):
        name = request.path_params["name"]
        if "version" in request.path_params or "label" in request.path_params:
            states = [(service.find(request).version, "")]
        else:
            states = service.models.states(name)
            note(request, model=name)
        return JSONResponse({"model_version_status": [_state(*state) for state in states]})

    async def metadata(request):
        model = service.find(request)
        return JSONResponse(
            {
                "model_spec": {"name": model.name, "signature_name": "", "version": str(model.version)},
                "metadata": {"signature_def": {"signature_def": signature_definitions(model)}},
            }
        )

    found = []
    for end in ("", "/versions/{version:name}", "/labels/{label:name}"):
        place = "/v1/models/{name:name}" + end
        found += [
            Route(f"{place}:predict", predict, methods=["POST"]),
            Route(f"{place}/metadata", metadata),
            Route(place, status),
        ]
    return found


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


def _one_file(body, model):
    signature = model.files_signature()
    if signature is None:
        raise Refused(415, f"The model {model.name} has no signature that takes files")
    image = np.empty(1, object)
    image[0] = body
    return Request(signature, image, rows=True)


def _state(version, why):
    status = {"error_code": "UNKNOWN" if why else "OK", "error_message": why}
    return {"version": str(version), "state": "END" if why else "AVAILABLE", "status": status}
