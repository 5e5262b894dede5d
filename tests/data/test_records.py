"""Records of real JPEG files: their order, the part of them that is decoded, and those that cannot be."""

import io
import itertools
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from data.jpegs import BAD, PICTURES, write_records
from PIL import Image

from allconv_resnet.data import encoded, jpeg, pipeline, records
from allconv_resnet.data.source import load_data
from allconv_resnet.errors import BadInput, RunFailed
from allconv_resnet.recipes import IMAGENET, IMAGENET_TINY, Records

RECIPE = IMAGENET_TINY.replace(image_size=(24, 24, 3), num_classes=30, batch_size=6, shuffle_buffer=5)

TEST = "validation"


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """Thirty records in four files, whose labels tell them apart."""
    directory = tmp_path_factory.mktemp("data")
    write_records(directory, classes=30, shards=(8, 7, 8, 7))
    return load_data("imagenet2012", directory)


def take(data, count, recipe=RECIPE, **arguments):
    return [[x.numpy() for x in batch] for batch in itertools.islice(data.training_batches(recipe, **arguments), count)]


@pytest.fixture(scope="module")
def batches(data):
    """Twenty batches of training, which is four epochs."""
    return take(data, 20)


def same(first, second):
    return all(
        np.array_equal(a, b) for one, two in zip(first, second, strict=True) for a, b in zip(one, two, strict=True)
    )


def test_a_batch_is_a_function_of_seed_and_step(data, batches):
    run = batches[:12]
    assert [x.shape for x in run[0]] == [(6, 24, 24, 3), (6,), (6,)]
    assert same(run, take(data, 12))
    for step in (1, 4, 5, 11):  # within an epoch, at its end, and in later ones
        assert same(run[step:], take(data, 12 - step, first_step=step))
    assert not same(run, take(data, 12, RECIPE.replace(seed=1)))


@pytest.mark.parametrize("seed", [0, 7])
def test_the_global_seed_of_a_program_changes_nothing(data, batches, seed):
    tf.random.set_seed(seed)
    try:
        assert same(take(data, 6), batches[:6])
    finally:
        tf.random.set_seed(None)


def test_every_epoch_shows_every_image_once_in_an_order_of_its_own(batches):
    labels = np.concatenate([labels for _, labels, _ in batches[:15]]).reshape(3, 30)
    assert all(sorted(epoch) == list(range(30)) for epoch in labels)
    assert len({tuple(epoch) for epoch in labels}) == 3


@pytest.mark.parametrize("workers", [2, 3])
def test_workers_read_shares_that_make_up_the_whole(data, workers):
    seen = []
    for worker in range(workers):
        batches = take(data, 5, worker=worker, workers=workers)
        own = np.concatenate([labels for _, labels, _ in batches])
        assert len(own) == 30 // workers == len(set(own))  # its own epoch
        seen += list(own)
    assert sorted(seen) == list(range(30))


def test_where_there_are_files_enough_workers_read_whole_files(tmp_path):
    write_records(tmp_path, classes=12, shards=(3, 3, 3, 3))
    data = load_data("imagenet2012", tmp_path)
    files = [{path for path, *_ in data.share("train", worker, 2)[0]} for worker in range(2)]
    assert [len(own) for own in files] == [2, 2] and not files[0] & files[1]
    with pytest.raises(BadInput, match="13 workers"):
        data.share("train", 0, 13)


def test_skipped_images_are_not_decoded(data, monkeypatch):
    decoded = []
    original = jpeg.decode_window

    def counting(*arguments):
        tf.py_function(lambda: decoded.append(1), [], [])
        return original(*arguments)

    monkeypatch.setattr(jpeg, "decode_window", counting)
    batches = iter(data.training_batches(RECIPE, first_step=1_000))
    next(batches)
    assert 0 < len(decoded) <= 6 * 6  # the batch, and those that are made ahead of it


def test_iterators_are_not_tuned(data):
    evaluations = [data.evaluation_batches(TEST, RECIPE, padded=padded) for padded in (False, True)]
    for dataset in (data.training_batches(RECIPE), *evaluations):
        assert dataset.options().autotune.enabled is False


def test_evaluation_shows_every_image_once(data):
    batches = [
        [x.numpy() for x in batch] for batch in data.evaluation_batches(TEST, RECIPE.replace(batch_size=8), padded=True)
    ]
    labels, weights = (np.concatenate([batch[i] for batch in batches]) for i in (1, 2))
    assert sorted(labels[weights == 1]) == list(range(30)) and len(labels) == 32
    assert (batches[-1][0][weights[-8:] == 0] == 0).all()
    shares = [
        list(data.evaluation_batches(TEST, RECIPE.replace(batch_size=8), worker, 4, padded=True)) for worker in range(4)
    ]
    assert len({len(share) for share in shares}) == 1  # or workers in step would wait for each other
    parts = [batch[1][batch[2] == 1].numpy() for share in shares for batch in share]
    assert sorted(np.concatenate(parts)) == list(range(30))


