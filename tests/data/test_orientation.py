"""Photographs are turned as their EXIF orientation says, wherever images are decoded; Pillow says what is right."""

import io

import keras
import numpy as np
import pytest
import tensorflow as tf
import tensorflow_datasets as tfds
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageOps

from allconv_resnet.data import jpeg
from allconv_resnet.data.orientation import orientation
from allconv_resnet.data.source import load_data
from allconv_resnet.layers import standardize
from allconv_resnet.recipes import IMAGENET_TINY
from allconv_resnet.serving.export import export_savedmodel
from allconv_resnet.serving.predict import load_export
from allconv_resnet.training.predict import decode_with_pillow

TURNS = {
    1: None,
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_90,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_270,
}
"""How a camera that is held so stores the upright picture."""


def picture(height, width):
    """A picture of soft colours without any symmetry."""
    small = np.random.default_rng(1).integers(0, 256, (4, 4, 3), dtype=np.uint8)
    return Image.fromarray(small).resize((width, height), Image.Resampling.BICUBIC)


def photograph(upright, turn, endian="<"):
    """A JPEG file in which the picture lies as a camera stores it."""
    exif = Image.Exif()
    exif.endian = endian
    exif[0x010F] = "Maker of the camera"
    exif[0x0112] = turn
    file = io.BytesIO()
    stored = upright if TURNS[turn] is None else upright.transpose(TURNS[turn])
    stored.save(file, "JPEG", quality=98, subsampling=0, exif=exif)
    assert np.abs(np.float32(ImageOps.exif_transpose(Image.open(file))) - np.float32(upright)).mean() < 2
    return file.getvalue()


def distance(one, other):
    return np.abs(np.asarray(one, np.float32) - np.asarray(other, np.float32)).mean()


def write_set(data_dir, name, contents, shape):
    """A dataset of photographs as tensorflow-datasets keeps it: image i has the label i."""
    image = tfds.features.Image(shape=shape, encoding_format="jpeg")
    examples = tf.data.Dataset.from_tensor_slices({"image": contents, "label": range(len(contents))})
    tfds.dataset_builders.store_as_tfds_dataset(
        name=name,
        version="1.0.0",
        features=tfds.features.FeaturesDict({"image": image, "label": tfds.features.ClassLabel(num_classes=8)}),
        data_dir=data_dir,
        split_datasets={"train": examples, "validation": examples},
    )
    return load_data(name, data_dir)


def test_training_evaluation_serving_and_predict_see_the_same_upright_image(tmp_path):
    square, size = picture(64, 64), (64, 64)
    contents = [photograph(square, turn, "<>"[turn % 2]) for turn in TURNS]
    recipe = IMAGENET_TINY.replace(
        num_classes=8,
        batch_size=8,
        image_size=(64, 64, 3),
        flip=False,
        smallest_crop=1.0,
        centre=1.0,
        precision="float32",
    )
    expected = standardize(np.asarray(square)[None])[0]
    seen = {}
    records = write_set(tmp_path, "photographs", contents, (None, None, 3))
    images, labels, weights = next(iter(records.training_batches(recipe)))
    assert weights.numpy().tolist() == [1] * 8
    seen["training on records"] = images.numpy()[np.argsort(labels)]
    seen["evaluation on records"] = next(iter(records.evaluation_batches("validation", recipe)))[0].numpy()
    memory = write_set(tmp_path, "in_memory", contents, (64, 64, 3))
    images, labels = memory.arrays("train")
    seen["in memory"] = standardize(images[np.argsort(labels)])
    seen["predict"] = standardize([decode_with_pillow("it", content, (*size, 3), 1.0) for content in contents])

    pixels = keras.Input((*size, 3))  # a network whose logits are the image, so that it shows what it has been given
    model = keras.Model(pixels, keras.layers.Flatten()(pixels))
    for centre in (1.0, 0.999):  # whole files, and windows of files
        export_savedmodel(model, range(64 * 64 * 3), tmp_path / f"export{centre}", 1, centre)
        serve = load_export(tmp_path / f"export{centre}")[0].signatures["serve_bytes"]
        seen[f"serving of {centre}"] = serve(images=tf.constant(contents))["logits"].numpy().reshape(8, *size, 3)
    for name, images in seen.items():
        for turn, image in zip(TURNS, images, strict=True):
            assert distance(image, expected) < 0.05, (name, turn)  # standard deviations
    for turn in TURNS.values():  # and any other turn is far away
        if turn is not None:
            assert distance(standardize(np.asarray(square.transpose(turn))[None])[0], expected) > 0.3


