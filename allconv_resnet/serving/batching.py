"""Batching of requests: what came while the network was computing goes through it together.

A request that finds the network idle starts at once, since it has nobody to wait for. The busier the network is, the
more requests come in the meantime, and the larger is the next batch.
"""

import asyncio
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

    Args:
        pool: `concurrent.futures.Executor`.
        calls: Integer, most batches that are computed at the same time.
        limit: Integer, most images in a batch of several requests. 1 turns batching off.
        seconds: Float, after which a batch begins no further call of the network.
        tell: Function that is called with a `Batch` after each.
    """

    def __init__(self, pool, calls=1, limit=1, seconds=float("inf"), tell=lambda event: None):
        self.pool, self.calls, self.limit, self.seconds, self.tell = pool, calls, limit, seconds, tell
        self._queue = deque()
        self._running = set()  # asyncio itself keeps no reference to its tasks

    @property
    def waiting(self):
        """The number of requests that wait for the network."""
        return len(self._queue)

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
        self._queue.append(request)
        self._start()
        return await request.answer

    def _start(self):
        while self._queue and len(self._running) < self.calls:
            task = asyncio.create_task(self._run(self._take()))
            self._running.add(task)
            task.add_done_callback(self._finished)

    def _finished(self, task):
        self._running.discard(task)
        self._start()

    def _take(self):
        """Returns the request that has waited for longest, with those that can be computed with it."""
        first, *others = self._queue
        batch, count = [first], len(first.images)
        for request in others:
            fits = count + len(request.images) <= self.limit
            if fits and request.key == first.key and not (request.alone or first.alone):
                batch.append(request)
                count += len(request.images)
        taken = set(map(id, batch))
        self._queue = deque(request for request in others if id(request) not in taken)
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
