"""What reading and writing of sound, pictures and video share: opening files, exact frame rates."""

import math
import os
from collections.abc import Iterator
from contextlib import contextmanager
from fractions import Fraction
from pathlib import Path

import av
from av.container import InputContainer
from av.error import FFmpegError

from atldiff.errors import InputError

MAX_FPS = 240

_NTSC_RATES = tuple(Fraction(whole * 1000, 1001) for whole in (24, 30, 48, 60, 120))
_NTSC_TOLERANCE = 0.005


def frame_rate(fps: float | Fraction) -> Fraction:
    """Frames per second as an exact fraction; 23.976, 29.97, 59.94 … mean the NTSC rates n·1000/1001.

    Raises:
        InputError: not a number above 0 and up to ``MAX_FPS``.
    """
    if not math.isfinite(fps) or not 0 < fps <= MAX_FPS:
        raise InputError(f"got {fps} frames per second; expected a number above 0 and up to {MAX_FPS}")
    if not isinstance(fps, Fraction):
        for rate in _NTSC_RATES:
            if fps != round(fps) and abs(fps - rate) < _NTSC_TOLERANCE:
                return rate
    rate = Fraction(fps).limit_denominator(1001)
    if not rate:
        raise InputError(f"got {fps} frames per second; expected at least 1/1001")
    return rate


def existing_file(path: str | os.PathLike[str], expected: str) -> Path:
    """``path`` as a ``Path`` when it is a file with something in it.

    Args:
        path: what the caller gave.
        expected: what it should have been, for the message: "a sound or video file".

    Raises:
        InputError: there is nothing, a folder, no ordinary file, or an empty file.
    """
    path = Path(path)
    try:
        if path.is_dir():
            raise InputError(f"{path} is a folder; expected {expected}")
        if not path.exists():
            raise InputError(f"{path} does not exist; expected {expected}")
        if not path.is_file():
            raise InputError(f"{path} is not an ordinary file; expected {expected}")
        if not path.stat().st_size:
            raise InputError(f"{path} is empty; expected {expected}")
    except OSError as error:
        raise InputError(f"{path} cannot be read ({error.strerror}); expected {expected}") from error
    return path


@contextmanager
def open_media(path: Path, expected: str) -> Iterator[InputContainer]:
    """Open a media file by its content; what it refers to (playlists, addresses) is never opened.

    Raises:
        InputError: the file cannot be opened or is not media; ``expected`` says what it should have been.
    """
    try:
        stream = path.open("rb")
    except OSError as error:
        raise InputError(f"{path} cannot be read ({error.strerror}); expected {expected}") from error
    with stream:
        try:
            options = {"protocol_whitelist": "none"}
            container = av.open(stream, "r", options=options, metadata_errors="replace")
        except (FFmpegError, OSError) as error:
            raise InputError(f"{path} cannot be read as sound or video; expected {expected}") from error
        with container:
            yield container
