"""Requests that are put through the network together get what each would have got alone."""

import asyncio
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from allconv_resnet.serving.batching import Batcher
from allconv_resnet.serving.protocol import Refused


class Network:
    """Doubles what it gets, refuses negative numbers, fails on 99, and notes the sizes of its batches."""

    def __init__(self):
        self.sizes = []

    def __call__(self, signature, images):
        self.sizes.append(len(images))
        if (images < 0).any():
            raise Refused(400, "negative")
        if (images == 99).any():
            raise RuntimeError("a bug")
        return {"twice": 2 * images, "name": np.array([signature.encode()] * len(images), object)}


def answers(requests, limit, wait=0.05, network=None):
    """Returns what a batcher answers to requests (signature, images) that come at once."""
    network = network or Network()

    async def ask():
        with ThreadPoolExecutor(2) as pool:
            batcher = Batcher(network, pool, limit, wait)
            return await asyncio.gather(*(batcher(*request) for request in requests), return_exceptions=True)

    return asyncio.run(ask()), network.sizes


def requests(*sizes, signature="a", shape=(3,)):
    rng = np.random.default_rng(sum(sizes))
    return [(signature, rng.integers(1, 90, (size, *shape))) for size in sizes]


@pytest.mark.parametrize("limit", [1, 4, 8, 100])
def test_every_request_gets_its_own_answer(limit):
    asked = requests(1, 2, 1, 5, 3, 1, 1, 12, 1)
    got, sizes = answers(asked, limit)
    for (_, images), answer in zip(asked, got, strict=True):
        np.testing.assert_array_equal(answer["twice"], 2 * images)
        assert len(answer["name"]) == len(images)
    assert sum(sizes) == 27
    assert max(sizes) <= max(limit, 12)
    if limit == 1:
        assert sorted(sizes) == [1, 1, 1, 1, 1, 2, 3, 5, 12]  # each by itself
    else:
        assert len(sizes) < 9


def test_a_full_batch_does_not_wait():
    got, sizes = answers(requests(1, 1, 1, 1), limit=4, wait=3600)
    assert sizes == [4] and len(got) == 4


def test_what_one_call_cannot_take_is_kept_apart():
    asked = requests(1, 1) + requests(1, signature="b") + requests(1, shape=(4,))
    asked.append(("a", np.ones((1, 3), np.float32)))
    got, sizes = answers(asked, limit=8)
    assert sorted(sizes) == [1, 1, 1, 2]
    for (signature, images), answer in zip(asked, got, strict=True):
        np.testing.assert_array_equal(answer["twice"], 2 * images)
        assert answer["twice"].dtype == images.dtype and answer["name"][0] == signature.encode()


def test_a_refused_request_takes_no_other_with_it():
    asked = [*requests(1, 2), ("a", np.array([[1, -1, 1]])), *requests(1)]
    got, sizes = answers(asked, limit=8)
    assert isinstance(got[2], Refused) and got[2].reason == "negative"
    for i in (0, 1, 3):
        np.testing.assert_array_equal(got[i]["twice"], 2 * asked[i][1])
    assert sorted(sizes) == [1, 1, 1, 2, 5]


def test_a_bug_is_told_to_all_who_waited():
    got, _ = answers([*requests(1), ("a", np.array([[99, 1, 1]]))], limit=8)
    assert [str(answer) for answer in got] == ["a bug", "a bug"]