@pytest.mark.parametrize("turn", TURNS)
def test_windows_and_whole_images_of_other_shapes(turn):
    upright = picture(90, 140)
    content = photograph(upright, turn)
    shape, found = jpeg.header(content)
    assert shape.numpy().tolist() == [90, 140, 3] and int(found) == turn
    assert distance(jpeg.decode_image(content, 3), upright) < 2
    for window in ((0, 0, 90, 140), (5, 11, 40, 61), (50, 100, 40, 40)):
        top, left, height, width = window
        box = upright.crop((left, top, left + width, top + height))
        size = (height - 8, width - 8)
        want = tf.image.resize(np.asarray(box), size)
        assert distance(jpeg.decode_window(content, tf.constant(window), size), want) < 3
    grey = jpeg.decode_image(content, 1)
    assert grey.shape == (90, 140, 1)
    assert decode_with_pillow("it", content, (45, 70, 3), 1.0).shape == (45, 70, 3)
    assert distance(decode_with_pillow("it", content, (45, 70, 3), 1.0), upright.resize((70, 45), 2)) < 3


def test_what_states_no_orientation_is_left_as_it_is(tmp_path):
    upright = picture(20, 30)
    for kind in ("PNG", "JPEG"):
        file = io.BytesIO()
        exif = Image.Exif()
        exif[0x0112] = 6
        upright.save(file, kind, **({"exif": exif} if kind == "PNG" else {}))
        assert int(orientation(file.getvalue())) == 1
        assert distance(jpeg.decode_image(file.getvalue(), 3), upright) < 8
        assert distance(decode_with_pillow("it", file.getvalue(), (20, 30, 3), 1.0), upright) < 8
    for content in (b"", b"\xff", b"\xff\xd8\xff\xe1", b"\xff\xd8\xff\xe1\0\x10Exif\0\0", b"\xff\xd8\xff\xe0\0\0" * 9):
        assert int(orientation(content)) == 1
    nine = photograph(upright, 6).replace(
        b"\x12\x01\x03\x00\x01\x00\x00\x00\x06", b"\x12\x01\x03\x00\x01\x00\x00\x00\x09"
    )
    assert int(orientation(nine)) == 1


def test_a_batch_is_searched_as_file_by_file():
    """The Exif segment may be the first, or stand behind any number of others; some files have none, or end early."""
    files, turns = [b"", b"\x89PNG", picture_without_exif()], [1, 1, 1]
    for turn in TURNS:
        content, comment = photograph(picture(16, 24), turn), b"\xff\xfe\x00\x06abcd"
        for before in (0, 1, 7):
            files.append(content[:2] + before * comment + content[2:])
            turns.append(turn)
    files.append(files[-1][:20])
    turns.append(1)
    assert orientation(tf.constant(files)).numpy().tolist() == turns
    assert [int(orientation(content)) for content in files] == turns
    grid = orientation(tf.reshape(tf.constant(files[:12]), (3, 4)))
    assert grid.numpy().ravel().tolist() == turns[:12] and grid.shape == (3, 4)


def picture_without_exif():
    file = io.BytesIO()
    picture(16, 24).save(file, "JPEG")
    return file.getvalue()


HEADER = photograph(picture(8, 8), 6)[:120]
STATED = tf.function(orientation, input_signature=[tf.TensorSpec((), tf.string)])


@settings(deadline=None)
@given(st.integers(2, 100), st.binary(min_size=1, max_size=12))
def test_damaged_headers_are_read_without_an_error(place, damage):
    content = HEADER[:place] + damage + HEADER[place + len(damage) :]
    assert 1 <= int(STATED(content)) <= 8
    assert 1 <= int(STATED(HEADER[:place])) <= 8
