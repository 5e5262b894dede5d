import time

import numpy as np
import pytest

from allconv_resnet.data import sources
from allconv_resnet.errors import BadInput


def rows(images, labels):
    return sorted((int(label), image.tobytes()) for image, label in zip(images, labels, strict=True))


def test_prepared_data_are_read_without_the_network(tmp_path, monkeypatch, write_tfds):
    arrays = write_tfds(tmp_path)
    monkeypatch.setattr(sources, "download", None)  # a call would fail
    data = sources.load("cifar100", tmp_path)
    assert data.num_classes == 100 and len(data.label_names) == 100
    for split, (images, labels) in arrays.items():
        got_images, got_labels = data.split(split)
        assert got_images.dtype == np.uint8 and got_labels.dtype == np.int64
        assert rows(got_images, got_labels) == rows(images, labels)
    data.check((32, 32, 3), 100)


def test_real_cifar_10(prepared):
    data = sources.load("cifar10", prepared)
    data.check((32, 32, 3), 10)
    assert data.train_images.shape == (50_000, 32, 32, 3)
    np.testing.assert_array_equal(np.bincount(data.train_labels), 5_000)
    np.testing.assert_array_equal(np.bincount(data.test_labels), len(data.test_labels) // 10)
    assert data.label_names[0] == "airplane"


def test_digits_are_real_enlarged_and_split_by_class():
    data = sources.load("digits")
    data.check((32, 32, 3), 10)
    assert len(data.train_images) + len(data.test_images) == 1_797
    assert len(data.test_images) == 360
    share = np.bincount(data.test_labels) / (np.bincount(data.test_labels) + np.bincount(data.train_labels))
    assert (abs(share - 0.2) < 0.01).all()
    blocks = data.train_images.reshape(-1, 8, 4, 8, 4, 3)
    assert (blocks == blocks[:, :, :1, :, :1, :1]).all()
    train = {image.tobytes() for image in data.train_images}
    assert not any(image.tobytes() in train for image in data.test_images)


def test_missing_data_without_a_network_fails_within_seconds_and_says_what_to_do(tmp_path, monkeypatch):
    monkeypatch.setitem(sources.ORIGINS, "cifar10", "http://127.0.0.1:9/cifar")  # nobody listens there
    began = time.monotonic()
    with pytest.raises(BadInput) as error:
        sources.load("cifar10", tmp_path)
    assert time.monotonic() - began < 30
    for part in (str(tmp_path / "cifar10"), f"tfds build cifar10 --data_dir {tmp_path}", "--recipe digits"):
        assert part in str(error.value)
    assert not any(tmp_path.iterdir())


def test_unknown_set(tmp_path):
    with pytest.raises(BadInput, match="cifra10"):
        sources.load("cifra10", tmp_path)


def test_damaged_data(tmp_path, write_tfds):
    write_tfds(tmp_path)
    record = next((tmp_path / "cifar100").glob("**/*train*.tfrecord*"))
    record.write_bytes(record.read_bytes()[:1000])
    with pytest.raises(BadInput, match="cannot be read"):
        sources.load("cifar100", tmp_path)


def test_a_set_without_a_test_split(tmp_path, write_tfds):
    write_tfds(tmp_path, splits=("train",))
    with pytest.raises(BadInput, match="splits"):
        sources.load("cifar100", tmp_path)


@pytest.mark.parametrize(
    ("written", "expected", "message"),
    [
        ({"classes": 100}, ((32, 32, 3), 10), "num_classes=10, but cifar100 has 100 classes"),
        ({"shape": (28, 28, 1)}, ((32, 32, 3), 100), r"shape \(28, 28, 1\)"),
    ],
)
def test_data_that_do_not_fit_the_recipe(tmp_path, write_tfds, written, expected, message):
    write_tfds(tmp_path, **written)
    with pytest.raises(BadInput, match=message):
        sources.load("cifar100", tmp_path).check(*expected)


def test_wrong_dtype_and_labels_out_of_range():
    digits = sources.load("digits")
    as_floats = sources.ImageData(
        "floats", 10, digits.train_images / 255, digits.train_labels, digits.test_images, digits.test_labels, ()
    )
    with pytest.raises(BadInput, match="float64"):
        as_floats.check((32, 32, 3), 10)
    shifted = sources.ImageData(
        "shifted", 10, digits.train_images, digits.train_labels + 1, digits.test_images, digits.test_labels, ()
    )
    with pytest.raises(BadInput, match="from 1 to 10"):
        shifted.check((32, 32, 3), 10)
