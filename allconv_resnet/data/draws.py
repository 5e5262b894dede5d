"""Random draws as functions of a key in NumPy, which return the same numbers as TensorFlow's stateless functions.

The TensorFlow engines draw inside tf.data, and the JAX engine with these functions, so that both train on the same
batches and the JAX engine does not need TensorFlow. The generator is Philox 4x32 with 10 rounds (Salmon et al. 2011,
"Parallel random numbers: as easy as 1, 2, 3"). The permutation is a Simon block cipher of 4 rounds (Beaulieu et al.
2013) that is applied until the value lies in the range, as TensorFlow's `RandomIndexShuffle` documents.
"""

import numpy as np

SCRAMBLE = (0x3EC8F720, 0x02461E29)  # TensorFlow's key for turning a seed into a key and a counter
MULTIPLIERS = (np.uint64(0xD2511F53), np.uint64(0xCD9E8D57))
WEYL = (0x9E3779B9, 0xBB67AE85)
LOW = 0xFFFFFFFF


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


def shuffled(index, keys, max_index):
    """Applies a pseudorandom permutation of `range(max_index + 1)` to each index.

    Args:
        index: Integer array `[n]` with values in `[0, max_index]`.
        keys: Integer array `[n, 3]`, or three integers for all. Each key has its own permutation.
        max_index: Integer.

    Returns:
        int64 array `[n]`, the values of `tf.raw_ops.RandomIndexShuffle(index=index, seed=keys, max_index=max_index)`.
    """
    if max_index == 0:
        return np.zeros(len(index), np.int64)
    keys = np.broadcast_to(np.asarray(keys), (len(index), 3))
    bits = int(np.ceil(np.log2(max_index)))
    word = max(bits + bits % 2, 16) // 2  # half a block, in bits
    mask = np.uint64((1 << word) - 1)

    def rotated(x, by):
        by %= word
        return ((x << np.uint64(by)) | (x >> np.uint64(word - by))) & mask

    # The four round keys: the three words of the key, and one that the cipher's schedule derives from them.
    round_keys = [np.asarray(keys[:, i]).astype(np.uint64) & np.uint64(LOW) & mask for i in range(3)]
    last = round_keys[2]
    constant = np.uint64((0xFFFFFFFC ^ 1) & int(mask))  # the first bit of the schedule's sequence is 1
    round_keys.append(constant ^ round_keys[0] ^ rotated(last, word - 3) ^ rotated(last, word - 4))

    values = np.asarray(index).astype(np.uint64)
    left_out = np.ones(len(values), bool)
    while left_out.any():
        high, low = (values >> np.uint64(word)) & mask, values & mask
        for round_key in round_keys:
            mixed = (rotated(low, 1) & rotated(low, 8)) ^ rotated(low, 2)
            high, low = low, high ^ mixed ^ round_key
        encrypted = (high << np.uint64(word)) | low
        values = np.where(left_out, encrypted, values)
        left_out = values > np.uint64(max_index)
    return values.astype(np.int64)


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
