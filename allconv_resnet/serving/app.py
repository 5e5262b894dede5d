"""The server's addresses as one ASGI application.

Each module of `ROUTES` has a function `routes(service)`, which returns a list of Starlette routes. If it has `OPEN`,
the paths in it need no API key. To add an address, write such a module and add it to `ROUTES`.
"""

import sys
import time
import traceback

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.middleware.cors import CORSMiddleware
from starlette.responses import JSONResponse

from allconv_resnet.serving import kserve, metrics, page, rest
from allconv_resnet.serving.access import Keys, read_keys
from allconv_resnet.serving.refused import Refused
from allconv_resnet.serving.watching import Watched

ROUTES = (rest, kserve, page, metrics)
TRACEBACK_SECONDS = 10.0  # between two tracebacks, so that no client can fill the disk with them


def application(service):
    """Returns the Starlette application.

    Args:
        service: `Service`.

    Raises:
        BadInput: if the file of API keys cannot be read.
    """
    options = service.options
    middleware = [Middleware(Watched, service=service)]
    if options.cors:
        methods, headers = ["GET", "POST"], ["*"]
        cors = {"allow_origins": options.cors, "allow_methods": methods, "allow_headers": headers}
        middleware.append(Middleware(CORSMiddleware, **cors, expose_headers=[kserve.binary.HEADER]))
    if options.api_key_file:
        open_paths = {path for module in ROUTES for path in getattr(module, "OPEN", ())}
        middleware.append(Middleware(Keys, keys=read_keys(options.api_key_file), open_paths=open_paths))
    handlers = {Refused: _refused, HTTPException: _no_such_address, Exception: _Failed()}
    routes = [route for module in ROUTES for route in module.routes(service)]
    app = Starlette(routes=routes, middleware=middleware, exception_handlers=handlers)
    app.router.redirect_slashes = False  # it would send clients to whatever host their header names
    return app


async def _refused(_, error):
    return JSONResponse({"error": error.reason}, status_code=error.status, headers=error.headers)


async def _no_such_address(request, error):
    where = "/v1/models/NAME, and the same with :predict or /metadata, and /v2"
    text = f"{error.detail}: {request.method} {request.url.path[:200]}. The addresses are {where}"
    return JSONResponse({"error": text}, status_code=error.status_code, headers=error.headers)


class _Failed:
    def __init__(self):
        self.last = -TRACEBACK_SECONDS

    async def __call__(self, _, error):
        if time.monotonic() - self.last >= TRACEBACK_SECONDS:
            self.last = time.monotonic()
            traceback.print_exception(error, file=sys.stderr)
        return JSONResponse({"error": f"The server failed: {type(error).__name__}"}, status_code=500)
