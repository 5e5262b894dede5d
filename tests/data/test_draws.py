"""The NumPy draws are TensorFlow's, bit for bit."""

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

from allconv_resnet.data import draws
from allconv_resnet.data.augment import Batch, CropAndFlip
from allconv_resnet.data.pipeline import TensorFlowDraws

KEYS = st.tuples(*[st.integers(-(2**63), 2**63 - 1)] * 2)


@given(KEYS, st.integers(1, 300), st.integers(1, 2**31 - 1))
def test_integers(key, n, maxval):
    expected = tf.random.stateless_uniform([n, 2], tf.constant(key, tf.int64), maxval=maxval, dtype=tf.int32)
    np.testing.assert_array_equal(draws.integers((n, 2), key, maxval), expected)


@given(KEYS, st.integers(0, 300))
def test_uniform(key, n):
    np.testing.assert_array_equal(
        draws.uniform((n,), key), tf.random.stateless_uniform([n], tf.constant(key, tf.int64))
    )


@settings(deadline=None)
@given(st.integers(0, 2**40), st.integers(0, 2**40), st.one_of(st.integers(1, 2**17), st.integers(1, 2**33)))
def test_shuffled(seed, epoch, max_index):
    index = np.unique(np.linspace(0, max_index, 40).astype(np.int64))
    keys = np.tile(np.array([seed, epoch, 0], np.int64), (len(index), 1))
    keys[::2, 1] += 1
    expected = tf.raw_ops.RandomIndexShuffle(index=index, seed=keys, max_index=np.int64(max_index))
    np.testing.assert_array_equal(draws.shuffled(index, keys.T, max_index), expected)


@given(KEYS, st.lists(st.integers(-(2**63), 2**63 - 1), min_size=1))
def test_hashed(key, numbers):
    np.testing.assert_array_equal(
        draws.hashed(numbers, key), TensorFlowDraws.hashed(tf.constant(numbers, tf.int64), key)
    )


def test_the_hash_is_that_of_splitmix():
    """The first outputs of SplitMix64 with the seed 1234567, as the tests of other implementations have them."""
    states = np.array([1234567, 1234567 + draws.GOLDEN - 2**64], np.int64)  # GOLDEN is added to each
    expected = [6457827717110365317 >> 2, 3203168211198807973 >> 2]
    np.testing.assert_array_equal(draws.hashed(states, ()), expected)


@pytest.mark.parametrize("examples", [1, 2, 7, 300, 50_000, 65_536, 65_537, 2**18 + 1])
def test_an_epoch_has_each_example_once_on_every_engine(examples):
    places, epochs = np.arange(examples), np.full(examples, 3)
    rows = draws.order_of_epochs(draws, 1, epochs, places, examples)
    np.testing.assert_array_equal(np.sort(rows), places)
    theirs = draws.order_of_epochs(TensorFlowDraws, 1, tf.constant(epochs), tf.constant(places), examples)
    np.testing.assert_array_equal(rows, theirs)


def together(one, other, batch):
    """How often two examples of a batch of one order share a batch of the other, over what chance would give."""
    place = np.argsort(other)
    rows = place[one[: len(one) // batch * batch]].reshape(-1, batch) // batch
    pairs = sum(count * (count - 1) for row in rows for count in np.unique(row, return_counts=True)[1])
    return pairs / rows.size / (batch - 1) / ((batch - 1) / (len(one) - 1))


@pytest.mark.parametrize(("examples", "batch"), [(50_000, 128), (45_000, 1_024), (3_670, 32), (500, 16)])
def test_orders_of_epochs_and_seeds_are_independent(examples, batch):
    def order(seed, epoch):
        return draws.order_of_epochs(draws, seed, np.full(examples, epoch), np.arange(examples), examples)

    first = order(0, 0)
    for seed, epoch in ((0, 1), (0, 2), (0, 29), (0, 256), (1, 0), (256, 0), (5, 3)):
        other = order(seed, epoch)
        assert 0.7 < together(first, other, batch) < 1.4
        assert abs(np.corrcoef(first, other)[0, 1]) < 5 / examples**0.5
    assert abs(np.corrcoef(first, np.arange(examples))[0, 1]) < 5 / examples**0.5


def test_classes_are_mixed_in_a_folder_that_is_sorted_by_class():
    examples, classes, batch = 3_670, 5, 32
    excess = []
    for epoch in range(20):
        rows = draws.order_of_epochs(draws, 0, np.full(examples, epoch), np.arange(examples), examples)
        labels = (rows * classes // examples)[: examples // batch * batch].reshape(-1, batch)
        counts = np.stack([(labels == label).sum(axis=1) for label in range(classes)])
        excess.append(((counts - batch / classes) ** 2 / (batch / classes)).sum() / counts[0].size / (classes - 1))
    assert 0.95 < np.mean(excess) < 1.05


def test_the_first_mirroring_of_an_image_depends_on_the_seed():
    rows = np.arange(50_000)
    batches = [Batch(seed, 0, 50_000, (8, 8, 3), rows, np.zeros_like(rows)) for seed in range(4)]
    bits = np.stack([CropAndFlip(alternate=True).draw(draws, batch)[1] for batch in batches]).astype(float)
    assert abs(bits.mean() - 0.5) < 0.01
    assert np.abs(np.corrcoef(bits) - np.eye(4)).max() < 0.02
    assert abs(np.corrcoef(bits[0, 1:], bits[0, :-1])[0, 1]) < 0.02
