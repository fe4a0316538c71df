"""The kinds of files that videos are written to."""

from dataclasses import dataclass
from pathlib import Path

from atldiff.errors import InputError, OutputError


@dataclass(frozen=True)
class FileKind:
    """One kind of file.

    Attributes:
        suffix: of its name.
        muxer: FFmpeg's name of the container.
        codec, options, pixels: of the picture.
        sound: codec of the sound; empty where there is none.
        crf: quality where nobody asks for another, lower is better; None where there is no such scale.
        worst_crf: the end of that scale.
        signed_as: media type under which it is signed; empty where C2PA knows no place for a manifest in it.
    """

    suffix: str
    muxer: str
    codec: str
    options: tuple[tuple[str, str], ...]
    pixels: str
    sound: str
    crf: float | None
    worst_crf: float
    signed_as: str


_H264 = (("preset", "veryfast"), ("profile", "high"), ("x264-params", "subme=1:rc-lookahead=8:b-adapt=0"))
_VP9 = (("deadline", "realtime"), ("cpu-used", "6"), ("row-mt", "1"), ("b", "0"))

_KINDS = (
    FileKind(".mp4", "mp4", "libx264", _H264, "yuv420p", "aac", 18, 51, "video/mp4"),
    FileKind(".mov", "mov", "libx264", _H264, "yuv420p", "aac", 18, 51, "video/quicktime"),
    FileKind(".webm", "webm", "libvpx-vp9", _VP9, "yuv420p", "libopus", 24, 63, ""),
    FileKind(".gif", "gif", "gif", (), "pal8", "", None, 0, "image/gif"),
)

SUFFIXES = tuple(kind.suffix for kind in _KINDS)


def file_kind(path: Path) -> FileKind:
    """What a file of that name is to be. Raises OutputError: no such kind."""
    for kind in _KINDS:
        if path.suffix.lower() == kind.suffix:
            return kind
    expected = f"{', '.join(SUFFIXES[:-1])} or {SUFFIXES[-1]}"
    raise OutputError(f"cannot write {path}: its suffix is {path.suffix!r}; expected {expected}")


def check_crf(crf: float | None, kind: FileKind) -> float | None:
    """The quality for a file of that kind, its own where none is asked for. Raises InputError."""
    if crf is None:
        return kind.crf
    if kind.crf is None:
        raise InputError(f"crf is {crf:g}, and a {kind.suffix} file has no such quality; expected none")
    if not 0 <= crf <= kind.worst_crf:
        raise InputError(f"crf is {crf:g}; expected 0 (best) to {kind.worst_crf:g} for a {kind.suffix} file")
    return crf
