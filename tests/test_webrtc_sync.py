"""What belongs together arrives together: a test picture and its tone, over a true WebRTC connection."""

import asyncio
import os
import time

import numpy as np
import pytest

pytest.importorskip("fastapi")
pytest.importorskip("aiortc")

from aiortc import RTCSessionDescription

from atldiff.serve.live.sessions import LivePool
from atldiff.serve.live.webrtc import WebRTCSessions
from atldiff.serve.metrics import Metrics
from atldiff.serve.settings import ServeSettings
from atldiff.serve.work.processes import Worker, WorkerSetup
from clapperboard import FPS, serve_flashes
from webrtc_peer import PATIENCE_S, Client, Line

SECONDS = float(os.environ.get("ATLDIFF_LIVE_SECONDS", "5"))
"""How long it is watched; 300 for docs/assistants.md."""


def test_picture_and_sound_arrive_together(portrait, tmp_path) -> None:
    setup = WorkerSetup("compact", "cpu", 1, 60.0, 40_000_000, None)
    pool = LivePool(ServeSettings(tmp_path), setup, Metrics(), tmp_path)
    worker = Worker(serve_flashes, setup)
    worker.wait_until_ready(PATIENCE_S)
    pool._free = [worker]

    async def main() -> list[float]:
        sessions, one = WebRTCSessions(pool), Client()
        for kind in ("video", "audio"):
            one.peer.addTransceiver(kind, direction="recvonly")
        await one.peer.setLocalDescription(await one.peer.createOffer())
        answer = await sessions.answer(one.peer.localDescription.sdp, portrait, {})
        await one.peer.setRemoteDescription(RTCSessionDescription(answer, "answer"))
        await one.wait(lambda: bool(one.pictures) and bool(one.sounds))
        line, offsets = Line(one), []
        await one.wait(lambda: line.is_known)
        until = time.monotonic() + SECONDS
        while time.monotonic() < until:
            one.pictures.clear()
            one.sounds.clear()
            await asyncio.sleep(2.5)
            offsets += offsets_of(one, line)
        await one.close()
        await sessions.close()
        return offsets

    try:
        offsets = asyncio.run(main())
    finally:
        pool.stop()
    frames = FPS * np.array(offsets)
    print(f"{len(frames)} flashes, offset in frames: median {np.median(frames):.2f}, range {frames.min():.2f} to "
          f"{frames.max():.2f}")  # fmt: skip
    assert len(frames) > SECONDS / 2
    assert abs(np.median(frames)) <= 1


def offsets_of(one: Client, line: Line) -> list[float]:
    """Seconds from the first sample of each tone to the first white picture, by the sender's clock."""
    shown = [line.seconds("video", when) for when, _ in one.pictures]
    white = [picture.mean() > 128 for _, picture in one.pictures]
    flashes = [now for before, is_on, now in zip(white, white[1:], shown[1:], strict=False) if is_on and not before]
    tones, was_loud = [], True
    for when, samples in one.sounds:
        loud = np.abs(samples.ravel()[::2].astype(int)) > 2000
        if loud.any() and not was_loud:
            tones.append(line.seconds("audio", when) + float(np.argmax(loud)) / 48_000)
        was_loud = bool(loud.any())
    pairs = [(flash, min(tones, key=lambda tone: abs(tone - flash))) for flash in flashes if tones]
    return [flash - tone for flash, tone in pairs if abs(flash - tone) < 0.5]
