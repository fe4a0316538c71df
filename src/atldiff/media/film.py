"""A video file's frames with their times, decoded anew at each reading and never held: no film is too long."""

import logging
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Self

import av
from av.container import InputContainer
from av.error import FFmpegError
from av.video.frame import VideoFrame
from av.video.stream import VideoStream

from atldiff.errors import InputError
from atldiff.media.files import MAX_FPS, check_codec, decoded_frames, existing_file, open_media
from atldiff.media.frames import display_matrix
from atldiff.media.planes import Planes

EXPECTED = "a video of a talking face"

_USUAL_FPS = Fraction(25)
_SLOWEST_FPS = Fraction(1, 10)
_LONGEST_STEP_S = 600
"""Longer jumps of a film's clock are taken for a fault of the clock."""

_log = logging.getLogger("atldiff")


@dataclass(frozen=True)
class Film:
    """A video file.

    Attributes:
        path: of the file.
        fps: frames per second, on average.
        time_base: in seconds; times are whole multiples of it.
        stated_frames: how many there are, as the file says, or about; 0 where it says nothing.
        sound: (channels, rate in Hz) of the sound track; None where there is none.
    """

    path: Path
    fps: Fraction
    time_base: Fraction
    stated_frames: int
    sound: tuple[int, int] | None

    @classmethod
    def open(cls, path: str | Path) -> Self:
        """A video by its file; its frames are not looked at yet.

        Raises:
            InputError: there is no such file, it is no video, or it has no picture.
        """
        path = existing_file(path, EXPECTED)
        with open_media(path, EXPECTED) as container:
            stream = _picture_stream(path, container.streams.video)
            check_codec(stream, str(path), EXPECTED)
            rate = stream.average_rate or stream.base_rate or _USUAL_FPS
            if not _SLOWEST_FPS <= rate <= MAX_FPS:
                rate = _USUAL_FPS
            rate = Fraction(rate)
            stated = stream.frames or round(float(rate) * (container.duration or 0) / av.time_base)
            return cls(path, rate, stream.time_base or 1 / rate, stated, _sound(container))

    @property
    def step(self) -> int:
        """What a frame lasts, on average, in units of the time base; at least 1."""
        return max(1, round(1 / (self.fps * self.time_base)))

    def frames(self) -> Iterator[tuple[int, Planes]]:
        """Each frame and its time in units of the time base, rising from 0; what does not decode is left out.

        Raises:
            InputError: the frames change their size, or are of a kind that is not read.
        """
        begin, last, size, matrix = None, 0, None, None
        for frame, stream in self._decoded():
            if size is None:
                matrix = display_matrix(frame)
            planes = Planes.of(frame, stream, matrix)
            if size not in (None, (planes.width, planes.height)):
                raise InputError(
                    f"{self.path} changes its picture size from {size[0]}×{size[1]} to "
                    f"{planes.width}×{planes.height}; expected one size"
                )
            size = planes.width, planes.height
            usual = last + self.step
            if begin is None:
                begin, time = frame.pts or 0, 0
            else:
                time = usual if frame.pts is None else frame.pts - begin
                if not last < time <= last + _LONGEST_STEP_S / self.time_base:
                    begin, time = begin + time - usual, usual
            last = time
            yield time, planes

    def _decoded(self) -> Iterator[tuple[VideoFrame, VideoStream]]:
        """What can be decoded, up to where the file breaks off."""
        with open_media(self.path, EXPECTED) as container:
            stream = _picture_stream(self.path, container.streams.video)
            stream.thread_type = "AUTO"
            lost = 0
            try:
                for frame in decoded_frames(container, stream):
                    if frame is None:
                        lost += 1
                    else:
                        assert isinstance(frame, VideoFrame)
                        yield frame, stream
            except FFmpegError as error:
                _log.warning("%s breaks off (%s)", self.path, error.strerror)
            if lost:
                _log.warning("%s is damaged: %d of its frames cannot be decoded", self.path, lost)


def _sound(container: InputContainer) -> tuple[int, int] | None:
    for stream in container.streams.audio:
        if stream.codec_context is not None and stream.rate:
            return stream.layout.nb_channels, stream.rate
    return None


def _picture_stream(path: Path, streams: tuple[VideoStream, ...]) -> VideoStream:
    """The first that is no cover. Raises InputError."""
    for stream in streams:
        if not stream.disposition & stream.disposition.attached_pic:
            return stream
    raise InputError(f"{path} has no picture; expected {EXPECTED}")
