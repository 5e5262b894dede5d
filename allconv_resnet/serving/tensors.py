"""Arrays from the text of JSON values, in memory that is bounded by the length of the text.

A parser that makes Python objects needs up to thirty bytes for a byte of text: a body of 32 MB that repeats `[],` took
2 GB and half a minute. msgspec checks the whole body without making any, and gives the text of each value. Here the
brackets of such a text are compared with those of a whole tensor, and its numbers are read in pieces.
"""

import msgspec
import numpy as np

from allconv_resnet.serving.refused import Refused

PIECE = 2**18  # bytes of text that become Python objects at once
BRACKETS = b"[] \t\r\n"
NUMBERS = b"0123456789+-.eE \t\r\n"
MAX_DEPTH = 8  # of nested lists. Each is looked for in the whole text


class File(msgspec.Struct, forbid_unknown_fields=True, gc=False):
    """A binary value, `{"b64": "..."}`."""

    b64: bytes


def numbers(text, spec, most=float("inf")):
    """Returns a tensor of numbers.

    Args:
        text: Bytes of valid JSON: lists of lists of numbers.
        spec: `tf.TensorSpec` of the input.
        most: Integer, largest size of the first dimension.

    Returns:
        Array of the dtype of the spec.

    Raises:
        Refused: with status 400 if the value is not such a tensor, or a number is outside of the range of the dtype,
            or 413 if the first dimension is larger than `most`.
    """
    expected = f"{spec.name} must be {spec.dtype.name} of shape {shape_text(spec.shape)}"
    _check_values(text, expected)
    brackets = text.translate(None, NUMBERS)
    if (depth := len(brackets) - len(brackets.lstrip(b"["))) > MAX_DEPTH:
        raise Refused(400, f"{expected}. Received: {depth} nested lists")
    shape = _first_shape(brackets)
    different = Refused(400, f"{expected}. Received: lists of different lengths")
    if shape is None:
        raise different
    if len(shape) != len(spec.shape) or any(e not in (None, r) for e, r in zip(spec.shape, shape, strict=True)):
        raise Refused(400, f"{expected}. Received: shape {shape_text(shape)}")
    if shape and shape[0] > most:
        raise too_many(shape[0], most)
    if not _has_shape(brackets, shape):
        raise different
    array = flat_numbers(text, spec.dtype, expected)
    if array.size != np.prod(shape):
        raise Refused(400, f"{expected}. Received: an empty list")
    return array.reshape(shape)


def flat_numbers(text, dtype, expected):
    """Returns all numbers of a text as an array of one dimension.

    Args:
        text: Bytes, see `numbers`.
        dtype: `tf.DType`.
        expected: String, the beginning of error messages.
    """
    _check_values(text, expected)
    flat, pieces, start = text.translate(None, BRACKETS), [np.empty(0, dtype.as_numpy_dtype)], 0
    while start < len(flat):
        comma = flat.find(b",", start + PIECE)
        end = len(flat) if comma < 0 else comma
        pieces.append(_piece(flat[start:end], dtype, expected))
        start = end + 1
    return np.concatenate(pieces)


def _check_values(text, expected):
    if strange := text.translate(None, NUMBERS + b"[],")[:1]:
        what = "objects" if strange == b"{" else "values that are not numbers"
        raise Refused(400, f"{expected}. Received: {what}")


def _piece(text, dtype, expected):
    try:
        values = np.array(msgspec.json.decode(b"[" + text + b"]"))
    except msgspec.DecodeError as error:  # the text was valid with its brackets
        what = f"values beyond the range of {dtype.name}" if "range" in str(error) else "an empty list"
        raise Refused(400, f"{expected}. Received: {what}") from error
    if dtype.is_integer:
        if values.dtype.kind not in "iu" or values.min() < dtype.min or values.max() > dtype.max:
            raise Refused(400, f"{expected}. Received: values that are not integers from {dtype.min} to {dtype.max}")
    elif not _largest(values) <= dtype.max:
        raise Refused(400, f"{expected}. Received: values beyond the range of {dtype.name}")
    return values.astype(dtype.as_numpy_dtype)


def _largest(values):
    try:
        return np.abs(values.astype(np.float64)).max()
    except OverflowError:  # an integer of more than 308 digits
        return np.inf


def _first_shape(brackets):
    """Returns the only shape that a tensor can have which begins like this, or None if there is none.

    The sizes are those of the first list of numbers, the first list of lists, and so on. A list of one number and an
    empty list have the same brackets.
    """
    depth = len(brackets) - len(brackets.lstrip(b"["))
    if not depth:
        return ()
    sizes, closed = [brackets.find(b"]") - depth + 1], 1  # closing brackets of a list of numbers
    for level in range(2, depth + 1):
        end = brackets.find(b"]" * level)
        within = brackets.count(b"]", 0, end + 1) + level - 2  # closing brackets of the lists in the first such list
        if end < 0 or within % closed:
            return None
        sizes.append(within // closed)
        closed = within + 1
    length = 0
    for size in sizes:
        length = size * length + size + 1
    return tuple(reversed(sizes)) if length == len(brackets) else None


def _has_shape(brackets, shape):
    """Returns whether brackets and commas are those of a tensor of this shape."""
    whole = b""
    for size in reversed(shape):
        whole = b"[" + b",".join([whole] * size) + b"]"
    return whole == brackets


def too_many(count, most):
    """Returns the error of a request with too many images."""
    return Refused(413, f"A request must have at most {most:,} images. Received: {count:,}")


def shape_text(shape):
    """Returns a shape as text, with `any` for sizes that are not fixed."""
    return f"[{', '.join('any' if size is None else str(size) for size in shape)}]"


def files(text, name):
    """Returns binary values as an object array of bytes.

    Args:
        text: Bytes of valid JSON: a list of `{"b64": ...}`.
        name: String, name of the input.

    Raises:
        Refused: with status 400 if the value is anything else.
    """
    try:
        values = msgspec.json.decode(text, type=list[File])
    except msgspec.DecodeError as error:
        raise Refused(400, f'{name} must be a list of {{"b64": "..."}}, each a JPEG or PNG file. {error}') from error
    if not values:
        raise Refused(400, f'{name} must be a list of {{"b64": "..."}}, each a JPEG or PNG file. Received: none')
    array = np.empty(len(values), object)
    array[:] = [value.b64 for value in values]
    return array


def base64_list(text, name):
    """Returns binary values as an object array of bytes.

    Args:
        text: Bytes of valid JSON: a list of strings, each base64.
        name: String, name of the input.

    Raises:
        Refused: with status 400 if the value is anything else.
    """
    try:
        values = msgspec.json.decode(text, type=list[bytes])
    except msgspec.DecodeError as error:
        raise Refused(400, f"{name} must be a list of base64 texts, each a JPEG or PNG file. {error}") from error
    array = np.empty(len(values), object)
    array[:] = values
    return array
