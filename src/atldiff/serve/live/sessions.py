"""Live sessions over a WebSocket: sound in, frames out."""

import asyncio
import contextlib
import json
import logging
import secrets
import shutil
import struct
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from http import HTTPStatus
from pathlib import Path
from typing import Any

from starlette.websockets import WebSocket, WebSocketDisconnect, WebSocketState

from atldiff.options import SAMPLE_FORMATS
from atldiff.serve.fields import LIVE_OPTIONS, read_options
from atldiff.serve.live.work import END, FAULT, FINISH, FRAME, SOUND, START, STARTED, STOP, serve_live
from atldiff.serve.metrics import Metrics
from atldiff.serve.problems import Problem
from atldiff.serve.settings import ServeSettings
from atldiff.serve.work.jobs import START_TIMEOUT_S
from atldiff.serve.work.processes import Worker, WorkerSetup
from atldiff.serve.work.store import PORTRAIT

PROTOCOL = "atldiff.live"
"""The subprotocol to name beside that of a token."""

MAX_SOUND_BYTES = 2**20
"""Of one message of sound."""

FRAME_HEADER = struct.Struct("<Id")
"""Before each JPEG: the frame's number and its time in seconds, little-endian."""

_MESSAGE_TIMEOUT_S = 30.0
"""Seconds that a client may take for the messages that begin a session."""

_SEND_TIMEOUT_S = 10.0
"""Seconds that a client may take to receive one."""

_STOP_TIMEOUT_S = 5.0
"""Seconds that a session may take to end."""

_NORMAL, _POLICY, _FAILED, _TRY_LATER = 1000, 1008, 1011, 1013
"""Why a WebSocket is closed, RFC 6455 and the registry of its codes."""

_log = logging.getLogger("atldiff")


class LivePool:
    """The worker processes for live sessions. A session has one for itself; it is started for the first that needs
    it and kept for the next.

    Attributes:
        settings, metrics: of the service.
        folder: for the portraits of sessions while they last; private.
    """

    def __init__(self, settings: ServeSettings, setup: WorkerSetup, metrics: Metrics, folder: Path) -> None:
        self.settings, self.metrics, self.folder = settings, metrics, folder
        self._setup = setup
        self._mutex = threading.Lock()
        self._free: list[Worker | None] = [None] * settings.live_sessions
        self._stopped = False

    def stop(self) -> None:
        """End the processes that no session has; those end with their session."""
        with self._mutex:
            self._stopped = True
            workers, self._free = self._free, []
        for worker in workers:
            if worker is not None:
                worker.close()

    def take(self) -> Worker:
        """A loaded worker, to be given back.

        Raises:
            Problem: all are taken, or none can be started.
        """
        if not self.settings.live_sessions:
            raise Problem(HTTPStatus.NOT_FOUND, "live sessions are turned off")
        with self._mutex:
            if not self._free:
                headers = {"Retry-After": "10"}
                raise Problem(HTTPStatus.SERVICE_UNAVAILABLE, "all live sessions are taken", headers=headers)
            self._free.sort(key=lambda worker: worker is not None)
            worker = self._free.pop()
        self.metrics.live_sessions.inc()
        if worker is not None and worker.is_alive:
            return worker
        try:
            if worker is not None:
                worker.close()
                worker = None
            worker = Worker(serve_live, self._setup)
            worker.wait_until_ready(START_TIMEOUT_S)
        except BaseException as error:
            self.give_back(worker, is_usable=False)
            if isinstance(error, TimeoutError):
                raise Problem(HTTPStatus.SERVICE_UNAVAILABLE, "a worker did not start in time") from error
            raise
        return worker

    def give_back(self, worker: Worker | None, is_usable: bool) -> None:
        """Let another session have the worker, or end it where it is in the midst of something."""
        self.metrics.live_sessions.dec()
        with self._mutex:
            is_kept = is_usable and not self._stopped
            self._free.append(worker if is_kept else None)
        if worker is not None and not is_kept:
            worker.close()


