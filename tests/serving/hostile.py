"""Bodies that clients should not send."""

import gzip
import io
import json
import struct
import zlib

import numpy as np
from PIL import Image
from serving.servers import IMAGES, b64, encode

GOOD = IMAGES[0].tolist()
MOST = 32_000_000  # bytes of a body


def png_header(width, height):
    """A real one-pixel PNG file whose header claims another size."""
    content = encode(np.zeros((1, 1, 3), np.uint8))
    return content[:16] + width.to_bytes(4, "big") + height.to_bytes(4, "big") + content[24:]


def chunk(kind, content):
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def late_header(pixels):
    """A PNG file with a chunk of its own before IHDR, in the place of which it claims to be small."""
    content = encode(np.zeros((pixels // 8192, 8192), np.uint8))
    return content[:8] + chunk(b"teSt", struct.pack(">II", 1, 1) + b"\0" * 16) + content[8:]


def packed_texts(number):
    """A PNG file of one pixel with texts that unpack to 7.9 MB each."""
    content = encode(np.zeros((1, 1, 3), np.uint8))
    text = chunk(b"zTXt", b"a\0\0" + zlib.compress(bytes(7_900_000)))
    return content[:33] + text * number + content[33:]


def progressive(width, height, more_scans):
    """A progressive JPEG file whose last scan is repeated."""
    file = io.BytesIO()
    Image.fromarray(np.zeros((height, width, 3), np.uint8)).save(file, "JPEG", progressive=True)
    content = file.getvalue()
    scan = content[content.rindex(b"\xff\xda") : -2]
    return content[:-2] + scan * more_scans + content[-2:]


def repeat(part, separator=b","):
    return separator.join([part] * ((MOST - 100) // (len(part) + len(separator))))


def files(*contents):
    return {"instances": [b64(content) for content in contents], "signature_name": "serve_bytes"}


# name: (body, a part of the reason). All are answered with 400.
SMALL = {
    "empty": (b"", "The body is empty"),
    "broken": (b'{"instances": [[[', "is not JSON"),
    "not text": (b"\x00\xff\xfe", "is not JSON"),
    "deep": (b'{"instances": ' + b"[" * 100_000, "too many nested lists"),
    "deep elsewhere": (b'{"else": ' + b"[" * 100_000, "unknown field `else`"),
    "no object": (b"[1]", "must be a JSON object"),
    "unknown member": ({"instances": [GOOD], "signature_nam": "x"}, "Object contains unknown field `signature_nam`"),
    "neither": ({}, 'either "instances" or "inputs". Received: neither'),
    "both": ({"instances": [GOOD], "inputs": [GOOD]}, 'either "instances" or "inputs"'),
    "no list": ({"instances": 3}, '"instances" must be a list'),
    "null": ({"instances": None}, '"instances" must be a list'),
    "no image": ({"instances": []}, "images must be float32"),
    "no inputs": ({"inputs": []}, "images must be float32"),
    "a number": ({"inputs": 3}, "Received: shape []"),
    "signature": ({"instances": [GOOD], "signature_name": "other"}, "signature_name must be one of serve_bytes, "),
    "signature of another type": ({"instances": [GOOD], "signature_name": 3}, "Expected `str`, got `int`"),
    "rank": ({"instances": GOOD}, "shape [any, any, any, 3]. Received: shape [32, 32, 3]"),
    "rank 5": ({"inputs": [[GOOD]]}, "Received: shape [1, 1, 32, 32, 3]"),
    "channels": ({"instances": [[[[1, 2]]]]}, "Received: shape [1, 1, 1, 2]"),
    "ragged": ({"instances": [[[[1, 2, 3], [1]]]]}, "lists of different lengths"),
    "ragged rows": ({"instances": [[[[1, 2, 3]], [[1, 2, 3], [1, 2, 3]]]]}, "lists of different lengths"),
    "ragged but as many": ({"instances": [[[[1, 2, 3], [1, 2], [1, 2, 3, 4]]]]}, "lists of different lengths"),
    "images of two sizes": ({"instances": [[[[1, 2, 3]]], [[[1, 2, 3], [1, 2, 3]]]]}, "lists of different lengths"),
    "lists among numbers": ({"instances": [[[[1, 2, [3]]]]]}, "lists of different lengths"),
    "numbers among lists": ({"instances": [[[[1, 2, 3], 4]]]}, "lists of different lengths"),
    "an empty list": ({"instances": [[[[1, 2, 3], []]]]}, "lists of different lengths"),
    "empty lists": ({"instances": [[[[]]]]}, "Received: shape [1, 1, 1, 1]"),
    "empty pixels": (b'{"instances": [[[[], [], []]]]}', "Received: shape"),
    "text": ({"instances": [[[["a", "b", "c"]]]]}, "values that are not numbers"),
    "one long text": ({"instances": ["x" * 100_000] + [""] * 20_000}, "values that are not numbers"),
    "text among numbers": ({"instances": [[[[1, "2", 3]]]]}, "values that are not numbers"),
    "text of brackets": ({"instances": [[[[1, "[2]", 3]]]]}, "values that are not numbers"),
    "booleans": ({"instances": [[[[True, False, True]]]]}, "values that are not numbers"),
    "nulls": ({"instances": [[[[None, 1, 1]]]]}, "values that are not numbers"),
    "objects": ({"instances": [[[[{}, 1, 1]]]]}, "Received: objects"),
    "named and not": ({"instances": [{"images": GOOD}, GOOD]}, 'nothing but "images"'),
    "named otherwise": ({"instances": [{"pixels": GOOD}]}, "Received: objects"),
    "two names": ({"instances": [{"images": GOOD, "other": 1}]}, 'nothing but "images"'),
    "nan": (b'{"instances": [[[[NaN, 1, 2]]]]}', "is not JSON"),
    "two values": (b'{"instances": [[[[1 2, 1, 2]]]]}', "is not JSON"),
    "leading zero": (b'{"instances": [[[[01, 1, 2]]]]}', "is not JSON"),
    "comma at the end": (b'{"instances": [[[[1, 1, 2,]]]]}', "is not JSON"),
    "after the end": (b'{"instances": [[[[1, 1, 2]]]]} 3', "is not JSON"),
    "infinite": (b'{"instances": [[[[1e999, 1, 2]]]]}', "beyond the range of float32"),
    "large": ({"instances": [[[[1e39, 1, 2]]]]}, "beyond the range of float32"),
    "many digits": (b'{"instances": [[[[' + b"9" * 5000 + b", 1, 2]]]]}", "beyond the range of float32"),
    "fraction": ({"instances": [[[[0.5, 1, 2]]]], "signature_name": "serve_uint8"}, "not integers from 0 to 255"),
    "range": ({"instances": [[[[256, 1, 2]]]], "signature_name": "serve_uint8"}, "not integers from 0 to 255"),
    "negative": ({"instances": [[[[-1, 1, 2]]]], "signature_name": "serve_uint8"}, "not integers from 0 to 255"),
    "beyond 64 bits": ({"instances": [[[[2**70, 1, 2]]]], "signature_name": "serve_uint8"}, "integers from 0 to 255"),
    "file for pixels": ({"instances": [b64(IMAGES[0])]}, 'files as {"b64": ...} need serve_bytes'),
    "named file for pixels": ({"instances": [{"images": b64(IMAGES[0])}]}, "need serve_bytes"),
    "pixels for a file": ({"instances": [GOOD], "signature_name": "serve_bytes"}, 'must be a list of {"b64": "..."}'),
    "other key": ({"instances": [{"b32": "AA"}], "signature_name": "serve_bytes"}, "unknown field `b32`"),
    "not base64": ({"instances": [{"b64": "?"}], "signature_name": "serve_bytes"}, "Invalid base64"),
    "no file at all": ({"instances": [], "signature_name": "serve_bytes"}, "Received: none"),
    "empty file": (files(b""), "The image must be a JPEG or a PNG file. Received: 0 bytes"),
    "no file": (files(b"not an image"), "The image must be a JPEG or a PNG file"),
    "gif": (files(encode(IMAGES[0], "GIF")), "The image must be a JPEG or a PNG file"),
    "bmp": (files(encode(IMAGES[0], "BMP")), "The image must be a JPEG or a PNG file"),
    "cut jpeg": (files(encode(IMAGES[0], "JPEG")[:500]), "cut off"),
    "cut png": (files(encode(IMAGES[0])[:500]), "The image cannot be decoded: the PNG file is cut off"),
    "damaged png": (files(encode(IMAGES[0])[:200] + b"?" * 50 + encode(IMAGES[0])[250:]), "the PNG file is damaged"),
    "one of four": (files(encode(IMAGES[0]), encode(IMAGES[1]), b"\x89PNG", encode(IMAGES[2])), "Image 3 of 4 must be"),
    "one damaged of four": (
        files(encode(IMAGES[0]), encode(IMAGES[1]), encode(IMAGES[2])[:500], encode(IMAGES[3])),
        "Image 3 of 4 cannot be decoded: the PNG file is cut off",
    ),
    "claims": (files(png_header(30_000, 30_000)), "from 1 to 33,554,432 pixels. Received: 30000 x 30000"),
    "claims more": (files(png_header(2**31 - 1, 2**31 - 1)), "from 1 to 33,554,432 pixels"),
    "no pixels": (files(png_header(0, 10)), "from 1 to 33,554,432 pixels"),
    "late header": (files(late_header(2**20)), "must begin with the chunk IHDR"),
    "jpeg without size": (files(b"\xff\xd8\xff\xd9"), "has no size"),
    "jpeg of segments": (files(b"\xff\xd8" + b"\xff\xfe\x00\x02" * 20_000), "at most 100 scans"),
    "scans": (files(progressive(64, 64, 3_000)), "must be a JPEG file with at most 100 scans"),
}
SMALL = {name: (b if isinstance(b, bytes) else json.dumps(b).encode(), r) for name, (b, r) in SMALL.items()}


def many_pixels():
    return files(*[encode(np.zeros((4096, 8192), np.uint8))] * 16)


# name: (function that returns the body, the status). Each would once have taken seconds or gigabytes.
LARGE = {
    "empty lists": (lambda: b'{"instances": [' + repeat(b"[]") + b"]}", 400),
    "nested lists": (lambda: b'{"instances": [' + repeat(b"[[[[1]]]]") + b"]}", 400),
    "objects": (lambda: b'{"instances": [' + repeat(b'{"":0}') + b"]}", 400),
    "named objects": (lambda: b'{"instances": [' + repeat(b'{"images":0}') + b"]}", 413),
    "objects elsewhere": (lambda: b'{"else": [' + repeat(b'{"":0}') + b'], "instances": []}', 400),
    "different names": (lambda: b'{"instances": [{"images":0,' + _names() + b"}]}", 400),
    "texts": (lambda: b'{"instances": [' + repeat(b'""') + b"]}", 400),
    "one text": (lambda: b'{"instances": ["' + b"x" * (MOST - 100) + b'"]}', 400),
    "numbers": (lambda: b'{"instances": [' + repeat(b"1") + b"]}", 400),
    "images of one pixel": (lambda: b'{"instances": [' + repeat(b"[[[1,2,3]]]") + b"]}", 413),
    "fractions": (lambda: b'{"instances": [' + repeat(b"[[[0.123456789,2,3]]]") + b"]}", 413),
    "empty files": (lambda: b'{"signature_name":"serve_bytes","instances": [' + repeat(b'{"b64":""}') + b"]}", 413),
    "one large image": (lambda: b'{"instances": [[' + repeat(b"[[1,2,3]]") + b"]]}", 200),
    "too large": (lambda: b"1" * 50_000_000, 413),
    "spaces": (lambda: b" " * (MOST - 1), 400),
    "16 images of 33 megapixels": (lambda: json.dumps(many_pixels()).encode(), 413),
    "a progressive file of 33 megapixels": (lambda: json.dumps(files(progressive(8192, 4096, 80))).encode(), 413),
    "scans in 185 kB": (lambda: json.dumps(files(progressive(4096, 4096, 2_500))).encode(), 400),
    "header behind 1 MB": (lambda: json.dumps(files(late_header(2**27))).encode(), 400),
    "two large files": (lambda: json.dumps(files(*[encode(np.zeros((4096, 8192), np.uint8))] * 2)).encode(), 200),
}


def _names():
    return b",".join(b'"%d":0' % i for i in range(3_000_000))[: MOST - 100].rpartition(b",")[0]


def bomb():
    """A gzip file of 100 kB that unpacks to 100 MB."""
    return gzip.compress(b" " * 100_000_000, 9)
