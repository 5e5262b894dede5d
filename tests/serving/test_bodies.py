"""The reader of bodies alone, without a server."""

import asyncio
import gzip
import random
from types import SimpleNamespace

import pytest

from allconv_resnet.serving.bodies import Bodies
from allconv_resnet.serving.deadlines import Deadlines
from allconv_resnet.serving.refused import Refused

MEGABYTES = 24
OPTIONS = SimpleNamespace(max_body_mb=MEGABYTES, body_seconds=30.0, max_buffered_mb=MEGABYTES)


def request(parts):
    async def stream():
        for part in parts:
            yield part

    return SimpleNamespace(headers={"content-encoding": "gzip"}, stream=stream)


async def read(parts, beside=None):
    """Returns the body of a gzipped request, and how often another task had its turn while it was unpacked."""
    bodies, turns = Bodies(OPTIONS, Deadlines()), 0

    async def count():
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    task = asyncio.create_task(count())
    try:
        async with bodies.read(request(parts)) as body:
            return body, turns
    finally:
        task.cancel()
        assert bodies.free == bodies.limit


def test_other_requests_go_on_while_a_body_is_unpacked():
    body, turns = asyncio.run(read([gzip.compress(b" " * MEGABYTES * 10**6)]))
    assert body == b" " * MEGABYTES * 10**6
    assert turns > MEGABYTES / 2


@pytest.mark.parametrize("size", [0, 1, 2**20 - 1, 2**20, 2**20 + 1, 3 * 2**20])
@pytest.mark.parametrize("part", [1000, 2**16, 2**24])
def test_unpacked_bodies_are_whole(size, part):
    plain = random.Random(size).randbytes(max(size // 4, 1)) * 4  # not all of it can be packed
    packed = gzip.compress(plain[:size])
    parts = [packed[start : start + part] for start in range(0, len(packed), part)]
    assert asyncio.run(read(parts))[0] == plain[:size]


def test_what_unpacks_to_more_than_the_limit_is_refused():
    with pytest.raises(Refused, match="at most"):
        asyncio.run(read([gzip.compress(b" " * (MEGABYTES * 10**6 + 1))]))
