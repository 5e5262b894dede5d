"""The binary extension of KServe's open inference protocol: a tensor's values as bytes after the JSON of a body.

https://kserve.github.io/website/docs/concepts/architecture/data-plane/v2-protocol/binary-tensor-data-extension. Numbers
are little-endian and in row-major order. Before each text or file stands its length, as a number of four bytes.
"""

import struct

import numpy as np

from allconv_resnet.serving.refused import Refused

HEADER = "Inference-Header-Content-Length"  # the length of the JSON
NAME = "binary_tensor_data"  # in the list of extensions


def split(body, length):
    """Returns the JSON of a body, as bytes, and what is after it, as a view of bytes.

    Args:
        body: Bytes.
        length: String, the value of `HEADER`, or None if the whole body is JSON.

    Raises:
        Refused: with status 400 if this is no length within the body.
    """
    size = len(body)
    if length is not None:
        size = int(length) if length.isascii() and length.isdigit() and len(length) < 20 else -1
        if not 0 <= size <= len(body):
            within = f"within the {len(body):,} bytes of the body"
            raise Refused(400, f"{HEADER} must be the length of the JSON {within}. Received: {length[:50]}")
    return body[:size], memoryview(body)[size:]


def numbers(content, dtype):
    """Returns bytes as an array `[n]` of numbers.

    Args:
        content: View of bytes.
        dtype: NumPy dtype.

    Raises:
        Refused: with status 400 if they are no whole number of values.
    """
    dtype = np.dtype(dtype)
    if len(content) % dtype.itemsize:
        raise Refused(400, f"Values of {dtype.itemsize} bytes cannot have {len(content):,} bytes in all")
    return np.frombuffer(content, dtype.newbyteorder("<")).astype(dtype)


def files(content, count):
    """Returns texts or files, each after its length, as an object array `[n]` of bytes.

    Args:
        content: View of bytes.
        count: Integer, how many there must be.

    Raises:
        Refused: with status 400 if there are more or fewer, or if a length goes beyond the end.
    """
    found, place = [], 0
    while place < len(content) and len(found) < count:
        begin = place + 4
        place = begin + int.from_bytes(content[place:begin], "little")
        if place > len(content):
            raise Refused(400, f"The length before value {len(found)} goes beyond the end of the binary data")
        found.append(bytes(content[begin:place]))
    if len(found) < count or place < len(content):
        what = f"{len(found)}" if place == len(content) else "more"
        raise Refused(400, f"The binary data must be {count} files, each after its length. Received: {what}")
    array = np.empty(count, object)
    array[:] = found
    return array


def to_bytes(array):
    """Returns an array of numbers, or an object array of bytes, in the form that `numbers` and `files` read."""
    if array.dtype == object:
        return b"".join(struct.pack("<I", len(value)) + value for value in array.ravel())
    return array.astype(array.dtype.newbyteorder("<")).tobytes()
