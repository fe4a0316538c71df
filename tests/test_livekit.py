"""The LiveKit classes with the library's own queue, synchroniser and sources; a server is needed for none of it."""

import asyncio
import os
import signal
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

pytest.importorskip("livekit.agents")

from livekit import rtc
from livekit.agents.voice.avatar import AudioSegmentEnd, QueueAudioOutput

from atldiff.errors import InputError
from atldiff.integrations.livekit import ATLDiffVideoGenerator

torch.set_num_threads(1)

RATE = 16_000
FPS = 5.0
"""Few enough for any machine."""

PATIENCE_S = 60.0


class Run:
    """What an avatar runner does, but for the room: from the queue to the face, from the face to the sources."""

    def __init__(self, generator: ATLDiffVideoGenerator) -> None:
        self.generator, self.shown, self.changed = generator, [], asyncio.Event()
        options = generator.options
        self.audio = QueueAudioOutput(sample_rate=options.audio_sample_rate)
        self.audio.on("clear_buffer", generator.clear_buffer)
        self._audio_source = rtc.AudioSource(options.audio_sample_rate, options.audio_channels, 100)
        self._video_source = rtc.VideoSource(options.video_width, options.video_height)
        self._sync = rtc.AVSynchronizer(
            audio_source=self._audio_source, video_source=self._video_source, video_fps=options.video_fps
        )
        self._tasks = [asyncio.create_task(work) for work in (self._listen(), self._show())]

    async def _listen(self) -> None:
        async for frame in self.audio:
            await self.generator.push_audio(frame)

    async def _show(self) -> None:
        async for frame in self.generator:
            self.shown.append(frame)
            self.changed.set()
            if not isinstance(frame, AudioSegmentEnd):
                await self._sync.push(frame)

    async def wait(self, is_true: Callable[[], Any]) -> None:
        async with asyncio.timeout(PATIENCE_S):
            while not is_true():
                self.changed.clear()
                await self.changed.wait()

    def of(self, kind: type) -> list[Any]:
        return [frame for frame in self.shown if isinstance(frame, kind)]

    def said(self) -> np.ndarray:
        parts = [np.frombuffer(frame.data, np.int16) for frame in self.of(rtc.AudioFrame)]
        return np.concatenate([np.zeros(0, np.int16), *parts])

    async def close(self) -> None:
        for task in self._tasks:
            task.cancel()
        await self._sync.aclose()
        await self._audio_source.aclose()
        await self._video_source.aclose()
        await self.generator.aclose()


def run(model: Path, portrait: Path, play: Callable[[Run], Awaitable[None]]) -> None:
    async def main() -> None:
        more = {"model": str(model), "device": "cpu", "threads": 1, "fps": FPS, "crop_only": True}
        one = Run(await ATLDiffVideoGenerator.start(portrait, sample_rate=RATE, **more))
        try:
            await play(one)
        finally:
            await one.close()

    asyncio.run(main())


def audio(seconds: float, rate: int = RATE) -> rtc.AudioFrame:
    samples = np.random.default_rng(0).integers(1, 3000, round(seconds * rate)).astype(np.int16)
    return rtc.AudioFrame(samples.tobytes(), rate, 1, len(samples))


def test_what_is_said_is_shown_and_ends_with_its_segment(tiny_model, portrait) -> None:
    async def play(one: Run) -> None:
        for _ in range(3):
            await one.audio.capture_frame(audio(0.25))
        one.audio.flush()
        await one.wait(lambda: one.of(AudioSegmentEnd))
        sent = np.tile(np.frombuffer(audio(0.25).data, np.int16), 3)
        said = one.said()
        begin = np.flatnonzero(said)[0]
        assert np.array_equal(said[begin : begin + len(sent)], sent)
        assert one.shown.index(one.of(AudioSegmentEnd)[0]) > one.shown.index(one.of(rtc.AudioFrame)[-1])
        seen = len(one.of(rtc.VideoFrame))
        await one.wait(lambda: len(one.of(rtc.VideoFrame)) > seen + 2)  # it lives on in silence
        assert {(frame.width, frame.height) for frame in one.of(rtc.VideoFrame)} == {(256, 256)}
        assert len(one.of(rtc.AudioFrame)) in (4, 5)

    run(tiny_model, portrait, play)


def test_audio_of_another_rate_is_resampled(tiny_model, portrait) -> None:
    async def play(one: Run) -> None:
        await one.generator.push_audio(audio(0.5, 48_000))
        await one.generator.push_audio(AudioSegmentEnd())
        await one.wait(lambda: one.of(AudioSegmentEnd))
        assert abs(np.count_nonzero(one.said()) - 0.5 * RATE) < 0.02 * RATE

    run(tiny_model, portrait, play)


def test_a_cleared_buffer_is_silence_and_no_end_of_a_segment(tiny_model, portrait) -> None:
    async def play(one: Run) -> None:
        await one.audio.capture_frame(audio(20.0))
        one.audio.flush()
        await one.wait(lambda: one.of(rtc.AudioFrame))
        one.audio.clear_buffer()
        seen, said = len(one.of(rtc.VideoFrame)), len(one.of(rtc.AudioFrame))
        await one.wait(lambda: len(one.of(rtc.VideoFrame)) > seen + 4)
        assert len(one.of(rtc.AudioFrame)) <= said + 1
        assert not one.of(AudioSegmentEnd)

    run(tiny_model, portrait, play)


def test_where_the_face_dies_the_voice_goes_on(tiny_model, portrait) -> None:
    async def play(one: Run) -> None:
        await one.audio.capture_frame(audio(20.0))
        one.audio.flush()
        await one.wait(lambda: one.of(rtc.AudioFrame))
        face = one.generator.face
        assert face is not None
        os.kill(face._worker.pid, signal.SIGKILL)
        await one.wait(lambda: one.of(AudioSegmentEnd))
        await one.audio.capture_frame(audio(0.1))
        one.audio.flush()
        await one.wait(lambda: len(one.of(AudioSegmentEnd)) == 2)
        assert len(one.of(rtc.AudioFrame)[-1].data) == 0.1 * RATE

    run(tiny_model, portrait, play)


def test_what_cannot_be_used_is_told(tiny_model, word) -> None:
    with pytest.raises(InputError, match="the portrait"):
        asyncio.run(ATLDiffVideoGenerator.start(word, model=str(tiny_model), device="cpu", threads=1))
    with pytest.raises(InputError, match="got int as portrait"):
        asyncio.run(ATLDiffVideoGenerator.start(5))  # pyright: ignore[reportArgumentType]
