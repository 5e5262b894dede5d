"""TensorFlow Serving's REST protocol (https://www.tensorflow.org/tfx/serving/api_rest): JSON to arrays and back.

All functions are pure functions of bytes and arrays. They use neither connections nor the model.
"""

import re
from dataclasses import dataclass

import msgspec
import numpy as np

from allconv_resnet.serving.refused import Refused
from allconv_resnet.serving.tensors import files, numbers, too_many

DEFAULT = "serving_default"


class Body(msgspec.Struct, forbid_unknown_fields=True):  # signature_nam would choose another signature in silence
    """The members of a body, of which the images are left as text."""

    instances: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET
    inputs: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET
    signature_name: str = ""


@dataclass(frozen=True)
class Request:
    """The content of a request body."""

    signature: str
    images: np.ndarray
    """Array of the dtype and rank that the signature takes. For strings it is an object array of bytes."""
    rows: bool
    """Whether the answer is a list with one object for each image, and not an object with one list for each output."""


def parse_request(body, signatures, max_images):
    """Returns the `Request` in the body of a POST to `:predict`.

    Args:
        body: Bytes of a JSON object with `instances`, a list of images, or `inputs`, all images as one value. Both may
            be the values themselves or objects that have them under the input's name. Binary values are
            `{"b64": ...}`. `signature_name` defaults to `serving_default`.
        signatures: Dictionary from the name of a signature to the `tf.TensorSpec` of its one input.
        max_images: Integer, most images of a request.

    Raises:
        Refused: with status 400 if the body does not have this form, or 413 if it has too many images or there is not
            enough memory for them.
    """
    values = decode(body, Body, 'a JSON object with "instances" or "inputs"')
    signature = values.signature_name or DEFAULT
    if signature not in signatures:
        known = ", ".join(sorted(signatures))
        raise Refused(400, f"signature_name must be one of {known}. Received: {signature[:100]!r}")
    given = [name for name in ("instances", "inputs") if getattr(values, name) is not msgspec.UNSET]
    if len(given) != 1:
        received = " and ".join(given) or "neither"
        raise Refused(400, f'The body must have either "instances" or "inputs". Received: {received}')
    rows, spec = given == ["instances"], signatures[signature]
    text = bytes(getattr(values, given[0])).strip()
    if rows and not text.startswith(b"["):
        raise Refused(400, '"instances" must be a list')
    text = _unnamed(text, spec.name, rows, max_images)
    if spec.dtype.name != "string" and re.match(rb'[\[\s]*\{\s*"b64"', text):
        accept = " or ".join(name for name, other in signatures.items() if other.dtype.name == "string")
        raise Refused(
            400, f'The signature {signature} takes pixels: files as {{"b64": ...}} need {accept or "another"}'
        )
    try:
        images = files(text, spec.name) if spec.dtype.name == "string" else numbers(text, spec, max_images)
    except MemoryError as error:
        raise Refused(413, "The images need more memory than the server has") from error
    if len(images) > max_images:
        raise too_many(len(images), max_images)
    return Request(signature, images, rows)


def encode_answer(outputs, rows):
    """Returns the body of an answer, as bytes of JSON.

    Args:
        outputs: Dictionary of arrays `[n, ...]`; bytes become text.
        rows: Boolean, see `Request`.
    """
    lists = as_lists(outputs)
    if len(lists) == 1:  # TensorFlow Serving leaves out the name of the only output
        (values,) = lists.values()
        content = {"predictions" if rows else "outputs": values}
    elif rows:
        content = {"predictions": [dict(zip(lists, row, strict=True)) for row in zip(*lists.values(), strict=True)]}
    else:
        content = {"outputs": lists}
    return msgspec.json.encode(content)


def as_lists(outputs):
    """Returns a dictionary of arrays as one of lists, in which bytes are text, see `encode_answer`."""
    return {name: _text(value) if value.dtype == object else value.tolist() for name, value in outputs.items()}


def decode(body, kind, expected):
    """Returns a body of JSON as a msgspec type.

    Args:
        body: Bytes.
        kind: Subclass of `msgspec.Struct`.
        expected: String, what the body must be, for messages.

    Raises:
        Refused: with status 400 if it is not that.
    """
    if not body:
        raise Refused(400, f"The body is empty: it must be {expected}")
    try:
        return msgspec.json.decode(body, type=kind)
    except RecursionError as error:
        raise Refused(400, "The body has too many nested lists") from error
    except msgspec.ValidationError as error:
        raise Refused(400, f"The body must be {expected}. {error}") from error
    except msgspec.DecodeError as error:
        raise Refused(400, f"The body is not JSON: {str(error).removeprefix('JSON is malformed: ')}") from error


def _unnamed(text, name, rows, max_images):
    """Returns the text of images without the objects that name them, if it has these."""
    quoted = re.escape(msgspec.json.encode(name))
    if not re.match((rb"\[\s*" if rows else rb"") + rb"\{\s*" + quoted + rb"\s*:", text):
        return text
    named = msgspec.defstruct("Named", [("value", msgspec.Raw)], rename={"value": name}, forbid_unknown_fields=True)
    count = text.count(b"{")
    if count > 2 * max_images:  # each image may be an object in an object
        raise too_many(count, max_images)
    try:
        if not rows:
            return bytes(msgspec.json.decode(text, type=named).value).strip()
        values = msgspec.json.decode(text, type=list[named])
    except msgspec.DecodeError as error:
        raise Refused(400, f'All images must be objects with nothing but "{name}". {error}') from error
    return b"[" + b",".join(bytes(row.value) for row in values) + b"]"


def _text(array):
    return [_text(value) if isinstance(value, np.ndarray) else value.decode() for value in array]
