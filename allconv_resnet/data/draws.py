"""Random draws as functions of a key in NumPy, which return the same numbers as TensorFlow's stateless functions.

The TensorFlow engines draw inside tf.data, and the JAX engine with these functions, so that both train on the same
batches and the JAX engine does not need TensorFlow. The generator is Philox 4x32 with 10 rounds (Salmon et al. 2011,
"Parallel random numbers: as easy as 1, 2, 3"). The permutation is a Simon block cipher of 4 rounds (Beaulieu et al.
2013) that is applied until the value lies in the range, as TensorFlow's `RandomIndexShuffle` documents. Its keys have
few bits, and permutations of keys that differ by a bit resemble each other. `order_of_epochs` therefore hashes the keys
and applies it twice. The hash is that of SplitMix64 (Steele et al. 2014).
"""

from functools import lru_cache

import numpy as np

SCRAMBLE = (0x3EC8F720, 0x02461E29)  # TensorFlow's key for turning a seed into a key and a counter
MULTIPLIERS = (np.uint64(0xD2511F53), np.uint64(0xCD9E8D57))
WEYL = (0x9E3779B9, 0xBB67AE85)
LOW = 0xFFFFFFFF
# SplitMix64: (shift, multiplier) of its three steps, and the distance between its states.
MIXING = ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB), (31, 1))
GOLDEN = 0x9E3779B97F4A7C15


def integers(shape, key, maxval):
    """Returns the uniform integers of `tf.random.stateless_uniform(shape, key, maxval=maxval, dtype=tf.int32)`.

    Args:
        shape: Sequence of integers.
        key: Two integers of 64 bits.
        maxval: Integer, exclusive.

    Returns:
        int32 array of `shape`, values in `[0, maxval)`.
    """
    return (_bits(shape, key) % np.uint32(maxval)).astype(np.int32)


def uniform(shape, key):
    """Returns the uniform numbers of `tf.random.stateless_uniform(shape, key)`.

    Args:
        shape: Sequence of integers.
        key: Two integers of 64 bits.

    Returns:
        float32 array of `shape`, values in `[0, 1)`.
    """
    return ((_bits(shape, key) & np.uint32(0x7FFFFF)) | np.uint32(127 << 23)).view(np.float32) - np.float32(1)


def order_of_epochs(random, seed, epochs, places, examples):
    """Returns which example is at a place of an epoch. Each epoch and each seed has its own random permutation.

    Args:
        random: This module, or `pipeline.TensorFlowDraws` for tensors.
        seed: Integer.
        epochs: int64 array `[n]`.
        places: int64 array `[n]` with values in `[0, examples)`.
        examples: Integer, number of examples.

    Returns:
        int64 array `[n]` with values in `[0, examples)`.
    """
    # The cipher leaves out the largest of so many numbers, as if they were one fewer.
    one_fewer = examples > 2**16 and (examples - 1) & (examples - 2) == 0
    for turn in range(2):
        bits, offset = (random.hashed(epochs, (seed, turn, number)) for number in range(2))
        keys = bits % 2**20, bits // 2**20 % 2**20, bits // 2**40
        places = (places + offset % examples) % examples
        places = random.shuffled(places, keys, examples - 1 - one_fewer)
    return places


def hashed(numbers, key):
    """Returns random numbers that are a function of a key and of other numbers.

    Args:
        numbers: int64 array `[n]`.
        key: Sequence of integers of 64 bits.

    Returns:
        int64 array `[n]` with values in `[0, 2^62)`.
    """
    values = _mixed(np.asarray(numbers, np.int64).view(np.uint64) + state_of(key))
    return (values >> np.uint64(2)).view(np.int64)


def state_of(key):
    """Returns the state of the generator for a key of integers, a uint64."""
    state = np.array([GOLDEN], np.uint64)  # an array, because NumPy warns if scalars overflow
    for part in key:
        state = _mixed(state + np.uint64(part & (2**64 - 1))) + np.uint64(GOLDEN)
    return state


def _mixed(values):
    for shift, multiplier in MIXING:
        values = (values ^ (values >> np.uint64(shift))) * np.uint64(multiplier)
    return values