def test_training_images_are_standardized_and_flipped_half_of_the_time(data, batches):
    left = RECIPE.replace(flip=False)
    flipped = []
    for (x, _, _), (y, _, _) in zip(batches, take(data, 20, left), strict=True):
        np.testing.assert_allclose(x.mean((1, 2, 3)), 0, atol=1e-5)
        np.testing.assert_allclose(x.std((1, 2, 3)), 1, atol=1e-4)
        for one, other in zip(x, y, strict=True):
            is_flipped = not np.array_equal(one, other)
            np.testing.assert_allclose(one, other[:, ::-1] if is_flipped else other, atol=1e-5)
            flipped.append(is_flipped)
    assert 0.35 < np.mean(flipped) < 0.65


def test_cutout_is_the_mean_and_leaves_the_rest_as_it_was(data, batches):
    plain, cut = (np.concatenate([x for x, *_ in run]) for run in (batches, take(data, 20, RECIPE.replace(cutout=5))))
    changed = cut != plain
    assert (cut[changed] == 0).all()
    areas = changed.any(-1).sum((1, 2))
    assert areas.max() == 25 and len({tuple(np.argwhere(c.any(-1)).mean(0)) for c in changed}) > 0.8 * len(changed)


def test_random_windows_have_the_areas_and_aspects_asked_for():
    shape = tf.constant([400, 500, 3])
    windows = np.stack([jpeg.random_window(shape, 0.08, [7, i]) for i in range(400)])
    top, left, height, width = windows.T
    assert (windows >= 0).all() and (top + height <= 400).all() and (left + width <= 500).all()
    area, aspect = height * width / 200_000, width / height
    assert 0.078 < area.min() < 0.12 and 0.85 < area.max() <= 1
    assert 0.73 < aspect.min() < 0.8 and 1.25 < aspect.max() < 1.36
    np.testing.assert_array_equal(windows[5], jpeg.random_window(shape, 0.08, [7, 5]))


@pytest.mark.parametrize(
    ("shape", "size", "window"),
    [
        ((256, 256), (224, 224), (16, 16, 224, 224)),
        ((512, 1024), (224, 224), (32, 288, 448, 448)),
        ((100, 200), (10, 20), (6, 12, 88, 175)),
        ((3, 2), (64, 64), (0, 0, 2, 2)),
    ],
)
def test_the_centre_window_is_seven_eighths_of_the_shorter_side(shape, size, window):
    assert tuple(jpeg.centre_window(tf.constant([*shape, 3]), size, 7 / 8).numpy()) == window


