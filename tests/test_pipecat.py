"""The Pipecat services in real pipelines: what is said comes with pictures, in its order, and ends as it should."""

import asyncio
import os
import signal
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

pytest.importorskip("pipecat")
pytest.importorskip("hibari")

from pipecat.frames.frames import (
    BotStartedSpeakingFrame,
    CancelFrame,
    EndFrame,
    ErrorFrame,
    Frame,
    InterruptionFrame,
    MetricsFrame,
    OutputImageRawFrame,
    TTSAudioRawFrame,
    TTSSpeakFrame,
    TTSStartedFrame,
    TTSStoppedFrame,
)
from pipecat.metrics.metrics import TTFBMetricsData
from pipecat.pipeline.pipeline import Pipeline
from pipecat.pipeline.worker import PipelineParams, PipelineWorker
from pipecat.processors.frame_processor import FrameDirection, FrameProcessor
from pipecat.workers.runner import WorkerRunner

from atldiff.integrations.pipecat import ATLDiffVideoService, LocalTTSService

torch.set_num_threads(1)

RATE = 16_000
FPS = 5.0
"""Few enough for any machine."""

PATIENCE_S = 60.0


class Sink(FrameProcessor):
    """Keeps what comes to it."""

    def __init__(self) -> None:
        super().__init__()
        self.frames: list[Frame] = []
        self.changed = asyncio.Event()

    async def process_frame(self, frame: Frame, direction: FrameDirection) -> None:
        await super().process_frame(frame, direction)
        self.frames.append(frame)
        self.changed.set()
        await self.push_frame(frame, direction)

    async def wait(self, is_true: Callable[[], bool]) -> None:
        async with asyncio.timeout(PATIENCE_S):
            while not is_true():
                self.changed.clear()
                await self.changed.wait()

    def of(self, *kinds: type) -> list[Any]:
        return [frame for frame in self.frames if isinstance(frame, kinds)]

    async def wait_for(self, *kinds: type, count: int = 1) -> None:
        await self.wait(lambda: len(self.of(*kinds)) >= count)

    def said(self) -> np.ndarray:
        parts = [np.frombuffer(frame.audio, np.int16) for frame in self.of(TTSAudioRawFrame)]
        return np.concatenate([np.zeros(0, np.int16), *parts])


class Bot:
    """A pipeline with a face, and a sink after it."""

    def __init__(
        self, model: Path, portrait: Any, *before: FrameProcessor, after: Sequence[FrameProcessor] = ()
    ) -> None:
        self.sink = Sink()
        self.face = ATLDiffVideoService(
            portrait=portrait,
            threads=1,
            device="cpu",
            settings=ATLDiffVideoService.Settings(model=str(model)),
            options={"fps": FPS, "crop_only": True},
        )
        params = PipelineParams(audio_out_sample_rate=RATE, enable_metrics=True)
        self.worker = PipelineWorker(
            Pipeline([*before, self.face, *after, self.sink]), params=params, cancel_on_idle_timeout=False
        )
        self.errors: list[ErrorFrame] = []

        @self.face.event_handler("on_error")
        async def keep(_: Any, error: ErrorFrame) -> None:
            self.errors.append(error)

    async def run(self, play: Callable[[], Any]) -> None:
        runner = WorkerRunner(handle_sigint=False)
        await runner.add_workers(self.worker)
        playing = asyncio.create_task(play())
        running = asyncio.create_task(runner.run())
        async with asyncio.timeout(PATIENCE_S):
            await asyncio.wait([playing, running], return_when=asyncio.FIRST_EXCEPTION)
        if playing.done() and playing.exception() is not None:
            await self.worker.cancel()
        await asyncio.gather(playing, running)

    async def queue(self, *frames: Frame) -> None:
        for frame in frames:
            await self.worker.queue_frame(frame)


def audio(seconds: float, seed: int = 0, context: str = "one") -> TTSAudioRawFrame:
    samples = np.random.default_rng(seed).integers(1, 3000, round(seconds * RATE)).astype(np.int16)
    return TTSAudioRawFrame(samples.tobytes(), RATE, 1, context_id=context)


def test_what_is_said_comes_with_pictures_in_its_order(tiny_model, portrait) -> None:
    bot = Bot(tiny_model, portrait)
    parts = [audio(0.5, 1), audio(0.3, 2)]

    async def play() -> None:
        await bot.queue(TTSStartedFrame(context_id="one"), *parts, TTSStoppedFrame(context_id="one"))
        await bot.sink.wait_for(TTSStoppedFrame)
        pictures = len(bot.sink.of(OutputImageRawFrame))
        await bot.sink.wait_for(OutputImageRawFrame, count=pictures + 3)  # it lives on in silence
        await bot.queue(EndFrame())

    asyncio.run(bot.run(play))
    sent = np.concatenate([np.frombuffer(part.audio, np.int16) for part in parts])
    said = bot.sink.said()
    begin = np.flatnonzero(said)[0]
    assert np.array_equal(said[begin : begin + len(sent)], sent)
    order = [type(frame) for frame in bot.sink.of(TTSStartedFrame, TTSAudioRawFrame, TTSStoppedFrame)]
    assert order[0] == TTSStartedFrame
    assert order[-1] == TTSStoppedFrame
    assert order.count(TTSAudioRawFrame) in (4, 5)
    assert {len(frame.audio) for frame in bot.sink.of(TTSAudioRawFrame)} == {2 * RATE / FPS}
    kinds = [type(frame) for frame in bot.sink.of(OutputImageRawFrame, TTSAudioRawFrame)]
    first = kinds.index(OutputImageRawFrame)
    assert all(
        kinds[place - 1] == OutputImageRawFrame
        for place, kind in enumerate(kinds)
        if place > first and kind == TTSAudioRawFrame
    )
    assert {(frame.size, frame.format) for frame in bot.sink.of(OutputImageRawFrame)} == {((256, 256), "RGB")}
    measured = [
        each for frame in bot.sink.of(MetricsFrame) for each in frame.data if isinstance(each, TTFBMetricsData)
    ]
    assert any("ATLDiffVideoService" in each.processor and each.value > 0 for each in measured)
    assert bot.face.face is None
    assert not bot.errors


