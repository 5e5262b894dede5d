"""Looks for damage in record files, so that a message can name the file and the record."""

import re

import numpy as np
import tensorflow as tf

from allconv_resnet.data.jpeg import PNG
from allconv_resnet.errors import BadInput, reason

HEADER = 12  # bytes of a record before its content
TOGETHER = 1024  # records that are inspected together
LABEL = tf.io.FixedLenFeature([], tf.int64)
FEATURES = {"image": tf.io.FixedLenFeature([], tf.string, ""), "label": tf.io.FixedLenFeature([], tf.int64, -1)}
JPEG = b"\xff\xd8\xff"  # the first bytes of every JPEG file


def check_records(path, count, num_classes, size=None, kinds=(PNG, JPEG)):
    """Checks the first records of a file: their checksums, labels, and the sizes that their images state.

    Args:
        path: Path of a TFRecord file of tensorflow-datasets.
        count: Integer, number of records to check. The file must have as many.
        num_classes: Integer.
        size: `(height, width)` that all images must have, or None for any size.
        kinds: Tuple with the first bytes that the files of the images may have.

    Raises:
        BadInput: if a record cannot be used. The message has the file and the number of the record, counted from 0.
    """
    read = 0
    try:
        for records in tf.data.TFRecordDataset(str(path)).take(count).batch(TOGETHER):
            try:
                fields = tf.io.parse_example(records, FEATURES)
            except tf.errors.OpError as error:
                raise BadInput(f"A record from {read} on of {path} has no image and label: {reason(error)}") from error
            _check(path, read, fields["image"].numpy(), fields["label"].numpy(), num_classes, size, kinds)
            read += len(records)
    except tf.errors.OpError as error:
        raise BadInput(f"{path} is damaged in or after its record {read}: {reason(error)}") from error
    if read < count:
        raise BadInput(f"{path} must have at least {count:,} records. Received: {read:,} records")


def read_labels(path):
    """Returns the labels of all records of a file, int64 `[n]`.

    Args:
        path: Path of a TFRecord file of tensorflow-datasets.

    Raises:
        BadInput: if a record is damaged or has no label.
    """
    labels = []
    try:
        for records in tf.data.TFRecordDataset(str(path)).batch(TOGETHER):
            labels.append(tf.io.parse_example(records, {"label": LABEL})["label"].numpy())
    except tf.errors.OpError as error:
        read = sum(map(len, labels))
        raise BadInput(f"{path} is damaged in or after its record {read}: {reason(error)}") from error
    return np.concatenate([np.zeros(0, np.int64), *labels])


def _check(path, first, images, labels, num_classes, size, kinds):
    for number, (image, label) in enumerate(zip(images, labels, strict=True), start=first):
        if not 0 <= label < num_classes:
            raise BadInput(
                f"Labels must lie in [0, {num_classes}). Received: label {label} in record {number} of {path}"
            )
        if not image.startswith(kinds):
            expected = " or ".join({PNG: "PNG", JPEG: "JPEG"}[kind] for kind in kinds)
            found = "a PNG file" if image.startswith(PNG) else "something else"
            raise BadInput(f"Images must be {expected} files. Received: {found} in record {number} of {path}")
        if size is not None and (stated := _stated_size(image)) != tuple(size):
            received = f"{stated[0]} x {stated[1]} in record {number} of {path}"
            raise BadInput(f"All images must have {size[0]} x {size[1]} pixels. Received: {received}")


def _stated_size(image):
    """Returns the height and the width that the beginning of an image file states."""
    if image.startswith(PNG):
        return int.from_bytes(image[20:24], "big"), int.from_bytes(image[16:20], "big")
    try:
        height, width, _ = tf.io.extract_jpeg_shape(image).numpy().tolist()
    except tf.errors.OpError:
        return 0, 0
    return height, width


def name_damaged_file(message, paths):
    """Returns a message about a damaged record together with the name of its file, if that can be found.

    TensorFlow tells only the position of the record in its file.

    Args:
        message: String, such as `corrupted record at 6464`.
        paths: Paths of the files that were being read.
    """
    found = re.search(r"(?:corrupted|truncated) record at (\d+)", message)
    if not found:
        return message
    position = int(found[1])
    for path in paths:
        if (number := _damaged_record(path, position)) is not None:
            return f"{message} (record {number} of {path})"
    return message


def _damaged_record(path, position):
    """Returns the number of the record that begins, or whose content begins, at a position and is damaged, or None."""
    try:
        with tf.io.gfile.GFile(str(path), "rb") as file:
            place = number = 0
            # A record is its length in 8 bytes, a checksum of 4, the content, and a checksum of 4.
            while place + HEADER < position < file.size():
                file.seek(place)
                place, number = place + HEADER + int.from_bytes(file.read(8), "little") + 4, number + 1
    except tf.errors.OpError:  # a damaged length leads beyond the end of the file, or the file cannot be read
        return None
    if position not in (place, place + HEADER):
        return None
    try:
        for _ in tf.data.TFRecordDataset(str(path)).skip(number).take(1):
            return None
    except tf.errors.OpError:
        return number
    return None
