"""Requests that are put through the network together get what each would have got alone."""

import asyncio
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from allconv_resnet.serving.batching import Batcher
from allconv_resnet.serving.refused import Refused


class Network:
    """Doubles what it gets, refuses negative numbers, fails on 99, and notes the sizes of its batches."""

    def __init__(self):
        self.sizes, self.steps = [], []

    def __call__(self, signature, images, step=None, until=None):
        self.sizes.append(len(images))
        self.steps.append(step)
        time.sleep(0.01)  # what comes in the meantime is the next batch
        if (images < 0).any():
            raise Refused(400, "negative")
        if (images == 99).any():
            raise RuntimeError("a bug")
        return {"twice": 2 * images, "name": np.array([signature.encode()] * len(images), object)}


def answers(requests, limit, calls=1):
    """Returns what a batcher answers to requests (signature, images) that come at once, the sizes, and the events."""
    network, events = Network(), []

    async def ask():
        with ThreadPoolExecutor(2) as pool:
            batcher = Batcher(pool, calls, limit, tell=events.append)
            return await asyncio.gather(*(batcher(network, *request) for request in requests), return_exceptions=True)

    return asyncio.run(ask()), network.sizes, events


def requests(*sizes, signature="a", shape=(3,)):
    rng = np.random.default_rng(sum(sizes))
    return [(signature, rng.integers(1, 90, (size, *shape))) for size in sizes]


@pytest.mark.parametrize("calls", [1, 2])
@pytest.mark.parametrize("limit", [1, 4, 8, 100])
def test_every_request_gets_its_own_answer(limit, calls):
    asked = requests(1, 2, 1, 5, 3, 1, 1, 12, 1)
    got, sizes, events = answers(asked, limit, calls)
    for (_, images), answer in zip(asked, got, strict=True):
        np.testing.assert_array_equal(answer["twice"], 2 * images)
        assert len(answer["name"]) == len(images)
    assert sum(sizes) == 27
    assert max(sizes) <= max(limit, 12)
    if limit == 1:
        assert sorted(sizes) == [1, 1, 1, 1, 1, 2, 3, 5, 12]  # each by itself
    else:
        assert len(sizes) < 9
    assert sorted(event.images for event in events) == sorted(sizes)
    assert sum(event.requests for event in events) == 9


def test_a_request_that_finds_the_network_idle_does_not_wait_for_others():
    _, sizes, _ = answers(requests(1, 1, 1, 1), limit=8)
    assert sizes == [1, 3]


def test_what_one_call_cannot_take_is_kept_apart():
    asked = requests(1, 1, 1) + requests(1, signature="b") + requests(1, shape=(4,))
    asked.append(("a", np.ones((1, 3), np.float32)))
    got, sizes, _ = answers(asked, limit=8)
    assert sorted(sizes) == [1, 1, 1, 1, 2]  # the first found the network idle
    for (signature, images), answer in zip(asked, got, strict=True):
        np.testing.assert_array_equal(answer["twice"], 2 * images)
        assert answer["twice"].dtype == images.dtype and answer["name"][0] == signature.encode()


def test_a_heavy_request_goes_alone_and_in_steps():
    first, heavy, *others = requests(1, 3, 1, 1)
    _, sizes, _ = answers([first, (*heavy, True), *others], limit=8)
    assert sorted(sizes) == [1, 2, 3]


@pytest.mark.parametrize("limit", [1, 8])
def test_heavy_requests_leave_a_thread_to_others(limit):
    network, ends = Network(), []

    async def ask():
        async def one(request, name):
            await batcher(network, *request)
            ends.append(name)

        with ThreadPoolExecutor(2) as pool:
            batcher = Batcher(pool, 2, limit)
            heavy = [one((*request, True), "heavy") for request in requests(2, 2, 2, 2)]
            await asyncio.gather(*heavy, one(requests(1)[0], "light"))

    asyncio.run(ask())
    assert ends.index("light") < 3


def test_a_refused_request_takes_no_other_with_it():
    asked = [*requests(1, 1, 2), ("a", np.array([[1, -1, 1]])), *requests(1)]
    got, sizes, _ = answers(asked, limit=8)
    assert isinstance(got[3], Refused) and got[3].reason == "negative"
    for i in (0, 1, 2, 4):
        np.testing.assert_array_equal(got[i]["twice"], 2 * asked[i][1])
    assert sorted(sizes) == [1, 1, 1, 1, 2, 5]


def test_a_bug_is_told_to_all_who_waited():
    got, _, _ = answers([*requests(1, 1), ("a", np.array([[99, 1, 1]]))], limit=8)
    assert isinstance(got[0], dict) and [str(answer) for answer in got[1:]] == ["a bug", "a bug"]


def test_requests_whose_time_is_over_are_not_computed():
    network = Network()

    async def ask():
        with ThreadPoolExecutor(1) as pool:
            batcher = Batcher(pool, 1, 8)
            first, late = (asyncio.create_task(batcher(network, *request)) for request in requests(1, 2))
            await asyncio.sleep(0)
            late.cancel()
            await first
            assert batcher.waiting == 0
            return await batcher(network, *requests(3)[0])

    assert len(asyncio.run(ask())["twice"]) == 3
    assert network.sizes == [1, 3]
