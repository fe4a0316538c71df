"""Options of a dub, checked in one place before any work is done. Costs no heavy import."""

from dataclasses import dataclass
from typing import Any, TypedDict

from atldiff.errors import InputError

LONGER = ("hold", "loop", "error")
SHORTER = ("keep", "cut")


class DubArguments(TypedDict, total=False):
    """The keyword arguments of :meth:`~atldiff.pipeline.ATLDiffPipeline.dub`, where they are handed on."""

    longer: str
    shorter: str
    background: float
    mouth: float
    face: int | None
    sample_rate: float | None
    audio_track: int | None


@dataclass(frozen=True)
class DubOptions:
    """How a video is dubbed.

    Attributes:
        longer: what is shown when the speech is longer than the video: ``hold`` plays its last second to and fro,
            ``loop`` begins it anew, ``error`` refuses.
        shorter: what, when it is shorter: ``keep`` shows the mouth at rest to the end, ``cut`` ends with the speech.
        background: how loud the video's own sound is under the speech, 0 (not at all) to 1.
        face: which face of the first frame that shows one, from 1 at the left; the largest if None.
    """

    longer: str = "hold"
    shorter: str = "keep"
    background: float = 0.0
    face: int | None = None

    def __post_init__(self) -> None:
        for name, known in (("longer", LONGER), ("shorter", SHORTER)):
            if getattr(self, name) not in known:
                raise InputError(
                    f"{name} is {getattr(self, name)!r}; expected {', '.join(known[:-1])} or {known[-1]}", name
                )
        object.__setattr__(self, "background", _share("background", self.background))
        if self.face is not None and (isinstance(self.face, bool) or not isinstance(self.face, int) or self.face < 1):
            raise InputError(f"face is {self.face!r}; expected 1 or more, counted from the left", "face")


def _share(name: str, value: Any) -> float:
    if isinstance(value, bool | str) or not isinstance(value, int | float) or not 0 <= value <= 1:
        raise InputError(f"{name} is {value!r}; expected 0 to 1", name)
    return float(value)
