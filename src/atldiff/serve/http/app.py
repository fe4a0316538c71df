"""The ASGI application."""

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from http import HTTPStatus
from typing import Any

from fastapi import FastAPI, Request
from fastapi.concurrency import run_in_threadpool
from fastapi.exceptions import RequestValidationError
from fastapi.responses import HTMLResponse, JSONResponse
from starlette.exceptions import HTTPException
from starlette.routing import Match, Route
from starlette.types import ASGIApp

from atldiff._version import __version__
from atldiff.serve.http.guard import Guard
from atldiff.serve.http.reference import reference_page
from atldiff.serve.http.routes import router
from atldiff.serve.http.schemas import ProblemBody
from atldiff.serve.http.service import Service
from atldiff.serve.http.studio import add_module, add_page
from atldiff.serve.http.videos import router as videos_router
from atldiff.serve.problems import MEDIA_TYPE, Problem, problem_of
from atldiff.serve.settings import ServeSettings

_ABOUT = """\
A portrait and a speech recording in, a video of that person saying it out.

Errors are problem details (RFC 9457) with the field at fault. A live session, `WS /v1/live`, takes sound
while it is being spoken; docs/service.md says how. Make people say only what they agreed to have said.
"""

_log = logging.getLogger("atldiff")


def create_app(settings: ServeSettings, ending: asyncio.Event | None = None) -> ASGIApp:
    """The service as an ASGI application; its lifespan starts and ends the worker processes.

    Args:
        settings: of the service.
        ending: is set when the service begins to end: who waits for something is then told so at once.

    Raises:
        InputError: another service works in the data folder, or it cannot be written to.
    """
    service = Service(settings)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        service.start()
        try:
            yield
        finally:
            if service.webrtc is not None:
                await service.webrtc.close()
            await run_in_threadpool(service.stop)

    app = FastAPI(
        title="ATL-Diff",
        version=__version__,
        description=_ABOUT,
        lifespan=lifespan,
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
    )
    app.state.service, app.state.ending = service, ending or asyncio.Event()
    app.include_router(router)
    _add_reference(app, bool(settings.tokens))
    add_module(app)
    if settings.studio:
        add_page(app)
    for kind, handler in (
        (Problem, _on_problem),
        (RequestValidationError, _on_invalid),
        (HTTPException, _on_http_error),
        (Exception, _on_fault),
    ):
        app.add_exception_handler(kind, handler)
    return Guard(app, settings, service.metrics)


def _add_reference(app: FastAPI, has_tokens: bool) -> None:
    """The OpenAPI description, completed, and a page that shows it."""
    plain = app.openapi

    def openapi() -> dict[str, Any]:
        if app.openapi_schema is None:
            schema = plain()
            parts = schema.setdefault("components", {}).setdefault("schemas", {})
            parts["ProblemBody"] = ProblemBody.model_json_schema()
            parts.pop("HTTPValidationError", None)
            parts.pop("ValidationError", None)
            if has_tokens:
                schema["components"]["securitySchemes"] = {"token": {"type": "http", "scheme": "bearer"}}
                schema["security"] = [{"token": []}]
                schema["paths"]["/health"]["get"]["security"] = []
            for path in schema["paths"].values():
                for operation in path.values():
                    if not has_tokens or operation.get("security") == []:
                        operation["responses"].pop("401", None)
            app.openapi_schema = schema
        return app.openapi_schema

    app.openapi = openapi

    @app.get("/docs", include_in_schema=False)
    def docs() -> HTMLResponse:
        return HTMLResponse(reference_page(openapi()))


def _answer(problem: Problem) -> JSONResponse:
    return JSONResponse(problem.body(), problem.status, media_type=MEDIA_TYPE, headers=problem.headers)


async def _on_problem(_: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, Problem)
    if error.log:
        _log.warning("request failed: %s", error.log)
    return _answer(error)


async def _on_invalid(_: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, RequestValidationError)
    fault = error.errors()[0]
    return _answer(Problem(HTTPStatus.UNPROCESSABLE_ENTITY, str(fault["msg"]), str(fault["loc"][-1])))


async def _on_http_error(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, HTTPException)
    headers = dict(error.headers or {})
    if error.status_code == HTTPStatus.METHOD_NOT_ALLOWED:
        headers["Allow"] = ", ".join(_methods(request))
    return _answer(Problem(error.status_code, str(error.detail), headers=headers))


def _methods(request: Request) -> list[str]:
    """What may be done to the address of a request; the guard answers HEAD where there is a GET."""
    routes = [
        route for route in [*request.app.routes, *router.routes, *videos_router.routes] if isinstance(route, Route)
    ]
    fitting = [route for route in routes if route.matches(request.scope)[0] != Match.NONE]
    methods = {method for route in fitting for method in route.methods or ()}
    return sorted(methods | {"HEAD"} if "GET" in methods else methods)


async def _on_fault(_: Request, error: Exception) -> JSONResponse:
    problem = problem_of(error)
    _log.error("request failed: %s", problem.log or problem)
    return _answer(problem)
