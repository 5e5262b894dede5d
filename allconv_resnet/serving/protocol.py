"""TensorFlow Serving's REST protocol (https://www.tensorflow.org/tfx/serving/api_rest): JSON to arrays and back.

All functions are pure functions of bytes and arrays. They use neither connections nor the model.
"""

import base64
import binascii
import itertools
import json
from dataclasses import dataclass

import numpy as np


class Refused(Exception):
    """A request that is answered with an error.

    Args:
        status: Integer, HTTP status.
        reason: String, one sentence that says what was expected and what was received.
    """

    def __init__(self, status, reason):
        super().__init__(reason)
        self.status, self.reason = status, reason


@dataclass(frozen=True)
class Request:
    """The content of a request body."""

    signature: str
    images: np.ndarray
    """Array of the dtype and rank that the signature takes. For strings it is an object array of bytes."""
    rows: bool
    """Whether the answer is a list with one object for each image, and not an object with one list for each output."""


def parse_request(body, signatures):
    """Returns the `Request` in the body of a POST to `:predict`.

    Args:
        body: Bytes of a JSON object with `instances`, a list of images, or `inputs`, all images as one value. Both may
            be the values themselves or objects that have them under the input's name. Binary values are
            `{"b64": ...}`. `signature_name` defaults to `serving_default`.
        signatures: Dictionary from the name of a signature to the `tf.TensorSpec` of its one input.

    Raises:
        Refused: with status 400 if the body does not have this form, or 413 if there is not enough memory for the
            images.
    """
    values = _load(body)
    if not isinstance(values, dict):
        raise Refused(400, 'The body must be a JSON object with "instances" or "inputs"')
    signature = values.get("signature_name", "serving_default")
    if not isinstance(signature, str) or signature not in signatures:
        known = ", ".join(sorted(signatures))
        raise Refused(400, f"signature_name must be one of {known}. Received: {json.dumps(signature)[:100]}")
    rows = "instances" in values
    if rows == ("inputs" in values):
        received = ", ".join(json.dumps(key)[:50] for key in list(values)[:10]) or "nothing"
        raise Refused(400, f'The body must have either "instances" or "inputs". Received: {received}')
    spec = signatures[signature]
    if rows:
        if not isinstance(values["instances"], list):
            raise Refused(400, '"instances" must be a list')
        images = [_unnamed(image, spec.name) for image in values["instances"]]
    else:
        images = _unnamed(values["inputs"], spec.name)
    convert = _strings if spec.dtype.name == "string" else _numbers
    return Request(signature, convert(images, spec), rows)


def encode_answer(outputs, rows):
    """Returns the body of an answer, as bytes of JSON.

    Args:
        outputs: Dictionary of arrays `[n, ...]`; bytes become text.
        rows: Boolean, see `Request`.

    Raises:
        Refused: with status 400 if a number is not finite, since JSON has no such numbers.
    """
    lists = {name: _text(value) if value.dtype == object else value.tolist() for name, value in outputs.items()}
    if rows:
        content = {"predictions": [dict(zip(lists, row, strict=True)) for row in zip(*lists.values(), strict=True)]}
    else:
        content = {"outputs": lists}
    try:
        return json.dumps(content, allow_nan=False).encode()
    except ValueError as error:
        raise Refused(400, "The network's answer for these pixels is not finite") from error


def _load(body):
    if not body:
        raise Refused(400, 'The body is empty: it must be a JSON object with "instances" or "inputs"')

    def refuse(constant):
        raise Refused(400, f"The body is not JSON: {constant} is not a number")

    try:
        return json.loads(body, parse_constant=refuse)
    except RecursionError as error:
        raise Refused(400, "The body has too many nested lists") from error
    except ValueError as error:  # an error of the encoding is a ValueError as well
        raise Refused(400, f"The body is not JSON: {error}") from error


def _unnamed(value, name):
    return value[name] if isinstance(value, dict) and set(value) == {name} else value


def _strings(images, spec):
    if not isinstance(images, list) or not images or not all(isinstance(image, dict | str) for image in images):
        raise Refused(400, f'{spec.name} must be a list of {{"b64": ...}}, each a JPEG or PNG file, and not empty')
    array = np.empty(len(images), object)
    array[:] = [_bytes(image) for image in images]
    return array


def _bytes(value):
    if isinstance(value, str):
        return value.encode("utf-8", "surrogatepass")
    if set(value) != {"b64"} or not isinstance(value["b64"], str):
        keys = ", ".join(json.dumps(key)[:50] for key in list(value)[:10])
        raise Refused(400, f'A binary value must be {{"b64": "..."}}. Received an object with {keys or "nothing"}')
    try:
        return base64.b64decode(value["b64"], validate=True)
    except (binascii.Error, ValueError) as error:
        raise Refused(400, f"A value of b64 is not base64: {error}") from error


def _numbers(images, spec):
    expected = f"{spec.name} must be {spec.dtype.name} of shape {_shape(spec.shape)}"
    different = Refused(400, f"{expected}. Received: lists of different lengths")
    flat = [images]  # NumPy must get only numbers, since it would make every text as long as the longest
    while (types := set(map(type, flat))) == {list}:
        flat = list(itertools.chain.from_iterable(flat))
    if not types <= {int, float}:
        raise different if list in types else Refused(400, f"{expected}. Received: values that are not numbers")
    try:
        array = np.array(images)
    except (ValueError, OverflowError) as error:  # different lengths, or too many dimensions
        raise different from error
    except MemoryError as error:
        raise Refused(413, "The images need more memory than the server has") from error
    if array.ndim != len(spec.shape) or any(e not in (None, r) for e, r in zip(spec.shape, array.shape, strict=True)):
        raise Refused(400, f"{expected}. Received: shape {_shape(array.shape)}")
    if array.dtype.kind not in "iuf":
        raise Refused(400, f"{expected}. Received: values that are not numbers")
    if spec.dtype.is_integer:
        if array.dtype.kind == "f" or array.min() < spec.dtype.min or array.max() > spec.dtype.max:
            low, high = spec.dtype.min, spec.dtype.max
            raise Refused(400, f"{expected}. Received: values that are not integers from {low} to {high}")
    elif not np.abs(array).max() <= spec.dtype.max:
        raise Refused(400, f"{expected}. Received: values beyond the range of {spec.dtype.name}")
    return array.astype(spec.dtype.as_numpy_dtype)


def _shape(shape):
    return f"[{', '.join('any' if size is None else str(size) for size in shape)}]"


def _text(array):
    return [_text(value) if isinstance(value, np.ndarray) else value.decode() for value in array]
