"""Sound tracks of files as pieces of samples, each at its time: what is missing in between is silence."""

import contextlib
import logging
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import NamedTuple

import av
import numpy as np
from av.audio.frame import AudioFrame
from av.audio.stream import AudioStream
from av.container import InputContainer
from av.error import FFmpegError

from atldiff.errors import InputError
from atldiff.media.files import check_codec, decoded_frames, open_media

EXPECTED = "a sound file or a video with sound"

MAX_DURATION_S = 86_400
"""A sound track is read no further than this: a day."""

MAX_CHANNELS = 32
MAX_SAMPLE_RATE = 768_000

BLOCK_SAMPLES = 16_384

LONGEST_GAP_S = 600.0
"""Longer jumps of a track's clock are taken for a fault of the clock, not for a pause."""

_SHORTEST_GAP_S = 0.03
"""Clocks that differ by less from the samples heard so far tremble, or round."""

_LONGEST_STEP_BACK_S = 1.0
"""A clock that goes back by more begins anew, as in files that were joined."""

_LONGEST_PADDING = 4096
"""Samples at the end of an MP4 sound track that may be the encoder's padding: two frames of HE-AAC."""

_EXACT_FORMATS = frozenset(("mov", "matroska", "flac", "wav", "w64", "aiff", "caf", "au", "ogg"))
"""Formats that state how long they are; the length of others is estimated."""

_log = logging.getLogger("atldiff")


class SoundPiece(NamedTuple):
    """A piece of a sound track.

    Attributes:
        samples: (channels, n) float32.
        sample_rate: in Hz.
        names: where each channel's loudspeaker stands, by FFmpeg's names.
    """

    samples: np.ndarray
    sample_rate: int
    names: tuple[str, ...]


def read_sound(source: Path | bytes, name: str, track: int | None = None) -> Iterator[SoundPiece]:
    """A sound track of a file, from the time of its first picture.

    Args:
        source: the file or its content.
        name: of it, for messages.
        track: number of the sound track from 1; None takes the one that the file says is the default.

    Raises:
        InputError: it cannot be read, or has no such track.
    """
    with open_media(source, EXPECTED, name) as container:
        stream = choose_track(container, name, track)
        check_codec(stream, name, EXPECTED)
        pieces = _without_padding(_decoded(container, stream, name), _mp4_duration(container, stream))
        position, trimmed = Fraction(0), None
        for start, piece in pieces:
            if trimmed is None:
                lead = start - _picture_start(container, start)
                if lead > LONGEST_GAP_S:
                    raise InputError(
                        f"the sound of {name} begins {float(lead):.0f} s after its picture; "
                        f"expected at most {LONGEST_GAP_S:g} s"
                    )
                position, trimmed = start, max(0, round(-lead * piece.sample_rate))
                yield from _silence(piece, round(lead * piece.sample_rate))
            elif start - position > _SHORTEST_GAP_S:
                yield from _silence(piece, _gap_samples(start - position, piece.sample_rate, name))
                position = start
            elif start - position < -_LONGEST_STEP_BACK_S:
                position = start
            count = piece.samples.shape[1]
            position += Fraction(count, piece.sample_rate)
            dropped = min(trimmed, count)
            trimmed -= dropped
            if count > dropped:
                yield piece._replace(samples=piece.samples[:, dropped:])


def choose_track(container: InputContainer, name: str, number: int | None) -> AudioStream:
    """A file's sound track of that number, from 1, or the default one. Raises InputError."""
    tracks = list(container.streams.audio)
    if not tracks:
        raise InputError(f"{name} has no sound track; expected {EXPECTED}")
    if number is None:
        return next((each for each in tracks if each.disposition & each.disposition.default), tracks[0])
    if not 1 <= number <= len(tracks):
        has = "1 sound track" if len(tracks) == 1 else f"{len(tracks)} sound tracks"
        raise InputError(f"{name} has {has}, no number {number}; expected 1 to {len(tracks)}")
    return tracks[number - 1]


def count_tracks(source: Path | bytes, name: str) -> int:
    """How many sound tracks a file has. Raises InputError."""
    with open_media(source, EXPECTED, name) as container:
        return len(container.streams.audio)


def stated_duration(source: Path | bytes, name: str, track: int | None = None) -> float | None:
    """Seconds that a file says its track lasts; None where it says nothing exact. Raises InputError."""
    with open_media(source, EXPECTED, name) as container:
        stream = choose_track(container, name, track)
        exact = not _EXACT_FORMATS.isdisjoint(container.format.name.split(","))
        if not exact or stream.duration is None or stream.time_base is None:
            return None
        return float(stream.duration * stream.time_base)


