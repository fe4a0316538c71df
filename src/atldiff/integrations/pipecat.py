"""A face for `Pipecat <https://docs.pipecat.ai>`_: text-to-speech audio in, the same audio with pictures out.

``Pipeline([…, tts, ATLDiffVideoService(portrait="me.jpg"), transport.output()])``
"""

import asyncio
import contextlib
import itertools
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from atldiff.errors import ATLDiffError
from atldiff.integrations.faces import start_face
from atldiff.live.moment import LOOK_AHEAD_S, Moment
from atldiff.serve.live.talking import RemoteFace
from atldiff.speech.text import Voice, open_voice, sentences
from atldiff.speech.voices import DEFAULT_VOICE

try:
    from pipecat.audio.utils import create_stream_resampler
    from pipecat.frames.frames import (
        CancelFrame,
        EndFrame,
        ErrorFrame,
        Frame,
        InterruptionFrame,
        OutputImageRawFrame,
        StartFrame,
        TTSAudioRawFrame,
        TTSStartedFrame,
        TTSStoppedFrame,
        TTSTextFrame,
    )
    from pipecat.processors.frame_processor import FrameDirection, FrameProcessorSetup
    from pipecat.services.ai_service import AIService
    from pipecat.services.settings import ServiceSettings, TTSSettings
    from pipecat.services.tts_service import TTSService
except ImportError as error:
    raise ImportError(f'the Pipecat services need Pipecat: pip install "atldiff[pipecat]" ({error.name})') from error

if TYPE_CHECKING:
    from atldiff.pipeline import PortraitInput

_END_PATIENCE_S = 5.0
_IN_TURN = (TTSStartedFrame, TTSStoppedFrame, TTSTextFrame)
"""Frames that keep their place among the audio."""


@dataclass
class ATLDiffVideoSettings(ServiceSettings):
    """Settings of :class:`ATLDiffVideoService`; ``model`` is the folder of a model, None the one in the package."""


