"""The service on a socket."""

import asyncio
import logging
import os
import socket
from collections.abc import Callable
from functools import partial
from typing import Any

import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol

from atldiff.errors import ATLDiffError, InputError
from atldiff.serve.http.app import create_app
from atldiff.serve.http.guard import LARGEST_HEAD
from atldiff.serve.settings import LOOPBACK_NAMES, ServeSettings

_HEAD_TIMEOUT_S = 10.0
"""Seconds that a request's line and headers may take to come."""

_KEEP_ALIVE_S = 5
"""Seconds that an idle connection is kept."""

_SHUTDOWN_S = 5
"""Seconds that answers under way are given when the service is stopped."""

_LARGEST_MESSAGE = 16 * 2**20
"""Bytes of a message over a WebSocket."""

_PING_S = 20.0
"""Seconds between two pings of a WebSocket, and for the answer."""

_log = logging.getLogger("atldiff")


def run_server(
    settings: ServeSettings, host: str, port: int, when_serving: Callable[[int], object] | None = None
) -> None:
    """Serve until a signal ends it.

    Args:
        when_serving: called with the port when requests are taken.

    Raises:
        InputError: the address cannot be listened on, another service works in the data folder, or it cannot be
            written to.
    """
    if host not in LOOPBACK_NAMES and host != "::1" and not settings.tokens:
        _log.warning("anyone who reaches %s can use this service: no tokens are set", host)
    os.umask(0o077)  # what is uploaded is private, whatever the caller's own is
    ending = asyncio.Event()
    config = uvicorn.Config(
        create_app(settings, ending),
        host=host,
        port=port,
        root_path=settings.root_path,
        http=partial(PatientProtocol, settings.max_connections),  # pyright: ignore[reportArgumentType]
        ws="websockets-sansio",
        ws_max_size=min(settings.max_upload_bytes, _LARGEST_MESSAGE),
        ws_ping_interval=_PING_S,
        ws_ping_timeout=_PING_S,
        lifespan="on",
        log_config=None,
        log_level=logging.CRITICAL,
        access_log=False,
        server_header=False,
        timeout_keep_alive=_KEEP_ALIVE_S,
        timeout_graceful_shutdown=_SHUTDOWN_S,
        h11_max_incomplete_event_size=LARGEST_HEAD,
    )
    server = _Server(config, when_serving, ending)
    try:
        listener = config.bind_socket()
    except SystemExit as error:
        raise InputError(f"cannot listen on {host}, port {port}; expected a free port of this machine") from error
    server.run([listener])
    if not server.started:
        raise ATLDiffError("the service could not be started")


class _Server(uvicorn.Server):
    def __init__(
        self, config: uvicorn.Config, when_serving: Callable[[int], object] | None, ending: asyncio.Event
    ) -> None:
        super().__init__(config)
        self._when_serving, self._ending = when_serving, ending

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        for listener in sockets or ():
            name, port = listener.getsockname()[:2]
            shown = f"[{name}]" if ":" in name else name
            _log.info("serving on http://%s:%d; docs at /docs", shown, port)
            if self._when_serving is not None:
                self._when_serving(port)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        _log.info("ending; jobs that are not finished fail")
        self._ending.set()
        await super().shutdown(sockets)


class PatientProtocol(H11Protocol):
    """HTTP/1.1 that closes a connection whose request's head does not arrive in time, or, where more than ``most``
    are open, the one that has been without a request for longest."""

    _head_deadline: asyncio.TimerHandle | None = None

    def __init__(self, most: int, *arguments: Any, **more: Any) -> None:
        super().__init__(*arguments, **more)
        self._most = most
        self._idle_since = self.loop.time()

    def connection_made(self, transport: asyncio.Transport) -> None:  # pyright: ignore[reportIncompatibleMethodOverride]
        super().connection_made(transport)
        self._head_deadline = self.loop.call_later(_HEAD_TIMEOUT_S, transport.close)
        self._make_room()

    def _make_room(self) -> None:
        still_open = [other for other in self.connections if other is not self and not other.transport.is_closing()]
        idle = [other for other in still_open if isinstance(other, PatientProtocol) and not other.is_at_work]
        if idle and len(still_open) >= self._most:
            min(idle, key=lambda other: other._idle_since).transport.close()

    @property
    def is_at_work(self) -> bool:
        """Whether a request is being answered."""
        return self.cycle is not None and not self.cycle.response_complete

    def on_response_complete(self) -> None:
        self._idle_since = self.loop.time()
        super().on_response_complete()

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        if self.is_at_work:
            self._forget_deadline()
        elif self._head_deadline is None and self.transport.get_protocol() is self:
            self._head_deadline = self.loop.call_later(_HEAD_TIMEOUT_S, self.transport.close)

    def handle_websocket_upgrade(self, event: Any) -> None:
        super().handle_websocket_upgrade(event)
        self._forget_deadline()

    def connection_lost(self, exc: Exception | None) -> None:
        self._forget_deadline()
        super().connection_lost(exc)

    def _forget_deadline(self) -> None:
        if self._head_deadline is not None:
            self._head_deadline.cancel()
            self._head_deadline = None
