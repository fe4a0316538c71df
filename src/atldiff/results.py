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

Watch = Callable[[np.ndarray, np.ndarray], None]
"""Called with each frame, (H, W, 3) uint8, and its landmarks, (68, 2) in its pixels."""

_LARGEST_SHOWN_BYTES = 64 << 20


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
    """An iterator over the frames of a video that is being made, (H, W, 3) uint8 each; ``len()`` counts them all.

    Attributes:
        width, height: size of the frames in pixels.
        fps: frames per second; frame k shows the sound at k / fps.
        frames: how many there will be.
        audio: the speech.
        emotion: the expression on the face.
        seed: what head motion, blinks and noise are drawn from.
        portrait_size: (width, height) in pixels of the portrait as it was read.
        landmarks: (68, 2) of the frame that was given last, in its pixels.
    """

    width: int
    height: int
    fps: float
    frames: int
    audio: Speech
    emotion: str
    seed: int
    portrait_size: tuple[int, int]
    landmarks: np.ndarray = field(init=False)
    _made: Iterator[tuple[np.ndarray, np.ndarray]]
    _given: int = field(init=False, default=0)

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> np.ndarray:
        picture, self.landmarks = next(self._made)
        self._given += 1
        return picture

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
            watch: sees each frame and its landmarks, without the badge.

        Raises:
            InputError: some of the frames have been taken already.
            OutputError: the file cannot be written there.
        """
        if self._given:
            raise InputError(f"{self._given} of the stream's frames have been taken already; expected a new stream")
        with VideoWriter(path, self.width, self.height, self.fps, self.audio, **arguments) as writer:
            for frame in self:
                if watch is not None:
                    watch(frame, self.landmarks)
                writer.write(frame)
                if progress is not None:
                    progress(self._given, self.frames)
        return Path(path)