def as_float(samples: np.ndarray) -> np.ndarray:
    """Integer samples of any width scaled to [-1, 1]; all as float32."""
    if samples.dtype == np.uint8:
        return (samples.astype(np.float32) - 128) / 128
    if samples.dtype.kind == "i":
        return (samples / float(2 ** (samples.dtype.itemsize * 8 - 1))).astype(np.float32)
    return samples.astype(np.float32)


def _silence(like: SoundPiece, count: int) -> Iterator[SoundPiece]:
    for done in range(0, count, BLOCK_SAMPLES):
        empty = np.zeros((len(like.names), min(BLOCK_SAMPLES, count - done)), dtype=np.float32)
        yield like._replace(samples=empty)


def _gap_samples(gap_s: Fraction, sample_rate: int, name: str) -> int:
    if gap_s > LONGEST_GAP_S:
        _log.warning("the clock of %s jumps by %.0f s; what follows is joined without a pause", name, float(gap_s))
        return 0
    return round(gap_s * sample_rate)


def _decoded(container: InputContainer, stream: AudioStream, name: str) -> Iterator[tuple[Fraction, SoundPiece]]:
    """(start in seconds, piece) of everything that decodes; what a broken packet lost becomes silence."""
    end, total, lost = Fraction(0), Fraction(0), False
    for frame in _frames(container, stream):
        if frame is None:
            lost = True
            continue
        names = tuple(channel.name for channel in frame.layout.channels)
        if not 1 <= len(names) <= MAX_CHANNELS or not 0 < frame.sample_rate <= MAX_SAMPLE_RATE:
            raise InputError(
                f"{name} has {len(names)} channels at {frame.sample_rate} Hz; expected 1 to {MAX_CHANNELS} channels "
                f"and at most {MAX_SAMPLE_RATE} Hz"
            )
        start = end if frame.pts is None or frame.time_base is None else frame.pts * frame.time_base
        piece = SoundPiece(as_float(_samples(frame)), frame.sample_rate, names)
        if lost and end and 0 < start - end <= _SHORTEST_GAP_S:
            empty = np.zeros((len(names), round((start - end) * frame.sample_rate)), dtype=np.float32)
            yield end, piece._replace(samples=empty)
        length, lost = Fraction(frame.samples, frame.sample_rate), False
        end, total = start + length, total + length
        if total > MAX_DURATION_S:
            raise InputError(f"{name} lasts longer than {MAX_DURATION_S // 3600} hours; expected at most that")
        yield start, piece


def _samples(frame: AudioFrame) -> np.ndarray:
    """(channels, n) of the frame's own type."""
    if frame.format.name.startswith("s64"):
        frame = av.AudioResampler(format="dblp", layout=frame.layout, rate=frame.sample_rate).resample(frame)[0]
    samples = frame.to_ndarray()
    return samples if frame.format.is_planar else samples.reshape(-1, frame.layout.nb_channels).T


def _frames(container: InputContainer, stream: AudioStream) -> Iterator[AudioFrame | None]:
    """The decoded frames up to where the file breaks off; None in place of a packet that does not decode."""
    with contextlib.suppress(FFmpegError):
        for frame in decoded_frames(container, stream):
            assert frame is None or isinstance(frame, AudioFrame)
            yield frame


def _without_padding(
    pieces: Iterator[tuple[Fraction, SoundPiece]], duration: Fraction | None
) -> Iterator[tuple[Fraction, SoundPiece]]:
    """``pieces`` up to ``duration`` seconds of samples when no more than an encoder's padding lies beyond."""
    held: list[tuple[Fraction, SoundPiece]] = []
    origin = None
    for start, piece in pieces:
        origin = start if origin is None else origin
        length = piece.samples.shape[1]
        left = length if duration is None else round((origin + duration - start) * piece.sample_rate)
        if left >= length:
            yield start, piece
        elif left + _LONGEST_PADDING < length:
            yield from held
            held, duration = [], None
            yield start, piece
        else:
            kept = max(0, left)
            if kept:
                yield start, piece._replace(samples=piece.samples[:, :kept])
            held.append((start + Fraction(kept, piece.sample_rate), piece._replace(samples=piece.samples[:, kept:])))


def _mp4_duration(container: InputContainer, stream: AudioStream) -> Fraction | None:
    """Length in seconds of a sound track without the encoder's padding, where the file states it exactly."""
    if "mp4" not in container.format.name or not stream.duration or stream.time_base is None:
        return None
    return stream.duration * stream.time_base


def _picture_start(container: InputContainer, default: Fraction) -> Fraction:
    """Time of the first picture in seconds; ``default`` where there is none but perhaps a cover."""
    for stream in container.streams.video:
        if not stream.disposition & stream.disposition.attached_pic and stream.time_base is not None:
            return (stream.start_time or 0) * stream.time_base
    return default