def shuffled(index, keys, max_index):
    """Applies a pseudorandom permutation of `range(max_index + 1)` to each index. Larger ones stay as they are.

    Args:
        index: Integer array `[n]`.
        keys: Three integer arrays `[n]`, or three integers for all.
        max_index: Integer.

    Returns:
        int64 array `[n]`, for indices in `[0, max_index]` the values of `tf.raw_ops.RandomIndexShuffle`.
    """
    if max_index == 0:
        return np.asarray(index, np.int64)
    index = np.asarray(index)
    keys = np.stack([np.broadcast_to(part, index.shape) for part in keys], axis=1)
    if max_index < 2**16:
        values = index.astype(np.int64)
        for key in np.unique(keys, axis=0):
            shuffled_ones = (keys == key).all(axis=1) & (index <= max_index)
            values[shuffled_ones] = _permutation(*map(int, key), max_index)[index[shuffled_ones]]
        return values
    bits = int(np.ceil(np.log2(max_index)))
    word = (bits + bits % 2) // 2  # half a block, in bits
    keys = [part.astype(np.uint64) & np.uint64(LOW & ((1 << word) - 1)) for part in keys.T]
    values = index.astype(np.uint64)
    left_out = index <= max_index
    while left_out.any():
        values = np.where(left_out, _encrypted(values, keys, word), values)
        left_out &= values > np.uint64(max_index)
    return values.astype(np.int64)


@lru_cache(maxsize=16)
def _permutation(first, second, third, max_index):
    """Returns what `shuffled` makes of all indices up to `max_index`, which is below 2^16: int64 `[max_index + 1]`.

    The blocks have 16 bits, so that a value of a small range would be encrypted thousands of times, one after the
    other, until it lies in the range again. Here all blocks are encrypted once, and then followed in doubled steps. The
    cache holds eight epochs of two permutations.
    """
    blocks = np.arange(2**16, dtype=np.uint16)
    encrypted = _encrypted(blocks, [key & 0xFF for key in (first, second, third)], word=8)
    values, follow = encrypted[: max_index + 1], np.where(blocks <= max_index, blocks, encrypted)
    while (values > max_index).any():
        values, follow = follow[values], follow[follow]
    return values.astype(np.int64)


def _encrypted(values, keys, word):
    """Returns the cipher of blocks of two words, which have `word` bits each, an array of the type of `values`."""
    mask = (1 << word) - 1

    def rotated(x, by):
        by %= word
        return ((x << by) | (x >> (word - by))) & mask

    # The cipher's schedule derives a fourth key. The first bit of its sequence of constants is 1.
    fourth = ((0xFFFFFFFC ^ 1) & mask) ^ keys[0] ^ rotated(keys[2], word - 3) ^ rotated(keys[2], word - 4)
    high, low = (values >> word) & mask, values & mask
    for key in (*keys, fourth):
        mixed = (rotated(low, 1) & rotated(low, 8)) ^ rotated(low, 2)
        high, low = low, high ^ mixed ^ key
    return (high << word) | low


def _bits(shape, key):
    """Returns the generator's output for a key, a uint32 array of `shape`."""
    count = int(np.prod(shape))
    seed = np.array(key, np.int64).view(np.uint64)
    counter = [np.atleast_1d(part) for value in seed for part in (value & np.uint64(LOW), value >> np.uint64(32))]
    mixed = [part[0] for part in _philox(counter, SCRAMBLE)]
    blocks = np.arange(-(-count // 4), dtype=np.uint64)
    start = (int(mixed[3]) << 96) + (int(mixed[2]) << 64)  # the low 64 bits count the blocks
    high = [np.full_like(blocks, (start >> shift) & LOW) for shift in (64, 96)]
    counter = [blocks & np.uint64(LOW), blocks >> np.uint64(32), *high]
    numbers = np.stack(_philox(counter, (int(mixed[0]), int(mixed[1]))), axis=1)
    return numbers.astype(np.uint32).ravel()[:count].reshape(shape)


def _philox(counter, key):
    """Returns ten rounds of Philox on four arrays of 32-bit counters: four uint64 arrays of 32-bit values."""
    c0, c1, c2, c3 = counter
    low, shift = np.uint64(LOW), np.uint64(32)
    for number in range(10):
        k0, k1 = (np.uint64((part + number * step) & LOW) for part, step in zip(key, WEYL, strict=True))
        first, second = MULTIPLIERS[0] * c0, MULTIPLIERS[1] * c2
        c0, c1, c2, c3 = (second >> shift) ^ c1 ^ k0, second & low, (first >> shift) ^ c3 ^ k1, first & low
    return c0, c1, c2, c3
