"""Folders of images: their splits, which of them are read into memory, and what is decoded batch by batch."""

import itertools
import os
import shutil

import numpy as np
import pytest
import tensorflow as tf
from data.image_folders import random_images, write_folder
from PIL import ExifTags, Image

import allconv_resnet as acr
from allconv_resnet.data.folder import FileSource, from_folder
from allconv_resnet.data.holdout import HOLDOUT, hold_out
from allconv_resnet.errors import BadInput
from allconv_resnet.recipes import IMAGENET_TINY

NAMES = ("cat", "dog", "frog")
LABELS = np.arange(24) % 3
RECIPE = IMAGENET_TINY.replace(image_size=(24, 24, 3), num_classes=3, batch_size=6)


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    """Equal images of 20x16 pixels in a training and a test folder."""
    directory = tmp_path_factory.mktemp("small")
    images = random_images(24, (20, 16, 3))
    write_folder(directory / "train", images, LABELS, NAMES)
    write_folder(directory / "test", images[:6], LABELS[:6], NAMES, ".jpg")
    return directory, images


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    """Images of all sizes, in the folders of their classes alone, JPEG and PNG mixed."""
    directory = tmp_path_factory.mktemp("photos")
    images = random_images(24, (None, None, 3), seed=1)
    write_folder(directory, images[:12], LABELS[:12], NAMES, ".jpg")
    write_folder(directory, images[12:], LABELS[12:], NAMES, ".PNG")
    return directory


def rows(images, labels):
    return sorted((int(label), image.tobytes()) for image, label in zip(images, labels, strict=True))


def test_small_images_of_one_size_are_in_memory_as_they_are_on_disk(small):
    directory, written = small
    source = acr.load_data(str(directory))
    assert (source.kind, set(source.splits), source.label_names) == ("arrays", {"train", "test"}, NAMES)
    assert source.image_size == (20, 16, 3) and (source.examples("train"), source.examples("test")) == (24, 6)
    images, labels = source.arrays("train")
    assert rows(images, labels) == rows(np.stack(written), LABELS)
    for image, label in zip(*source.arrays("test"), strict=True):
        distances = abs(image.astype(int) - np.stack(written)[:6]).mean((1, 2, 3))
        assert distances.min() < 10 and LABELS[distances.argmin()] == label  # JPEG


def test_grey_images_have_one_channel(tmp_path):
    grey = random_images(6, (28, 28, 1))
    write_folder(tmp_path / "train", grey, LABELS[:6], NAMES)
    source = from_folder(tmp_path)
    assert source.image_size == (28, 28, 1)
    images, labels = source.arrays("train")
    assert rows(images[..., 0], labels) == rows(np.stack(grey), LABELS[:6])
    write_folder(tmp_path / "train", random_images(1, (28, 28, 3)), [0], NAMES, "-colour.png")
    assert from_folder(tmp_path).image_size == (28, 28, 3)


@pytest.mark.parametrize("test", ["test", "val", "valid", "validation"])
def test_the_splits_are_those_that_lie_beside_the_training_images(tmp_path, test):
    for split in ("train", test):
        write_folder(tmp_path / split, random_images(3, (8, 8, 3)), [0, 1, 2], NAMES)
    (tmp_path / "notes").mkdir()
    assert set(from_folder(tmp_path).splits) == {"train", test}


def test_images_of_all_sizes_are_decoded_batch_by_batch(photos):
    source = from_folder(photos)
    assert isinstance(source, FileSource) and source.kind == "records" and source.splits == ("train",)
    assert source.image_size is None and source.examples("train") == 24
    source.check(RECIPE.data, ("train",))
    images, labels, weights = (np.concatenate(x) for x in zip(*source.evaluation_batches("train", RECIPE), strict=True))
    assert images.shape == (24, 24, 24, 3) and (weights == 1).all()
    np.testing.assert_array_equal(labels, source.labels("train"))
    np.testing.assert_array_equal(np.bincount(labels), [8, 8, 8])
    assert len({image.tobytes() for image in images}) == 24


def test_large_images_of_one_size_are_not_read_into_memory(tmp_path):
    write_folder(tmp_path, random_images(3, (97, 30, 3)), [0, 1, 2], NAMES)
    assert from_folder(tmp_path).kind == "records"


def take(source, count, **arguments):
    batches = source.training_batches(RECIPE, **arguments)
    return [[x.numpy() for x in batch] for batch in itertools.islice(batches, count)]


def test_a_batch_of_files_is_a_function_of_seed_and_step(photos):
    source = from_folder(photos)
    run = take(source, 8)
    for step in (1, 3, 6):
        for one, two in zip(run[step:], take(source, 8 - step, first_step=step), strict=True):
            for a, b in zip(one, two, strict=True):
                np.testing.assert_array_equal(a, b)
    epochs = np.concatenate([labels for _, labels, _ in run]).reshape(2, 24)
    assert (np.sort(epochs) == np.sort(LABELS)).all() and (epochs[0] != epochs[1]).any()
    images = np.concatenate([images for images, *_ in run])
    np.testing.assert_allclose(images.mean((1, 2, 3)), 0, atol=1e-5)


