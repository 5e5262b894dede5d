"""Sources: what they read, and that whatever a dataset on disk lacks ends in one sentence."""

import io
import json
import shutil
import time
import zipfile

import numpy as np
import pytest
import tensorflow_datasets as tfds
from data.jpegs import write_records
from data.prepared_sets import write_prepared

from allconv_resnet import cli, commands
from allconv_resnet.data import prepared
from allconv_resnet.data.arrays import ArraySource, from_npz, save_npz
from allconv_resnet.data.holdout import hold_out
from allconv_resnet.data.source import load_data, load_for_recipe
from allconv_resnet.errors import BadInput
from allconv_resnet.recipes import Arrays, Records


def rows(images, labels):
    return sorted((int(label), image.tobytes()) for image, label in zip(images, labels, strict=True))


def test_prepared_data_are_read_without_the_network(tmp_path, monkeypatch, write_tfds):
    written = write_tfds(tmp_path)
    monkeypatch.setattr(prepared, "download", None)  # a call would fail
    monkeypatch.setattr(prepared, "READ_BATCH", 7)  # of 20 images
    source = load_data("cifar100", tmp_path)
    assert source.kind == "arrays" and len(source.label_names) == 100 and set(source.splits) == {"train", "test"}
    for split, (images, labels) in written.items():
        got_images, got_labels = source.arrays(split)
        assert got_images.dtype == np.uint8 and got_labels.dtype == np.int64
        assert rows(got_images, got_labels) == rows(images, labels)
    source.check(Arrays(num_classes=100), ("train", "test"))


