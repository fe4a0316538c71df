"""Live sessions over WebRTC: a microphone, played sound or texts in, a talking face as video and audio out."""

import asyncio
import contextlib
import fractions
import json
import logging
from collections import deque
from collections.abc import Iterator
from http import HTTPStatus
from pathlib import Path
from typing import Any

import av
import numpy as np
from aiortc import MediaStreamTrack, RTCConfiguration, RTCPeerConnection, RTCSessionDescription
from aiortc.mediastreams import MediaStreamError
from av.audio.frame import AudioFrame
from av.frame import Frame
from av.video.frame import VideoFrame

from atldiff.serve.live.sessions import LivePool
from atldiff.serve.live.talking import FaceLost, RemoteFace
from atldiff.serve.problems import Problem
from atldiff.serve.work.processes import Worker
from atldiff.speech.voices import DEFAULT_VOICE

SAMPLE_RATE = 48_000
"""Of the sound in Hz, as Opus has it."""

MAX_TEXT = 10_000
"""Characters of one text to be said."""

_CONNECT_TIMEOUT_S = 30.0
"""Seconds from the answer to the connection."""

_WAITING_PICTURES, _WAITING_SOUNDS = 2, 50
"""What waits to be sent at most, frames and packets of 20 ms; the oldest are dropped."""

_PACKET = SAMPLE_RATE // 50
"""Samples of a packet of sound: 20 ms."""

_VIDEO_CLOCK = fractions.Fraction(1, 90_000)

_log = logging.getLogger("atldiff")


class WebRTCSessions:
    """The sessions that are open.

    Args:
        pool: lends a worker to each.
    """

    def __init__(self, pool: LivePool) -> None:
        self._pool = pool
        self._open: set[asyncio.Task[None]] = set()

    async def answer(self, offer: str, portrait: Path, options: dict[str, Any]) -> str:
        """Take up a session; it goes on by itself until the other side ends it, is lost, or takes too long.

        Args:
            offer: SDP with what the client sends and wants, and all of its candidates.
            portrait: a file, of no use after this.
            options: keyword arguments of ``ATLDiffPipeline.live``.

        Returns:
            SDP that answers it.

        Raises:
            Problem: the offer, the portrait or an option cannot be used, or all sessions are taken.
        """
        taking = asyncio.ensure_future(asyncio.to_thread(self._pool.take))
        try:
            worker = await asyncio.shield(taking)
        except asyncio.CancelledError:
            taking.add_done_callback(self._give_back_unused)
            raise
        session = _Session(worker, self._pool)
        try:
            answer = await session.begin(offer, portrait, options)
        except BaseException:
            await session.close()
            raise
        task = asyncio.create_task(session.run())
        self._open.add(task)
        task.add_done_callback(self._open.discard)
        return answer

    async def close(self) -> None:
        """End all of them."""
        for task in self._open:
            task.cancel()
        await asyncio.gather(*self._open, return_exceptions=True)

    def _give_back_unused(self, taken: "asyncio.Future[Worker]") -> None:
        if not taken.cancelled() and taken.exception() is None:
            self._pool.give_back(taken.result(), is_usable=True)


