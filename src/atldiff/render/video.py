"""Portrait and speech → a video file, frame by frame, in constant memory."""

import logging
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Unpack

from atldiff.media.signing import SigningIdentity
from atldiff.media.writer import check_output, written_size
from atldiff.options import OptionArguments
from atldiff.results import Progress, Watch

if TYPE_CHECKING:
    from atldiff.pipeline import ATLDiffPipeline, PortraitInput, SpeechInput


_log = logging.getLogger("atldiff")


@dataclass(frozen=True)
class WrittenVideo:
    """A video file, and how long it took.

    Attributes:
        path: the file.
        duration_s: of the video.
        fps: frames per second, on average.
        size: (width, height) of the frames in pixels, even: an odd side loses its last pixel.
        seconds: time taken from the inputs to the finished file, without loading the model.
    """

    path: Path
    duration_s: float
    fps: float
    size: tuple[int, int]
    seconds: float

    @property
    def real_time_factor(self) -> float:
        """Seconds of work for a second of video: below 1 is faster than real time."""
        return self.seconds / self.duration_s


@dataclass(frozen=True)
class RenderReport(WrittenVideo):
    """What was written.

    Attributes:
        frames: number of video frames.
        emotion: the expression on the face.
        seed: what head motion, blinks and noise were drawn from.
        portrait_size: (width, height) of the portrait as it was read.
    """

    frames: int
    emotion: str
    seed: int
    portrait_size: tuple[int, int]


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
    crf: float | None = None,
    overwrite: bool = True,
    **options: Unpack[OptionArguments],
) -> RenderReport:
    """Make a video file; memory does not grow with its length.

    An existing file is replaced only by a finished one: whatever ends the work early (an error, Ctrl-C)
    leaves what was there before.

    Args:
        pipeline: makes the frames.
        output: ends in .mp4, .mov, .webm or .gif; its folder exists.
        progress: called after each frame.
        watch: called with each :class:`~atldiff.results.Frame`, without the badge.
        badge, identity, crf, overwrite: see :class:`~atldiff.media.writer.VideoWriter`.
        options: those of :meth:`~atldiff.pipeline.ATLDiffPipeline.stream`.

    Raises:
        OutputError: the output cannot be written there, or is one of the inputs.
        InputError: an argument cannot be used.
    """
    began = time.monotonic()
    check_output(output, (source for source in (portrait, speech) if isinstance(source, str | Path)))
    _log.info("finding the face")
    stream = pipeline.stream(portrait, speech, **options)
    stream.save(output, progress=progress, watch=watch, badge=badge, identity=identity, crf=crf, overwrite=overwrite)
    return RenderReport(
        path=Path(output),
        duration_s=stream.audio.duration_s,
        frames=stream.frames,
        fps=stream.fps,
        emotion=stream.emotion,
        seed=stream.seed,
        size=written_size(stream.width, stream.height),
        portrait_size=stream.portrait_size,
        seconds=time.monotonic() - began,
    )