def test_an_interruption_leaves_nothing_of_what_was_to_be_said(tiny_model, portrait) -> None:
    bot = Bot(tiny_model, portrait)

    async def play() -> None:
        await bot.queue(audio(20.0), TTSStoppedFrame(context_id="one"))
        await bot.sink.wait_for(TTSAudioRawFrame)
        await bot.queue(InterruptionFrame())
        await bot.sink.wait_for(InterruptionFrame)
        before = len(bot.sink.of(TTSAudioRawFrame))
        await bot.queue(audio(0.4, 3, "two"), TTSStoppedFrame(context_id="two"))
        await bot.sink.wait_for(TTSStoppedFrame)
        assert [frame.context_id for frame in bot.sink.of(TTSStoppedFrame)] == ["two"]
        after = bot.sink.of(TTSAudioRawFrame)[before:]
        assert len(after) <= 4
        assert len({id(frame) for frame in after if frame.context_id == "two"}) in (2, 3)
        await bot.queue(CancelFrame())

    asyncio.run(bot.run(play))
    assert not bot.errors


def test_at_the_end_everything_is_said_but_not_when_cancelled(tiny_model, portrait) -> None:
    async def play(bot: Bot, last: Frame) -> None:
        await bot.queue(audio(1.5))
        await bot.sink.wait_for(OutputImageRawFrame)
        await bot.queue(last)

    ended, cancelled = Bot(tiny_model, portrait), Bot(tiny_model, portrait)
    asyncio.run(ended.run(lambda: play(ended, EndFrame())))
    assert np.count_nonzero(ended.sink.said()) == 1.5 * RATE
    assert isinstance(ended.sink.of(TTSAudioRawFrame, EndFrame)[-1], EndFrame)
    asyncio.run(cancelled.run(lambda: play(cancelled, CancelFrame())))
    assert np.count_nonzero(cancelled.sink.said()) < 1.5 * RATE


class Slow(FrameProcessor):
    """Takes its time over every image."""

    async def process_frame(self, frame: Frame, direction: FrameDirection) -> None:
        await super().process_frame(frame, direction)
        if isinstance(frame, OutputImageRawFrame):
            await asyncio.sleep(1.5 / FPS)
        await self.push_frame(frame, direction)


def test_one_behind_it_who_is_slow_loses_no_sound_and_holds_nothing_up(tiny_model, portrait) -> None:
    bot = Bot(tiny_model, portrait, after=[Slow()])
    sent = audio(1.0, 1)

    async def play() -> None:
        await bot.queue(sent, TTSStoppedFrame(context_id="one"))
        await bot.sink.wait_for(TTSStoppedFrame)
        await bot.queue(EndFrame())

    asyncio.run(bot.run(play))
    said = bot.sink.said()
    begin = np.flatnonzero(said)[0]
    assert np.array_equal(said[begin : begin + RATE], np.frombuffer(sent.audio, np.int16))
    assert not bot.errors


def test_a_face_that_dies_is_told_and_the_voice_goes_on(tiny_model, portrait) -> None:
    bot = Bot(tiny_model, portrait)

    async def play() -> None:
        await bot.queue(audio(30.0), TTSStoppedFrame(context_id="one"))
        await bot.sink.wait_for(TTSAudioRawFrame)
        assert bot.face.face is not None
        os.kill(bot.face.face._worker.pid, signal.SIGKILL)
        await bot.sink.wait_for(TTSStoppedFrame)
        await bot.queue(audio(0.5, 5, "two"))
        await bot.sink.wait(lambda: any(frame.context_id == "two" for frame in bot.sink.of(TTSAudioRawFrame)))
        await bot.queue(EndFrame())

    asyncio.run(bot.run(play))
    assert ["the face was lost" in error.error for error in bot.errors] == [True]


def test_a_face_that_cannot_start_is_told_and_the_voice_goes_on(tiny_model, word) -> None:
    bot = Bot(tiny_model, word)

    async def play() -> None:
        await bot.queue(audio(0.5))
        await bot.sink.wait_for(TTSAudioRawFrame)
        await bot.queue(EndFrame())

    asyncio.run(bot.run(play))
    assert np.count_nonzero(bot.sink.said()) == 0.5 * RATE
    assert ["the face could not start: the portrait" in error.error for error in bot.errors] == [True]


def test_a_text_is_said_by_the_local_voice_and_the_face(tiny_model, portrait) -> None:
    bot = Bot(tiny_model, portrait, LocalTTSService())

    async def play() -> None:
        await bot.queue(TTSSpeakFrame("Hello there."))
        await bot.sink.wait_for(TTSStoppedFrame)
        await bot.queue(EndFrame())

    asyncio.run(bot.run(play))
    assert 0.5 < len(bot.sink.said()) / RATE < 3
    assert np.abs(bot.sink.said()).max() > 1000
    assert not bot.sink.of(BotStartedSpeakingFrame)
    assert not bot.errors
