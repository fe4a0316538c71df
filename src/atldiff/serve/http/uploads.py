"""Uploads: multipart bodies read piece by piece, straight to files with names of our own."""

import asyncio
import contextlib
from collections.abc import Collection, Mapping
from http import HTTPStatus
from pathlib import Path
from typing import BinaryIO

from python_multipart import MultipartParser
from python_multipart.exceptions import FormParserError
from python_multipart.multipart import parse_options_header
from starlette.requests import ClientDisconnect, Request

from atldiff.serve.problems import Problem

MAX_VALUE_BYTES = 1000
"""Of an option; files may be as large as the whole request."""

MAX_TEXT_BYTES = 2**16
"""Of a text that stands in the place of a file."""

_MAX_HEADER_BYTES = 4096
_MAX_NAME = 80


async def read_upload(
    request: Request,
    folder: Path,
    files: Collection[str],
    fields: Collection[str],
    most: int,
    timeout_s: float,
    texts: Mapping[str, str] | None = None,
) -> dict[str, str]:
    """Write the files of a multipart/form-data body into ``folder`` under the names of their fields.

    Args:
        files: names of the parts that are files; all must be there, with something in them.
        fields: names of the parts that are texts.
        most: bytes of the whole body.
        timeout_s: for the whole body.
        texts: names of files in whose place a longer text may be, with its name.

    Returns:
        The texts by name.

    Raises:
        Problem: the body is too large (``field`` is the largest file so far, where one has begun), too slow, no form,
            or not the form that was expected.
    """
    stated = request.headers.get("content-length", "")
    if stated.isdecimal() and int(stated[:20]) > most:
        raise _too_large(most)
    texts = texts or {}
    parts = _Parts(folder, files, [*fields, *texts.values()], texts.values())
    parser = MultipartParser(_boundary(request), parts.callbacks(), max_header_size=_MAX_HEADER_BYTES)  # pyright: ignore
    try:
        async with asyncio.timeout(timeout_s):
            received = 0
            async for chunk in request.stream():
                received += len(chunk)
                if received > most:
                    raise _too_large(most, parts.largest_file())
                parser.write(chunk)
        parser.finalize()
    except TimeoutError as error:
        raise Problem(HTTPStatus.REQUEST_TIMEOUT, f"the body did not arrive within {timeout_s:g} s") from error
    except ClientDisconnect as error:
        raise Problem(HTTPStatus.BAD_REQUEST, "the connection was cut before the end of the body") from error
    except FormParserError as error:
        raise Problem(HTTPStatus.BAD_REQUEST, "the body is no multipart/form-data") from error
    finally:
        parts.close()
    if not parts.has_ended:
        raise Problem(HTTPStatus.BAD_REQUEST, "the body ends before its last boundary")
    _check_files(files, texts, parts.sizes)
    return parts.texts()


def _check_files(files: Collection[str], texts: Mapping[str, str], sizes: Mapping[str, int]) -> None:
    for name in files:
        text = texts.get(name, "")
        if sizes.get(name) and sizes.get(text):
            raise Problem(HTTPStatus.UNPROCESSABLE_ENTITY, f"got {name} and {text}; expected one of them", text)
        if not sizes.get(name) and not sizes.get(text):
            what = "is missing" if name not in sizes else "is empty"
            expected = f"a file, or a {text}" if text else "a file"
            raise Problem(HTTPStatus.UNPROCESSABLE_ENTITY, f"the {name} {what}; expected {expected}", name)


def _boundary(request: Request) -> bytes:
    kind, parameters = parse_options_header(request.headers.get("content-type", ""))
    if kind != b"multipart/form-data":
        got = kind.decode("latin-1")[:_MAX_NAME] or "no content type"
        raise Problem(HTTPStatus.UNSUPPORTED_MEDIA_TYPE, f"got {got}; expected multipart/form-data")
    boundary = parameters.get(b"boundary", b"")
    if not 1 <= len(boundary) <= 70:
        raise Problem(HTTPStatus.BAD_REQUEST, "the content type has no boundary of 1 to 70 characters")
    return boundary


