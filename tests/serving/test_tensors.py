"""Arrays from JSON text equal what a JSON parser and NumPy make of it."""

import json

import hypothesis.strategies as st
import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given

from allconv_resnet.serving.refused import Refused
from allconv_resnet.serving.tensors import PIECE, numbers

SHAPES = st.lists(st.integers(1, 4), min_size=1, max_size=5).map(tuple)


def spec(rank, dtype=tf.float32):
    return tf.TensorSpec([None] * rank, dtype, name="images")


@given(SHAPES, st.integers(0, 99), st.sampled_from([None, 1]), st.sampled_from([",", " , ", ",\n\t"]))
def test_tensors_equal_numpy(shape, seed, indent, comma):
    values = np.random.default_rng(seed).standard_normal(shape) * 10.0 ** (seed % 30)
    text = json.dumps(values.tolist(), indent=indent, separators=(comma, ":")).encode()
    np.testing.assert_array_equal(numbers(text, spec(len(shape))), values.astype(np.float32))


@given(SHAPES, st.integers(0, 99))
def test_integers_keep_their_dtype(shape, seed):
    values = np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)
    read = numbers(json.dumps(values.tolist()).encode(), spec(len(shape), tf.uint8))
    assert read.dtype == np.uint8
    np.testing.assert_array_equal(read, values)


LEAVES = st.one_of(st.integers(-5, 5), st.floats(-10, 10), st.just([]))


@given(st.recursive(LEAVES, lambda inner: st.lists(inner, max_size=4), max_leaves=20))
def test_what_is_no_tensor_is_refused(value):
    try:
        expected = np.array(value, np.float32)
    except ValueError:  # lists of different lengths
        expected = None
    text = json.dumps(value).encode()
    rank = 0 if expected is None else expected.ndim
    if expected is None or not expected.size:
        with pytest.raises(Refused, match="images must be float32"):
            numbers(text, spec(rank))
    else:
        np.testing.assert_array_equal(numbers(text, spec(rank)), expected)


def test_lists_in_too_many_lists_are_refused_at_once():
    text = b"[" * 900 + b"[0" + b"],[0" * 1_000_000 + b"]" + b"]" * 900  # half a minute of searching
    with pytest.raises(Refused, match="Received: 901 nested lists"):
        numbers(text, spec(4))


def test_a_text_that_is_read_in_pieces():
    values = np.random.default_rng(0).integers(0, 256, (40, 50, 50, 3))
    text = json.dumps(values.tolist()).encode()
    assert len(text) > 3 * PIECE
    np.testing.assert_array_equal(numbers(text, spec(4)), values)
    with pytest.raises(Refused, match="not integers from 0 to 255"):
        numbers(text[:-4] + b"999]]]]", spec(4, tf.uint8))
