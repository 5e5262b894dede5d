"""Decodes only the window of a JPEG file that is used, and resizes it to the size of the network.

All functions are pure. They run eagerly and inside tf.data.
"""

import tensorflow as tf

from allconv_resnet.data import orientation

ASPECT = (3 / 4, 4 / 3)  # width over height of a random window
SCALES = (1, 2, 4, 8)  # factors by which libjpeg can shrink an image while it decodes


def random_window(shape, smallest_area, key):
    """Draws the window of a random-resized crop: uniformly in area and in aspect ratio, then in place.

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


def header(contents):
    """Returns the shape of the upright image of a JPEG file, and its EXIF orientation.

    Args:
        contents: String scalar, the contents of the file.

    Returns:
        int32 tensor `[3]`: height, width (pixels) and channels; int32 scalar, see `orientation.orientation`.
    """
    turned = orientation.orientation(contents)
    return orientation.upright_shape(tf.io.extract_jpeg_shape(contents), turned), turned


def decode_window(contents, window, size, found=None):
    """Decodes one window of a JPEG file and resizes it. Grey-scale and CMYK files become RGB as well.

    If the window is at least twice the size, libjpeg shrinks it by 2, 4 or 8 while it decodes, but not below the size.
    Bilinear resizing does the rest, a factor below 2 for square windows.

    Args:
        contents: String scalar, the contents of the file.
        window: int32 tensor `[4]` of the upright image, see `random_window`.
        size: `(height, width)`, pixels.
        found: Result of `header` for the contents, if it is known already.

    Returns:
        float32 tensor `[height, width, 3]`, the upright image, pixels from 0 to 255.

    Raises:
        tf.errors.InvalidArgumentError: if the file is not a JPEG that can be decoded.
    """
    shape, turned = header(contents) if found is None else found

    image = tf.cond(
        turned == 1,
        lambda: _decode_stored(contents, window, size),
        lambda: _decode_turned(contents, window, shape, turned, size),
    )
    return tf.ensure_shape(image, (*size, 3))


def _decode_turned(contents, window, shape, turned, size):
    place = orientation.stored_window(window, shape, turned)
    stored = _decode_stored(contents, place, orientation.upright_shape(tf.constant(size), turned))
    return orientation.turn_upright(stored, turned)


def _decode_stored(contents, window, size):
    # Every operation costs a few thousandths of an image's time, even those of the cases that are not taken.
    # libjpeg's less exact methods were tried and are not faster.
    factor = tf.reduce_min(window[2:] // size)
    halvings = tf.reduce_sum(tf.cast(factor >= tf.constant(SCALES[1:]), tf.int32))
    window = tf.bitwise.right_shift(window, halvings)  # in pixels of the shrunken image

    def shrunk(scale):
        return tf.raw_ops.DecodeAndCropJpeg(contents=contents, crop_window=window, channels=3, ratio=scale)

    image = tf.switch_case(halvings, [lambda scale=scale: shrunk(scale) for scale in SCALES])
    return tf.raw_ops.ResizeBilinear(images=image[None], size=size, half_pixel_centers=True)[0]


def decode_image(contents, channels):
    """Decodes a whole JPEG or PNG file to an upright image.

    Args:
        contents: String scalar, the contents of the file.
        channels: Integer.

    Returns:
        uint8 tensor `[h, w, channels]`.

    Raises:
        tf.errors.InvalidArgumentError: if the file is neither, or cannot be decoded.
    """
    image = tf.io.decode_image(contents, channels=channels, expand_animations=False)
    image = tf.ensure_shape(image, (None, None, channels))
    return orientation.turn_upright(image, orientation.orientation(contents))
