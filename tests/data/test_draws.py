"""The NumPy draws are TensorFlow's, bit for bit."""

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

from allconv_resnet.data import draws

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
@given(st.integers(0, 2**40), st.integers(0, 2**40), st.integers(1_000, 2**33))
def test_shuffled(seed, epoch, max_index):
    index = np.unique(np.linspace(0, max_index, 40).astype(np.int64))
    keys = np.tile(np.array([seed, epoch, 0], np.int64), (len(index), 1))
    keys[::2, 1] += 1
    expected = tf.raw_ops.RandomIndexShuffle(index=index, seed=keys, max_index=np.int64(max_index))
    np.testing.assert_array_equal(draws.shuffled(index, keys, max_index), expected)


@pytest.mark.parametrize("examples", [1, 2, 7, 50_000])
def test_a_shuffle_is_a_permutation(examples):
    keys = np.tile(np.array([3, 1, 0], np.int64), (examples, 1))
    places = draws.shuffled(np.arange(examples), keys, examples - 1)
    assert sorted(places) == list(range(examples))
