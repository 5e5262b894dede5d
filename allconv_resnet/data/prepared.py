"""Datasets that tensorflow-datasets has prepared on disk or can download."""

import json
import math
import os
import urllib.error
import urllib.request

import numpy as np
import tensorflow as tf
import tensorflow_datasets as tfds
from etils import epath

from allconv_resnet import files, memory
from allconv_resnet.data import inspection, jpeg
from allconv_resnet.data.arrays import ArraySource
from allconv_resnet.data.records import RecordSource, require_complete
from allconv_resnet.errors import BadInput, reason

READ_BATCH = 500  # images that are read at a time

TORONTO = "https://www.cs.toronto.edu/~kriz"
ORIGINS = {
    "cifar10": f"{TORONTO}/cifar-10-python.tar.gz",
    "cifar100": f"{TORONTO}/cifar-100-python.tar.gz",
}


def load_prepared(name, data_dir=None):
    """Returns the source of a dataset of tensorflow-datasets, see `source.load_data`.

    Args:
        name: String, `NAME` or `NAME/CONFIG`.
        data_dir: Directory of tensorflow-datasets.

    Returns:
        `ArraySource` or `RecordSource`.

    Raises:
        BadInput: if the dataset is unknown, is not on disk and cannot be downloaded, has several configurations and
            the name contains none of them, or cannot be read.
    """
    if not name.strip("/. ") or ".." in name.split("/"):
        raise BadInput(f"dataset must be the name of a dataset. Received: dataset={name!r}")
    if data_dir is None:
        data_dir = os.environ.get("TFDS_DATA_DIR") or "~/tensorflow_datasets"
    data_dir = files.expand(data_dir, "data_dir", bucket=True)
    scheme, remote, _ = str(data_dir).partition("://")
    if remote and scheme not in (schemes := set(tf.io.gfile.get_registered_schemes()) & {"gs", "s3"}):
        known = ", ".join(f"{scheme}://" for scheme in sorted(schemes))
        raise BadInput(f"data_dir must be on this machine or in a bucket of {known}. Received: data_dir={data_dir!r}")
    data_dir = epath.Path(data_dir)
    try:
        directory = prepared_directory(name, data_dir)
    except (OSError, tf.errors.OpError) as error:
        raise BadInput(f"The directory of the datasets, {data_dir}, cannot be read: {reason(error)}") from error
    return read_prepared(directory or download(name, data_dir))


def prepared_directory(name, data_dir):
    """Returns the directory of the newest prepared version of a dataset, or None.

    Args:
        name: String, `NAME` or `NAME/CONFIG`.
        data_dir: `epath.Path` of the directory of tensorflow-datasets, which may be in a bucket.

    Raises:
        BadInput: if there are several configurations and the name contains none of them.
    """
    depths = ("", "*/", "*/*/")  # of a configuration's version, a version, and a configuration
    versions = [path.parent for depth in depths for path in (data_dir / name).glob(f"{depth}dataset_info.json")]
    # tensorflow-datasets writes to a directory called incomplete.ID_VERSION, which it renames at the end.
    versions = [path for path in versions if not any("incomplete" in part for part in path.parts[-3:])]
    configurations = sorted({path.parent for path in versions})
    if len(configurations) > 1:
        names = ", ".join(f"{name}/{path.name}" for path in configurations)
        raise BadInput(f"{name} has several configurations in {data_dir}: ask for one of {names}")
    return max(versions, key=_version, default=None)


def _version(path):
    return [int(part) if part.isdigit() else -1 for part in path.name.split(".")]


def read_prepared(directory):
    """Returns the source in a directory that tensorflow-datasets prepared, without using the network.

    Args:
        directory: Path of one version, which has dataset_info.json and features.json.

    Returns:
        `ArraySource` for images of one size, or `RecordSource` for files of all sizes.

    Raises:
        BadInput: if the directory is not a dataset of images with labels, or its description is damaged.
    """
    try:
        builder = tfds.builder_from_directory(directory)
        features, splits = builder.info.features, dict(builder.info.splits)
    except Exception as error:  # tensorflow-datasets raises many types of errors for a damaged file
        why = f"{type(error).__name__}: {reason(error)}"
        raise BadInput(f"The dataset in {directory} cannot be read: {why}") from error
    if not hasattr(features, "keys") or not {"image", "label"} <= set(features.keys()):
        received = sorted(features.keys()) if hasattr(features, "keys") else features
        raise BadInput(f"The dataset in {directory} must have the features image and label. Received: {received}")
    if not isinstance(features["image"], tfds.features.Image):
        raise BadInput(f"The feature image of {directory} must be an Image. Received: {features['image']}")
    if not isinstance(features["label"], tfds.features.ClassLabel) or not features["label"].num_classes:
        raise BadInput(f"The feature label of {directory} must be a ClassLabel. Received: {features['label']}")
    if not splits:
        raise BadInput(f"The dataset in {directory} has no splits")
    names, classes = features["label"].names, _stated_classes(directory)
    if classes not in (None, len(names)):
        raise BadInput(
            f"The dataset in {directory} must have the names of {classes} classes. Received: {len(names)} names"
        )
    if None in features["image"].shape:
        if builder.info.file_format != tfds.core.FileFormat.TFRECORD:
            raise BadInput(
                f"Images of all sizes are read from TFRecord files. Received: {directory} in the format "
                f"{builder.info.file_format.value}"
            )
        return RecordSource(builder)
    return ArraySource(
        builder.name,
        features["label"].names,
        {split: lambda split=split: _read_split(builder, directory, split) for split in splits},
        features["image"].shape,
        {split: info.num_examples for split, info in splits.items()},
    )


