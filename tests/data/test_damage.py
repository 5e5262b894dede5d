"""One damaged record among good ones: the sentence names its file and its number."""

import json
import os

import numpy as np
import pytest
import tensorflow as tf
from data.jpegs import PICTURES, write_records
from data.prepared_sets import write_prepared
from training.runs import TINY

from allconv_resnet import cli
from allconv_resnet.data import inspection
from allconv_resnet.data.source import load_data
from allconv_resnet.errors import BadInput

BAD = 3  # the number of the record that is changed


def change_record(path, change):
    """Rewrites a file of records with one changed, and the description of the dataset with its size."""
    records = [record.numpy() for record in tf.data.TFRecordDataset(str(path))]
    example = tf.train.Example.FromString(records[BAD])
    change(example.features.feature)
    records[BAD] = example.SerializeToString()
    write(path, records)
    description = path.parent / "dataset_info.json"
    content = json.loads(description.read_text())
    for split in content["splits"]:
        split["numBytes"] = "0"
    description.write_text(json.dumps(content))


def write(path, records):
    with tf.io.TFRecordWriter(str(path)) as writer:
        for record in records:
            writer.write(record)


def put(name, kind, value):
    return lambda features: features[name].CopyFrom(tf.train.Feature(**{kind: value}))


def label(number):
    return put("label", "int64_list", tf.train.Int64List(value=[number]))


def image(content):
    return put("image", "bytes_list", tf.train.BytesList(value=[content]))


def png(height, width):
    return tf.io.encode_png(np.zeros((height, width, 3), np.uint8)).numpy()


CHANGES = {
    "another size": (image(png(16, 24)), "All images must have 32 x 32 pixels. Received: 16 x 24"),
    "another size of JPEG": (
        image(tf.io.encode_jpeg(np.zeros((8, 8, 3), np.uint8)).numpy()),
        "must have 32 x 32 pixels. Received: 8 x 8",
    ),
    "no image": (image(b"text"), "Images must be PNG or JPEG files. Received: something else"),
    "label 5000": (label(5000), "Labels must lie in [0, 10). Received: label 5000"),
    "label -1": (label(-1), "Labels must lie in [0, 10). Received: label -1"),
    "no label": (lambda features: features.pop("label"), "Labels must lie in [0, 10). Received: label -1"),
}


def refuse(options, folder, capsys):
    capsys.readouterr()
    options = [*options, "--dataset", "some", "--data-dir", str(folder), "--run-dir", str(folder / "run")]
    with pytest.raises(SystemExit) as stop:
        cli.train_command(("digits",), options)
    said = capsys.readouterr().err
    sentences = [line for line in said.splitlines() if line.startswith(("error: ", "failed: "))]
    assert stop.value.code in (1, 2) and len(sentences) == 1 and "Traceback" not in said and "function_node" not in said
    assert not (folder / "run" / "model.keras").exists()
    return stop.value.code, sentences[0]


@pytest.mark.parametrize("case", CHANGES)
def test_a_bad_record_of_images_in_memory_is_named(case, tmp_path, capsys):
    write_prepared(tmp_path, "some", 10)
    (path,) = tmp_path.glob("some/*/*train*")
    change, message = CHANGES[case]
    change_record(path, change)
    status, said = refuse([], tmp_path, capsys)
    assert status == 2 and message in said and f"in record {BAD} of {path}" in said
    assert not (tmp_path / "run").exists()


def test_a_corrupted_record_of_images_in_memory_is_named(tmp_path, capsys):
    write_prepared(tmp_path, "some", 10)
    (path,) = tmp_path.glob("some/*/*train*")
    flip(path, 9_000)
    status, said = refuse([], tmp_path, capsys)
    assert status == 2 and f"{path} is damaged in or after its record" in said and "corrupted record" in said


def flip(path, position):
    content = bytearray(path.read_bytes())
    content[position] ^= 1
    path.write_bytes(content)