def test_real_cifar_10(prepared):
    source = load_data("cifar10", prepared)
    source.check(Arrays(), ("train", "test"))
    images, labels = source.arrays("train")
    assert images.shape == (50_000, 32, 32, 3)
    np.testing.assert_array_equal(np.bincount(labels), 5_000)
    test_labels = source.arrays("test")[1]
    np.testing.assert_array_equal(np.bincount(test_labels), len(test_labels) // 10)
    assert source.label_names[0] == "airplane"


def test_digits_are_real_enlarged_and_split_by_class():
    source = load_data("digits")
    source.check(Arrays(), ("train", "test"))
    (images, labels), (test_images, test_labels) = source.arrays("train"), source.arrays("test")
    assert len(images) + len(test_images) == 1_797
    assert source.examples("test") == len(test_images) == 360
    share = np.bincount(test_labels) / (np.bincount(test_labels) + np.bincount(labels))
    assert (abs(share - 0.2) < 0.01).all()
    blocks = images.reshape(-1, 8, 4, 8, 4, 3)
    assert (blocks == blocks[:, :, :1, :, :1, :1]).all()
    train = {image.tobytes() for image in images}
    assert not any(image.tobytes() in train for image in test_images)


def test_missing_data_without_a_network_fails_within_seconds_and_says_what_to_do(tmp_path, monkeypatch):
    monkeypatch.setitem(prepared.ORIGINS, "cifar10", "http://127.0.0.1:9/cifar")  # nobody listens there
    began = time.monotonic()
    with pytest.raises(BadInput) as error:
        load_data("cifar10", tmp_path)
    assert time.monotonic() - began < 30
    for part in (str(tmp_path / "cifar10"), f"tfds build cifar10 --data_dir {tmp_path}", "--recipe digits"):
        assert part in str(error.value)
    assert not any(tmp_path.iterdir())


@pytest.mark.parametrize("keys", ["keras", "plain"])
def test_arrays_in_a_file(tmp_path, keys):
    rng = np.random.default_rng(0)
    images, labels = rng.integers(0, 256, (20, 8, 8, 1), dtype=np.uint8), np.arange(20) % 4
    names = {
        "keras": ("x_train", "y_train", "x_test", "y_test"),
        "plain": ("images", "labels", "test_images", "test_labels"),
    }[keys]
    values = (images, labels[:, None] if keys == "keras" else labels, images[:6], labels[:6])
    np.savez(tmp_path / "some.npz", **dict(zip(names, values, strict=True)))
    source = load_for_recipe(
        Arrays(dataset=str(tmp_path / "some.npz"), num_classes=4, image_size=(8, 8, 1)), ("train", "test")
    )
    assert source.label_names == ("0", "1", "2", "3")
    np.testing.assert_array_equal(source.arrays("train")[0], images)
    np.testing.assert_array_equal(source.arrays("train")[1], labels)
    assert source.examples("test") == 6


def test_a_source_survives_its_file(tmp_path):
    digits = load_data("digits")
    save_npz(digits, tmp_path / "digits.npz")
    source = from_npz(tmp_path / "digits.npz")
    assert source.label_names == digits.label_names
    for split in ("train", "test"):
        for one, other in zip(source.arrays(split), digits.arrays(split), strict=True):
            np.testing.assert_array_equal(one, other)


def test_the_command_writes_the_file(tmp_path, capsys):
    with pytest.raises(SystemExit) as stop:
        cli.main(["save-arrays", "digits", str(tmp_path / "digits.npz")])
    assert stop.value.code == 0 and "digits.npz" in capsys.readouterr().out
    assert from_npz(tmp_path / "digits.npz").examples("train") == 1_437


def some_arrays(splits):
    images, labels = np.zeros((6, 8, 8, 1), np.uint8), np.arange(6)
    return ArraySource("some", "abcdef", {split: lambda: (images, labels) for split in splits})


def test_a_file_has_all_splits_or_is_refused(tmp_path):
    save_npz(some_arrays(("training", "testing", "val")), tmp_path / "some.npz")
    assert from_npz(tmp_path / "some.npz").splits == ("train", "test", "validation")
    for splits, message in ((("train", "extra"), "Received: extra"), (("val", "valid"), "two splits that would be")):
        with pytest.raises(BadInput, match=message):
            save_npz(some_arrays(splits), tmp_path / "other.npz")
    assert not (tmp_path / "other.npz").exists()


def test_arrays_that_cannot_be_used_are_named(tmp_path):
    path, images = tmp_path / "some.npz", np.zeros((6, 8, 8, 1), np.uint8)
    for labels in (np.array(list("abcdef")), np.array([0, 1, np.nan, 2, 3, 4])):
        np.savez(path, images=images, labels=labels)
        with pytest.raises(BadInput, match="Labels must be integers, but labels of"):
            from_npz(path)
    np.savez(path, images=images, labels=np.arange(6), names=np.array([b"cat", "ä".encode(), b"d", b"e", b"f", b"g"]))
    assert from_npz(path).label_names[:2] == ("cat", "ä")
    np.savez_compressed(path, x_train=np.random.default_rng(0).integers(0, 256, (20, 8, 8, 1)), y_train=np.arange(20))
    content = bytearray(path.read_bytes())
    content[300:320] = bytes(20)
    path.write_bytes(content)
    with pytest.raises(BadInput, match="The array x_train of"):
        from_npz(path).arrays("train")


def test_an_unknown_configuration_is_one_sentence(tmp_path, monkeypatch):
    monkeypatch.setattr("urllib.request.urlopen", lambda *_, **__: io.BytesIO())  # a server that answers
    with pytest.raises(BadInput, match=r"has no dataset 'cifar10/nope': "):
        load_data("cifar10/nope", tmp_path)


def test_records_in_another_format_are_refused(tmp_path):
    write_records(tmp_path, name="some")
    (description,) = tmp_path.glob("some/*/dataset_info.json")
    description.write_text(description.read_text().replace('"tfrecord"', '"array_record"'))
    with pytest.raises(BadInput, match=r"read from TFRecord files\. Received: .* in the format array_record"):
        load_data("some", tmp_path)


# What can be wrong with a dataset, each as (what is done to it, the sentence).


def write_text_label(folder):
    store(folder, {"image": tfds.features.Image(shape=(8, 8, 3)), "label": tfds.features.Text()}, "a")


def write_scalar_label(folder):
    store(folder, {"image": tfds.features.Image(shape=(8, 8, 3)), "label": tfds.features.Scalar(np.int64)}, 1)


def write_no_label(folder):
    store(folder, {"image": tfds.features.Image(shape=(8, 8, 3))}, None)


def store(folder, features, label):
    import tensorflow as tf

    content = {"image": np.zeros((4, 8, 8, 3), np.uint8), **({} if label is None else {"label": [label] * 4})}
    tfds.dataset_builders.store_as_tfds_dataset(
        name="some", version="1.0.0", features=tfds.features.FeaturesDict(features), data_dir=folder,
        split_datasets={split: tf.data.Dataset.from_tensor_slices(content) for split in ("train", "test")},
    )  # fmt: skip


def write_arrays(folder, **options):
    write_prepared(folder, **{"name": "some", "classes": 10, "shape": (8, 8, 3), "n": 20, **options})


def edit(folder, name, change):
    (path,) = folder.glob(f"some/**/{name}")
    path.unlink() if change is None else path.write_bytes(change(path.read_bytes()))


def cut_record(folder):
    record = next(folder.glob("some/**/*train*.tfrecord*"))
    record.write_bytes(record.read_bytes()[:1000])


def two_configurations(folder):
    write_arrays(folder)
    (version,) = folder.glob("some/*")
    for name in ("one", "two"):
        shutil.copytree(version, folder / "some" / name / version.name)
    shutil.rmtree(version)


def only_incomplete(folder):
    write_arrays(folder)
    (version,) = folder.glob("some/*")
    version.rename(version.with_name("incomplete.1234_some"))


def renamed_incomplete(folder):
    only_incomplete(folder)
    (version,) = folder.glob("some/*")
    version.rename(version.with_name("1.0.0.incomplete"))


def fewer_names(folder):
    write_arrays(folder)
    (version,) = folder.glob("some/*")
    (version / "label.labels.txt").write_text("a\nb\n")


PREPARED_CASES = {
    "no test split": (
        lambda f: write_arrays(f, splits=("train",)),
        "has no test images, so --holdout must say",
    ),
    "no train split": (lambda f: write_arrays(f, splits=("test",)), "has no split 'train'. Its splits are: test"),
    "other names": (lambda f: write_arrays(f, splits=("a", "test")), "has no split 'train'. Its splits are: a, test"),
    "no known name": (
        lambda f: write_arrays(f, splits=("a", "b")),
        "has no test images, so --holdout must say",
    ),
    "no label": (write_no_label, "must have the features image and label"),
    "a text label": (write_text_label, "must be a ClassLabel"),
    "a scalar label": (write_scalar_label, "must be a ClassLabel"),
    "other classes": (lambda f: write_arrays(f, classes=7), "num_classes=10, but some has 7 classes"),
    "another shape": (lambda f: write_arrays(f, shape=(9, 8, 3)), "images of shape (9, 8, 3)"),
    "no features.json": (lambda f: (write_arrays(f), edit(f, "features.json", None)), "cannot be read"),
    "cut features.json": (lambda f: (write_arrays(f), edit(f, "features.json", lambda c: c[:40])), "cannot be read"),
    "empty features.json": (lambda f: (write_arrays(f), edit(f, "features.json", lambda c: b"{}")), "cannot be read"),
    "cut dataset_info.json": (
        lambda f: (write_arrays(f), edit(f, "dataset_info.json", lambda c: c[:40])),
        "cannot be read",
    ),
    "binary dataset_info.json": (
        lambda f: (write_arrays(f), edit(f, "dataset_info.json", lambda c: b"\xff\x00" * 9)),
        "cannot be read",
    ),
    "a cut record": (
        lambda f: (write_arrays(f), cut_record(f)),
        "split must have at least 6,120 bytes. Received: 1,000",
    ),
    "several configurations": (two_configurations, "has several configurations"),
    "never completed": (only_incomplete, "has no dataset 'some'"),
    "never completed and renamed": (renamed_incomplete, "has no dataset 'some'"),
    "fewer names than classes": (fewer_names, "must have the names of 10 classes. Received: 2 names"),
    "nothing": (lambda f: None, "has no dataset 'some'"),
    "records": (lambda f: write_records(f, name="some"), "it needs --data records, not arrays"),
}


@pytest.mark.parametrize("case", PREPARED_CASES)
def test_what_a_prepared_dataset_lacks_is_said_before_anything_is_written(tmp_path, capsys, case):
    prepare, message = PREPARED_CASES[case]
    prepare(tmp_path / "data")
    refuse(["--dataset", "some", "--data-dir", tmp_path / "data"], message, tmp_path, capsys)


def npz(folder, **arrays):
    folder.mkdir(exist_ok=True)
    np.savez(folder / "some.npz", **arrays)


IMAGES, LABELS = np.zeros((20, 8, 8, 3), np.uint8), np.arange(20) % 10
WHOLE = {"x_train": IMAGES, "y_train": LABELS, "x_test": IMAGES, "y_test": LABELS}
NPZ_CASES = {
    "no file": (lambda f: None, "There is no file or folder"),
    "no zip": (
        lambda f: (f.mkdir(), (f / "some.npz").write_bytes(b"\x00" * 99)),
        "cannot be read as a .npz file",
    ),
    "a pickle": (lambda f: npz(f, **{**WHOLE, "y_train": np.array([{}], object)}), "cannot be read"),
    "cut": (lambda f: (npz(f, **WHOLE), cut_npz(f)), "cannot be read as a .npz file: File is not a zip file"),
    "damaged": (lambda f: (npz(f, **WHOLE), flip_npz(f)), "cannot be read: Bad CRC-32"),
    "other names": (lambda f: npz(f, a=IMAGES, b=LABELS), "must have arrays named x_train and y_train"),
    "no test split": (lambda f: npz(f, x_train=IMAGES, y_train=LABELS), "has no test images, so --holdout must say"),
    "floats": (lambda f: npz(f, **{**WHOLE, "x_train": IMAGES / 255}), "has float64 images"),
    "no channels": (lambda f: npz(f, **{**WHOLE, "x_test": IMAGES[..., 0]}), "of shape (8, 8, 1)"),
    "too few labels": (lambda f: npz(f, **{**WHOLE, "y_train": LABELS[:7]}), "must be a label for each image"),
    "no images": (lambda f: npz(f, **{**WHOLE, "x_train": IMAGES[:0], "y_train": LABELS[:0]}), "a label for each"),
    "float labels": (lambda f: npz(f, **{**WHOLE, "y_train": LABELS * 1.0}), "Labels must be integers"),
    "labels that number no classes": (
        lambda f: npz(f, **{**WHOLE, "y_train": LABELS + 20_000_000}),
        "must be numbers from 0 to the number of classes - 1",
    ),
    "one label": (lambda f: npz(f, **{**WHOLE, "y_train": np.array(3)}), "and labels of shape ()"),
    "one number as images": (lambda f: npz(f, **{**WHOLE, "x_train": np.array(3)}), "Received: images of shape ()"),
    "flat images": (lambda f: npz(f, **{**WHOLE, "x_train": IMAGES[:, 0, 0, 0]}), "Received: images of shape (20,)"),
    "one name": (lambda f: npz(f, **WHOLE, names=np.array("cat")), "must have one name for each class"),
    "names in a table": (lambda f: npz(f, **WHOLE, names=np.array([["a", "b"]])), "Received: shape (1, 2)"),
    "names in bytes": (lambda f: npz(f, **WHOLE, names=np.array([b"a\xff"])), "must be text in UTF-8"),
    "a name of two lines": (lambda f: npz(f, **WHOLE, names=np.array(["a\nb"])), "must be one line of text"),
    "an empty name": (lambda f: npz(f, **WHOLE, names=np.array([""])), "must be one line of text. Received: ''"),
    "half a character": (lambda f: npz(f, **WHOLE, names=np.array(["\ud800"])), "must be one line of text"),
    "no array": (lambda f: (npz(f, **WHOLE), replace_in_npz(f, "y_train.npy", b"1 2 3")), "it is not a NumPy array"),
    "a name twice": (
        lambda f: npz(f, **WHOLE, names=np.array([*"abcdefghij"[:9], "a"])),
        "different names. Received: 'a'",
    ),
    "negative labels": (lambda f: npz(f, **{**WHOLE, "y_train": LABELS - 1}), "labels from -1 to 8"),
}


def cut_npz(folder):
    content = (folder / "some.npz").read_bytes()
    (folder / "some.npz").write_bytes(content[:-200])


def replace_in_npz(folder, member, content):
    with zipfile.ZipFile(folder / "some.npz") as file:
        members = {name: file.read(name) for name in file.namelist()}
    with zipfile.ZipFile(folder / "some.npz", "w") as file:
        for name, value in (members | {member: content}).items():
            file.writestr(name, value)


def flip_npz(folder):
    content = bytearray((folder / "some.npz").read_bytes())
    content[1_000] ^= 1
    (folder / "some.npz").write_bytes(content)


NAMINGS = {
    "keras.datasets": ("x_train", "y_train", "x_test", "y_test"),
    "capitals": ("X_train", "y_train", "X_test", "y_test"),
    "medmnist": ("train_images", "train_labels", "test_images", "test_labels"),
    "images first": ("images_train", "labels_train", "images_test", "labels_test"),
    "splits first": ("train_x", "train_y", "test_x", "test_y"),
    "data": ("train_data", "train_labels", "test_data", "test_labels"),
    "without a split": ("images", "labels", "test_images", "test_labels"),
    "x and y": ("x", "y", "x_test", "y_test"),
}


@pytest.mark.parametrize("naming", NAMINGS)
@pytest.mark.parametrize("grey", [False, True])
def test_arrays_have_the_usual_names_and_shapes(tmp_path, naming, grey):
    images = np.random.default_rng(0).integers(0, 256, (20, 8, 8) if grey else IMAGES.shape, dtype=np.uint8)
    arrays = dict(zip(NAMINGS[naming], (images, LABELS[:, None], images[:5], LABELS[:5, None]), strict=True))
    npz(tmp_path, **arrays)
    source = load_data(str(tmp_path / "some.npz"))
    assert (source.splits, source.image_size) == (("train", "test"), (8, 8, 1 if grey else 3))
    np.testing.assert_array_equal(source.arrays("train")[0].reshape(images.shape), images)
    np.testing.assert_array_equal(source.arrays("test")[1], LABELS[:5])


def test_labels_are_counted_before_images_are_held_out(tmp_path):
    npz(tmp_path, **{**WHOLE, "y_train": LABELS[:7]})
    with pytest.raises(BadInput, match="There must be a label for each image in the train split"):
        hold_out(load_data(str(tmp_path / "some.npz")), "train", 0.5, 0)


@pytest.mark.parametrize("case", NPZ_CASES)
def test_what_a_file_of_arrays_lacks_is_said_before_anything_is_written(tmp_path, capsys, case):
    prepare, message = NPZ_CASES[case]
    prepare(tmp_path / "data")
    refuse(["--dataset", tmp_path / "data" / "some.npz"], message, tmp_path, capsys)


RECORD_CASES = {
    "no test split": (
        lambda f: write_records(f, name="some", splits=("train",)),
        "has no test images, so --holdout must say how many training images are not trained on",
    ),
    "a file is gone": (
        lambda f: (write_records(f, name="some"), next(f.glob("some/**/*.tfrecord*")).unlink()),
        "is not complete",
    ),
    "other classes": (lambda f: write_records(f, name="some", classes=7), "num_classes=30, but some has 7 classes"),
    "images of one size": (lambda f: write_arrays(f), "it needs --data arrays"),
}


@pytest.mark.parametrize("case", RECORD_CASES)
def test_what_records_lack_is_said_before_anything_is_written(tmp_path, capsys, case):
    prepare, message = RECORD_CASES[case]
    prepare(tmp_path / "data")
    options = ["--data", "records", "--num-classes", "30", "--dataset", "some", "--data-dir", tmp_path / "data"]
    refuse(options, message, tmp_path, capsys)


def refuse(options, message, folder, capsys):
    """A training command must end with status 2 and the sentence, and write nothing."""
    options = ["--num-classes", "10", "--data", "arrays", *options]  # so that they are not adapted to the data
    options = [*options, "--image-size", "8", "8", "3", "--stem", "4", "3", "1", "1", "--stages", "1", "8", "1"]
    capsys.readouterr()  # what was said while the data were written
    with pytest.raises(SystemExit) as stop:
        cli.train_command(("digits",), [str(option) for option in [*options, "--run-dir", folder / "run"]])
    said = capsys.readouterr()
    said = " ".join((said.out + said.err).split())
    assert stop.value.code == 2 and message in said and "Traceback" not in said
    assert len([line for line in said.split("error: ") if line]) == 1
    assert not (folder / "run").exists()


def test_evaluation_asks_only_for_the_split_that_it_reads(tmp_path):
    write_arrays(tmp_path, splits=("test",))
    data = Arrays(dataset="some", image_size=(8, 8, 3))
    assert load_for_recipe(data, ("test",), tmp_path).examples("test") == 20
    with pytest.raises(BadInput, match="no split 'train'"):
        load_for_recipe(data, ("train",), tmp_path)


def test_a_configuration_is_asked_for_by_name(tmp_path):
    two_configurations(tmp_path)
    assert load_for_recipe(Arrays(dataset="some/two", image_size=(8, 8, 3)), ("test",), tmp_path).examples("test") == 20


def test_labels_out_of_range_and_kinds_that_do_not_fit():
    digits = load_data("digits")
    shifted = ArraySource(
        "shifted", digits.label_names, {"train": lambda: (digits.arrays("train")[0], digits.arrays("train")[1] + 1)}
    )
    with pytest.raises(BadInput, match="from 1 to 10"):
        shifted.check(Arrays(), ("train",))
    with pytest.raises(BadInput, match="it needs --data arrays, not records"):
        load_for_recipe(Records(dataset="digits"), ("train",))


def test_the_features_of_a_version_are_json(tmp_path):
    """The damaged files above are damaged: whole ones are read."""
    write_arrays(tmp_path)
    (path,) = tmp_path.glob("some/**/features.json")
    assert json.loads(path.read_text())
    assert load_data("some", tmp_path).examples("train") == 20


HERE = "must be on a file system of this machine"
BUCKETS = {
    ("--data-dir", "s3://b/data"): "data_dir must be on this machine or in a bucket of gs://. Received: data_dir='s3:",
    ("--data-dir", "ftp://h/data"): "data_dir must be on this machine or in a bucket of gs://. Received: data_dir='ftp",
    ("--dataset", "gs://b/photos"): f"The files of a dataset {HERE}. Received: dataset='gs://b/photos'",
    ("--run-dir", "gs://b/run"): f"run_dir {HERE}, where a bucket can be mounted. Received: run_dir='gs://b/run'",
    ("--run-dir", "s3://b/run"): f"run_dir {HERE}, where a bucket can be mounted. Received: run_dir='s3://b/run'",
}


@pytest.mark.parametrize("options", BUCKETS, ids=" ".join)
def test_what_cannot_be_in_a_bucket_is_said_before_anything_is_written(options, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as stop:
        cli.main(["train", "--dataset", "cifar10", *options])
    assert stop.value.code == 2 and BUCKETS[options] in " ".join(capsys.readouterr().err.split())
    assert not list(tmp_path.iterdir())


def test_the_directory_of_the_datasets_may_be_in_a_bucket(tmp_path, monkeypatch):
    """No bucket can be reached here, so TensorFlow's paths of one lead to a directory of this machine."""
    write_arrays(tmp_path / "bucket" / "data", n=20)
    with tfds.testing.MockFs() as mock:
        for path in (tmp_path / "bucket").rglob("*"):
            if path.is_file() and path.suffix in (".json", ".txt"):
                mock.add_file(f"gs://bucket/{path.relative_to(tmp_path / 'bucket')}", path.read_text())
        source = load_data("some", "gs://bucket/data")
    assert source.kind == "arrays" and source.image_size == (8, 8, 3) and source.examples("train") == 20


@pytest.mark.parametrize("suffix", ["", ".npz", ".tar.gz"])
def test_a_name_that_no_file_can_have(tmp_path, suffix):
    with pytest.raises(BadInput, match=r"cannot be read: File name too long. Received: dataset='/"):
        load_data(f"{tmp_path / ('a' * 300)}{suffix}")
    with pytest.raises(BadInput, match="There is no file or folder"):
        load_data(f"{tmp_path / 'absent'}{suffix}")


def test_a_file_in_place_of_a_folder_is_refused(tmp_path):
    (tmp_path / "photo.png").write_bytes(b"no folder")
    with pytest.raises(BadInput, match=r"must be a folder of images.* Received: .*photo\.png"):
        load_data(str(tmp_path / "photo.png"))


def test_the_name_of_the_output_is_checked_first(tmp_path):
    with pytest.raises(BadInput, match=r"must end with \.npz"):
        commands.save_arrays("no_such_dataset", tmp_path / "out.txt")
