"""What every request passes first: who may come in, and how an answer leaves."""

import asyncio
import contextlib
import hashlib
import hmac
import json
from collections.abc import Iterable
from http import HTTPStatus
from urllib.parse import urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from atldiff.serve.http.studio import MODULE, is_page
from atldiff.serve.metrics import Metrics
from atldiff.serve.problems import MEDIA_TYPE, Problem
from atldiff.serve.settings import ServeSettings

TOKEN_PROTOCOL = "bearer."
"""What the token follows in a WebSocket's list of subprotocols, for browsers, which can set no header there."""

OPEN_PATHS = ("/health", "/docs", "/openapi.json", MODULE)
"""Need no token; nor do the files of the studio's pages."""

LARGEST_HEAD = 32 * 1024
"""Bytes of a request's line and headers."""

_DRAIN_S = 10.0
_HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'none'",
    "Cache-Control": "no-store",
}


class Guard:
    """Checks the host name, the origin and the token, adds headers, counts answers.

    There are no CORS headers, and a browser sends some requests of other sites without asking for them, so whatever a
    page of another origin sends is refused; so is a name that is not the service's, behind which another site's
    name server may stand. HEAD is answered wherever GET is, with the same headers.
    """

    def __init__(self, app: ASGIApp, settings: ServeSettings, metrics: Metrics) -> None:
        self._app, self._settings, self._metrics = app, settings, metrics
        self._under_way = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
            return
        self._under_way += 1
        try:
            if scope["type"] == "websocket":
                await self._on_websocket(scope, receive, send)
            else:
                await self._on_request(scope, receive, send)
        finally:
            self._under_way -= 1

    async def _on_websocket(self, scope: Scope, receive: Receive, send: Send) -> None:
        refusal = self._fullness() or self._refusal(scope)
        if refusal is None:
            await self._app(scope, receive, send)
        else:
            await send({"type": "websocket.close", "code": 1008, "reason": refusal.detail})

    async def _on_request(self, scope: Scope, receive: Receive, send: Send) -> None:
        fullness = self._fullness()
        refusal = fullness or self._refusal(scope)
        answer = _Answer(scope, receive, send, 0 if fullness else self._settings.max_upload_bytes)
        method = scope["method"]
        state = {**scope.get("state", {}), "owner": owner_of(Headers(scope=scope), self._settings.tokens)}
        inner = {**scope, "state": state, "method": "GET" if method == "HEAD" else method}
        try:
            if refusal is None:
                await self._app(inner, answer.receive, answer.send)
            else:
                await send_problem(refusal, answer.send)
        finally:
            route = getattr(inner.get("route"), "path", "none")
            self._metrics.requests.labels(_known_method(method), route, str(answer.status)).inc()

    def _fullness(self) -> Problem | None:
        most = self._settings.max_connections
        if self._under_way <= most:
            return None
        headers = {"Retry-After": "1", "Connection": "close"}
        detail = f"the service is at {most} requests at once and takes no more; try again later"
        return Problem(HTTPStatus.SERVICE_UNAVAILABLE, detail, headers=headers)

    def _refusal(self, scope: Scope) -> Problem | None:
        if _head_size(scope) > LARGEST_HEAD:
            limit = f"expected at most {LARGEST_HEAD // 1024} KiB"
            detail = f"the request's address and headers are too large; {limit}"
            return Problem(HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE, detail)
        headers = Headers(scope=scope)
        host = headers.get("host", "")
        if self._settings.allowed_hosts and _without_port(host) not in self._settings.allowed_hosts:
            return Problem(HTTPStatus.MISDIRECTED_REQUEST, "this service does not go by that host name")
        origin = headers.get("origin")
        if origin is not None and urlsplit(origin).netloc.lower() != host.lower():
            return Problem(HTTPStatus.FORBIDDEN, "requests from pages of other origins are not taken")
        path = scope["path"].removeprefix(scope.get("root_path", ""))
        is_open = path in OPEN_PATHS or (self._settings.studio and is_page(path))
        if self._settings.tokens and not is_open and not self._has_token(headers):
            challenge = {"WWW-Authenticate": "Bearer"}
            return Problem(HTTPStatus.UNAUTHORIZED, "a bearer token is needed", headers=challenge)
        return None

    def _has_token(self, headers: Headers) -> bool:
        return any([_is_token(candidate, self._settings.tokens) for candidate in _given_tokens(headers)])  # noqa: C419


