"""Portrait and speech → a video file, frame by frame, in constant memory."""

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Unpack

import numpy as np

from atldiff.options import OptionArguments
from atldiff.signing import SigningIdentity
from atldiff.video.writer import VideoWriter, check_output

if TYPE_CHECKING:
    from atldiff.pipeline import ATLDiffPipeline, PortraitInput, SpeechInput

Progress = Callable[[int, int], None]
"""Called with (steps done, steps in all) after each step."""

Watch = Callable[[np.ndarray, np.ndarray], None]
"""Called with each frame, (H, W, 3) uint8, and its landmarks, (68, 2) in its pixels."""


_log = logging.getLogger("atldiff")


@dataclass(frozen=True)
class RenderReport:
    """What was written, and how long it took.

    Attributes:
        path: the file.
        duration_s: length of the speech in seconds.
        frames: number of video frames.
        fps: frames per second.
        emotion: the expression on the face.
        seconds: time taken from the inputs to the finished file, without loading the model.
    """

    path: Path
    duration_s: float
    frames: int
    fps: float
    emotion: str
    seconds: float

    @property
    def real_time_factor(self) -> float:
        """Seconds of work for a second of video: below 1 is faster than real time."""
        return self.seconds / self.duration_s


def render_video(
    pipeline: "ATLDiffPipeline",
    portrait: "PortraitInput",
    speech: "SpeechInput",
    output: str | Path,
    progress: Progress | None = None,
    *,
    watch: Watch | None = None,
    badge: bool = False,
    identity: SigningIdentity | None = None,
    **options: Unpack[OptionArguments],
) -> RenderReport:
    """Make a video file; memory does not grow with its length.

    An existing file is replaced only by a finished one: whatever ends the work early (an error, Ctrl-C)
    leaves what was there before.

    Args:
        pipeline: makes the frames.
        output: ends in .mp4; its folder exists.
        progress: called after each frame.
        watch: sees each frame and its landmarks, without the badge.
        badge, identity: the visible mark and who signs, see :class:`~atldiff.video.writer.VideoWriter`.
        options: those of :meth:`~atldiff.pipeline.ATLDiffPipeline.stream`.

    Raises:
        OutputError: the output cannot be written there, or is one of the inputs.
        InputError: an argument cannot be used.
    """
    began = time.monotonic()
    check_output(output, (source for source in (portrait, speech) if isinstance(source, str | Path)))
    _log.info("finding the face")
    stream = pipeline.stream(portrait, speech, **options)
    with VideoWriter(
        output, stream.width, stream.height, stream.fps, stream.audio, identity=identity, badge=badge
    ) as writer:
        for done, frame in enumerate(stream, start=1):
            if watch is not None:
                watch(frame, stream.landmarks)
            writer.write(frame)
            if progress is not None:
                progress(done, stream.frames)
    return RenderReport(
        path=Path(output),
        duration_s=stream.audio.duration_s,
        frames=stream.frames,
        fps=stream.fps,
        emotion=stream.emotion,
        seconds=time.monotonic() - began,
    )
