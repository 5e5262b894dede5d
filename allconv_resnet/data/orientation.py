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
    """Returns the EXIF orientation of JPEG files, an int32 tensor of numbers from 1 to 8: 1 for files that state none.

    | orientation | the stored image becomes upright by |
    |---|---|
    | 1, 2 | nothing; mirroring it left to right |
    | 3, 4 | a half turn; mirroring it top to bottom |
    | 5, 7 | mirroring it at its main diagonal; at the other diagonal |
    | 6, 8 | a quarter turn clockwise; counterclockwise |

    A loop costs as much for a batch as for one file, so that batches should be passed whole.

    Args:
        contents: String tensor of any shape, the contents of the files. Files of another kind have the orientation 1.
    """
    files = tf.reshape(contents, [-1])
    lengths = tf.strings.length(files)

    def part(places, size):
        return tf.strings.substr(files, tf.minimum(places, lengths), tf.fill(tf.shape(places), size))

    def heads(places):
        """Returns the markers and lengths of the segments that begin at some places, and which are Exif segments."""
        pairs = tf.io.decode_raw(part(places, 4), tf.uint16, little_endian=False, fixed_length=4)
        markers, sizes = tf.unstack(tf.cast(pairs, tf.int32), axis=1)
        return markers, sizes, (markers == 0xFFE1) & (part(places + 4, 6) == b"Exif\0\0")

    def skip(places, _):
        """Skips application segments and comments before the Exif segment."""
        markers, sizes, exif = heads(places)
        named = (markers >= 0xFFE0) & (markers <= 0xFFEF) | (markers == 0xFFFE)
        skipped = named & ~exif & (places + 4 <= lengths)
        return tf.where(skipped, places + 2 + sizes, places), tf.reduce_any(skipped)

    places, _ = tf.while_loop(lambda _, more: more, skip, [tf.fill(tf.shape(files), 2), tf.constant(True)])
    rows = tf.where(heads(places)[2])
    segments = tf.strings.substr(
        tf.gather_nd(files, rows), tf.gather_nd(places, rows), tf.fill(tf.shape(rows)[:1], LARGEST_SEGMENT)
    )
    stated = tf.map_fn(_stated, segments, fn_output_signature=tf.TensorSpec([], tf.int32))
    return tf.reshape(tf.tensor_scatter_nd_update(tf.ones_like(places), rows, stated), tf.shape(contents))


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
