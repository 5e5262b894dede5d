"""What several tests use."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import settings

# The same examples every time, so that a change is judged by itself; `--hypothesis-profile default` draws new ones.
settings.register_profile("repeatable", derandomize=True)
settings.load_profile("repeatable")

ROOT = Path(__file__).resolve().parent.parent
PREPARED = ROOT.parent / "shared" / "tfds"


@pytest.fixture
def prepared():
    """Directory with the real CIFAR-10 (and a part of ImageNet), prepared by tensorflow-datasets."""
    if not (PREPARED / "cifar10").is_dir():
        pytest.skip("real CIFAR-10 is not beside the checkout, in ../shared/tfds")
    return PREPARED


@pytest.fixture
def run_python():
    """Runs a Python program in a process of its own, and returns the completed process."""

    def run(*arguments, **environment):
        return subprocess.run(
            [sys.executable, *map(str, arguments)],
            cwd=ROOT,
            env={**os.environ, **environment},
            capture_output=True,
            text=True,
            timeout=300,
        )

    return run


@pytest.fixture
def write_tfds():
    """Writes random images as a data set that tensorflow-datasets has prepared; returns the arrays of its splits."""
    return _write_tfds


def _write_tfds(data_dir, name="cifar100", classes=100, shape=(32, 32, 3), n=20, splits=("train", "test")):
    """Writes a data set as tensorflow-datasets keeps it; returns the arrays of its splits."""
    import tensorflow as tf
    import tensorflow_datasets as tfds

    rng = np.random.default_rng(0)
    features = tfds.features.FeaturesDict(
        {"image": tfds.features.Image(shape=shape), "label": tfds.features.ClassLabel(num_classes=classes)}
    )
    arrays = {
        split: (rng.integers(0, 256, (n, *shape), dtype=np.uint8), rng.integers(0, classes, n)) for split in splits
    }
    tfds.dataset_builders.store_as_tfds_dataset(
        name=name,
        version="3.0.2",
        features=features,
        data_dir=data_dir,
        split_datasets={
            split: tf.data.Dataset.from_tensor_slices({"image": x, "label": y}) for split, (x, y) in arrays.items()
        },
    )
    return arrays