def _too_large(most: int, field: str | None = None) -> Problem:
    limit = f"expected at most {most / 2**20:.4g} MiB in one request"
    return Problem(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, f"the upload is too large; {limit}", field)


class _Parts:
    """The parts of a body as the parser comes upon them."""

    def __init__(
        self, folder: Path, files: Collection[str], fields: Collection[str], long_fields: Collection[str]
    ) -> None:
        self.has_ended = False
        self.sizes: dict[str, int] = {}
        self._folder, self._files, self._fields, self._long_fields = folder, files, fields, long_fields
        self._values: dict[str, bytes] = {}
        self._name = ""
        self._header = self._content = b""
        self._disposition = b""
        self._open_file: BinaryIO | None = None

    def callbacks(self) -> dict[str, object]:
        return {
            "on_part_begin": self._begin,
            "on_header_field": self._header_field,
            "on_header_value": self._header_value,
            "on_header_end": self._header_end,
            "on_headers_finished": self._open,
            "on_part_data": self._data,
            "on_part_end": self.close,
            "on_end": self._end,
        }

    def texts(self) -> dict[str, str]:
        """The values of the fields. Raises Problem for one that is no UTF-8."""
        texts = {}
        for name, value in self._values.items():
            try:
                texts[name] = value.decode().strip()
            except UnicodeDecodeError as error:
                raise Problem(HTTPStatus.UNPROCESSABLE_ENTITY, f"{name} is no text in UTF-8", name) from error
        return texts

    def largest_file(self) -> str | None:
        """The name of the file of which most has come; None before any."""
        sizes = {name: size for name, size in self.sizes.items() if name in self._files}
        return max(sizes, key=lambda name: sizes[name], default=None)

    def close(self) -> None:
        """Close the file of a part that has ended."""
        if self._open_file is not None:
            with contextlib.suppress(OSError):
                self._open_file.close()
            self._open_file = None

    def _begin(self) -> None:
        self._name, self._header, self._content, self._disposition = "", b"", b"", b""

    def _header_field(self, data: bytes, start: int, end: int) -> None:
        self._header += data[start:end]

    def _header_value(self, data: bytes, start: int, end: int) -> None:
        self._content += data[start:end]

    def _header_end(self) -> None:
        if self._header.lower() == b"content-disposition":
            self._disposition = self._content
        self._header = self._content = b""

    def _open(self) -> None:
        _, parameters = parse_options_header(self._disposition)
        name = parameters.get(b"name", b"").decode("utf-8", "replace")
        if name not in self._files and name not in self._fields:
            expected = ", ".join([*self._files, *self._fields])
            raise Problem(HTTPStatus.UNPROCESSABLE_ENTITY, f"unknown field; expected {expected}", name[:_MAX_NAME])
        if name in self.sizes:
            raise Problem(HTTPStatus.UNPROCESSABLE_ENTITY, f"{name} came twice; expected it once", name)
        self._name = name
        self.sizes[name] = 0
        if name in self._files:
            self._open_file = (self._folder / name).open("xb")

    def _data(self, data: bytes, start: int, end: int) -> None:
        name = self._name
        self.sizes[name] += end - start
        if self._open_file is not None:
            try:
                self._open_file.write(data[start:end])
            except OSError as error:
                raise Problem(HTTPStatus.INSUFFICIENT_STORAGE, "the upload could not be stored") from error
            return
        most = MAX_TEXT_BYTES if name in self._long_fields else MAX_VALUE_BYTES
        if self.sizes[name] > most:
            limit = f"expected at most {most} bytes"
            raise Problem(HTTPStatus.UNPROCESSABLE_ENTITY, f"{name} is too long; {limit}", name)
        self._values[name] = self._values.get(name, b"") + data[start:end]

    def _end(self) -> None:
        self.has_ended = True