class _Session:
    def __init__(self, worker: Worker, pool: LivePool) -> None:
        self._worker, self._pool = worker, pool
        self._peer = RTCPeerConnection(RTCConfiguration(iceServers=[]))
        self._face: RemoteFace | None = None
        self._channel: Any = None
        self._connected, self._ended = asyncio.Event(), asyncio.Event()
        self._listening: list[asyncio.Task[None]] = []
        self._video, self._audio = _Outgoing("video", _WAITING_PICTURES), _Outgoing("audio", _WAITING_SOUNDS)

    async def begin(self, offer: str, portrait: Path, options: dict[str, Any]) -> str:
        """Raises Problem."""
        peer = self._peer
        peer.on("connectionstatechange", self._on_state)
        peer.on("track", self._on_track)
        peer.on("datachannel", self._on_channel)
        try:
            await peer.setRemoteDescription(RTCSessionDescription(offer, "offer"))
        except Exception as error:  # whatever the parser comes upon
            raise _bad("the offer is no SDP of WebRTC; expected one with all of its candidates") from error
        if not any(each.kind == "video" for each in peer.getTransceivers()):
            raise _bad("the offer takes no video; expected a transceiver that receives it")
        try:
            timeout_s = self._pool.settings.check_timeout_s
            options = {"sample_rate": SAMPLE_RATE, "reads": True, **options}
            self._face = await RemoteFace.start(self._worker, portrait, timeout_s, **options)
        except TimeoutError as error:
            limit = f"within {self._pool.settings.check_timeout_s:g} s"
            raise Problem(HTTPStatus.UNPROCESSABLE_ENTITY, f"the portrait could not be read {limit}") from error
        self._face.on_refusal = lambda words: self._send({"type": "error", "problem": _bad(words, "text").body()})
        for track in (self._video, self._audio):
            if any(each.kind == track.kind for each in peer.getTransceivers()):
                peer.addTrack(track)
        await peer.setLocalDescription(await peer.createAnswer())
        return peer.localDescription.sdp

    async def run(self) -> None:
        """Until the session's end; whatever happens, the client is told in words."""
        try:
            async with asyncio.timeout(self._pool.settings.live_timeout_s):
                async with asyncio.timeout(_CONNECT_TIMEOUT_S):
                    await _first(self._connected.wait(), self._ended.wait())
                await _first(self._show(), self._ended.wait())
        except TimeoutError:
            detail = "the session, or the wait for the client, took too long"
            self._send({"type": "error", "problem": Problem(HTTPStatus.REQUEST_TIMEOUT, detail).body()})
        except FaceLost as error:
            _log.warning("live session failed: %s", error)
            self._send({"type": "error", "problem": Problem(HTTPStatus.INTERNAL_SERVER_ERROR, str(error)).body()})
            await asyncio.sleep(0.2)  # what was told goes out first
        finally:
            await asyncio.shield(asyncio.ensure_future(self.close()))

    async def close(self) -> None:
        """Close the connection, and let another session have the worker."""
        for task in self._listening:
            task.cancel()
        with contextlib.suppress(Exception):
            await self._peer.close()
        is_usable = self._face is None
        if self._face is not None:
            await self._face.close()
            is_usable = self._face.is_idle
        await asyncio.to_thread(self._pool.give_back, self._worker, is_usable)

    def _on_state(self) -> None:
        state = self._peer.connectionState
        if state == "connected":
            self._connected.set()
        elif state in ("failed", "closed"):
            self._ended.set()

    def _on_track(self, track: MediaStreamTrack) -> None:
        if track.kind == "audio":
            self._listening.append(asyncio.create_task(self._listen(track)))

    def _on_channel(self, channel: Any) -> None:
        self._channel = channel
        channel.on("message", self._on_message)
        assert self._face is not None
        about = {name: getattr(self._face, name) for name in ("width", "height", "fps")}
        self._send({"type": "ready", **about})

    def _on_message(self, message: str | bytes) -> None:
        try:
            self._obey(json.loads(message))
        except Problem as problem:
            self._send({"type": "error", "problem": problem.body()})
        except (ValueError, RecursionError, AttributeError):
            self._send({"type": "error", "problem": _bad("expected a JSON object", None).body()})

    def _obey(self, content: dict[str, Any]) -> None:
        kind, face = content.get("type"), self._face
        assert face is not None
        if kind == "interrupt":
            face.interrupt()
        elif kind == "say":
            text, voice = content.get("text"), content.get("voice", DEFAULT_VOICE)
            if not isinstance(text, str) or not 0 < len(text) <= MAX_TEXT or not isinstance(voice, str):
                raise _bad(f"expected a text of 1 to {MAX_TEXT} characters", "text")
            face.speak(text, voice)
            face.mark(1)
        else:
            raise _bad('expected the type "say" or "interrupt"', "type")

    def _send(self, content: dict[str, Any]) -> None:
        if self._channel is not None and self._channel.readyState == "open":
            with contextlib.suppress(Exception):
                self._channel.send(json.dumps(content))

    async def _listen(self, track: MediaStreamTrack) -> None:
        """Let the face say what comes."""
        resampler = av.AudioResampler(format="s16", layout="mono", rate=SAMPLE_RATE)
        with contextlib.suppress(MediaStreamError):
            while True:
                frame = await track.recv()
                assert isinstance(frame, AudioFrame)
                for piece in resampler.resample(frame):
                    if self._face is not None:
                        self._face.follow(piece.to_ndarray()[0])

    async def _show(self) -> None:
        """Send the moments as they come; their times are those of both tracks. Raises FaceLost."""
        face, packets = self._face, _Packets()
        assert face is not None
        async for moment in face:
            if moment.picture is not None:
                picture = moment.picture[: face.height // 2 * 2, : face.width // 2 * 2]
                frame = VideoFrame.from_ndarray(np.ascontiguousarray(picture), format="rgb24")
                frame.pts, frame.time_base = round(moment.number / face.fps / _VIDEO_CLOCK), _VIDEO_CLOCK
                self._video.give(frame)
                self._pool.metrics.live_frames.inc()
            for packet in packets.of(moment.sound):
                self._audio.give(packet)
            for _ in moment.marks:
                self._send({"type": "said"})


class _Packets:
    """Sound in the pieces that Opus wants."""

    def __init__(self) -> None:
        self._held = np.zeros(0, np.int16)
        self._sent = 0

    def of(self, samples: np.ndarray) -> Iterator[AudioFrame]:
        self._held = np.concatenate([self._held, samples])
        while len(self._held) >= _PACKET:
            frame = AudioFrame.from_ndarray(self._held[None, :_PACKET], format="s16", layout="mono")
            frame.sample_rate, frame.time_base = SAMPLE_RATE, fractions.Fraction(1, SAMPLE_RATE)
            frame.pts = self._sent
            self._held, self._sent = self._held[_PACKET:], self._sent + _PACKET
            yield frame


class _Outgoing(MediaStreamTrack):
    """A track that is given its frames as they are due; where they are not fetched in time the oldest are lost."""

    def __init__(self, kind: str, most: int) -> None:
        self.kind = kind
        super().__init__()
        self._frames: deque[Frame] = deque(maxlen=most)
        self._changed = asyncio.Event()

    def give(self, frame: Frame) -> None:
        self._frames.append(frame)
        self._changed.set()

    def stop(self) -> None:
        super().stop()
        self._changed.set()

    async def recv(self) -> Frame:  # pyright: ignore[reportIncompatibleMethodOverride]
        while not self._frames:
            if self.readyState != "live":
                raise MediaStreamError
            self._changed.clear()
            await self._changed.wait()
        return self._frames.popleft()


async def _first(*waits: Any) -> None:
    """Until the first of them ends, and no longer; what it raises is raised."""
    tasks = [asyncio.ensure_future(wait) for wait in waits]
    try:
        done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in tasks:
            task.cancel()
    for task in done:
        task.result()


def _bad(detail: str, field: str | None = "offer") -> Problem:
    return Problem(HTTPStatus.UNPROCESSABLE_ENTITY, detail, field)
