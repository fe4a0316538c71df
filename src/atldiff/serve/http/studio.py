"""The studio: a page that uses the API, and the files it consists of."""

from functools import partial
from http import HTTPStatus
from pathlib import Path

from fastapi import FastAPI
from fastapi.responses import FileResponse

from atldiff.serve.problems import Problem

FILES = "/studio/"
"""Where the pages' files are; the pages themselves are at ``/`` and ``/live``."""

MODULE = "/atldiff-live.js"
"""Where the module is that puts a live face into any page of the service's origin."""

_FOLDER = Path(__file__).parents[1] / "page"
_ASSETS = Path(__file__).parents[2] / "assets"
_PAGES = {"/": "index.html", "/live": "live.html"}
_TYPES = {
    ".html": "text/html; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
    ".jpg": "image/jpeg",
    ".flac": "audio/flac",
}
_HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob:; "
    "media-src blob:; connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; "
    "require-trusted-types-for 'script'; trusted-types 'none'",
    "Permissions-Policy": "camera=(self), microphone=(self), geolocation=(), display-capture=()",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cache-Control": "no-cache",
}


def is_page(path: str) -> bool:
    """Whether a path is a page's or one of its files', which hold nothing private."""
    return path in _PAGES or path.startswith(FILES)


def add_module(app: FastAPI) -> None:
    """Add the module for live faces in other pages."""

    @app.get(MODULE, include_in_schema=False)
    def module() -> FileResponse:
        return _file(_FOLDER / MODULE.removeprefix("/"))


def add_page(app: FastAPI) -> None:
    """Add the pages, their scripts and styles, and the portrait, its expressions and the speech of the package."""
    examples = [_ASSETS / name for name in ("portrait.jpg", "expressions.jpg", "speech.flac")]
    files = {path.name: path for path in [*_FOLDER.iterdir(), *examples] if path.suffix in _TYPES}

    for path, name in _PAGES.items():
        app.get(path, include_in_schema=False)(partial(_file, files[name]))

    @app.get(FILES + "{name}", include_in_schema=False)
    def page_file(name: str) -> FileResponse:
        if name not in files:
            raise Problem(HTTPStatus.NOT_FOUND, "there is no such file")
        return _file(files[name])


def _file(path: Path) -> FileResponse:
    return FileResponse(path, media_type=_TYPES[path.suffix], headers=_HEADERS)
