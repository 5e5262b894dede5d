"""Batching of requests: what came while the network was computing goes through it together.

A request that finds the network idle starts at once, since it has nobody to wait for. The busier the network is, the
more requests come in the meantime, and the larger is the next batch.
"""

import asyncio
import functools
import time
from collections import deque
from dataclasses import dataclass, field

import numpy as np

from allconv_resnet.serving.events import Batch
from allconv_resnet.serving.refused import Refused


class Batcher:
    """Runs requests as soon as the network is free, those that waited together.

    A batch has images of one model, signature, size and dtype. If a batch is refused, its requests are run one by one,
    so that a bad request does not make others fail.

    If requests are batched, one batch is computed at a time, which is faster than two of half the size. Requests with
    large images have threads of their own, of which one is left to all others, if there are several.

    Args:
        pool: `concurrent.futures.Executor` with as many threads as `calls`.
        calls: Integer, most calls of the network at the same time.
        limit: Integer, most images in a batch of several requests. 1 turns batching off.
        seconds: Float, after which a batch begins no further call of the network.
        tell: Function that is called with a `Batch` after each.
    """

    def __init__(self, pool, calls=1, limit=1, seconds=float("inf"), tell=lambda event: None):
        self.pool, self.limit, self.seconds, self.tell = pool, limit, seconds, tell
        self._light, self._heavy = _Lane(calls if limit == 1 else 1), _Lane(max(1, calls - 1))

    @property
    def waiting(self):
        """The number of requests that wait for the network."""
        return len(self._light.queue) + len(self._heavy.queue)

    async def __call__(self, model, signature, images, alone=False):
        """Returns the outputs of a model for the images of one request.

        Args:
            model: Function (signature, images, **{}) -> dictionary of arrays `[n, ...]`, such as a `SavedModel`. It is
                called in the pool, and may raise `Refused`.
            signature: String, name of the signature.
            images: Array `[n, ...]`.
            alone: Boolean. If true the images go through the network one by one, and with no other request.

        Returns:
            Dictionary of arrays `[n, ...]`.

        Raises:
            Refused: if the model refuses these images.
        """
        request = _Request(model, signature, images, alone)
        lane = self._heavy if alone else self._light
        lane.queue.append(request)
        self._start(lane)
        return await request.answer

    def _start(self, lane):
        while lane.queue and len(lane.running) < lane.calls:
            task = asyncio.create_task(self._run(self._take(lane)))
            lane.running.add(task)
            task.add_done_callback(functools.partial(self._finished, lane))

    def _finished(self, lane, task):
        lane.running.discard(task)
        self._start(lane)

    def _take(self, lane):
        """Returns the request that has waited for longest, with those that can be computed with it."""
        first, *others = lane.queue
        batch, count = [first], len(first.images)
        for request in others:
            fits = count + len(request.images) <= self.limit
            if fits and request.key == first.key and not first.alone:
                batch.append(request)
                count += len(request.images)
        taken = set(map(id, batch))
        lane.queue = deque(request for request in others if id(request) not in taken)
        return batch

    async def _run(self, batch):
        batch = [request for request in batch if not request.answer.done()]  # the others' time was over
        if not batch:
            return
        first = batch[0]
        try:
            outputs = await self._call(first, [request.images for request in batch], batch)
        except Refused as error:
            if len(batch) == 1:
                return first.finish(error)
            for request in batch:
                await self._run([request])
        except Exception as error:
            for request in batch:
                request.finish(error)
        else:
            start = 0
            for request in batch:
                end = start + len(request.images)
                request.finish({name: value[start:end] for name, value in outputs.items()})
                start = end

    async def _call(self, first, images, batch):
        images = images[0] if len(images) == 1 else np.concatenate(images)
        began = time.monotonic()
        step = {"step": 1} if first.alone else {}

        def run():
            return first.model(first.signature, images, until=began + self.seconds, **step)

        try:
            return await asyncio.get_running_loop().run_in_executor(self.pool, run)
        finally:
            waited = began - min(request.came for request in batch)
            took = time.monotonic() - began
            self.tell(Batch(getattr(first.model, "name", ""), first.signature, len(images), len(batch), waited, took))


class _Lane:
    """Requests that wait, and the calls that are being computed for others."""

    def __init__(self, calls):
        self.calls, self.queue = calls, deque()
        self.running = set()  # asyncio itself keeps no reference to its tasks


@dataclass
class _Request:
    model: object
    signature: str
    images: np.ndarray
    alone: bool
    answer: asyncio.Future = field(default_factory=lambda: asyncio.get_running_loop().create_future())
    came: float = field(default_factory=time.monotonic)

    @property
    def key(self):
        return (id(self.model), self.signature, self.images.shape[1:], self.images.dtype)

    def finish(self, result):
        if self.answer.done():  # the request's time is over
            return
        if isinstance(result, Exception):
            self.answer.set_exception(result)
        else:
            self.answer.set_result(result)
