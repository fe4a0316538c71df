"""Options about size, shape, background and sound track, checked before any file is opened."""

import re
from typing import Any

from atldiff.errors import InputError
from atldiff.media.pictures import check_background

SIZES = (64, 4096)
"""Pixels that the longer side of a video may be asked to have at most."""

DEFAULT_MAX_SIZE = 1920
"""Longest side in pixels of a video, where nobody asks for another."""

NAMES = ("face", "max_size", "aspect", "background", "audio_track")
"""The options of :func:`check_framing`."""

_ASPECT = re.compile(r"(\d{1,4}):(\d{1,4})", re.ASCII)
_MOST_ASPECT = 4.0


def check_framing(
    face: int | None = None,
    max_size: int | None = None,
    aspect: str | None = None,
    background: str | None = None,
    audio_track: int | None = None,
) -> None:
    """Raise InputError for a value that :meth:`~atldiff.pipeline.ATLDiffPipeline.stream` cannot use, whatever the
    portrait and the speech."""
    check_max_size(max_size)
    aspect_ratio(aspect)
    check_background(background)
    for name, number in (("face", face), ("audio_track", audio_track)):
        if number is not None and (not _is_whole(number) or not 1 <= number <= 1000):
            raise InputError(f"{name} is {number!r}; expected 1 or more", name)


def check_max_size(max_size: Any) -> None:
    """Raises InputError."""
    least, most = SIZES
    if max_size is not None and not (_is_whole(max_size) and least <= max_size <= most):
        raise InputError(f"max_size is {max_size}; expected {least} to {most} pixels", "max_size")


def aspect_ratio(text: str | None) -> float | None:
    """Width over height of a shape like ``9:16``. Raises InputError."""
    if text is None:
        return None
    match = _ASPECT.fullmatch(str(text))
    width, height = map(int, match.groups()) if match else (0, 0)
    if not width or not height or not 1 / _MOST_ASPECT <= width / height <= _MOST_ASPECT:
        raise InputError(f"aspect is {text!r}; expected a shape like 9:16, 1:1 or 16:9", "aspect")
    return width / height


def _is_whole(number: Any) -> bool:
    return isinstance(number, int) and not isinstance(number, bool)
