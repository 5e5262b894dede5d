"""Real JPEG and PNG files, good and bad, and a data set of them as tensorflow-datasets prepares ImageNet."""

import io
import json

import numpy as np
import tensorflow as tf
from PIL import Image


def _picture(mode, height, width, seed=0, **options):
    """Returns a JPEG file of soft colours."""
    channels = {"RGB": 3, "L": 1, "CMYK": 4}[mode]
    small = np.random.default_rng(seed).integers(0, 256, (6, 8, channels), dtype=np.uint8)
    image = Image.fromarray(small.squeeze(), mode).resize((width, height), Image.Resampling.BICUBIC)
    content = io.BytesIO()
    image.save(content, options.pop("format", "JPEG"), **({"quality": 92} | options))
    return content.getvalue()


PICTURES = {
    "colour": _picture("RGB", 240, 320, 1),
    "progressive": _picture("RGB", 90, 70, 2, progressive=True),
    "without subsampling": _picture("RGB", 70, 90, 3, subsampling=0),
    "grey": _picture("L", 70, 90, 4),
    "cmyk": _picture("CMYK", 80, 60, 5),
    "png": _picture("RGB", 75, 95, 6, format="PNG"),
    "grey png": _picture("L", 95, 75, 7, format="PNG"),
}
_GOOD = PICTURES["colour"]
BAD = {
    "a-gif": _picture("L", 40, 40, format="GIF"),
    "a-cut-png": _picture("RGB", 40, 40, format="PNG")[:300],
    "truncated": _GOOD[: len(_GOOD) // 2],
    "header-alone": _GOOD[:200],
    "bad-header": _GOOD.replace(b"\xff\xc0\x00\x11\x08", b"\xff\xc0\x00\x11\x07", 1),  # seven bits a sample
    "text": b"This is no picture.",
    "empty": b"",
}


def write_records(
    data_dir, classes=30, shards=(15, 15), bad=False, name="imagenet2012", splits=("train", "validation")
):
    """Writes a dataset of records, one image of each label, in order.

    Args:
        data_dir: Path.
        classes: Integer, number of classes.
        shards: Images in each file.
        bad: Whether the images from the fourth one on are those of `BAD`.
        name: String, the name of the dataset.
        splits: Names of the splits.
    """
    directory = data_dir / name / "5.1.0"
    directory.mkdir(parents=True)
    pictures = [*PICTURES.values()]
    for split in splits:
        labels = iter(range(sum(shards)))
        for shard, count in enumerate(shards):
            path = directory / f"{name}-{split}.tfrecord-{shard:05}-of-{len(shards):05}"
            with tf.io.TFRecordWriter(str(path)) as writer:
                for label in (next(labels) for _ in range(count)):
                    file, content = f"image-{label}", pictures[label % len(pictures)]
                    if bad and 3 <= label < 3 + len(BAD):
                        file, content = [*BAD.items()][label - 3]
                    writer.write(_example(f"{file}.JPEG", content, label))
    _write_description(directory, classes, shards, name, splits)


def _example(name, content, label):
    features = {
        "file_name": tf.train.Feature(bytes_list=tf.train.BytesList(value=[name.encode()])),
        "image": tf.train.Feature(bytes_list=tf.train.BytesList(value=[content])),
        "label": tf.train.Feature(int64_list=tf.train.Int64List(value=[label])),
    }
    return tf.train.Example(features=tf.train.Features(feature=features)).SerializeToString()


def _write_description(directory, classes, shards, name, splits):
    import tensorflow_datasets as tfds

    features = tfds.features.FeaturesDict(
        {
            "file_name": tfds.features.Text(),
            "image": tfds.features.Image(shape=(None, None, 3), encoding_format="jpeg"),
            "label": tfds.features.ClassLabel(num_classes=classes),
        }
    )
    features.save_config(str(directory))
    splits = [
        {
            "name": split,
            "filepathTemplate": "{DATASET}-{SPLIT}.{FILEFORMAT}-{SHARD_X_OF_Y}",
            "shardLengths": [str(count) for count in shards],
        }
        for split in splits
    ]
    info = {"name": name, "version": "5.1.0", "fileFormat": "tfrecord", "moduleName": "x", "splits": splits}
    (directory / "dataset_info.json").write_text(json.dumps(info))
