"""The EXIF orientation of JPEG files: cameras store pixels as the sensor has them, and note how to turn them.

All functions are pure. They run eagerly, inside tf.data, and in the graph of an export. Only JPEG files are turned, and
only if the Exif segment stands among the application segments at the beginning of the file, where the standard (CIPA
DC-008, section 4.5.4) has it.
"""

import tensorflow as tf

TAG = 0x0112  # of the orientation
LARGEST_SEGMENT = 2**16 + 2  # bytes
MOST_ENTRIES = 64  # of a directory; the standard sorts them, and the orientation is among the first


def orientation(contents):
    """Returns the EXIF orientation of a JPEG file, an int32 scalar from 1 to 8. It is 1 if the file states none.

    | orientation | the stored image becomes upright by |
    |---|---|
    | 1, 2 | nothing; mirroring it left to right |
    | 3, 4 | a half turn; mirroring it top to bottom |
    | 5, 7 | mirroring it at its main diagonal; at the other diagonal |
    | 6, 8 | a quarter turn clockwise; counterclockwise |

    Args:
        contents: String scalar, the contents of the file. A file of another kind has the orientation 1.
    """
    # Most files begin with a JFIF segment and go on with a table, which is seen without a loop.
    length = tf.strings.length(contents)
    first = tf.strings.substr(contents, tf.minimum([0, 20], length), [6, 2])
    nothing_else = tf.reduce_all(first == [b"\xff\xd8\xff\xe0\x00\x10", b"\xff\xdb"])
    return tf.cond(nothing_else, lambda: tf.constant(1), lambda: _search(contents, length))


def _search(contents, length):
    """Returns the orientation in the first Exif segment of a file, or 1 if it has none."""

    def head(place):
        return tf.cast(tf.io.decode_raw(tf.strings.substr(contents, place, 4), tf.uint8), tf.int32)

    def skippable(place, found):
        """Whether an application segment or a comment begins at `place`, and no Exif segment has been found."""

        def check():
            marker = head(place)
            named = (marker[1] >= 0xE0) & (marker[1] <= 0xEF) | (marker[1] == 0xFE)
            return (marker[0] == 0xFF) & named

        return tf.cond((found == 0) & (place + 4 <= length), check, lambda: tf.constant(False))

    def skip(place, _):
        marker = head(place)
        exif = (marker[1] == 0xE1) & (tf.strings.substr(contents, tf.minimum(place + 4, length), 6) == b"Exif\0\0")
        return tf.where(exif, place, place + 2 + 256 * marker[2] + marker[3]), tf.where(exif, place, 0)

    _, found = tf.while_loop(skippable, skip, [tf.constant(2), tf.constant(0)])
    return tf.cond(
        found > 0, lambda: _stated(tf.strings.substr(contents, found, LARGEST_SEGMENT)), lambda: tf.constant(1)
    )


def _stated(segment):
    """Returns the orientation in an Exif segment, or 1 if it has none."""
    data = tf.cast(tf.io.decode_raw(segment, tf.uint8), tf.int32)[10:]  # what follows is a TIFF file
    data = tf.concat([data, tf.zeros([12 * MOST_ENTRIES + 16], tf.int32)], 0)
    last = tf.size(data) - 12 * MOST_ENTRIES - 4
    little = data[0] == ord("I")

    def number(places, size):
        """Returns the integers of `size` bytes at some places, in the byte order of the file."""
        parts = tf.gather(data, places[..., None] + tf.range(size))
        powers = tf.constant([256**i for i in range(size)])
        return tf.reduce_sum(tf.where(little, parts, tf.reverse(parts, [-1])) * powers, -1)

    directory = number(tf.constant(4), 4)
    directory = tf.where((directory < 0) | (directory > last), last, directory)
    entries = directory + 2 + 12 * tf.range(MOST_ENTRIES)
    count = number(directory, 2)
    ours = (number(entries, 2) == TAG) & (tf.range(MOST_ENTRIES) < count)
    value = tf.reduce_max(tf.where(ours, number(entries + 8, 2), 0))
    return tf.where((value >= 1) & (value <= 8), value, 1)


def swaps_sides(orientation):
    """Returns whether the upright image is as high as the stored one is wide."""
    return orientation >= 5


def upright_shape(shape, orientation):
    """Returns the shape of the upright image.

    Args:
        shape: int32 tensor `[2]` or `[3]`: height, width (pixels) and perhaps channels of the stored image.
        orientation: int32 scalar, see `orientation`.
    """
    return tf.where(swaps_sides(orientation), tf.gather(shape, [1, 0, *range(2, shape.shape[0])]), shape)


def stored_window(window, shape, orientation):
    """Returns where a window of the upright image lies in the stored one.

    Args:
        window: int32 tensor `[4]`: first row, first column, height, width (pixels).
        shape: int32 tensor, the shape of the upright image.
        orientation: int32 scalar, see `orientation`.
    """
    corner, size = window[:2], window[2:]
    corner = tf.where(_mirrored(orientation), shape[:2] - corner - size, corner)
    swapped = swaps_sides(orientation)
    return tf.concat([tf.where(swapped, tf.reverse(part, [0]), part) for part in (corner, size)], 0)


def turn_upright(image, orientation):
    """Returns the upright image.

    Args:
        image: Tensor `[h, w, c]`, the image as it is stored.
        orientation: int32 scalar, see `orientation`.
    """

    def turned():
        swapped = tf.cond(swaps_sides(orientation), lambda: tf.transpose(image, [1, 0, 2]), lambda: image)
        return tf.reverse(swapped, tf.reshape(tf.where(_mirrored(orientation)), [-1]))

    return tf.cond(orientation == 1, lambda: image, turned)


def _mirrored(orientation):
    """Returns whether the rows and the columns of the upright image run backwards, after its sides were swapped."""
    rows = (orientation == 3) | (orientation == 4) | (orientation >= 7)
    columns = (orientation == 2) | (orientation == 3) | (orientation == 6) | (orientation == 7)
    return tf.stack([rows, columns])
