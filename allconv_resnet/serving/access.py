"""Who may ask the server: API keys."""

import hmac
from pathlib import Path

from starlette.responses import JSONResponse

from allconv_resnet.errors import BadInput


def read_keys(path):
    """Returns the keys in a file, one a line, as a list of bytes.

    Args:
        path: Path.

    Raises:
        BadInput: if the file cannot be read, or has no key.
    """
    try:
        lines = Path(path).read_bytes().splitlines()
    except OSError as error:
        raise BadInput(f"The file of API keys {path} cannot be read: {error.strerror}") from error
    keys = [line.strip() for line in lines if line.strip()]
    if not keys:
        raise BadInput(f"The file of API keys {path} must have a key, one a line. Received: none")
    return keys


class Keys:
    """ASGI middleware that answers 401 to requests without one of the keys, before their bodies are read.

    Args:
        app: ASGI application.
        keys: List of bytes.
        open_paths: Collection of paths that need no key.
    """

    def __init__(self, app, keys, open_paths):
        self.app, self.keys, self.open_paths = app, keys, open_paths

    async def __call__(self, scope, receive, send):
        if scope["type"] != "http" or scope["path"] in self.open_paths or self._known(scope["headers"]):
            return await self.app(scope, receive, send)
        reason = 'The request needs the header "Authorization: Bearer KEY" with a key that the server knows'
        headers = {"WWW-Authenticate": "Bearer"}
        await JSONResponse({"error": reason}, status_code=401, headers=headers)(scope, receive, send)

    def _known(self, headers):
        return is_known(b"".join(value for name, value in headers if name == b"authorization"), self.keys)


def is_known(authorization, keys):
    """Returns whether the bytes of an authorization header are `Bearer KEY` with one of the keys."""
    is_bearer = authorization[:7].lower() == b"bearer "  # HTTP does not distinguish capitals here
    given = authorization[7 if is_bearer else 0 :].strip()
    return sum(hmac.compare_digest(given, key) for key in keys) > 0  # all, so that the time tells nothing
