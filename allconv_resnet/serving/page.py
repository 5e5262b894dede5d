"""The pages of the server for people: images and their classes at `/`, and the API's documentation at `/docs`.

Everything is served from here, so that both pages work without any other host.
"""

from importlib import resources
from pathlib import Path

from markdown_it import MarkdownIt
from starlette.responses import FileResponse, JSONResponse
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles

from allconv_resnet.serving.card import CARD
from allconv_resnet.serving.openapi import description

STATIC = Path(__file__).parent / "static"
SWAGGER_UI = Path(str(resources.files("swagger_ui") / "static"))
OPEN = (  # what a browser needs before it can ask for the API key
    "/",
    "/docs",
    *(f"/static/{path.name}" for path in STATIC.iterdir()),
    *(f"/swagger-ui/{name}" for name in ("swagger-ui.css", "swagger-ui-bundle.js")),
)
OWN = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob:; connect-src 'self'; media-src blob:"
)
ELSEWHERE = "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
# Swagger UI sets styles in its elements and has its icons in data addresses.
SWAGGER = (
    "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data:; connect-src 'self'"
)


def routes(service):
    """Returns the routes.

    Args:
        service: `Service`.
    """

    async def index(_):
        return _file("index.html", OWN)

    async def docs(_):
        return _file("docs.html", SWAGGER)

    async def shown(_):
        return JSONResponse([describe(model) for model in service.models.loaded])

    async def openapi(_):
        return JSONResponse(description(service.models.loaded))

    return [
        Route("/", index),
        Route("/page/models.json", shown),
        Route("/docs", docs),
        Route("/openapi.json", openapi),
        Mount("/static", StaticFiles(directory=STATIC)),
        Mount("/swagger-ui", StaticFiles(directory=SWAGGER_UI)),
    ]


def describe(model):
    """Returns what the page shows of a model, as a dictionary.

    Args:
        model: `SavedModel`.
    """
    card = _text(Path(model.directory) / CARD)
    title = card.partition("\n")[0].removeprefix("# ").strip() or model.name
    html = MarkdownIt("commonmark", {"html": False}).enable("table").render(card.partition("\n")[2])
    return {
        "name": model.name,
        "version": str(model.version),
        "title": title,
        "signature": model.files_signature(),
        "card": html if card else "",
    }


def _text(path):
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):  # a SavedModel of another program has no card
        return ""


def _file(name, policy):
    headers = {
        "Content-Security-Policy": f"{policy}; {ELSEWHERE}",
        "Cache-Control": "no-cache",
        "X-Content-Type-Options": "nosniff",
        "Referrer-Policy": "no-referrer",
    }
    return FileResponse(STATIC / name, headers=headers, media_type="text/html; charset=utf-8")
