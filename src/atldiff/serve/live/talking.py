"""A face that talks in real time, in a worker process, for programs that run an event loop."""

import asyncio
import contextlib
import threading
from collections import deque
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any, Self

import numpy as np

from atldiff.errors import ATLDiffError, InputError
from atldiff.live.moment import Moment
from atldiff.serve.live.talking_work import FOLLOW, INTERRUPT, MARK, MOMENT, REFUSED, SAY, SPEAK, STARTED, STOP, TALK
from atldiff.serve.live.work import END, FAULT
from atldiff.serve.problems import Problem
from atldiff.serve.work.processes import Worker
from atldiff.speech.voices import DEFAULT_VOICE

WAITING_PICTURES_S, WAITING_S = 0.4, 2.0
"""Of what nobody has taken yet: older moments lose their pictures, and still older ones are lost."""

_LOOK_S = 0.5
_STOP_TIMEOUT_S = 5.0


class FaceLost(ATLDiffError):
    """A face that talked has ended before it was told to."""


class RemoteFace:
    """A :class:`~atldiff.live.talking.TalkingFace` of a worker process. All of it belongs to one event loop, which
    it never holds up: two threads of its own write to the process and read from it.

    Iterate over it for its moments. Who takes them too slowly gets sound without pictures from 0.4 s on, and loses
    what is older than 2 s.

    Attributes:
        width, height: of the pictures in pixels.
        fps: moments per second.
        sample_rate: of the sound, in Hz.
        lost: moments that nobody took in time, so far.
        spoken: moments in which something was said, so far.
        on_refusal: called with the reason where a text cannot be said.
        stats: at the end, what the process says of it.
        is_idle: whether the worker has come to the end of it and can be given something else.
    """

    def __init__(self, worker: Worker, about: dict[str, Any], owns_worker: bool) -> None:
        """Use :meth:`start`."""
        self.width, self.height, self.fps, self.sample_rate = (
            about[name] for name in ("width", "height", "fps", "sample_rate")
        )
        self.lost = self.spoken = 0
        self.is_idle = False
        self.stats: dict[str, Any] = {}
        self.on_refusal: Callable[[str], object] = _ignore
        self._worker, self._owns_worker = worker, owns_worker
        self._loop = asyncio.get_running_loop()
        self._writer = ThreadPoolExecutor(1, "atldiff-face")
        self._moments: deque[Moment] = deque()
        self._changed = asyncio.Event()
        self._has_ended = False
        self._fault: BaseException | None = None
        self._stopping = False
        self._reader = threading.Thread(target=self._read, name="atldiff-face", daemon=True)
        self._reader.start()

    @classmethod
    async def start(
        cls,
        worker: Worker,
        portrait: Any,
        timeout_s: float,
        owns_worker: bool = False,
        **options: Any,
    ) -> Self:
        """Let a worker that is ready begin with a face.

        Args:
            worker: runs :func:`atldiff.serve.live.work.serve_live`.
            portrait: as for :meth:`~atldiff.pipeline.ATLDiffPipeline.live`, a file as ``Path``.
            timeout_s: to wait for the face.
            owns_worker: whether the worker is ended with the face.
            options: those of :meth:`~atldiff.pipeline.ATLDiffPipeline.live`, but for ``max_delay_s`` and ``idle_s``;
                and ``reads``: whether a voice is loaded before the first text.

        Raises:
            Problem: the portrait or an option cannot be used, or the worker has died.
            TimeoutError: the face did not come in time.
        """

        def begin() -> dict[str, Any]:
            worker.send(TALK, (portrait, options))
            name, content = worker.receive(timeout_s)
            if name != STARTED:
                raise content
            return content

        return cls(worker, await asyncio.to_thread(begin), owns_worker)

    def say(self, samples: np.ndarray) -> None:
        """Say (n,) int16 at the sample rate, after what it has been given before; does not wait."""
        self._send_sound(SAY, samples)

    def follow(self, samples: np.ndarray) -> None:
        """Say what is being spoken this moment; does not wait.

        See :meth:`~atldiff.live.talking.TalkingFace.follow`.
        """
        self._send_sound(FOLLOW, samples)

    def _send_sound(self, name: str, samples: np.ndarray) -> None:
        if samples.dtype != np.int16 or samples.ndim != 1:
            raise InputError(f"got sound of shape {samples.shape} and type {samples.dtype}; expected (n,) int16")
        self._send(name, samples.astype("<i2").tobytes())

    def speak(self, text: str, voice: str = DEFAULT_VOICE) -> None:
        """Say a text with a voice of the extra ``tts``; does not wait. :attr:`on_refusal` tells where that fails."""
        self._send(SPEAK, (text, voice))

    def mark(self, number: int) -> None:
        """Set a mark after all that was given to be said; the moment in which it is reached tells of it."""
        self._send(MARK, number)

    def interrupt(self) -> None:
        """Be silent at once: what was to be said is forgotten with its marks, and the mouth rests."""
        self._moments = deque(_silenced(moment) for moment in self._moments)
        self._send(INTERRUPT)

    async def close(self) -> None:
        """End it, and wait until the worker has; a worker that does not end is killed. Closing twice does no harm."""
        if not self._stopping:
            self._stopping = True
            self._send(STOP)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_STOP_TIMEOUT_S):
                while not self._has_ended:
                    self._changed.clear()
                    await self._changed.wait()
        if not self._has_ended:
            self._worker.kill()
        await asyncio.to_thread(self._reader.join)
        self._writer.shutdown(wait=False)
        if self._owns_worker:
            await asyncio.to_thread(self._worker.close)

    async def __aiter__(self) -> AsyncIterator[Moment]:
        """Raises: FaceLost: the process has died, or failed at it."""
        while True:
            while self._moments:
                yield self._moments.popleft()
            if self._has_ended:
                if self._fault is not None and not self._stopping:
                    raise FaceLost(f"the face was lost: {self._fault}") from self._fault
                return
            self._changed.clear()
            await self._changed.wait()

    def _send(self, name: str, content: Any = None) -> None:
        with contextlib.suppress(RuntimeError):  # it has been closed
            self._writer.submit(self._write, name, content)

    def _write(self, name: str, content: Any) -> None:
        with contextlib.suppress(Problem):  # the reader tells of the death
            self._worker.send(name, content)

    def _read(self) -> None:
        fault: BaseException | None = None
        while True:
            try:
                name, content = self._worker.receive(_LOOK_S)
            except TimeoutError:
                continue
            except Exception as error:
                fault = error
                break
            if name == MOMENT:
                self._call_in_loop(self._arrive, content)
            elif name == REFUSED:
                self._call_in_loop(self.on_refusal, content)
            elif name in (END, FAULT):
                self.is_idle = True
                self.stats, fault = (content, None) if name == END else ({}, content)
                break
        self._call_in_loop(self._end, fault)

    def _call_in_loop(self, function: Any, content: Any) -> None:
        with contextlib.suppress(RuntimeError):  # the event loop has ended
            self._loop.call_soon_threadsafe(function, content)

    def _arrive(self, content: tuple[int, bytes | None, bytes, bool, tuple[int, ...], int]) -> None:
        number, coded, sound, speaks, marks, late = content
        self.spoken += speaks
        picture = None
        if coded is not None:
            picture = np.frombuffer(coded, np.uint8).reshape(self.height, self.width, 3)
        self._moments.append(Moment(number, picture, np.frombuffer(sound, "<i2"), speaks, marks, late))
        if len(self._moments) > WAITING_PICTURES_S * self.fps:
            late = len(self._moments) - 1 - int(WAITING_PICTURES_S * self.fps)
            self._moments[late] = _without_picture(self._moments[late])
        if len(self._moments) > WAITING_S * self.fps:
            lost, following = self._moments.popleft(), self._moments[0]
            self._moments[0] = _with_marks(following, lost.marks)
            self.lost += 1
        self._changed.set()

    def _end(self, fault: BaseException | None) -> None:
        self._has_ended, self._fault = True, fault
        self._changed.set()


def _ignore(_: str) -> None:
    """Nobody asks."""


def _silenced(moment: Moment) -> Moment:
    return replace(moment, sound=np.zeros_like(moment.sound), speaks=False, marks=())


def _without_picture(moment: Moment) -> Moment:
    return replace(moment, picture=None, late=0)


def _with_marks(moment: Moment, before: tuple[int, ...]) -> Moment:
    return replace(moment, marks=(*before, *moment.marks))