def owner_of(headers: Headers, tokens: Iterable[str]) -> str:
    """What tells the jobs of one token from those of another, without telling the token; empty without one."""
    given = next((candidate for candidate in _given_tokens(headers) if _is_token(candidate, tokens)), None)
    return "" if given is None else hashlib.sha256(given.encode()).hexdigest()[:16]


def _given_tokens(headers: Headers) -> list[str]:
    scheme, _, given = headers.get("authorization", "").partition(" ")
    candidates = [given.strip()] if scheme.lower() == "bearer" else []
    protocols = [name.strip() for name in headers.get("sec-websocket-protocol", "").split(",")]
    return candidates + [name.removeprefix(TOKEN_PROTOCOL) for name in protocols if name.startswith(TOKEN_PROTOCOL)]


def _is_token(candidate: str, tokens: Iterable[str]) -> bool:
    """Compares with every token, in a time that does not tell how alike they are."""
    given = candidate.encode()
    return any([hmac.compare_digest(given, token.encode()) for token in tokens])  # noqa: C419


def _head_size(scope: Scope) -> int:
    """Bytes of the request's line and headers, with the marks between them."""
    address = len(scope.get("raw_path", b"")) + len(scope.get("query_string", b""))
    return address + sum(len(name) + len(value) + len(": \r\n") for name, value in scope["headers"])


def _without_port(host: str) -> str:
    name, colon, port = host.lower().rpartition(":")
    return name if colon and port.isdecimal() else host.lower()


def _known_method(method: str) -> str:
    return method if method in ("GET", "POST", "DELETE", "HEAD", "OPTIONS", "PUT", "PATCH") else "other"


async def send_problem(problem: Problem, send: Send) -> None:
    """Send a problem as the whole answer."""
    body = json.dumps(problem.body()).encode()
    headers = {"content-type": MEDIA_TYPE, "content-length": str(len(body))} | problem.headers
    pairs = [(name.lower().encode("latin-1"), value.encode("latin-1")) for name, value in headers.items()]
    await send({"type": "http.response.start", "status": problem.status, "headers": pairs})
    await send({"type": "http.response.body", "body": body})


class _Answer:
    """Watches a request and its answer. An error that comes before the body has been read waits for the rest of the
    body, within limits, since many clients read no answer before they have sent everything. The answer to HEAD ends
    where its body would begin, however long that would go on."""

    def __init__(self, scope: Scope, receive: Receive, send: Send, most: int) -> None:
        headers = Headers(scope=scope)
        self.status = 499
        self._is_head, self._has_ended = scope["method"] == "HEAD", False
        self._receive, self._send, self._most = receive, send, most
        self._has_body = headers.get("content-length", "0") != "0" or "transfer-encoding" in headers
        self._waits_for_go = "expect" in headers

    async def receive(self) -> Message:
        message = await self._receive()
        self._waits_for_go = False
        if message["type"] == "http.disconnect" or not message.get("more_body", False):
            self._has_body = False
        return message

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.status = message["status"]
            headers = MutableHeaders(scope=message)
            for name, value in _HEADERS.items():
                headers.setdefault(name, value)
            if self.status >= HTTPStatus.BAD_REQUEST and self.status != HTTPStatus.REQUEST_TIMEOUT:
                await self._drain()
        elif self._is_head:
            if self._has_ended:
                return
            self._has_ended, message = True, {"type": "http.response.body", "body": b"", "more_body": False}
        await self._send(message)

    async def _drain(self) -> None:
        left = self._most
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_DRAIN_S):
                while self._has_body and not self._waits_for_go and left > 0:
                    left -= len((await self.receive()).get("body", b""))
