"""Video and speech → a dubbed video file, in constant memory."""

import logging
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Unpack

from atldiff.dub.options import DubArguments
from atldiff.media.signing import SigningIdentity
from atldiff.media.writer import check_output, written_size
from atldiff.render.video import WrittenVideo
from atldiff.results import Progress, Watch

if TYPE_CHECKING:
    from atldiff.dub.dubber import DubReport
    from atldiff.pipeline import ATLDiffPipeline, SpeechInput
    from atldiff.speech.text import Voice

_log = logging.getLogger("atldiff")


@dataclass(frozen=True)
class DubbedFile(WrittenVideo):
    """What was written.

    Attributes:
        report: what became of the frames.
    """

    report: "DubReport"


def dub_video(
    pipeline: "ATLDiffPipeline",
    video: str | Path,
    speech: "SpeechInput | None",
    output: str | Path,
    *,
    text: "str | Iterable[str] | None" = None,
    voice: "Voice | None" = None,
    reading: Progress | None = None,
    progress: Progress | None = None,
    watch: Watch | None = None,
    badge: bool = False,
    identity: SigningIdentity | None = None,
    crf: float | None = None,
    overwrite: bool = True,
    **options: Unpack[DubArguments],
) -> DubbedFile:
    """Dub a video file; an existing output is replaced only by a finished one.

    Args:
        pipeline: makes the mouths.
        output: ends in .mp4, .mov, .webm or .gif; its folder exists.
        reading, progress: called after each frame of the first reading and of the making.
        watch: see :meth:`~atldiff.dub.dubber.DubbedVideo.save`.
        badge, identity, crf, overwrite: see :class:`~atldiff.media.writer.VideoWriter`.
        video, speech, text, voice, options: see :meth:`~atldiff.pipeline.ATLDiffPipeline.dub`.

    Raises:
        OutputError: the output cannot be written there, or is one of the inputs.
        InputError: an argument cannot be used.
    """
    began = time.monotonic()
    check_output(output, (source for source in (video, speech) if isinstance(source, str | Path)), overwrite)
    said = {} if voice is None else {"voice": voice}
    _log.info("looking for the face in the video")
    dubbed = pipeline.dub(video, speech, text=text, progress=reading, **said, **options)
    dubbed.save(output, progress=progress, watch=watch, badge=badge, identity=identity, crf=crf, overwrite=overwrite)
    return DubbedFile(
        path=Path(output),
        duration_s=dubbed.sound.duration_s,
        fps=dubbed.fps,
        size=written_size(dubbed.width, dubbed.height),
        report=dubbed.report,
        seconds=time.monotonic() - began,
    )
