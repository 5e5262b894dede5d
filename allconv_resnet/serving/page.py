"""The pages of the server for people: images and their classes at `/`, and the API's documentation at `/docs`.

Everything is served from here, so that both pages work without any other host.
"""

from importlib import resources
from pathlib import Path

from markdown_it import MarkdownIt
from starlette.responses import FileResponse, JSONResponse
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles

from allconv_resnet.serving.card import CARD, LABELS
from allconv_resnet.serving.openapi import description

STATIC = Path(__file__).parent / "static"
OWN = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob:; connect-src 'self'; media-src blob:"
)
ELSEWHERE = "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
# Swagger UI sets styles in its elements and has its icons in data addresses.
SWAGGER = (
    "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data:; connect-src 'self'"
)


def page_routes(models):
    """Returns the routes of both pages.

    Args:
        models: Function without arguments that returns the versions that are served now, as a list of pairs: the name
            of the model, and an object with the attributes `version` (string), `directory` (path of the SavedModel),
            `signatures` and `outputs`, as `server.SavedModel` has them.

    Returns:
        List of Starlette's routes: `/`, `/page/models.json`, `/docs`, `/openapi.json`, and the files of both pages.
    """

    async def index(_):
        return _file("index.html", OWN)

    async def docs(_):
        return _file("docs.html", SWAGGER)

    async def shown(_):
        return JSONResponse([describe(name, model) for name, model in models()])

    async def openapi(_):
        return JSONResponse(description(models()))

    swagger = resources.files("swagger_ui") / "static"
    return [
        Route("/", index),
        Route("/page/models.json", shown),
        Route("/docs", docs),
        Route("/openapi.json", openapi),
        Mount("/static", StaticFiles(directory=STATIC)),
        Mount("/swagger-ui", StaticFiles(directory=str(swagger))),
    ]


def describe(name, model):
    """Returns what the page shows of a model, as a dictionary.

    Args:
        name: String, the name of the model in addresses.
        model: See `page_routes`.
    """
    card, labels = (_text(Path(model.directory) / file) for file in (CARD, LABELS))
    title = card.partition("\n")[0].removeprefix("# ").strip() or name
    classes = model.outputs["serve_bytes"]["logits"].shape[-1]
    html = MarkdownIt("commonmark", {"html": False}).enable("table").render(card.partition("\n")[2])
    return {
        "name": name,
        "version": model.version,
        "title": title,
        "classes": classes,
        "labels": labels.splitlines(),
        "card": html if card else "",
    }


def _text(path):
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):  # a SavedModel of another program has neither a card nor labels
        return ""


def _file(name, policy):
    headers = {
        "Content-Security-Policy": f"{policy}; {ELSEWHERE}",
        "Cache-Control": "no-cache",
        "X-Content-Type-Options": "nosniff",
        "Referrer-Policy": "no-referrer",
    }
    return FileResponse(STATIC / name, headers=headers, media_type="text/html; charset=utf-8")
