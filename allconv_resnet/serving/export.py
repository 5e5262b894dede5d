"""Exports a trained network as a SavedModel whose graph includes the preprocessing of evaluation."""

from pathlib import Path

import keras
import tensorflow as tf

from allconv_resnet import files
from allconv_resnet.data import jpeg
from allconv_resnet.errors import BadInput, reason
from allconv_resnet.layers import standardize
from allconv_resnet.serving.card import CARD, LABELS
from allconv_resnet.serving.encoded import MAX_PIXELS
from allconv_resnet.serving.warmup import write_warmup

TOP = 5  # most classes in an answer


def export_savedmodel(model, labels, directory, version, centre=1.0, card=None, more=None):
    """Writes `directory/version`, a SavedModel that TensorFlow Serving or `tf.saved_model.load` runs without Keras.

    | signature | takes |
    |---|---|
    | `serving_default` | `images`: float32 `[n, h, w, c]`, pixels from 0 to 255 |
    | `serve_uint8` | `images`: uint8 `[n, h, w, c]` |
    | `serve_bytes` | `images`: string `[n]`, each a JPEG or PNG file |

    Images of another size than the network's are cropped in the middle and resized, as evaluation does. Every signature
    returns `logits`, float32 `[n, num_classes]`, and for the k = 5 most probable classes (or all, if there are fewer),
    the most probable first, `classes`, int64 `[n, k]`, `labels`, string `[n, k]`, and `probabilities`, float32
    `[n, k]`.

    Args:
        model: Keras model from standardized images to logits.
        labels: Sequence of names of the classes.
        directory: Path, the base directory of all versions.
        version: Integer. A version that exists already is replaced once the new one is complete.
        centre: Float, fraction of the height and of the width of an image that evaluation shows. If it is below 1, JPEG
            files are decoded by `jpeg.decode_window`, as in the evaluation of records.
        card: String, the text of MODEL_CARD.md, or None. labels.txt always has the names of the classes.
        more: Dictionary from the names of further files to their JSON content, or None.

    Returns:
        Path of the SavedModel.

    Raises:
        BadInput: if the numbers of labels and logits differ, or the directory cannot be written to.
    """
    height, width, channels = model.input_shape[1:]
    if len(labels) != model.output_shape[-1]:
        raise BadInput(f"The model has {model.output_shape[-1]} classes. Received: {len(labels)} labels")
    names = tf.constant([str(label) for label in labels])

    def answer(images):
        logits = model(standardize(images), training=False)
        probabilities, classes = tf.math.top_k(tf.nn.softmax(logits), k=min(TOP, len(labels)))
        return {
            "classes": tf.cast(classes, tf.int64),
            "labels": tf.gather(names, classes),
            "probabilities": probabilities,
            "logits": logits,
        }

    def serve(images):
        return answer(fit_to_size(images, height, width, centre))

    def serve_bytes(images):
        spec = tf.TensorSpec((height, width, channels), tf.float32)

        def read(image):
            return decode_image(image, height, width, channels, centre)

        # Only two images are decoded at a time, since each may need 100 MB (three bytes for each of `MAX_PIXELS`).
        return answer(tf.map_fn(read, images, fn_output_signature=spec, parallel_iterations=2))

    archive = keras.export.ExportArchive()
    archive.track(model)
    pixels = (None, None, None, channels)
    for name, function, spec in (
        ("serving_default", serve, tf.TensorSpec(pixels, tf.float32, name="images")),
        ("serve_uint8", serve, tf.TensorSpec(pixels, tf.uint8, name="images")),
        ("serve_bytes", serve_bytes, tf.TensorSpec((None,), tf.string, name="images")),
    ):
        archive.add_endpoint(name, tf.function(function), input_signature=[spec])

    target = Path(directory) / str(version)
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with files.replacing(target) as temporary:
            archive.write_out(str(temporary), verbose=False)
            samples = sample_inputs(height, width, channels)
            write_warmup(temporary, {name: {"images": images} for name, images in samples.items()})
            files.write_text(temporary / LABELS, "".join(f"{label}\n" for label in labels))
            if card is not None:
                files.write_text(temporary / CARD, card)
            for name, content in (more or {}).items():
                files.write_json(temporary / name, content)
    except (OSError, tf.errors.OpError) as error:
        raise BadInput(f"The export cannot be written to {target}: {reason(error)}") from error
    return target