@pytest.mark.parametrize("name", PICTURES)
def test_a_window_equals_that_of_the_whole_image_decoded_by_pillow(name):
    contents = PICTURES[name]
    image = np.asarray(Image.open(io.BytesIO(contents)).convert("RGB"), np.float32)
    height, width = image.shape[:2]
    for window in [(0, 0, height, width), (height // 3, width // 4, height // 2, width // 2), (5, 9, 40, 30)]:
        top, left, rows, columns = window
        # What remains of a window after libjpeg's shrinking is averaged here as well.
        expected = tf.image.resize(image[top : top + rows, left : left + columns], (20, 20), antialias=True)
        got = jpeg.decode_window(contents, tf.constant(window), (20, 20))
        assert got.shape == (20, 20, 3) and got.dtype == tf.float32
        difference = abs(got - expected).numpy()
        assert difference.mean() < 4 and difference.max() < 30, window


def test_a_large_window_is_shrunk_while_it_is_decoded():
    contents, whole = PICTURES["colour"], tf.constant([0, 0, 240, 320])
    function = tf.function(jpeg.decode_window).get_concrete_function(contents, whole, (20, 20))
    ratios = [op.get_attr("ratio") for op in _operations(function) if op.type == "DecodeAndCropJpeg"]
    assert sorted(set(ratios)) == [1, 2, 4, 8]
    # Eight is the largest factor that leaves 20 pixels: nearest to the mean over 8x8 blocks.
    image = np.asarray(Image.open(io.BytesIO(contents)), np.float32)
    blocks = image.reshape(30, 8, 40, 8, 3).mean((1, 3))
    got = jpeg.decode_window(contents, whole, (30, 40)).numpy()
    assert abs(got - blocks).mean() < 1.5


def _operations(function):
    graphs = [function.graph, *function.graph._functions.values()]
    return [op for graph in graphs for op in getattr(graph, "graph", graph).get_operations()]


def test_bad_images_are_skipped_named_and_leave_the_others_in_place(tmp_path, capfd):
    for name, bad in (("good", False), ("bad", True)):
        write_records(tmp_path / name, classes=30, shards=(15, 15), bad=bad)
    good, bad = (load_data("imagenet2012", tmp_path / name) for name in ("good", "bad"))
    reference, run = take(good, 6), take(bad, 6)
    skipped = []
    for (x, labels, weights), (y, labels_too, weights_too) in zip(reference, run, strict=True):
        np.testing.assert_array_equal(labels, labels_too)
        assert (weights == 1).all()
        np.testing.assert_array_equal(y, x * weights_too[:, None, None, None])
        skipped += list(labels[weights_too == 0])
    assert sorted(skipped[: len(BAD)]) == sorted(range(3, 3 + len(BAD)))
    said = capfd.readouterr().err
    for name in BAD:
        assert f"{name}.JPEG" in said and "These files cannot be decoded as JPEG or PNG" in said
    assert same(run[4:], take(bad, 2, first_step=4))


def test_bad_images_can_end_the_run(tmp_path):
    write_records(tmp_path, classes=30, shards=(30,), bad=True)
    data = load_data("imagenet2012", tmp_path)
    batches = data.training_batches(RECIPE.replace(bad_images="fail", batch_size=30))
    with pytest.raises(RunFailed) as error:
        next(pipeline.read_batches(batches, data))
    said = str(error.value)
    assert "These files cannot be decoded as JPEG or PNG: " in said and all(f"{name}.JPEG" in said for name in BAD)
    assert "{{" not in said and "\n" not in said


def test_a_batch_without_one_good_image(tmp_path):
    write_records(tmp_path, classes=30, shards=(30,), bad=True)
    examples = list(records.read_records([(_files(tmp_path, "train")[0], 3, len(BAD))], [0]))
    images, _, weights = tf.function(encoded.decode_batch, reduce_retracing=True)(
        records.parse(tf.stack(examples)), tf.range(len(BAD), dtype=tf.int64), _whole, RECIPE.data
    )
    assert (images.numpy() == 0).all() and (weights.numpy() == 0).all() and len(images) == len(BAD)


def _whole(contents, _):
    return jpeg.decode_window(contents, jpeg.centre_window(jpeg.header(contents)[0], (24, 24), 1.0), (24, 24))


def _files(directory, split):
    return sorted(str(path) for path in directory.glob(f"**/*{split}.tfrecord*"))


@pytest.mark.parametrize(
    ("part", "message"), [(1 / 3, "truncated record"), (1 / 2, "expected to contain 14 elements but contained only 7")]
)
def test_a_truncated_file_of_records_ends_the_run(tmp_path, part, message):
    write_records(tmp_path, shards=(14,))  # the second half is as long as the first one
    path = Path(_files(tmp_path, "train")[0])
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * part)])
    with pytest.raises(RunFailed, match=f"cannot be read any further: .*{message}"):
        data = load_data("imagenet2012", tmp_path)
        list(itertools.islice(pipeline.read_batches(data.training_batches(RECIPE), data), 3))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [({"num_classes": 1000}, "has 30 classes"), ({"image_size": (24, 24, 4)}, r"Received: image_size=\(24, 24, 4\)")],
)
def test_data_that_do_not_fit_the_recipe(data, arguments, message):
    with pytest.raises(BadInput, match=message):
        data.check(Records(**{"num_classes": 30, "image_size": (24, 24, 3), **arguments}), ("train",))


def test_a_file_that_is_missing(tmp_path):
    write_records(tmp_path, classes=10, shards=(5, 5))
    (tmp_path / _files(tmp_path, "train")[1]).unlink()
    with pytest.raises(BadInput, match=r"its train split has no file .*00001-of-00002"):
        load_data("imagenet2012", tmp_path).check(Records(num_classes=10), ("train",))


def test_imagenet_itself_cannot_be_downloaded(tmp_path):
    with pytest.raises(BadInput, match="tfds build imagenet2012"):
        load_data("imagenet2012", tmp_path)


def test_real_imagenet_files(prepared):
    data = load_data("imagenet2012", prepared)
    data.check(IMAGENET.data, ("train", "validation"))
    assert (data.examples("train"), data.examples("validation")) == (400, 100)
    recipe = IMAGENET_TINY.replace(batch_size=100)
    batches = data.evaluation_batches(TEST, recipe, padded=True)
    labels, weights = zip(*((y.numpy(), w.numpy()) for _, y, w in batches), strict=True)
    assert np.sum(weights) == 100 and len(set(np.concatenate(labels))) == 100
