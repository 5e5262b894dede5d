"""What files say of themselves equals what a decoder finds in them."""

import io

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from serving.hostile import late_header, packed_texts, png_header, progressive
from serving.servers import encode

from allconv_resnet.errors import BadInput
from allconv_resnet.serving.encoded import inspect

SIZES = st.tuples(st.integers(1, 40), st.integers(1, 40))


@given(SIZES, st.sampled_from(["PNG", "JPEG"]), st.booleans(), st.integers(0, 3), st.binary(max_size=200))
def test_size_and_scans(size, kind, slow, more, comment):
    height, width = size
    file, image = io.BytesIO(), Image.fromarray(np.zeros((height, width, 3), np.uint8))
    if kind == "PNG":
        image.save(file, kind)
        scans = 1
    elif slow:
        file.write(progressive(width, height, more))
        scans = 10 + more  # libjpeg's own script has ten
    else:
        image.save(file, kind, comment=b"\xff\xda\xff\xc0" + comment, exif=b"\xff\xda\xff\xd9" + comment)
        scans = 1
    found = inspect(file.getvalue())
    assert (found.kind, found.width, found.height, found.scans) == (kind, width, height, scans)
    assert found.complete
    assert found.cost == int(width * height * max(1, scans / 10))


def test_what_costs_time_beside_the_pixels_is_counted():
    assert inspect(packed_texts(2)).cost == 1 + 2 * 5_000_000
    image = encode(np.zeros((8, 8, 3), np.uint8), "JPEG")
    assert inspect(image).cost == 64
    with_segments = image[:2] + b"\xff\xe0\0\x02" * 9_000 + image[2:]
    assert inspect(with_segments).cost > 30e6
    with_bytes_between = inspect(image[:2] + b"\xff" * 50 + image[2:])
    assert with_bytes_between == inspect(image)


def test_a_file_without_its_end_is_cut_off():
    for kind in ("PNG", "JPEG"):
        content = encode(np.random.default_rng(0).integers(0, 256, (50, 50, 3), dtype=np.uint8), kind)
        assert inspect(content[:-200]).damage() == f"the {kind} file is cut off"
        assert inspect(content).damage() == f"the {kind} file is damaged"


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "Cat must be a JPEG or a PNG file. Received: 0 bytes"),
        (b"\x89PNG\r\n\x1a\n", "Cat must begin with the chunk IHDR"),
        (late_header(2**13), "Cat must begin with the chunk IHDR"),
        (png_header(2**16, 2**16), "Cat must have from 1 to 33,554,432 pixels. Received: 65536 x 65536"),
        (png_header(0, 1), "Cat must have from 1"),
        (b"\xff\xd8\xff", "Cat is cut off or damaged: the JPEG file has no size"),
        (b"\xff\xd8\xff\xc0\x00\x0b\x08\x00", "Cat must have from 1"),
        (progressive(8, 8, 200), "Cat must be a JPEG file with at most 100 scans"),
        (packed_texts(17), "Cat must be a PNG file with at most 16 packed texts"),
        (b"\xff\xd8" + b"\xff" * 10**6, "Cat is cut off or damaged"),  # within milliseconds
    ],
)
def test_what_is_not_decoded(content, reason):
    with pytest.raises(BadInput, match=f"^{reason}"):
        inspect(content, "Cat")
    with pytest.raises(BadInput, match=r"^The image "):
        inspect(content)


@given(st.binary(max_size=300), st.sampled_from([b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR", b""]))
def test_any_bytes_are_read_or_refused(content, beginning):
    try:
        assert inspect(beginning + content).cost > 0
    except BadInput as error:
        assert str(error).startswith("The image ")