@pytest.mark.slow
def test_workers_train_together_on_the_batches_of_one(photos):
    source = from_folder(photos)
    shares = [take(source, 4, worker=worker, workers=2) for worker in range(2)]
    for step, (images, labels, _) in enumerate(take(source, 4)):
        np.testing.assert_array_equal(images, np.concatenate([share[step][0] for share in shares]))
        np.testing.assert_array_equal(labels, np.concatenate([share[step][1] for share in shares]))
    parts = [
        labels.numpy()[weights.numpy() == 1]
        for worker in range(4)
        for _, labels, weights in source.evaluation_batches("train", RECIPE.replace(batch_size=16), worker, 4, True)
    ]
    np.testing.assert_array_equal(np.sort(np.concatenate(parts)), np.sort(LABELS))


def test_a_bad_file_is_named_and_leaves_the_others_in_place(photos, tmp_path, capfd):
    whole = take(from_folder(photos), 4)
    bad = photos / "dog" / "00004.jpg"
    content = bad.read_bytes()
    try:
        bad.write_bytes(content[: len(content) // 3])
        damaged = take(from_folder(photos), 4)
    finally:
        bad.write_bytes(content)
    assert sum((weights == 0).sum() for *_, weights in damaged) == 1
    for (x, _, _), (y, _, weights) in zip(whole, damaged, strict=True):
        np.testing.assert_array_equal(y, x * weights[:, None, None, None])
    assert f"These files cannot be decoded as JPEG or PNG: {bad}" in capfd.readouterr().err


def test_a_part_of_the_files_is_held_out(photos):
    source = hold_out(from_folder(photos), "train", 6, seed=0)
    assert (source.examples("train"), source.examples(HOLDOUT)) == (18, 6)
    np.testing.assert_array_equal(np.bincount(source.labels(HOLDOUT)), [2, 2, 2])
    assert not set(source._paths["train"]) & set(source._paths[HOLDOUT])


def test_grey_photos_can_be_asked_for(photos):
    recipe = RECIPE.replace(image_size=(24, 24, 1))
    source = from_folder(photos)
    source.check(recipe.data, ("train",))
    images, *_ = next(iter(source.training_batches(recipe)))
    assert images.shape == (6, 24, 24, 1)


def test_a_cluster_can_still_be_set_up_after_a_folder_was_listed(run_python, photos):
    """TensorFlow refuses clusters and logical devices once its eager context has begun."""
    program = f"""
import tensorflow as tf
from allconv_resnet import load_data
load_data({str(photos)!r})
(cpu,) = tf.config.list_physical_devices("CPU")
tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)
assert len(tf.config.list_logical_devices("CPU")) == 2
"""
    done = run_python("-c", program)
    assert done.returncode == 0, done.stderr


CASES = {
    "nothing": (lambda f: f.mkdir(), "There must be folders of JPEG or PNG files, one for each class, in "),
    "no folders": (
        lambda f: (f.mkdir(), Image.new("RGB", (8, 8)).save(f / "a.png")),
        "There must be folders of JPEG or PNG files",
    ),
    "a class without images": (
        lambda f: (write_folder(f, random_images(2, (8, 8, 3)), [0, 1], NAMES), (f / "empty").mkdir()),
        "must have JPEG or PNG files to train on. Received: none in .*data/empty",
    ),
    "a class without training images": (
        lambda f: [
            write_folder(f / split, random_images(2, (8, 8, 3)), [0, label], NAMES)
            for split, label in (("train", 1), ("test", 2))
        ],
        "must have JPEG or PNG files to train on. Received: none in .*train/frog",
    ),
    "a bad file among small ones": (
        lambda f: (write_folder(f, random_images(3, (8, 8, 3)), [0, 1, 2], NAMES), (f / "cat/x.png").write_text("x")),
        "x.png cannot be decoded as JPEG or PNG",
    ),
    "no image at all": (
        lambda f: [((f / n).mkdir(parents=True), (f / n / "x.png").write_text("x")) for n in NAMES],
        "None of 3 files is a JPEG or PNG file that can be decoded",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_what_a_folder_lacks_is_said(tmp_path, case):
    prepare, message = CASES[case]
    prepare(tmp_path / "data")
    with pytest.raises(BadInput, match=message):
        from_folder(tmp_path / "data").arrays("train")


def test_hidden_files_and_folders_are_left_out(tmp_path):
    write_folder(tmp_path, random_images(3, (8, 8, 3)), [0, 1, 2], NAMES)
    (tmp_path / "cat" / "._00000.png").write_bytes(b"Mac OS X")
    (tmp_path / ".git").mkdir()
    source = from_folder(tmp_path)
    assert source.examples("train") == 3 and source.label_names == NAMES


@pytest.mark.parametrize("other", [".git/hooks", ".ipynb_checkpoints/x/a.png", "__MACOSX/train", "notes/drafts"])
def test_other_folders_beside_the_training_images_have_no_classes(other, small, tmp_path):
    shutil.copytree(small[0], tmp_path, dirs_exist_ok=True)
    (tmp_path / other).parent.mkdir(parents=True, exist_ok=True)
    if other.endswith(".png"):
        shutil.copy(next((tmp_path / "train" / "cat").iterdir()), tmp_path / other)
    else:
        (tmp_path / other).mkdir()
    source = from_folder(tmp_path)
    assert source.label_names == NAMES and set(source.splits) == {"train", "test"}


@pytest.mark.parametrize("kind", ["PNG with Exif 6", "JPEG with Exif 9", "JPEG with XMP 6"])
def test_orientations_that_are_not_applied_do_not_turn_the_size(kind, tmp_path):
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = int(kind[-1])
    xmp = b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><tiff:Orientation>6</tiff:Orientation></x:xmpmeta>'
    more = {"xmp": xmp} if "XMP" in kind else {"exif": exif}
    for name, image in zip("ab", random_images(2, (20, 30, 3)), strict=True):
        (tmp_path / name).mkdir()
        Image.fromarray(image).save(tmp_path / name / f"x.{kind[:3].lower().replace('jpe', 'jpg')}", **more)
    source = from_folder(tmp_path)
    assert source.image_size == (20, 30, 3) and source.arrays("train")[0].shape == (2, 20, 30, 3)


def test_a_folder_of_images_may_have_a_file_of_a_name_that_cifar_uses(small, tmp_path):
    shutil.copytree(small[0] / "train", tmp_path, dirs_exist_ok=True)
    (tmp_path / "meta").write_text("who took the photos")
    assert acr.load_data(str(tmp_path)).label_names == NAMES


def test_a_path_is_recognized_as_one(small, tmp_path, monkeypatch):
    directory, _ = small
    monkeypatch.chdir(directory.parent)
    for name in (f"./{directory.name}", f"../{directory.parent.name}/{directory.name}", f"{directory.name}/train"):
        assert acr.load_data(name, tmp_path).label_names == NAMES
    monkeypatch.setenv("HOME", str(directory.parent))
    assert acr.load_data(f"~/{directory.name}").label_names == NAMES
    with pytest.raises(BadInput, match=f"the folder is --dataset ./{directory.name}"):
        acr.load_data(directory.name, tmp_path)
    with pytest.raises(BadInput, match="There is no file or folder /nowhere"):
        acr.load_data("/nowhere/at/all")


def test_what_is_not_read_is_said(tmp_path, capsys):
    write_folder(tmp_path / "train", random_images(4, (8, 8, 3)), [0, 1, 0, 1], "ab")
    from_folder(tmp_path)
    assert not capsys.readouterr().err
    (tmp_path / "train" / "a" / "photo.webp").write_bytes(b"")
    (tmp_path / "train" / "b" / "more").mkdir()
    from_folder(tmp_path)
    said = " ".join(capsys.readouterr().err.split())
    assert f"only JPEG and PNG files in the folder of a class are read, and not {tmp_path}/train/a/photo.webp" in said
    assert said.endswith("and 1 more")


@pytest.mark.parametrize("parts", [(), ("train", "test")], ids=["classes", "splits"])
def test_images_beside_the_folders_of_the_classes_are_named(tmp_path, capsys, parts):
    for folder in [tmp_path / part for part in parts] or [tmp_path]:
        write_folder(folder, random_images(4, (8, 8, 3)), [0, 1, 0, 1], "ab")
        (folder / "loose.PNG").write_bytes(b"")
        (folder / "notes.txt").write_bytes(b"")
    from_folder(tmp_path)
    said = " ".join(capsys.readouterr().err.split())
    assert f"and not {tmp_path.joinpath(*parts[:1])}/loose.PNG" in said and said.endswith("1 more") == bool(parts)


def test_names_of_classes_that_labels_txt_cannot_have_are_refused(tmp_path):
    write_folder(tmp_path / "lines", random_images(2, (8, 8, 3)), [0, 1], ["a\nb", "c"])
    with pytest.raises(BadInput, match=r"must be one line of text. Received: 'a\\nb', a class of"):
        acr.load_data(str(tmp_path / "lines"))
    write_folder(tmp_path / "bytes", random_images(2, (8, 8, 3)), [0, 1], ["a", "c"])
    (tmp_path / "bytes" / "a").rename(tmp_path / "bytes" / os.fsdecode(b"a\xff"))
    with pytest.raises(BadInput, match=r"The names of files and folders in .* must be in UTF-8. Received: a\\xff"):
        acr.load_data(str(tmp_path / "bytes"))


def test_a_file_that_is_gone_is_no_bad_image(photos, tmp_path):
    shutil.copytree(photos, tmp_path / "photos")
    source = from_folder(tmp_path / "photos").as_kind("records")
    for path in (tmp_path / "photos").rglob("*.*"):
        path.unlink()
    with pytest.raises(tf.errors.NotFoundError):
        take(source, 1)