@tfds.decode.make_decoder()
def _upright(contents, feature):
    return tf.ensure_shape(jpeg.decode_image(contents, feature.shape[-1]), feature.shape)


def _stated_classes(directory):
    """Returns the number of classes in features.json, or None if it is not there."""
    try:
        features = json.loads((epath.Path(directory) / "features.json").read_text(encoding="utf-8"))
        return int(features["featuresDict"]["features"]["label"]["classLabel"]["numClasses"])
    except (OSError, ValueError, LookupError, TypeError):
        return None


def _read_split(builder, directory, split):
    info, features = builder.info.splits[split], builder.info.features
    shape = features["image"].shape
    size = info.num_examples * math.prod(shape)
    memory.require(f"dataset {builder.name}, {info.num_examples:,} images of shape {shape}", images=size)
    require_complete(info, directory)
    if builder.info.file_format == tfds.core.FileFormat.TFRECORD:
        for path, count in zip(info.filepaths, info.shard_lengths, strict=True):
            inspection.check_records(path, count, features["label"].num_classes, shape[:2])
    # Other features are skipped, and images decoded as in an export, which turns them upright.
    decoders = tfds.decode.PartialDecoding({"image": True, "label": True}, {"image": _upright()})
    # In one batch, or with the cache of tensorflow-datasets, the images would be in memory several times.
    read_config = tfds.ReadConfig(try_autocache=False)
    try:
        batches = builder.as_dataset(split=split, batch_size=READ_BATCH, decoders=decoders, read_config=read_config)
        images = np.empty((info.num_examples, *shape), features["image"].np_dtype)
        labels, stop = np.empty(info.num_examples, features["label"].np_dtype), 0
        for batch in batches.as_numpy_iterator():
            start, stop = stop, stop + len(batch["label"])
            images[start:stop], labels[start:stop] = batch["image"], batch["label"]
        return images[:stop], labels[:stop]
    except Exception as error:  # many types of errors, as above
        raise BadInput(f"The {split} split of {directory} cannot be read: {reason(error)}") from error


def download(name, data_dir):
    """Downloads and prepares a dataset, and returns its directory.

    Args:
        name: String, `NAME` or `NAME/CONFIG`.
        data_dir: Path of the directory of tensorflow-datasets.

    Raises:
        BadInput: if the dataset is unknown or must be fetched by hand, or the download fails. If the network does not
            answer, the error is raised within seconds.
    """
    known, place = name.split("/")[0], data_dir / name
    if known not in tfds.list_builders():
        here = f": the folder is --dataset ./{name}" if os.path.isdir(name) else ""
        raise BadInput(f"tensorflow-datasets has no dataset {known!r}, and none is prepared in {place}{here}")
    origin = ORIGINS.get(known, "https://storage.googleapis.com/tfds-data")
    try:  # tensorflow-datasets itself would retry for minutes
        urllib.request.urlopen(urllib.request.Request(origin, method="HEAD"), timeout=5).close()
    except urllib.error.HTTPError:
        pass  # the server answered
    except OSError as error:
        raise BadInput(
            f"{name} is not prepared in {place}, and {origin} does not answer ({error}): on a machine with a network "
            f"`tfds build {name} --data_dir {data_dir}` prepares it; `train_cifar.py --recipe digits` trains on "
            f"embedded data and needs no network"
        ) from error
    try:
        builder = tfds.builder(name, data_dir=data_dir)
    except ValueError as error:  # there is no such configuration
        raise BadInput(f"tensorflow-datasets has no dataset {name!r}: {reason(error)}") from error
    if instructions := builder.MANUAL_DOWNLOAD_INSTRUCTIONS:
        raise BadInput(
            f"{name} is not prepared in {place}, and must be fetched by hand before "
            f"`tfds build {name} --data_dir {data_dir}` prepares it: {' '.join(instructions.split())}"
        )
    try:
        builder.download_and_prepare()
    except Exception as error:  # many types of errors, as above
        raise BadInput(f"{name} cannot be downloaded: {reason(error)}") from error
    return epath.Path(builder.data_path)
