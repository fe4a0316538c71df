"""The studio: a page that uses the API, and the files it consists of."""

from http import HTTPStatus
from pathlib import Path

from fastapi import FastAPI
from fastapi.responses import FileResponse

from atldiff.serve.problems import Problem

FILES = "/studio/"
"""Where the page's files are; the page itself is at ``/``."""

_FOLDER = Path(__file__).parent / "page"
_ASSETS = Path(__file__).parents[1] / "assets"
_INDEX = "index.html"
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
    """Whether a path is the page's or one of its files', which hold nothing private."""
    return path == "/" or path.startswith(FILES)


def add_page(app: FastAPI) -> None:
    """Add the page, its scripts and styles, and the portrait and the speech of the package as examples."""
    examples = [_ASSETS / "portrait.jpg", _ASSETS / "speech.flac"]
    files = {path.name: path for path in [*_FOLDER.iterdir(), *examples] if path.suffix in _TYPES}

    @app.get("/", include_in_schema=False)
    def page() -> FileResponse:
        return _file(files[_INDEX])

    @app.get(FILES + "{name}", include_in_schema=False)
    def page_file(name: str) -> FileResponse:
        if name not in files:
            raise Problem(HTTPStatus.NOT_FOUND, "there is no such file")
        return _file(files[name])


def _file(path: Path) -> FileResponse:
    return FileResponse(path, media_type=_TYPES[path.suffix], headers=_HEADERS)
