"""Options of a dub, of the one table of options. Costs no heavy import."""

from dataclasses import dataclass, field
from typing import TypedDict

from atldiff.options import FACE, check_options, option

LONGER = ("hold", "loop", "error")
SHORTER = ("keep", "cut")


class DubArguments(TypedDict, total=False):
    """The keyword arguments of :meth:`~atldiff.pipeline.ATLDiffPipeline.dub`, where they are handed on."""

    longer: str
    shorter: str
    old_sound: float
    mouth: float
    face: int | None
    sample_rate: float | None
    audio_track: int | None


@dataclass(frozen=True)
class DubOptions:
    """How a video is dubbed."""

    longer: str = option(
        LONGER[0],
        str,
        "for a speech longer than the video: play the last second to and fro, begin anew, or refuse",
        description="What is shown when the speech is longer than the video (mode dub).",
        choices=LONGER,
    )
    shorter: str = option(
        SHORTER[0],
        str,
        "for a shorter one: keep the rest of the video with the mouth at rest, or cut it off",
        description="What, when it is shorter (mode dub).",
        choices=SHORTER,
    )
    old_sound: float = option(
        0.0,
        float,
        "how loud the video's own sound is under the speech, {range}",
        description="How loud the video's own sound stays (mode dub).",
        most=1,
    )
    face: int | None = field(default=None, metadata={"about": FACE})

    def __post_init__(self) -> None:
        check_options(self)
