"""What the routes of the server share: the models, the limits, and the way from a body to the network's answer."""

import asyncio
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from allconv_resnet.errors import BadInput
from allconv_resnet.serving.batching import Batcher
from allconv_resnet.serving.bodies import Bodies
from allconv_resnet.serving.deadlines import Deadlines
from allconv_resnet.serving.encoded import inspect
from allconv_resnet.serving.refused import Refused
from allconv_resnet.serving.savedmodel import image_name

SMALL = 2**16  # bytes of a body, or numbers of an answer, that need no thread: it would take longer to begin
HEAVY = 4e6  # pixels of encoded images of a request that others should not wait for


class Service:
    """What every route of the server is given.

    Args:
        models: `Models`.
        options: `ServeOptions`.

    Attributes:
        listeners: List of functions that are called with each event of `allconv_resnet.serving.events`.
        batcher: `Batcher`, which knows how many requests wait for the network.
        deadlines: `Deadlines`, which know how many requests are in progress.
    """

    def __init__(self, models, options):
        self.models, self.options, self.listeners = models, options, []
        self.deadlines = Deadlines()
        self.bodies = Bodies(options, self.deadlines)
        # One thread parses bodies, so that the memory of one parse is the memory of all.
        self._parsing = ThreadPoolExecutor(1, thread_name_prefix="parse")
        self._computing = ThreadPoolExecutor(options.threads, thread_name_prefix="predict")
        seconds = options.predict_seconds
        self.batcher = Batcher(self._computing, options.threads, options.batch, seconds, self.tell)

    def tell(self, event):
        """Tells an event to all listeners."""
        for listener in self.listeners:
            listener(event)

    def find(self, request):
        """Returns the `SavedModel` that the path of a request names, see `Models.find`."""
        path = request.path_params
        model = self.models.find(path["name"], path.get("version"), path.get("label"))
        note(request, model=model.name, version=model.version)
        return model

    async def answer(self, request, parse, encode):
        """Returns the body of the answer to a request for predictions.

        Args:
            request: Starlette `Request`.
            parse: Function (body, model) -> an object with the attributes `signature` and `images`.
            encode: Function (outputs, parsed, model) -> bytes.

        Raises:
            Refused: if there is no such model, or the body or the images are refused.
        """
        model = self.find(request)
        async with self.bodies.read(request) as body:
            note(request, received=len(body))
            async with self._time():
                parsed = await self.in_thread(len(body) > SMALL, parse, body, model)
                note(request, images=len(parsed.images))
                outputs = await self._compute(model, parsed.signature, parsed.images)
                size = sum(value.size for value in outputs.values())
                return await self.in_thread(size > SMALL, encode, outputs, parsed, model)

    async def compute(self, model, signature, images):
        """Returns the network's outputs for images, within the time that a request has.

        Args:
            model: `SavedModel`.
            signature: String, name of the signature.
            images: Array `[n, ...]` as the signature takes it.

        Raises:
            Refused: if the images are refused or need too much time, or the network's answer is not finite.
        """
        async with self._time():
            return await self._compute(model, signature, images)

    def _time(self):
        seconds = self.options.predict_seconds
        return self.deadlines.within(
            seconds, Refused(413, f"The request needs more than the {seconds:g} s that a request has")
        )

    async def _compute(self, model, signature, images):
        alone = False
        if images.dtype == object:
            size = sum(map(len, images))
            alone = await self.in_thread(size > SMALL, self._check_files, images) > HEAVY
        outputs = await self.batcher(model, signature, images, alone)
        # JSON has no such numbers, and the most probable class of an answer that is not a number means nothing.
        if not all(np.isfinite(value).all() for value in outputs.values() if value.dtype.kind == "f"):
            raise Refused(400, "The network's answer for these pixels is not finite")
        return outputs

    def _check_files(self, images):
        """Returns what decoding files costs, in pixels."""
        cost = 0
        for i, content in enumerate(images):
            try:
                cost += inspect(content, image_name(i, len(images))).cost
            except BadInput as error:
                raise Refused(400, str(error)) from error
        if cost > self.options.max_megapixels * 1e6:
            most = f"{self.options.max_megapixels:g} million"
            received = f"{cost / 1e6:,.1f} million, where ten scans of a progressive JPEG count once"
            raise Refused(413, f"All images of a request must have at most {most} pixels. Received: {received}")
        return cost

    async def in_thread(self, needed, function, *arguments):
        """Returns what a function returns, which runs in the thread that parses bodies if `needed`, or else at once."""
        if not needed:
            return function(*arguments)
        return await asyncio.get_running_loop().run_in_executor(self._parsing, function, *arguments)


def note(request, **known):
    """Keeps what becomes known about a request, for the event when it is finished."""
    request.scope.setdefault("known", {}).update(known)