class ATLDiffVideoService(AIService):
    """Shows a face that says what text-to-speech services say.

    It takes every ``TTSAudioRawFrame`` and gives it again at its own pace, with an image 25 times a second, in
    silence too: image and audio of the same moment follow each other. On an interruption it is silent at once and the
    mouth rests. At the end it says what it has been given; when cancelled it does not. The work is done in a process
    of its own, which loads while the pipeline starts; if it dies, an error is pushed upstream and audio passes as it
    comes.

    Give the output transport the size and the rate of the images: ``TransportParams(video_out_enabled=True,
    video_out_is_live=True, video_out_width=…, video_out_height=…, video_out_framerate=25)``.

    Args:
        portrait: as for :meth:`~atldiff.pipeline.ATLDiffPipeline.live`; a prepared one starts fastest.
        look_ahead_s: seconds of the following sound that a frame waits for, 0.08 to 1: less is sooner, and less true.
        sync_with_audio: whether images wait in the output transport for the audio before them; for transports that
            show still images (``video_out_is_live=False``).
        device, threads: of the process.
        settings: the model.
        options: how the face moves: ``emotion``, ``intensity``, ``head_motion``, ``fps`` and more, see
            :meth:`~atldiff.pipeline.ATLDiffPipeline.live`.
    """

    Settings = ATLDiffVideoSettings

    def __init__(
        self,
        *,
        portrait: "PortraitInput",
        look_ahead_s: float = LOOK_AHEAD_S,
        sync_with_audio: bool = False,
        device: str = "auto",
        threads: int | None = None,
        settings: ATLDiffVideoSettings | None = None,
        options: dict[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        chosen = ATLDiffVideoSettings(model=None)
        if settings is not None:
            chosen.apply_update(settings)
        super().__init__(settings=chosen, **kwargs)
        self._portrait, self._sync_with_audio = portrait, sync_with_audio
        self._process = {"device": device, "threads": threads, "look_ahead_s": look_ahead_s} | (options or {})
        self._sample_rate = 0
        self._resampler = create_stream_resampler()
        self._starting: asyncio.Task[RemoteFace] | None = None
        self._face: RemoteFace | None = None
        self._waiting: list[tuple[Frame, Callable[[RemoteFace], None]]] = []
        self._is_lost = False
        self._showing: asyncio.Task[None] | None = None
        self._marks = itertools.count()
        self._in_turn: dict[int, Frame] = {}
        self._last: asyncio.Event | None = None
        self._context_id: str | None = None
        self._image = b""
        self._awaits_first = False

    def can_generate_metrics(self) -> bool:
        """Time to first byte is that from the first audio of a turn to its first moment with image and audio."""
        return True

    @property
    def face(self) -> RemoteFace | None:
        """The face, from when it is loaded to the end of the pipeline; None where it could not start or was lost."""
        return self._face

    async def setup(self, setup: FrameProcessorSetup) -> None:
        """Begin to load the face."""
        await super().setup(setup)
        self._sample_rate = setup.audio_out_sample_rate
        model = self._settings.model if isinstance(self._settings.model, str) else None
        loading = start_face(self._portrait, self._sample_rate, model=model, **self._process)
        self._starting = asyncio.create_task(loading)

    async def stop(self, frame: EndFrame) -> None:
        """Say what is left to be said, then end."""
        await super().stop(frame)
        if self._showing is not None and not self._is_lost:
            self._last = asyncio.Event()
            self._mark(frame)
            await self._wait_for_the_last()
        await self._close()

    async def cancel(self, frame: CancelFrame) -> None:
        """End at once."""
        await super().cancel(frame)
        await self._close()

    async def cleanup(self) -> None:
        """End whatever is left."""
        await super().cleanup()
        await self._close()

    async def process_frame(self, frame: Frame, direction: FrameDirection) -> None:
        """Take what is said; everything else passes, what belongs to the speech in its turn."""
        await super().process_frame(frame, direction)
        if isinstance(frame, InterruptionFrame):
            self._interrupt()
        elif not self._is_lost and direction == FrameDirection.DOWNSTREAM:
            if isinstance(frame, TTSAudioRawFrame):
                await self._say(frame)
                return
            if isinstance(frame, _IN_TURN):
                self._mark(frame)
                return
        await self.push_frame(frame, direction)
        if isinstance(frame, StartFrame):
            self._showing = self.create_task(self._show(), "face")

    async def _say(self, frame: TTSAudioRawFrame) -> None:
        if frame.context_id != self._context_id:
            self._context_id, self._awaits_first = frame.context_id, True
            await self.start_ttfb_metrics()
        audio = frame.audio
        if frame.num_channels > 1:
            channels = np.frombuffer(audio, np.int16).reshape(-1, frame.num_channels)
            audio = channels.mean(axis=1).astype(np.int16).tobytes()
        audio = await self._resampler.resample(audio, frame.sample_rate, self._sample_rate)
        samples = np.frombuffer(audio, np.int16)
        self._ask(frame, lambda face: face.say(samples))

    def _mark(self, frame: Frame) -> None:
        """Let a frame follow what has been given to be said before it."""
        number = next(self._marks)
        self._in_turn[number] = frame
        self._ask(frame, lambda face: face.mark(number))

    def _ask(self, frame: Frame, what: Callable[[RemoteFace], None]) -> None:
        """Ask something of the face for a frame, now or as soon as it is there."""
        if self._face is None:
            self._waiting.append((frame, what))
        else:
            what(self._face)

    def _interrupt(self) -> None:
        self._in_turn.clear()
        self._waiting.clear()
        self._context_id, self._awaits_first = None, False
        self._resampler = create_stream_resampler()
        if self._face is not None:
            self._face.interrupt()

    async def _show(self) -> None:
        """Give the moments of the face; where there is none, audio passes as it comes."""
        assert self._starting is not None
        try:
            self._face = face = await self._starting
        except ATLDiffError as error:
            await self._lose(f"the face could not start: {error}", error)
            return
        for _, what in self._waiting:
            what(face)
        self._waiting.clear()
        try:
            async for moment in face:
                await self._push_moment(moment, face)
        except ATLDiffError as error:
            self._face = None
            await self._lose(str(error), error)
            await face.close()

    async def _push_moment(self, moment: Moment, face: RemoteFace) -> None:
        for number in moment.marks:
            if isinstance(self._in_turn.get(number), TTSStartedFrame):
                await self.push_frame(self._in_turn.pop(number))
        if moment.picture is not None:
            self._image = moment.picture.tobytes()
        if self._image:
            image = OutputImageRawFrame(self._image, (face.width, face.height), "RGB")
            image.sync_with_audio = self._sync_with_audio
            await self.push_frame(image)
        if moment.speaks:
            if self._awaits_first:
                self._awaits_first = False
                await self.stop_ttfb_metrics()
            audio = TTSAudioRawFrame(moment.sound.tobytes(), self._sample_rate, 1, context_id=self._context_id)
            await self.push_frame(audio)
        for number in moment.marks:
            frame = self._in_turn.pop(number, None)
            if isinstance(frame, EndFrame) and self._last is not None:
                self._last.set()
            elif frame is not None:
                await self.push_frame(frame)

    async def _lose(self, words: str, error: ATLDiffError) -> None:
        """Without a face: tell so, and let go what waited for its turn."""
        self._is_lost = True
        waiting = [frame for frame, _ in self._waiting] or list(self._in_turn.values())
        self._waiting.clear()
        self._in_turn.clear()
        for frame in waiting:
            if isinstance(frame, EndFrame) and self._last is not None:
                self._last.set()
            else:
                await self.push_frame(frame)
        await self.push_error(words, error, force_treat_as_permanent=True)

    async def _wait_for_the_last(self) -> None:
        """Until all has been said; given up where nothing is said for a while."""
        assert self._last is not None
        said = -1
        while not self._last.is_set() and (self._face is None or self._face.spoken != said):
            said = -1 if self._face is None else self._face.spoken
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._last.wait(), _END_PATIENCE_S)

    async def _close(self) -> None:
        if self._starting is not None and not self._starting.done():
            self._starting.cancel()
            with contextlib.suppress(asyncio.CancelledError, ATLDiffError):
                await self._starting
        if self._showing is not None:
            showing, self._showing = self._showing, None
            await self.cancel_task(showing)
        if self._face is not None:
            face, self._face = self._face, None
            await face.close()


@dataclass
class LocalTTSSettings(TTSSettings):
    """Settings of :class:`LocalTTSService`; ``voice`` is the name of a voice of the extra ``tts``."""


class LocalTTSService(TTSService):
    """Text to speech on this machine, without a key: the voices of the extra ``tts``, or any engine.

    Args:
        engine: any callable text → samples, rate in Hz; in the place of a voice.
        settings: the voice.
    """

    Settings = LocalTTSSettings

    def __init__(
        self, *, engine: Voice | None = None, settings: LocalTTSSettings | None = None, **kwargs: Any
    ) -> None:
        chosen = LocalTTSSettings(model=None, voice=DEFAULT_VOICE, language=None)
        if settings is not None:
            chosen.apply_update(settings)
        super().__init__(push_start_frame=True, push_stop_frames=True, settings=chosen, **kwargs)
        self._engine = open_voice(engine or str(chosen.voice))

    def can_generate_metrics(self) -> bool:
        """It can."""
        return True

    async def run_tts(self, text: str, context_id: str) -> AsyncGenerator[Frame | None, None]:
        """Say a text, sentence by sentence."""
        try:
            await self.start_tts_usage_metrics(text)
            for sentence in sentences(text):
                samples, rate = await asyncio.to_thread(self._engine, sentence)
                frames = self._stream_audio_frames_from_iterator(
                    _once(_pcm(samples)), in_sample_rate=rate, context_id=context_id
                )
                async for frame in frames:
                    await self.stop_ttfb_metrics()
                    yield frame
        except ATLDiffError as error:
            yield ErrorFrame(error=f"the text could not be said: {error}")


async def _once(audio: bytes) -> AsyncIterator[bytes]:
    yield audio


def _pcm(samples: np.ndarray) -> bytes:
    if samples.dtype == np.int16:
        return samples.tobytes()
    return np.round(np.clip(samples, -1, 1) * 32767).astype(np.int16).tobytes()
