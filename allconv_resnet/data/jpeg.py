"""Decodes the window of a JPEG or PNG file that is used, and resizes it to the size of the network.

Of JPEG files only the window is decoded. All functions are pure. They run eagerly and inside tf.data.
"""

import tensorflow as tf

from allconv_resnet.data import orientation

ASPECT = (3 / 4, 4 / 3)  # width over height of a random window
SCALES = (1, 2, 4, 8)  # factors by which libjpeg can shrink an image while it decodes
PNG = b"\x89PNG\r\n\x1a\n"  # the first bytes of every PNG file


def is_png(contents):
    """Returns whether files are PNG files by their first bytes, a boolean tensor of the shape of `contents`."""
    return tf.strings.substr(contents, 0, len(PNG)) == PNG


def header(contents, turned=None):
    """Returns what the beginning of a JPEG or PNG file states: the shape of the upright image, and its orientation.

    Args:
        contents: String scalar, the contents of the file.
        turned: int32 scalar, the orientation of the file, if it is known already.

    Returns:
        int32 tensor `[3]`: height, width (pixels) and 3 channels; int32 scalar, see `orientation.orientation`.

    Raises:
        tf.errors.InvalidArgumentError: if the file is neither, or does not state a size.
    """
    size = tf.cond(is_png(contents), lambda: png_size(contents), lambda: tf.io.extract_jpeg_shape(contents)[:2])
    turned = orientation.orientation(contents) if turned is None else turned
    return orientation.upright_shape(tf.concat([size, [3]], axis=0), turned), turned


def png_size(contents):
    """Returns the height and width that the first chunk of a PNG file states, as an int32 tensor `[2]`."""
    width_and_height = tf.io.decode_raw(tf.strings.substr(contents, 16, 8), tf.int32, little_endian=False)
    return tf.reshape(width_and_height, (2,))[::-1]


def random_window(shape, smallest_area, key):
    """Draws the window of a random-resized crop: its aspect ratio, then its height, then its place.

    Each is uniform in the range that the image and the smallest area allow. Since the height is uniform and not the
    area, small areas are more frequent than large ones: half of the windows have at most 0.36 of a square image.

    Args:
        shape: int32 tensor `[3]`: height, width (pixels) and channels of the image.
        smallest_area: Float, smallest area of a window as a fraction of the image's area.
        key: Integer tensor `[2]`. Equal keys draw equal windows.

    Returns:
        int32 tensor `[4]`: first row, first column, height, width (pixels). It is the whole image if none of ten draws
        fits into the image.
    """
    begin, size, _ = tf.image.stateless_sample_distorted_bounding_box(
        shape,
        [[[0.0, 0.0, 1.0, 1.0]]],
        key,
        min_object_covered=0.0,
        aspect_ratio_range=ASPECT,
        area_range=(smallest_area, 1.0),
        max_attempts=10,
    )
    return tf.concat([begin[:2], size[:2]], axis=0)


def centre_window(shape, size, centre):
    """Returns the window of a centre crop.

    Args:
        shape: int32 tensor `[3]`: height, width (pixels) and channels of the image.
        size: `(height, width)`, pixels of the crop after resizing. Only its aspect ratio matters.
        centre: Float, height of the window as a fraction of that of the largest window with this aspect ratio.

    Returns:
        int32 tensor `[4]`, see `random_window`.
    """
    available = tf.cast(shape[:2], tf.float32)
    scale = centre * tf.reduce_min(available / tf.constant(size, tf.float32))
    window = tf.cast(tf.round(scale * tf.constant(size, tf.float32)), tf.int32)
    window = tf.clip_by_value(window, 1, shape[:2])
    return tf.concat([(shape[:2] - window) // 2, window], axis=0)


def decode_window(contents, window, size, channels=3, found=None):
    """Decodes one window of a JPEG or PNG file and resizes it.

    Colours become grey if there is to be one channel. Grey-scale and CMYK files become RGB if there are to be three.
    If the window of a JPEG file is at least twice the size, libjpeg shrinks it by 2, 4 or 8 while it decodes, but not
    below the size. Bilinear resizing does the rest, a factor below 2 for square windows. Windows of PNG files are
    resized as serving resizes them.

    Args:
        contents: String scalar, the contents of the file.
        window: int32 tensor `[4]` of the upright image, see `random_window`.
        size: `(height, width)`, pixels.
        channels: Integer, 1 or 3.
        found: Result of `header` for the contents, if it is known already.

    Returns:
        float32 tensor `[height, width, channels]`, the upright image, pixels from 0 to 255.

    Raises:
        tf.errors.InvalidArgumentError: if the file is neither a JPEG nor a PNG file that can be decoded.
    """
    shape, turned = header(contents) if found is None else found
    image = tf.cond(
        is_png(contents),
        lambda: _png_window(contents, window, size, channels),
        lambda: _jpeg_window(contents, window, size, channels, shape, turned),
    )
    return tf.ensure_shape(image, (*size, channels))


def decode_image(contents, channels=3):
    """Decodes a whole JPEG or PNG file to an upright image.

    Args:
        contents: String scalar, the contents of the file.
        channels: Integer, 1 or 3.

    Returns:
        uint8 tensor `[h, w, channels]`.

    Raises:
        tf.errors.InvalidArgumentError: if the file is neither a JPEG nor a PNG file that can be decoded.
    """
    image = tf.io.decode_image(contents, channels, expand_animations=False)
    image = tf.ensure_shape(image, (None, None, channels))
    return orientation.turn_upright(image, orientation.orientation(contents))


def _png_window(contents, window, size, channels):
    top, left, height, width = tf.unstack(window)
    image = tf.io.decode_png(contents, channels)[top : top + height, left : left + width]
    return tf.image.resize(image, size, antialias=True)


def _jpeg_window(contents, window, size, channels, shape, turned):
    # Every operation costs a thousandth of an image's time, even those of the cases that are not taken.
    # libjpeg's less exact methods were tried and are not faster.
    window, size = tf.cond(
        turned == 1,
        lambda: (window, tf.constant(size)),
        lambda: (
            orientation.stored_window(window, shape, turned),
            orientation.upright_shape(tf.constant(size), turned),
        ),
    )
    factor = tf.reduce_min(window[2:] // size)
    halvings = tf.reduce_sum(tf.cast(factor >= tf.constant(SCALES[1:]), tf.int32))
    window = tf.bitwise.right_shift(window, halvings)  # in pixels of the shrunken image

    def shrunk(scale):
        return tf.raw_ops.DecodeAndCropJpeg(contents=contents, crop_window=window, channels=channels, ratio=scale)

    image = tf.switch_case(halvings, [lambda scale=scale: shrunk(scale) for scale in SCALES])
    image = tf.raw_ops.ResizeBilinear(images=image[None], size=size, half_pixel_centers=True)[0]
    return orientation.turn_upright(image, turned)