RECORDS = ["--data", "records", "--image-size", "16", "16", "3", "--num-classes", "30", "--stem", "4", "3", "1", "1"]
RECORDS += ["--stages", "1", "8", "1", "--batch-size", "5", "--steps", "12", "--shuffle-buffer", "1", "--no-export"]


@pytest.mark.parametrize("number", [5000, -1])
def test_a_bad_label_of_a_record_is_named_even_late(number, tmp_path, capsys):
    write_records(tmp_path, shards=(30,), name="some")
    (path,) = tmp_path.glob("some/*/*train*")
    change_record(path, label(number))
    status, said = refuse(RECORDS, tmp_path, capsys)  # among the first, which are looked at
    assert status == 2 and f"Labels must lie in [0, 30). Received: label {number} in record {BAD} of {path}" in said

    records = [record.numpy() for record in tf.data.TFRecordDataset(str(path))]
    write(path, [*records[BAD + 1 :], *records[: BAD + 1]])
    status, said = refuse(RECORDS, tmp_path, capsys)
    assert status == 1 and f"image-{BAD}.JPEG has label {number}" in said and "at least 0 and below 30" in said


def test_a_corrupted_record_is_named_with_its_file(tmp_path, capsys):
    write_records(tmp_path, shards=(5, 25), name="some")  # the damage lies beyond the end of the first file
    path = sorted(tmp_path.glob("some/*/*train*"))[1]
    lengths = [len(record.numpy()) + 16 for record in tf.data.TFRecordDataset(str(path))]
    flip(path, sum(lengths[:10]) + 50)
    status, said = refuse(RECORDS, tmp_path, capsys)
    assert status == 1 and said.endswith(f"corrupted record at {sum(lengths[:10]) + 12} (record 10 of {path})")


def test_records_of_other_files_are_refused_before_the_first_step(tmp_path, capsys):
    write_records(tmp_path, shards=(30,), name="some")
    (path,) = tmp_path.glob("some/*/*train*")
    examples = [tf.train.Example.FromString(record.numpy()) for record in tf.data.TFRecordDataset(str(path))]
    for example in examples:
        image(b"GIF89a" + os.urandom(9_000))(example.features.feature)
    write(path, [example.SerializeToString() for example in examples])
    status, said = refuse(RECORDS, tmp_path, capsys)
    assert status == 2 and f"The images of some must be JPEG or PNG files. Received: other files in {path}" in said


def test_many_bad_images_do_not_fill_the_screen(tmp_path, capfd):
    write_records(tmp_path, shards=(30,), name="some", bad=True)
    (path,) = tmp_path.glob("some/*/*train*")
    examples = [tf.train.Example.FromString(record.numpy()) for record in tf.data.TFRecordDataset(str(path))]
    for example in examples[8:]:
        image(b"text")(example.features.feature)
    write(path, [example.SerializeToString() for example in examples])
    recipe = TINY.with_kind("data", "records").replace(image_size=(16, 16, 3), num_classes=30, batch_size=30)
    capfd.readouterr()
    next(iter(load_data("some", tmp_path).training_batches(recipe)))
    said = [line for line in capfd.readouterr().err.splitlines() if "cannot be decoded" in line]
    assert said and all(len(line) < 300 and "and 19 more" in line for line in said)


def test_a_whole_file_is_not_blamed(tmp_path):
    write(tmp_path / "file", [b"one", b"two"])
    assert inspection.name_damaged_file("corrupted record at 19", [tmp_path / "file"]) == "corrupted record at 19"
    with pytest.raises(BadInput, match=r"must have at least 3 records\. Received: 2"):
        example = tf.train.Example(features=tf.train.Features())
        image(PICTURES["colour"])(example.features.feature)
        label(0)(example.features.feature)
        write(tmp_path / "file", [example.SerializeToString()] * 2)
        inspection.check_records(tmp_path / "file", 3, 10)
