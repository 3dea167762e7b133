"""The server: everything opened, all routes put together, and the guards around them."""

import contextlib
import importlib
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

from fastapi import FastAPI
from fastapi.responses import FileResponse, HTMLResponse
from fastapi.staticfiles import StaticFiles
from starlette.responses import Response
from starlette.types import Scope

from viewer.facts import own_version
from viewer.guards import Guards
from viewer.loginpage import STATIC, LoginPage
from viewer.replies import handle_errors
from viewer.routes_records import health
from viewer.settings import ServeConfig
from viewer.state import ServerState, open_state

ROUTERS = ("routes_images", "routes_questions", "routes_studies", "routes_collection", "routes_records")
"""Modules of the room, each with a `router`."""

_DESCRIPTION = (
    "Similar cases and what became of them. Programs show `Authorization: Bearer TOKEN`; pages that log in send the"
    " header `X-Mammoseek: 1` with every POST. Errors are `{error: {subject, cause, remedy}}`."
    " Not a medical device: for research, not for diagnosis."
)


class _PageFiles(StaticFiles):
    """The page's files: kept by browsers, and asked for again each time, since a new version may be there."""

    async def get_response(self, path: str, scope: Scope) -> Response:
        response = await super().get_response(path, scope)
        response.headers["cache-control"] = "private, no-cache"
        return response


def create_app(config: ServeConfig, say: Callable[[str], None] = lambda _: None) -> FastAPI:
    """Open everything that a configuration names, and return the app that serves it; its shutdown closes everything.

    Args:
        config: What is served, to whom, and how.
        say: Told what its user should know.

    Raises:
        MammoseekError: The gallery, a table, a folder or the records can't be used.
    """
    return build_app(open_state(config, say))


def build_app(state: ServerState) -> FastAPI:
    """Return the app that serves what is open."""

    @contextlib.asynccontextmanager
    async def lifespan(_app: FastAPI) -> AsyncIterator[None]:
        state.start()
        try:
            yield
        finally:
            state.close()

    app = FastAPI(
        title="mammoseek",
        version=own_version(),
        description=_DESCRIPTION,
        docs_url=None,
        redoc_url=None,
        lifespan=lifespan,
    )
    app.state.server = state
    handle_errors(app)
    for name in ROUTERS:
        app.include_router(importlib.import_module(f"viewer.{name}").router)
    # Balancers ask by HEAD whether the server lives; FastAPI, unlike Starlette, answers GET alone where that is named.
    app.add_api_route("/health", health, methods=["HEAD"], include_in_schema=False)
    _add_page(app)
    arguments: dict[str, Any] = {"config": state.config, "access": state.access, "measures": state.measures}
    app.add_middleware(Guards, **arguments)
    return app


def _add_page(app: FastAPI) -> None:
    login_page = LoginPage.read()

    @app.api_route("/", methods=["GET", "HEAD"], include_in_schema=False)
    def page() -> FileResponse:
        return _page_file("index.html")

    @app.get("/api", include_in_schema=False)
    def api_page() -> FileResponse:
        return _page_file("api.html")

    @app.get("/login.html", include_in_schema=False)
    def login_form() -> HTMLResponse:
        return HTMLResponse(login_page.body, headers={"content-security-policy": login_page.policy})

    app.mount("/static", _PageFiles(directory=STATIC), name="static")


def _page_file(name: str) -> FileResponse:
    return FileResponse(Path(STATIC, name), headers={"cache-control": "private, no-cache"})
