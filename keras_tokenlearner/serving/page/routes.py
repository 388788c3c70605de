from importlib import resources
from typing import TYPE_CHECKING

from keras_tokenlearner.serving.guard import PICTURE_PATH, in_time
from keras_tokenlearner.serving.page.answers import PageModel

if TYPE_CHECKING:
    from starlette.routing import Route

# Addresses of the files, and their types. Addresses in the files are relative, so that a proxy may
# serve the page under a path.
FILES = {
    "/": ("index.html", "text/html; charset=utf-8"),
    "/page/page.css": ("page.css", "text/css; charset=utf-8"),
    "/page/page.js": ("page.js", "text/javascript; charset=utf-8"),
    "/page/maps.js": ("maps.js", "text/javascript; charset=utf-8"),
    "/page/icon.svg": ("icon.svg", "image/svg+xml"),
}
# Browsers load nothing from other servers, run no code from strings, and show the page in no frame.
HEADERS = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; "
        "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; "
        "require-trusted-types-for 'script'; trusted-types 'none'"
    ),
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(self), microphone=(), geolocation=()",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "Cache-Control": "no-cache",
}


def page_routes(page: PageModel) -> "list[Route]":
    """Return the HTTP routes of the demo page: files, facts about the model, and predictions.

    * `GET /`: the page.
    * `GET /page/about`: facts about the model, as `About`.
    * `POST /page/answer?tokens=8`: the predictions for the image file in the body, as
      `Classified`.

    Args:
        page: A `PageModel`.
    """
    from starlette.requests import Request
    from starlette.responses import JSONResponse, Response
    from starlette.routing import Route

    folder = resources.files("keras_tokenlearner.serving.page") / "files"

    def file(path: str, name: str, kind: str) -> Route:
        content = (folder / name).read_bytes()

        async def send(request: Request) -> Response:
            return Response(content, headers={**HEADERS, "Content-Type": kind})

        return Route(path, send)

    async def about(request: Request) -> Response:
        return JSONResponse(page.about, headers=HEADERS)

    async def answer(request: Request) -> Response:
        kind = request.headers.get("content-type", "")
        # Browsers let other sites post text and forms without permission, but not the types below.
        if not kind.startswith(("image/", "application/octet-stream")):
            reason = f"Content-Type must be image/* or application/octet-stream; got {kind[:80]!r}"
            return JSONResponse({"error": reason}, 415, headers=HEADERS)
        try:
            tokens = _tokens(request.query_params.get("tokens"))
            content = await request.body()
            async with in_time():
                found = await page.classify(content, tokens)
        except ValueError as error:
            return JSONResponse({"error": str(error)}, 400, headers=HEADERS)
        except TimeoutError as error:
            return JSONResponse({"error": str(error)}, 503, headers=HEADERS)
        return JSONResponse(found, headers=HEADERS)

    return [
        *(file(path, *found) for path, found in FILES.items()),
        Route("/page/about", about),
        Route(PICTURE_PATH, answer, methods=["POST"]),
    ]


def _tokens(text: str | None) -> int | None:
    if text is None:
        return None
    if not (text.isascii() and text.isdecimal() and len(text) < 6):
        raise ValueError(
            f"`tokens` must be an integer from 1 to 99999. Received: tokens={text[:20]!r}"
        )
    return int(text)
