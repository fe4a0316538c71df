"""What a pipeline hands back: a finished video in memory, or its frames as they are made."""

import base64
import html
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self, TypedDict, Unpack

import numpy as np

from atldiff.errors import InputError
from atldiff.media.signing import SigningIdentity
from atldiff.media.writer import VideoWriter
from atldiff.speech.waveform import Speech

Progress = Callable[[int, int], object]
"""Called with (done, in all) after each frame, or whatever else is made one by one."""


_LARGEST_SHOWN_BYTES = 64 << 20


@dataclass(frozen=True)
class Frame:
    """One frame of a video or of a live session.

    Attributes:
        number: from 0; in a live session, numbers that are missing were dropped.
        time_s: the moment of the sound that it shows, from the first sample on.
        picture: (H, W, 3) uint8 RGB.
        landmarks: (68, 2) of the face, pixels of the picture; (0, 2) where a dubbed video was left as it is.
    """

    number: int
    time_s: float
    picture: np.ndarray
    landmarks: np.ndarray


Watch = Callable[[Frame], object]
"""Called with each frame as it is written, without the badge."""


class SaveArguments(TypedDict, total=False):
    """How a video is written, see :class:`~atldiff.media.writer.VideoWriter`."""

    badge: bool
    identity: SigningIdentity | None
    crf: float | None
    overwrite: bool


@dataclass(frozen=True, repr=False)
class TalkingHead:
    """A finished video in memory; a notebook plays it.

    Attributes:
        frames: (F, H, W, 3) uint8 RGB.
        fps: frames per second.
        audio: the speech, as it goes into the file.
        seed: what head motion, blinks and noise were drawn from.
    """

    frames: np.ndarray
    fps: float
    audio: Speech
    seed: int = 0

    def __len__(self) -> int:
        return len(self.frames)

    def __repr__(self) -> str:
        count, height, width = self.frames.shape[:3]
        return f"TalkingHead({count} frames of {width}×{height} at {self.fps:g} fps, seed {self.seed})"

    def _repr_html_(self) -> str:
        with tempfile.TemporaryDirectory(prefix="atldiff-") as folder:
            content = self.save(Path(folder) / "shown.mp4").read_bytes()
        if len(content) > _LARGEST_SHOWN_BYTES:
            return f"<p>{html.escape(repr(self))}: too long to be shown here; save it</p>"
        source = f"data:video/mp4;base64,{base64.b64encode(content).decode()}"
        return f'<video controls loop style="max-width: 100%; max-height: 70vh" src="{source}"></video>'

    def save(self, path: str | Path, *, progress: Progress | None = None, **arguments: Unpack[SaveArguments]) -> Path:
        """Write a video file, marked as synthetic; an existing file is replaced only by a finished one.

        Args:
            path: ends in .mp4, .mov, .webm or .gif.
            progress: called after each frame.
            arguments: ``badge``, ``identity``, ``crf``, ``overwrite``, see
                :class:`~atldiff.media.writer.VideoWriter`.

        Raises:
            OutputError: the file cannot be written there.
        """
        height, width = self.frames.shape[1:3]
        with VideoWriter(path, width, height, self.fps, self.audio, **arguments) as writer:
            for done, frame in enumerate(self.frames, start=1):
                writer.write(frame)
                if progress is not None:
                    progress(done, len(self.frames))
        return Path(path)


@dataclass(repr=False)
class FrameStream:
    """An iterator over the pictures of a video that is being made, (H, W, 3) uint8 each; ``len()`` counts them all.

    :meth:`with_landmarks` gives the same frames with all that is known of them.

    Attributes:
        width, height: size of the frames in pixels.
        fps: frames per second; frame k shows the sound at k / fps.
        frames: how many there will be.
        audio: the speech.
        emotion: the expression on the face.
        seed: what head motion, blinks and noise are drawn from.
        portrait_size: (width, height) in pixels of the portrait as it was read.
    """

    width: int
    height: int
    fps: float
    frames: int
    audio: Speech
    emotion: str
    seed: int
    portrait_size: tuple[int, int]
    _made: Iterator[Frame]
    _given: int = field(init=False, default=0)

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> np.ndarray:
        return self._next().picture

    def with_landmarks(self) -> Iterator[Frame]:
        """The frames that are left, each with its number, its moment and its landmarks."""
        while self._given < self.frames:
            yield self._next()

    def _next(self) -> Frame:
        frame = next(self._made)
        self._given += 1
        return frame

    def __len__(self) -> int:
        return self.frames

    def __repr__(self) -> str:
        size = f"{self.width}×{self.height}"
        return (
            f"FrameStream({self.frames} frames of {size} at {self.fps:g} fps, seed {self.seed}, {self._given} given)"
        )

    def save(
        self,
        path: str | Path,
        *,
        progress: Progress | None = None,
        watch: Watch | None = None,
        **arguments: Unpack[SaveArguments],
    ) -> Path:
        """Make all frames and write them as a video file, in constant memory, see :meth:`TalkingHead.save`.

        Args:
            path, progress, arguments: as there.
            watch: called with each :class:`Frame`, without the badge.

        Raises:
            InputError: some of the frames have been taken already.
            OutputError: the file cannot be written there.
        """
        if self._given:
            raise InputError(f"{self._given} of the stream's frames have been taken already; expected a new stream")
        with VideoWriter(path, self.width, self.height, self.fps, self.audio, **arguments) as writer:
            for frame in self.with_landmarks():
                if watch is not None:
                    watch(frame)
                writer.write(frame.picture)
                if progress is not None:
                    progress(self._given, self.frames)
        return Path(path)
