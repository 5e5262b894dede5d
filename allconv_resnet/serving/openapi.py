"""The description of the server's addresses as an OpenAPI document, from the signatures of the models."""

from importlib.metadata import version

PIXELS = {"type": "array", "items": {"type": "number"}}
KINDS = {"string": {"type": "string"}, "int64": {"type": "integer"}}
ONE_BLACK_PIXEL = (
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAIAAACQd1PeAAAADElEQVR4nGNgYGAAAAAEAAH2FzhVAAAAAElFTkSuQmCC"  # a PNG file
)


def description(models):
    """Returns the OpenAPI document of a server as a dictionary.

    Args:
        models: List of `SavedModel`.
    """
    paths, schemas = {}, {"Error": _object({"error": {"type": "string", "description": "One sentence."}})}
    for model in models:
        bodies, answers = {}, {}
        for signature, spec in model.signatures.items():
            schema = f"{model.name}-{model.version}-{signature}"
            schemas[schema] = _request(signature, spec)
            schemas[f"{schema}-answer"] = _answer(model.outputs[signature])
            bodies[signature], answers[signature] = _reference(schema), _reference(f"{schema}-answer")
        paths |= _addresses(model, bodies, answers)
    paths["/monitoring/prometheus/metrics"] = {
        "get": {
            "summary": "The counters of the server, in the text format of Prometheus",
            "responses": {"200": {"description": "Metrics", "content": {"text/plain": {"schema": {"type": "string"}}}}},
        }
    }
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "allconv-resnet serve",
            "version": version("allconv_resnet"),
            "description": "TensorFlow Serving's REST protocol. KServe's is served at /v2, and its own document "
            "describes it: https://kserve.github.io/website/docs/concepts/architecture/data-plane/v2-protocol.",
        },
        "paths": paths,
        "components": {"schemas": schemas},
    }


def _addresses(model, bodies, answers):
    """Returns the paths of one version of a model."""
    name, files, examples = model.name, model.files_signature(), {}
    if files:
        examples["a PNG file"] = {"signature_name": files, "instances": [{"b64": ONE_BLACK_PIXEL}]}
    json = "application/json"
    predict = {
        "summary": "Classes of images",
        "description": "The body has either `instances`, and the answer has one object for each image, or `inputs`, "
        "and the answer has one list for each output.",
        "requestBody": {
            "required": True,
            "content": {
                json: {
                    "schema": {"oneOf": list(bodies.values())},
                    "examples": {key: {"value": value} for key, value in examples.items()},
                }
            },
        },
        "responses": {
            "200": {"description": "The answers", "content": {json: {"schema": {"anyOf": list(answers.values())}}}},
            "400": _error("The images or the body cannot be understood"),
            "404": _error("There is no such model or version"),
            "413": _error("The request is larger than the server allows"),
            "503": _error("No version is loaded, or the server is stopping"),
        },
    }
    read = {"responses": {"200": {"description": "JSON", "content": {json: {"schema": {"type": "object"}}}}}}
    return {
        f"/v1/models/{name}:predict": {"post": predict},
        f"/v1/models/{name}/versions/{model.version}:predict": {"post": predict},
        f"/v1/models/{name}": {"get": {"summary": "The versions that are served", **read}},
        f"/v1/models/{name}/metadata": {"get": {"summary": "The signatures of the model", **read}},
    }


def _request(signature, spec):
    """Returns the schema of a request to a signature whose input has a `tf.TensorSpec`."""
    if spec.dtype.name == "string":
        image = _object({"b64": {"type": "string", "contentEncoding": "base64", "description": "A JPEG or PNG file"}})
    else:
        image = {**PIXELS, "description": f"Pixels from 0 to 255, height x width x {spec.shape[-1]}"}
        image["items"] = {"type": "array", "items": PIXELS}
    name = {"type": "string", "const": signature, "default": signature}
    images = {"type": "array", "items": image}
    return {
        "type": "object",
        "properties": {"signature_name": name, "instances": images, "inputs": images},
        "required": [] if signature == "serving_default" else ["signature_name"],
    }


def _answer(outputs):
    """Returns the schema of an answer with outputs by name."""

    def values(spec):
        kind = KINDS.get(spec.dtype.name, {"type": "number"})
        return {"type": "array", "items": kind, **({"maxItems": spec.shape[-1]} if spec.shape[-1] else {})}

    rows = {name: values(spec) for name, spec in outputs.items()}
    columns = {name: {"type": "array", "items": schema} for name, schema in rows.items()}
    predictions = _object({"predictions": {"type": "array", "items": _object(rows)}})
    return {"anyOf": [predictions, _object({"outputs": _object(columns)})]}


def _object(properties):
    return {"type": "object", "properties": properties, "required": list(properties)}


def _reference(name):
    return {"$ref": f"#/components/schemas/{name}"}


def _error(text):
    return {"description": text, "content": {"application/json": {"schema": _reference("Error")}}}
