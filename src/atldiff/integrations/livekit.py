"""A face for `LiveKit Agents <https://docs.livekit.io/agents>`_: their avatar interfaces, on the agent's machine."""

import asyncio
import itertools
import logging
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING, Any, Self

import numpy as np

from atldiff.errors import ATLDiffError
from atldiff.integrations.faces import start_face
from atldiff.live.moment import Moment
from atldiff.serve.live.talking import RemoteFace

try:
    from livekit import rtc
    from livekit.agents.voice.avatar import (
        AudioSegmentEnd,
        AvatarOptions,
        AvatarRunner,
        QueueAudioOutput,
        VideoGenerator,
    )
except ImportError as error:
    words = 'the LiveKit classes need LiveKit Agents: pip install "atldiff[livekit]"'
    raise ImportError(f"{words} ({error.name})") from error

if TYPE_CHECKING:
    from livekit.agents import AgentSession

    from atldiff.pipeline import PortraitInput

SAMPLE_RATE = 24_000
"""Of the sound in Hz, where nothing else is asked for."""

_log = logging.getLogger("atldiff")

Said = rtc.AudioFrame | AudioSegmentEnd
Shown = rtc.VideoFrame | rtc.AudioFrame | AudioSegmentEnd


class ATLDiffVideoGenerator(VideoGenerator):
    """A face that says the audio it is given; give it to an ``AvatarRunner``.

    It gives a video frame at its frame rate, in silence too, and beside it the audio of the same moment where
    something is said. The work is done in a process of its own; if that dies, audio passes as it comes.

    Attributes:
        options: what an ``AvatarRunner`` wants to know of it.
        face: the face; None once it was lost.
    """

    def __init__(self, face: RemoteFace) -> None:
        """Use :meth:`start`."""
        self.face: RemoteFace | None = face
        self.options = AvatarOptions(
            video_width=face.width,
            video_height=face.height,
            video_fps=face.fps,
            audio_sample_rate=face.sample_rate,
            audio_channels=1,
        )
        self._marks = itertools.count()
        self._open_marks: set[int] = set()
        self._passing: asyncio.Queue[Said] = asyncio.Queue()
        self._resampler: tuple[int, rtc.AudioResampler] | None = None

    @classmethod
    async def start(cls, portrait: "PortraitInput", *, sample_rate: int = SAMPLE_RATE, **more: Any) -> Self:
        """Load the model in a process of its own.

        Args:
            portrait: as for :meth:`~atldiff.pipeline.ATLDiffPipeline.live`; a prepared one starts fastest.
            sample_rate: of the audio that it gives, in Hz; audio of other rates is resampled.
            more: see :func:`atldiff.integrations.faces.start_face`.

        Raises:
            InputError: an argument cannot be used.
            ATLDiffError: the process could not be started.
        """
        return cls(await start_face(portrait, sample_rate, **more))

    async def push_audio(self, frame: Said) -> None:
        """Say a frame after those before it, or end a segment."""
        if self.face is None:
            self._passing.put_nowait(frame)
        elif isinstance(frame, AudioSegmentEnd):
            self._say_rest()
            number = next(self._marks)
            self._open_marks.add(number)
            self.face.mark(number)
        else:
            for samples in self._resampled(frame):
                self.face.say(samples)

    def clear_buffer(self) -> None:
        """Be silent at once; the mouth rests."""
        self._open_marks.clear()
        self._resampler = None
        while not self._passing.empty():
            self._passing.get_nowait()
        if self.face is not None:
            self.face.interrupt()

    async def __aiter__(self) -> AsyncIterator[Shown]:  # pyright: ignore[reportIncompatibleMethodOverride]
        face = self.face
        assert face is not None
        try:
            async for moment in face:
                for shown in self._shown(moment):
                    yield shown
            return
        except ATLDiffError as error:
            _log.error("%s; the voice goes on without it", error)
        self.face = None
        for _ in range(len(self._open_marks)):
            yield AudioSegmentEnd()
        self._open_marks.clear()
        await face.close()
        while True:
            yield await self._passing.get()

    async def aclose(self) -> None:
        """End the face and its process."""
        if self.face is not None:
            await self.face.close()

    def _shown(self, moment: Moment) -> list[Shown]:
        shown: list[Shown] = []
        if moment.picture is not None:
            height, width = moment.picture.shape[:2]
            shown.append(rtc.VideoFrame(width, height, rtc.VideoBufferType.RGB24, moment.picture.tobytes()))
        if moment.speaks:
            count = len(moment.sound)
            shown.append(rtc.AudioFrame(moment.sound.tobytes(), self.options.audio_sample_rate, 1, count))
        for number in moment.marks:
            if number in self._open_marks:
                self._open_marks.discard(number)
                shown.append(AudioSegmentEnd())
        return shown

    def _resampled(self, frame: rtc.AudioFrame) -> list[np.ndarray]:
        samples = np.frombuffer(frame.data, np.int16)
        if frame.num_channels > 1:
            samples = samples.reshape(-1, frame.num_channels).mean(axis=1).astype(np.int16)
        if frame.sample_rate == self.options.audio_sample_rate:
            return [samples]
        if self._resampler is None or self._resampler[0] != frame.sample_rate:
            resampler = rtc.AudioResampler(frame.sample_rate, self.options.audio_sample_rate, num_channels=1)
            self._resampler = frame.sample_rate, resampler
        pieces = self._resampler[1].push(bytearray(samples.tobytes()))
        return [np.frombuffer(piece.data, np.int16) for piece in pieces]

    def _say_rest(self) -> None:
        """What the resampler still holds."""
        if self._resampler is not None and self.face is not None:
            for piece in self._resampler[1].flush():
                self.face.say(np.frombuffer(piece.data, np.int16))
            self._resampler = None


class ATLDiffAvatar:
    """A face for an agent in the agent's own process: its speech goes through the face into the room.

    ``avatar = ATLDiffAvatar("me.jpg"); await avatar.start(session, ctx.room); await session.start(…)``

    Args:
        portrait, more: see :meth:`ATLDiffVideoGenerator.start`.
    """

    def __init__(self, portrait: "PortraitInput", **more: Any) -> None:
        self._portrait, self._more = portrait, more
        self._generator: ATLDiffVideoGenerator | None = None
        self._runner: AvatarRunner | None = None

    async def start(self, agent_session: "AgentSession", room: rtc.Room) -> None:
        """Load the face, and let the agent speak through it; before the agent's session is started.

        Raises:
            InputError: an argument cannot be used.
            ATLDiffError: the process could not be started.
        """
        self._generator = generator = await ATLDiffVideoGenerator.start(self._portrait, **self._more)
        audio = QueueAudioOutput(sample_rate=generator.options.audio_sample_rate, wait_playback_start=True)
        self._runner = AvatarRunner(room, audio_recv=audio, video_gen=generator, options=generator.options)
        await self._runner.start()
        agent_session.output.audio = audio

    async def aclose(self) -> None:
        """End the runner, the face and its process."""
        if self._runner is not None:
            await self._runner.aclose()
        if self._generator is not None:
            await self._generator.aclose()
