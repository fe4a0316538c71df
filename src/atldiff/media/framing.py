"""Options about size, shape, background and sound track, checked before any file is opened."""

import re
from typing import Any

from atldiff.errors import InputError
from atldiff.media.pictures import check_background
from atldiff.options import FramingOptions

_ASPECT = re.compile(r"(\d{1,4}):(\d{1,4})", re.ASCII)
_MOST_ASPECT = 4.0


def check_framing(**given: Any) -> None:
    """Raise InputError for a value of :class:`~atldiff.options.FramingOptions` that
    :meth:`~atldiff.pipeline.ATLDiffPipeline.stream` cannot use, whatever the portrait and the speech."""
    options = FramingOptions(**given)
    aspect_ratio(options.aspect)
    check_background(options.background)


def aspect_ratio(text: str | None) -> float | None:
    """Width over height of a shape like ``9:16``. Raises InputError."""
    if text is None:
        return None
    match = _ASPECT.fullmatch(str(text))
    width, height = map(int, match.groups()) if match else (0, 0)
    if not width or not height or not 1 / _MOST_ASPECT <= width / height <= _MOST_ASPECT:
        raise InputError(f"aspect is {text!r}; expected a shape like 9:16, 1:1 or 16:9", "aspect")
    return width / height