async def hold_session(socket: WebSocket, pool: LivePool) -> None:
    """Hold one live session from its handshake to its end; whatever happens, the client is told in words."""
    protocols = socket.headers.get("sec-websocket-protocol", "").split(",")
    await socket.accept(PROTOCOL if PROTOCOL in [name.strip() for name in protocols] else None)
    code = _NORMAL
    try:
        async with asyncio.timeout(pool.settings.live_timeout_s):
            await _Session(socket, pool).run()
    except TimeoutError:
        detail = "the session, or the wait for the client, took too long"
        await _send(socket, {"type": "error", "problem": Problem(HTTPStatus.REQUEST_TIMEOUT, detail).body()})
        code = _POLICY
    except (WebSocketDisconnect, ConnectionError, RuntimeError):  # the client has gone
        return
    except Problem as problem:
        if problem.log:
            _log.warning("live session failed: %s", problem.log)
        await _send(socket, {"type": "error", "problem": problem.body()})
        if problem.status == HTTPStatus.SERVICE_UNAVAILABLE:
            code = _TRY_LATER
        else:
            code = _FAILED if problem.status >= HTTPStatus.INTERNAL_SERVER_ERROR else _POLICY
    with contextlib.suppress(RuntimeError, ConnectionError, WebSocketDisconnect):
        await socket.close(code)


async def _send(socket: WebSocket, content: dict[str, Any]) -> None:
    if socket.client_state == WebSocketState.CONNECTED:
        with contextlib.suppress(RuntimeError, ConnectionError, WebSocketDisconnect, TimeoutError):
            async with asyncio.timeout(_SEND_TIMEOUT_S):
                await socket.send_text(json.dumps(content))


class _Session:
    """One session. One thread of its own writes to the worker's pipe, another reads from it."""

    def __init__(self, socket: WebSocket, pool: LivePool) -> None:
        self._socket, self._pool = socket, pool
        self._writer, self._reader = ThreadPoolExecutor(1, "atldiff-live"), ThreadPoolExecutor(1, "atldiff-live")
        self._is_idle = True

    async def run(self) -> None:
        """Raises: Problem, WebSocketDisconnect, TimeoutError, ConnectionError."""
        worker = await self._take()
        try:
            start = await self._start_message()
            portrait = await self._message("bytes", "the portrait's bytes", PORTRAIT)
            with _stored(portrait, self._pool.folder) as path:
                await self._with(worker, path, *start)
            async with asyncio.timeout(_STOP_TIMEOUT_S):
                await self._call(self._writer, _nothing)
        except BaseException:
            if not self._is_idle:
                worker.kill()
            raise
        finally:
            self._writer.shutdown(wait=False)
            self._reader.shutdown(wait=False)
            await asyncio.to_thread(self._pool.give_back, worker, self._is_idle)

    async def _take(self) -> Worker:
        """A worker; one that is ready only when nobody waits for it any longer is given back."""
        taking = self._reader.submit(self._pool.take)
        try:
            return await asyncio.shield(asyncio.wrap_future(taking))
        except BaseException:
            if not taking.cancel():
                taking.add_done_callback(self._return_unused)
            self._writer.shutdown(wait=False)
            self._reader.shutdown(wait=False)
            raise

    def _return_unused(self, taken: Future[Worker]) -> None:
        if taken.exception() is None:
            self._pool.give_back(taken.result(), is_usable=True)

    async def _with(self, worker: Worker, portrait: Path, sample_format: str, options: dict[str, Any]) -> None:
        self._is_idle = False
        await self._call(self._writer, worker.send, START, (portrait, sample_format, options))
        about = await self._answer(worker, STARTED, self._pool.settings.check_timeout_s)
        await _send(self._socket, {"type": "ready", **about})
        feeding = asyncio.create_task(self._feed(worker, sample_format))
        try:
            stats = await self._send_frames(worker, feeding)
        except Exception:
            if not self._is_idle:
                with contextlib.suppress(Problem, TimeoutError):
                    await self._stop(worker)
            raise
        finally:
            feeding.cancel()
            await asyncio.wait([feeding])
        await _send(self._socket, {"type": "end", "stats": stats})

    async def _send_frames(self, worker: Worker, feeding: asyncio.Task[None]) -> dict[str, Any]:
        """Send frames until the session's end; returns its statistics. A fault in the feeding ends it."""
        while True:
            if feeding.done() and (fault := feeding.exception()) is not None:
                raise fault
            try:
                name, content = await self._call(self._reader, worker.receive, 0.5)
            except TimeoutError:
                continue
            self._is_idle = name in (END, FAULT)
            if name == END:
                return content
            if name == FAULT:
                raise content
            number, time_s, picture = content
            async with asyncio.timeout(_SEND_TIMEOUT_S):
                await self._socket.send_bytes(FRAME_HEADER.pack(number, time_s) + picture)
            self._pool.metrics.live_frames.inc()

    async def _stop(self, worker: Worker) -> None:
        """Leave the worker ready for the next session. Raises TimeoutError where it does not come to an end."""
        async with asyncio.timeout(_STOP_TIMEOUT_S):
            await self._call(self._writer, worker.send, STOP)
            while (await self._call(self._reader, worker.receive, _STOP_TIMEOUT_S))[0] == FRAME:
                pass
        self._is_idle = True

    async def _feed(self, worker: Worker, sample_format: str) -> None:
        """Hand on the sound that comes, until its end."""
        width = int(SAMPLE_FORMATS[sample_format][-1])
        while True:
            message = await self._receive()
            sound = message.get("bytes")
            if sound is None:
                if _object(message.get("text") or "").get("type") != "finish":
                    raise _bad('expected sound, or {"type": "finish"}')
                await self._call(self._writer, worker.send, FINISH)
                return
            if len(sound) > MAX_SOUND_BYTES or len(sound) % width:
                limit = f"expected at most {MAX_SOUND_BYTES}, whole samples of {width}"
                raise _bad(f"got {len(sound)} bytes of sound; {limit}", "sound")
            await self._call(self._writer, worker.send, SOUND, sound)

    async def _start_message(self) -> tuple[str, dict[str, Any]]:
        """The format of the sound, and keyword arguments of ``ATLDiffPipeline.live``."""
        content = _object(await self._message("text", "a JSON object"))
        if content.pop("type", "start") != "start":
            raise _bad('expected "start" first', "type")
        sample_format = content.pop("format", "s16le")
        if sample_format not in SAMPLE_FORMATS:
            raise _bad(f"unknown format; expected {' or '.join(SAMPLE_FORMATS)}", "format")
        more = {name: _number(content, name) for name in ("look_ahead_s", "max_delay_s") if name in content}
        rate = _number(content, "sample_rate") if "sample_rate" in content else None
        if rate is not None:
            if not rate.is_integer():
                raise _bad("expected a whole number of Hz", "sample_rate")
            more["sample_rate"] = int(rate)
        options = {key: value for key, value in content.items() if key not in more}
        return sample_format, read_options(options, LIVE_OPTIONS) | more

    async def _message(self, kind: str, expected: str, field: str | None = None) -> Any:
        async with asyncio.timeout(_MESSAGE_TIMEOUT_S):
            content = (await self._receive()).get(kind)
        if not content:
            raise _bad(f"expected {expected}", field)
        return content

    async def _receive(self) -> dict[str, Any]:
        message = await self._socket.receive()
        if message["type"] == "websocket.disconnect":
            raise WebSocketDisconnect(message.get("code", 1005))
        return dict(message)

    async def _answer(self, worker: Worker, expected: str, timeout_s: float) -> Any:
        name, content = await self._call(self._reader, worker.receive, timeout_s)
        if name != expected:
            self._is_idle = True
            raise content
        return content

    async def _call(self, thread: ThreadPoolExecutor, function: Callable[..., Any], *arguments: Any) -> Any:
        return await asyncio.get_running_loop().run_in_executor(thread, function, *arguments)


