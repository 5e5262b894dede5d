"""Batching of requests: the images of several requests go through the network together."""

import asyncio

import numpy as np

from allconv_resnet.serving.protocol import Refused


class Batcher:
    """Gathers requests until they have `limit` images, or the first has waited `wait` seconds.

    A batch has images of one signature, size and dtype. If a batch is refused, its requests are run one by one, so that
    a bad request does not make others fail.

    Args:
        run: Function (signature, images) -> dictionary of arrays `[n, ...]`, called in the pool. May raise `Refused`.
        pool: `concurrent.futures.Executor`.
        limit: Integer, number of images of a full batch. A request with as many images or more is a batch by itself,
            so 1 turns batching off.
        wait: Float, seconds that the first request of a batch waits at most.
    """

    def __init__(self, run, pool, limit=1, wait=0.0):
        self.run, self.pool, self.limit, self.wait = run, pool, limit, wait
        self._open = {}  # the batches that are being gathered
        self._running = set()  # asyncio itself keeps no reference to its tasks

    async def __call__(self, signature, images):
        """Returns the outputs of `run` for the images of one request.

        Args:
            signature: String, name of the signature.
            images: Array `[n, ...]`.

        Returns:
            Dictionary of arrays `[n, ...]`.

        Raises:
            Refused: if `run` refuses these images.
        """
        if len(images) >= self.limit:
            return await self._call(signature, images)
        key = (signature, images.shape[1:], images.dtype)
        batch = self._open.get(key)
        if batch and batch.count + len(images) > self.limit:
            self._close(key, batch)
            batch = None
        if batch is None:
            batch = self._open[key] = _Batch()
            batch.timer = asyncio.get_running_loop().call_later(self.wait, self._close, key, batch)
        answer = batch.add(images)
        if batch.count == self.limit:
            self._close(key, batch)
        return await answer

    def _close(self, key, batch):
        batch.timer.cancel()
        if self._open.get(key) is batch:
            del self._open[key]
            task = asyncio.create_task(self._finish(key[0], batch))
            self._running.add(task)
            task.add_done_callback(self._running.discard)

    async def _finish(self, signature, batch):
        try:
            outputs = await self._call(signature, np.concatenate(batch.images))
        except Refused as error:
            if len(batch.images) == 1:
                return batch.answer(0, error)
            return await asyncio.gather(*(self._alone(signature, batch, i) for i in range(len(batch.images))))
        except Exception as error:
            for i in range(len(batch.images)):
                batch.answer(i, error)
            raise
        first = 0
        for i, images in enumerate(batch.images):
            batch.answer(i, {name: value[first : first + len(images)] for name, value in outputs.items()})
            first += len(images)

    async def _alone(self, signature, batch, i):
        try:
            batch.answer(i, await self._call(signature, batch.images[i]))
        except Exception as error:
            batch.answer(i, error)

    async def _call(self, signature, images):
        return await asyncio.get_running_loop().run_in_executor(self.pool, self.run, signature, images)


class _Batch:
    def __init__(self):
        self.images, self.answers, self.count, self.timer = [], [], 0, None

    def add(self, images):
        self.images.append(images)
        self.answers.append(asyncio.get_running_loop().create_future())
        self.count += len(images)
        return self.answers[-1]

    def answer(self, i, result):
        future = self.answers[i]
        if future.done():  # the client has disconnected
            return
        if isinstance(result, Exception):
            future.set_exception(result)
        else:
            future.set_result(result)
