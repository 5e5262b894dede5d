"""What a JPEG or PNG file says of itself, read without decoding it, so that the cost of decoding is known before.

A file of a few bytes can claim any number of pixels, and each scan of a progressive JPEG file goes over all pixels
again: 53 bytes for 0.1 s of computing.
"""

import re
import struct
from dataclasses import dataclass

from allconv_resnet.errors import BadInput

MAX_PIXELS = 2**25  # encoded images that claim to be larger are not decoded
MAX_SCANS = 100  # of a JPEG file; the largest number in use is about 20
MAX_SEGMENTS = 10_000  # of a JPEG file
SCANS_FOR_ONE = 10  # so many scans of a progressive file cost about as much as decoding an image once
USUAL_SEGMENTS = 50  # of a JPEG file; files of cameras have some twenty
MAX_TEXTS = 16  # packed texts of a PNG file, each of which may unpack to 8 MB
SEGMENT, TEXT = 4_000, 5_000_000  # what a further segment and a packed text cost, in pixels
PNG = b"\x89PNG\r\n\x1a\n"
JPEG = b"\xff\xd8\xff"

# A marker of a JPEG file. Within the coded data, 0xFF is followed by zero or by a restart marker. There may be several
# 0xFF. An expression that takes all of them would need time in proportion to the square of their number.
MARKER = re.compile(rb"\xff([\x02-\xcf\xd8-\xfe])")
START_OF_SCAN, END_OF_IMAGE = 0xDA, 0xD9
FRAMES = set(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}  # the segments that have the size


@dataclass(frozen=True)
class Encoded:
    """What an encoded image says of itself."""

    kind: str
    """JPEG or PNG."""
    width: int
    height: int
    scans: int
    """Number of times that decoding goes over all pixels."""
    complete: bool
    """Whether the file has an end."""
    more: int = 0
    """What decoding costs beyond the pixels, in pixels."""

    @property
    def cost(self):
        """What decoding costs, in pixels of a file with one scan."""
        return int(self.width * self.height * max(1, self.scans / SCANS_FOR_ONE)) + self.more

    def damage(self):
        """Returns what is wrong with a file that could not be decoded, as the end of a sentence."""
        return f"the {self.kind} file is {'damaged' if self.complete else 'cut off'}"


def inspect(content, name="The image"):
    """Returns what an image says of itself.

    Args:
        content: Bytes of a JPEG or PNG file.
        name: String, the subject of error messages.

    Returns:
        `Encoded`.

    Raises:
        BadInput: if the file is of another format, claims more than `MAX_PIXELS` pixels, or has more than `MAX_SCANS`
            scans or `MAX_TEXTS` packed texts.
    """
    if content.startswith(PNG):
        encoded = _png(content, name)
    elif content.startswith(JPEG):
        encoded = _jpeg(content, name)
    else:
        raise BadInput(f"{name} must be a JPEG or a PNG file. Received: {len(content):,} bytes of something else")
    if not 0 < encoded.width * encoded.height <= MAX_PIXELS:
        size = f"{encoded.width} x {encoded.height}"
        raise BadInput(f"{name} must have from 1 to {MAX_PIXELS:,} pixels. Received: {size}")
    return encoded


def _png(content, name):
    if len(content) < 33 or content[12:16] != b"IHDR":
        raise BadInput(f"{name} must begin with the chunk IHDR, which has its size, as every PNG file does")
    width, height = struct.unpack(">II", content[16:24])
    texts = content.count(b"zTXt") + content.count(b"iTXt")  # or more, if the pixels happen to have these letters
    if texts > MAX_TEXTS:
        raise BadInput(f"{name} must be a PNG file with at most {MAX_TEXTS} packed texts. Received: more")
    return Encoded("PNG", width, height, 1, b"IEND" in content[-64:], texts * TEXT)


def _jpeg(content, name):
    size, scans, segments, position = None, 0, 0, 2
    while (marker := MARKER.search(content, position)) and marker[1][0] != END_OF_IMAGE:
        code, start = marker[1][0], marker.end()
        length, segments = int.from_bytes(content[start : start + 2], "big"), segments + 1
        if size is None and code in FRAMES and length >= 7:
            size = struct.unpack(">HH", content[start + 3 : start + 7].ljust(4, b"\0"))
        scans += code == START_OF_SCAN
        if scans > MAX_SCANS or segments > MAX_SEGMENTS:
            raise BadInput(f"{name} must be a JPEG file with at most {MAX_SCANS} scans. Received: more")
        position = start + max(2, length)
    if size is None:
        raise BadInput(f"{name} is cut off or damaged: the JPEG file has no size")
    more = max(0, segments - USUAL_SEGMENTS) * SEGMENT
    return Encoded("JPEG", size[1], size[0], max(1, scans), marker is not None, more)
