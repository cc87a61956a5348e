"""The web application: pages, JSON, reports and the files beside them, behind the guard."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from threading import Timer

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp

from lorif_assets.explorer.explorer import Explorer
from lorif_assets.explorer.guard import Guard
from lorif_assets.explorer.json_api import json_routes
from lorif_assets.explorer.page_routes import error_page, page_routes
from lorif_assets.explorer.report_routes import report_routes
from lorif_assets.pages.explorer.page import STATIC, static_file

_WARM_AFTER_SECONDS = 2.0


def application(explorer: Explorer) -> ASGIApp:
    """Return the application of an explorer; soon after its start it loads the newest checkpoint in the background."""

    @asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        del app
        # The first page comes first: loading slows it down, and nobody asks a question of their own before they see one.
        warming = Timer(_WARM_AFTER_SECONDS, explorer.warm)
        warming.daemon = True
        warming.start()
        yield
        warming.cancel()
        explorer.answers.close()

    def failed(request: Request, error: Exception) -> Response:
        status = error.status_code if isinstance(error, HTTPException) else 500
        message = str(error.detail) if isinstance(error, HTTPException) else f"{type(error).__name__}: {error}"
        if request.url.path.startswith("/api/"):
            return JSONResponse({"error": {"kind": type(error).__name__, "message": message}}, status)
        return error_page(explorer, message, "All addresses of the explorer begin at its first page.", status)

    pages = Starlette(
        routes=[
            *page_routes(explorer),
            *json_routes(explorer),
            *report_routes(explorer),
            Route("/static/{name}", _static),
        ],
        exception_handlers={HTTPException: failed, Exception: failed},
        lifespan=lifespan,
    )
    # Around all of it: pages of errors are guarded too.
    return Guard(pages)


def _static(request: Request) -> Response:
    name = request.path_params["name"]
    if name not in STATIC:
        raise HTTPException(404, f"there is no file {name!r}")
    return Response(static_file(name), media_type=STATIC[name][1])
