"""The part of a JPEG file that is used, decoded to the size of the network, and nothing else of it.

All functions are pure, and run eagerly and inside tf.data.
"""

import tensorflow as tf

ASPECT = (3 / 4, 4 / 3)  # width over height of a random window
SCALES = (1, 2, 4, 8)  # what libjpeg shrinks by on the way from the frequencies to the pixels


def random_window(shape, smallest_area, key):
    """Draws the window of a random-resized crop: uniform in area and in aspect, then in place.

    Args:
        shape: int32 tensor `[3]`: height, width (pixels) and channels of the image.
        smallest_area: Float, part of the image that a window has at least.
        key: Integer tensor `[2]`. Equal keys draw equal windows.

    Returns:
        int32 tensor `[4]`: first row, first column, height, width. The whole image if ten draws do not fit into it.
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
    """Returns the window that a centre crop shows.

    Args:
        shape: int32 tensor `[3]`: height, width (pixels) and channels of the image.
        size: `(height, width)`, pixels of the crop after resizing; only its aspect matters.
        centre: Float, part of the largest window of that aspect, on each side.

    Returns:
        int32 tensor `[4]`, as `random_window`.
    """
    available = tf.cast(shape[:2], tf.float32)
    scale = centre * tf.reduce_min(available / tf.constant(size, tf.float32))
    window = tf.cast(tf.round(scale * tf.constant(size, tf.float32)), tf.int32)
    window = tf.clip_by_value(window, 1, shape[:2])
    return tf.concat([(shape[:2] - window) // 2, window], axis=0)


def decode_window(contents, window, size):
    """Decodes one window of a JPEG file and resizes it. Grey-scale and CMYK files become RGB as well.

    Where the window is twice the size or more, libjpeg shrinks it by 2, 4 or 8 while it decodes, to no less than the
    size; what is left, a factor below 2 for square windows, is bilinear.

    Args:
        contents: String scalar.
        window: int32 tensor `[4]`, as `random_window`.
        size: `(height, width)`, pixels.

    Returns:
        float32 tensor `[height, width, 3]`, pixels from 0 to 255.

    Raises:
        tf.errors.InvalidArgumentError: if the file is not a JPEG that can be decoded.
    """
    # Every operation here counts, in a few thousandths of an image's time: those of the cases not taken as well.
    # libjpeg's less exact ways gain nothing: seen.
    factor = tf.reduce_min(window[2:] // tf.constant(size))
    halvings = tf.reduce_sum(tf.cast(factor >= tf.constant(SCALES[1:]), tf.int32))
    window = tf.bitwise.right_shift(window, halvings)  # in pixels of the shrunken image

    def shrunk(scale):
        return tf.raw_ops.DecodeAndCropJpeg(contents=contents, crop_window=window, channels=3, ratio=scale)

    image = tf.switch_case(halvings, [lambda scale=scale: shrunk(scale) for scale in SCALES])
    return tf.raw_ops.ResizeBilinear(images=image[None], size=size, half_pixel_centers=True)[0]
