"""Predictions of the network of a run, without an export and on any Keras backend."""

import io

import keras
import numpy as np

from allconv_resnet import pretrained
from allconv_resnet.errors import BadInput
from allconv_resnet.layers import standardize
from allconv_resnet.serving.images import image_files, inspect
from allconv_resnet.training import run_directory
from allconv_resnet.training.weights import load_model

MODES = {1: "L", 3: "RGB", 4: "RGBA"}  # Pillow's name for images of so many channels
KINDS = ("JPEG", "PNG")  # Pillow reads MPO as JPEG, and knows it by that name only after it has read one


def predict_run(run_dir, paths, top=5, checkpoint="latest", say=lambda text: None):
    """Yields, for each image, its name and its most probable classes.

    Images of another size than the network's are cropped in the middle, as evaluation does, and resized by Pillow.
    The SavedModel of an export resizes with TensorFlow, whose pixels differ slightly.

    Args:
        run_dir: Path of the run directory, or the name of a network that comes with the package.
        paths: Sequence of image files or directories, or `-`, see `serving.images.image_files`.
        top: Integer, number of classes. All classes are returned if the network has fewer.
        checkpoint: Which checkpoint, see `weights.load_model`.
        say: Function of a string, which is told the checkpoint that predicts, and whether `top` is more than there are
            classes.

    Yields:
        `{"image": name, "predictions": [{"class": int, "label": str, "probability": float}, ...]}`, or
        `{"image": name, "error": str}` for an image that does not exist or cannot be read.

    Raises:
        BadInput: if the run does not exist.
    """
    if top < 1:
        raise BadInput(f"top must be positive. Received: top={top}")
    run_dir = pretrained.find(run_dir)
    model, recipe, step = load_model(run_dir, checkpoint)
    if recipe.data.centre is None:
        raise BadInput(f'{run_dir}/config.json has no "centre", the part of an image that evaluation shows')
    if recipe.data.image_size[2] not in MODES:
        raise BadInput(
            f"Image files are read with 1, 3 or 4 channels, but the images of {run_dir} have others. Received: "
            f"image_size={recipe.data.image_size}"
        )
    labels = run_directory.read_labels(run_dir)
    if len(labels) != recipe.data.num_classes:
        received = f"Received: {len(labels)} lines, num_classes={recipe.data.num_classes}"
        raise BadInput(f"{run_dir}/labels.txt must have one line for each class. {received}")
    say(f"Predictions of {run_dir} at step {step:,}")
    if top > len(labels):
        say(f"The network has {len(labels)} classes. Received: top={top}")
    for name, content in image_files(paths):
        try:
            if isinstance(content, BadInput):
                raise content
            image = decode_with_pillow(name, content, recipe.data.image_size, recipe.data.centre)
        except BadInput as error:
            yield {"image": name, "error": str(error)}
            continue
        logits = model(standardize(image[None]), training=False)
        probabilities = keras.ops.convert_to_numpy(keras.ops.softmax(logits))[0]
        classes = np.argsort(-probabilities, kind="stable")[:top]
        yield {
            "image": name,
            "predictions": [
                {"class": int(c), "label": labels[c], "probability": float(probabilities[c])} for c in classes
            ],
        }


def decode_with_pillow(name, content, image_size, centre):
    """Decodes an image file to an upright image, and crops and resizes it as evaluation does.

    Args:
        name: String, for messages.
        content: Bytes of a JPEG or PNG file.
        image_size: `(height, width, channels)`.
        centre: Float, height of the crop as a fraction of that of the largest window with this aspect ratio.

    Returns:
        float32 array `[height, width, channels]`, pixels from 0 to 255.

    Raises:
        BadInput: if the file is not an image, or has more pixels or scans than an export decodes.
    """
    from PIL import Image, ImageOps, UnidentifiedImageError

    height, width, channels = image_size
    try:
        inspect(content)  # with the limits of an export
        picture = Image.open(io.BytesIO(content), formats=KINDS)
        # Only JPEG files are turned, as in an export. MPO is what a phone writes: a JPEG file with more images in it.
        picture = picture if picture.format == "PNG" else ImageOps.exif_transpose(picture)
        if picture.mode.startswith("I"):  # 16 bits. Pillow would clip them, and TensorFlow takes the upper 8 of them.
            picture = Image.fromarray((np.asarray(picture) >> 8).astype(np.uint8))
        picture = picture.convert(MODES[channels])
    except UnidentifiedImageError as error:
        raise BadInput(f"{name} is not an image that can be read: {inspect(content).damage()}") from error
    except Exception as error:  # Pillow raises many types of errors for damaged files
        raise BadInput(f"{name} is not an image that can be read: {error}") from error
    if (picture.height, picture.width) != (height, width):
        scale = centre * min(picture.height / height, picture.width / width)
        rows, columns = (max(1, min(size, round(scale * part))) for size, part in zip(
            (picture.height, picture.width), (height, width), strict=True))  # fmt: skip
        top, left = (picture.height - rows) // 2, (picture.width - columns) // 2
        box = (left, top, left + columns, top + rows)
        picture = picture.resize((width, height), Image.Resampling.BILINEAR, box=box)
    return np.asarray(picture, np.float32).reshape(height, width, channels)