def sample_inputs(height, width, channels):
    """Returns a dictionary from the name of each signature to a batch of one black image for it."""
    image = tf.zeros((1, height, width, channels), tf.uint8)
    file = tf.io.encode_png(image[0])
    return {"serving_default": tf.cast(image, tf.float32), "serve_uint8": image, "serve_bytes": file[None]}


def fit_to_size(images, height, width, centre=1.0):
    """Crops images in the middle to the aspect ratio of the given size, and resizes them to it.

    Args:
        images: Tensor `[n, h, w, c]` of any numeric dtype. Images that have the size already are neither cropped nor
            resized.
        height: Integer, pixels.
        width: Integer, pixels.
        centre: Float, see `export_savedmodel`.

    Returns:
        float32 tensor `[n, height, width, c]`.
    """
    size = tf.shape(images)[1:3]

    def crop_and_resize():
        top, left, rows, columns = tf.unstack(jpeg.centre_window(size, (height, width), centre))
        window = images[:, top : top + rows, left : left + columns]
        return tf.image.resize(window, (height, width), antialias=True)

    images = tf.cond(tf.reduce_all(size == [height, width]), lambda: tf.cast(images, tf.float32), crop_and_resize)
    return tf.ensure_shape(images, (None, height, width, None))


def decode_image(contents, height, width, channels, centre=1.0):
    """Decodes a JPEG or PNG file, and crops and resizes the image as `fit_to_size` does.

    Args:
        contents: String scalar, the contents of the file.
        height: Integer, pixels.
        width: Integer, pixels.
        channels: Integer.
        centre: Float, see `export_savedmodel`.

    Returns:
        float32 tensor `[height, width, channels]`.

    Raises:
        tf.errors.InvalidArgumentError: if the file is neither JPEG nor PNG, is damaged, or claims more than
            `MAX_PIXELS` pixels. In the last case no memory is allocated for the image.
    """
    # The first chunk of a PNG file is IHDR, which has the size. Decoders would look for it further behind as well.
    begins = tf.strings.substr(contents, 0, 8) == b"\x89PNG\r\n\x1a\n"
    is_png = begins & (tf.strings.substr(contents, tf.minimum(12, tf.strings.length(contents)), 4) == b"IHDR")
    is_jpeg = tf.strings.substr(contents, 0, 3) == b"\xff\xd8\xff"
    long_enough = tf.strings.length(contents) >= 33  # a PNG begins with a signature and a chunk with the size
    with tf.control_dependencies(
        [tf.debugging.Assert((is_png & long_enough) | is_jpeg, ["An image must be a JPEG or a PNG file"])]
    ):
        size = tf.cond(is_png, lambda: jpeg.png_size(contents), lambda: tf.io.extract_jpeg_shape(contents)[:2])
    pixels = tf.reduce_prod(tf.cast(size, tf.int64))
    valid = tf.reduce_all(size > 0) & (pixels <= MAX_PIXELS)
    too_large = tf.debugging.Assert(valid, [f"An image must have from 1 to {MAX_PIXELS} pixels. Received:", size])

    def whole():
        return fit_to_size(jpeg.decode_image(contents, channels)[None], height, width, centre)[0]

    def window():
        header = jpeg.header(contents)
        place = jpeg.centre_window(header[0], (height, width), centre)
        return jpeg.decode_window(contents, place, (height, width), channels, header)

    with tf.control_dependencies([too_large]):
        if centre < 1 and channels in (1, 3):
            return tf.cond(is_jpeg, window, whole)
        return whole()
