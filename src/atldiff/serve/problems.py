"""What the service says when something goes wrong: problem details (RFC 9457)."""

import traceback
from collections.abc import Mapping
from http import HTTPStatus
from pathlib import Path
from typing import Any

from atldiff.errors import InputError, OutputError

MEDIA_TYPE = "application/problem+json"


class Problem(Exception):
    """An answer with an error status.

    Attributes:
        status: of HTTP.
        detail: what came and what was expected.
        field: of the request that is at fault, where one is.
        headers: of the answer, besides.
        log: for the service's own log.
    """

    def __init__(
        self,
        status: int,
        detail: str,
        field: str | None = None,
        headers: Mapping[str, str] | None = None,
        log: str = "",
    ) -> None:
        super().__init__(detail)
        self.status, self.detail, self.field, self.log = status, detail, field, log
        self.headers = dict(headers or {})

    def __reduce__(self) -> tuple[Any, ...]:
        return Problem, (self.status, self.detail, self.field, self.headers, self.log)

    def body(self) -> dict[str, Any]:
        """The JSON object of the answer."""
        body: dict[str, Any] = {"type": "about:blank", "title": HTTPStatus(self.status).phrase, "status": self.status}
        body["detail"] = self.detail
        return body if self.field is None else body | {"field": self.field}


def problem_of(error: BaseException, field: str | None = None, names: Mapping[Path, str] | None = None) -> Problem:
    """What an error in a worker means for the caller.

    Args:
        field: at fault where the error is the caller's.
        names: what to call the service's own files.
    """
    text = str(error)
    for path, name in (names or {}).items():
        text = text.replace(str(path), name)
    if isinstance(error, Problem):
        return error
    if isinstance(error, OutputError):
        return Problem(HTTPStatus.INSUFFICIENT_STORAGE, "the video could not be written", log=text)
    if isinstance(error, InputError):
        return Problem(HTTPStatus.UNPROCESSABLE_ENTITY, text, field)
    if isinstance(error, MemoryError):
        return Problem(HTTPStatus.INTERNAL_SERVER_ERROR, "the work needed more memory than there is")
    last = traceback.extract_tb(error.__traceback__)[-1:]
    place = "".join(f" at {Path(frame.filename).name}:{frame.lineno}" for frame in last)
    return Problem(HTTPStatus.INTERNAL_SERVER_ERROR, "the service failed at this", log=type(error).__name__ + place)