@contextlib.contextmanager
def _stored(portrait: bytes, folder: Path) -> Iterator[Path]:
    """A portrait as a file in a private folder of its own. Raises Problem where there is no room for it."""
    place = folder / secrets.token_urlsafe(16)
    try:
        try:
            place.mkdir(mode=0o700)
            (place / PORTRAIT).write_bytes(portrait)
        except OSError as error:
            detail = "the portrait could not be stored"
            raise Problem(HTTPStatus.INSUFFICIENT_STORAGE, detail, PORTRAIT, log=str(error.strerror)) from error
        yield place / PORTRAIT
    finally:
        shutil.rmtree(place, ignore_errors=True)


def _nothing() -> None:
    """Comes to its turn when what was to be written before it has been."""


def _bad(detail: str, field: str | None = None) -> Problem:
    return Problem(HTTPStatus.UNPROCESSABLE_ENTITY, detail, field)


def _object(text: str) -> dict[str, Any]:
    try:
        content = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise _bad("expected a JSON object") from error
    if not isinstance(content, dict):
        raise _bad("expected a JSON object")
    return content


def _number(content: dict[str, Any], name: str) -> float:
    value = content[name]
    if isinstance(value, bool) or not isinstance(value, int | float) or abs(value) > 1e9:
        raise _bad("expected a number", name)
    return float(value)
