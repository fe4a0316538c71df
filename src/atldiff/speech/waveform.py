"""Speech recordings of any kind and length, read in constant memory as often as needed."""

import functools
import hashlib
import logging
import os
from collections.abc import Callable, Iterable, Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any, Self

import av
import numpy as np
from av.audio.frame import AudioFrame

from atldiff.errors import InputError
from atldiff.media.files import existing_file, frame_rate
from atldiff.media.forms import content_of, local_path, plain_array, standard_input
from atldiff.media.sound import (
    BLOCK_SAMPLES,
    EXPECTED,
    MAX_CHANNELS,
    MAX_SAMPLE_RATE,
    SoundPiece,
    as_float,
    count_tracks,
    read_sound,
    stated_duration,
)
from atldiff.speech import SAMPLE_RATE
from atldiff.speech.blocks import regrouped
from atldiff.speech.loudness import LoudnessMeter, levelled
from atldiff.speech.mixing import mixed, mono_weights, track_weights

MIN_DURATION_S = 0.04
MIN_TRUNCATED_DURATION_S = 0.2
AAC_SAMPLE_RATES = (96000, 88200, 64000, 48000, 44100, 32000, 24000, 22050, 16000, 12000, 11025, 8000)

SILENT_PEAK = 1e-4
"""A recording that never exceeds this, -80 dB, is silent."""

_MAX_ARRAY_PEAK = 2.0
_MISSING_SHARE, _MISSING_S = 0.02, 0.1
"""How much shorter than its header states a file may be without being called broken off."""

_log = logging.getLogger("atldiff")


class Speech:
    """A recording that can be read any number of times; a file is decoded anew each time, never held.

    A sound track of a video keeps its time: second 0 is the first picture, so a track that starts late is
    preceded by silence and one that starts early loses what comes before. The padding that an encoder
    appended at the end of an MP4 track is left out. More than two channels are mixed down to two; to one, for the
    networks, by their mean, or to the loudest where they would cancel each other out.

    Attributes:
        path: the file; None when made from memory.
        name: what messages call it.
        sample_rate: of the recording, in Hz.
        channels: of the recording, before any mixing.
        num_samples: per channel, at ``sample_rate``; counted, not taken from the file's header.
        peak: largest absolute sample of any channel; 1.0 is full scale.
        digest: hash of the samples, the same for the same sound.
    """

    def __init__(
        self, pieces: Callable[[], Iterable[SoundPiece]], path: Path | None = None, name: str = "the speech array"
    ) -> None:
        """Use :meth:`open`, :meth:`from_bytes` or :meth:`from_array`. ``pieces`` reads anew at each call."""
        self._pieces = pieces
        self.path = path
        self.name = name
        self.sample_rate = self.channels = self.num_samples = 0
        self.peak = 0.0
        self._names: tuple[str, ...] = ()
        products, digest = np.zeros((0, 0)), hashlib.sha256()
        for piece in pieces():
            if not self.num_samples:
                self.sample_rate, self._names = piece.sample_rate, piece.names
                self.channels = len(piece.names)
                products = np.zeros((self.channels, self.channels))
            samples = self._checked(piece)
            self.num_samples += samples.shape[1]
            self.peak = max(self.peak, float(np.abs(samples).max(initial=0.0)))
            products += samples @ samples.T
            digest.update(np.round(samples.clip(-1, 1) * 32767).astype("<i2").tobytes())
        self.digest = digest.hexdigest()
        if not self.num_samples:
            raise InputError(f"{name} has a sound track of zero length; expected at least {MIN_DURATION_S} s")
        if self.duration_s < MIN_DURATION_S:
            raise InputError(f"{name} lasts {self.duration_s:.4f} s; expected at least {MIN_DURATION_S} s")
        self._track_weights = track_weights(self._names)
        self._mono_weights = mono_weights(self._names, products)

    def _checked(self, piece: SoundPiece) -> np.ndarray:
        """A piece's samples if they are finite and of the recording's rate, with the recording's channels."""
        if piece.sample_rate != self.sample_rate:
            raise InputError(
                f"{self.name} changes its sample rate from {self.sample_rate} to {piece.sample_rate} Hz; "
                "expected one rate"
            )
        finite = np.isfinite(piece.samples).all(axis=0)
        if not finite.all():
            index = self.num_samples + int(np.argmin(finite))
            raise InputError(
                f"{self.name} has a NaN or infinite sample at {index / self.sample_rate:.3f} s "
                f"(sample {index}); expected finite numbers"
            )
        return _with_channels(piece.samples, self.channels)

    @classmethod
    def open(cls, path: str | Path, track: int | None = None) -> Self:
        """Speech from a file: sound of any usual format, rate and channel count, or a video's sound.

        The file is decoded once to count and to check its samples. Of a file that breaks off, what can be
        decoded is taken, with a warning, if it is at least ``MIN_TRUNCATED_DURATION_S`` long. Where a track's clock
        leaves a gap there is silence.

        Args:
            path: the file.
            track: number of the sound track, from 1; the file's default track if None.

        Raises:
            InputError: missing, a folder, not media, no sound track, too short, or NaN/infinite samples.
        """
        path = existing_file(path, EXPECTED)
        return cls._decoded(path, path, str(path), track)

    @classmethod
    def from_bytes(cls, content: bytes, track: int | None = None, name: str = "the speech") -> Self:
        """Speech from the content of a file, see :meth:`open`."""
        if not content:
            raise InputError(f"{name} is empty; expected {EXPECTED}")
        return cls._decoded(content, None, name, track)

    @classmethod
    def _decoded(cls, source: Path | bytes, path: Path | None, name: str, track: int | None) -> Self:
        speech = cls(lambda: read_sound(source, name, track), path, name)
        stated = stated_duration(source, name, track)
        if stated is not None and speech.duration_s < stated * (1 - _MISSING_SHARE) - _MISSING_S:
            if speech.duration_s < MIN_TRUNCATED_DURATION_S:
                raise InputError(
                    f"{name} breaks off after {speech.duration_s:.3f} s of {stated:.3f} s; "
                    f"expected at least {MIN_TRUNCATED_DURATION_S} s"
                )
            _log.warning("%s breaks off after %.2f s of %.2f s", name, speech.duration_s, stated)
        if speech.peak < SILENT_PEAK:
            tracks = count_tracks(source, name)
            others = f"; it has {tracks} sound tracks, choose with --audio-track N" if tracks > 1 else ""
            _log.warning("%s is silent: the mouth will not move%s", name, others)
        return speech

    @classmethod
    def from_array(cls, samples: np.ndarray, sample_rate: float) -> Self:
        """Speech from memory; the samples are copied.

        Args:
            samples: (samples,), (channels, samples) or (samples, channels); int16, int32, or floats in [-1, 1].
            sample_rate: in Hz.

        Raises:
            InputError: any other shape, type or range, too short, or NaN/infinite samples.
        """
        samples = np.array(samples)
        _check_array(samples, sample_rate)
        rows = np.atleast_2d(samples)
        if len(rows) > rows.shape[1] and len(rows) > 1:
            rows = np.ascontiguousarray(rows.T)
        speech = cls(lambda: _read_array(rows, int(sample_rate)))
        if speech.peak > _MAX_ARRAY_PEAK:
            raise InputError(f"the speech array peaks at {speech.peak:g}; expected int16, or floats in [-1, 1]")
        if speech.peak < SILENT_PEAK:
            _log.warning("%s is silent: the mouth will not move", speech.name)
        return speech

    @classmethod
    def coerce(cls, value: Any, sample_rate: float | None = None, track: int | None = None) -> "Speech":
        """Speech in any of the forms in which people have it.

        Args:
            value: a ``Speech``; a path, ``-`` for standard input, the bytes of a file or an open one; an array or a
                tensor as for :meth:`from_array`; ``(rate, array)`` or ``(array, rate)``; a dictionary with ``array``
                and ``sampling_rate``, or with ``bytes`` or ``path``, as data sets have it.
            sample_rate: of an array, in Hz.
            track: number of the sound track of a file, from 1; the file's default track if None.

        Raises:
            InputError: it is none of these, or cannot be read.
        """
        if isinstance(value, Speech):
            return value
        if callable(getattr(value, "get_all_samples", None)):
            value = value.get_all_samples()
            value = (value.sample_rate, value.data)
        if isinstance(value, dict):
            value, sample_rate = _from_dictionary(value, sample_rate)
        if isinstance(value, tuple) and len(value) == 2:
            first, second = value
            value, rate = (second, first) if isinstance(first, int | float | np.number) else (first, second)
            sample_rate = check_sample_rate(rate)
        if isinstance(value, str | os.PathLike):
            if str(value) == "-":
                return cls.from_bytes(standard_input(), track, "standard input")
            return cls.open(local_path(value, EXPECTED), track)
        if (content := content_of(value)) is not None:
            return cls.from_bytes(content, track)
        if (array := plain_array(value)) is not None:
            if sample_rate is None:
                raise InputError("got an array as speech without its rate; expected sample_rate=… in Hz")
            return cls.from_array(array, sample_rate)
        raise InputError(
            f"got {type(value).__name__} as speech; expected a path, the bytes of a file, or an array and its "
            "sample_rate"
        )

    def __repr__(self) -> str:
        channels = "1 channel" if self.channels == 1 else f"{self.channels} channels"
        return f"Speech({self.name!r}, {self.duration_s:.2f} s, {self.sample_rate} Hz, {channels})"

    @property
    def duration_s(self) -> float:
        """Length in seconds: decoded samples over sample rate."""
        return self.num_samples / self.sample_rate

    @property
    def track_rate(self) -> int:
        """Rate in Hz of :meth:`stereo_blocks`: the recording's own where AAC knows it, else 48 kHz."""
        return self.sample_rate if self.sample_rate in AAC_SAMPLE_RATES else 48_000

    @property
    def track_channels(self) -> int:
        """Channels of :meth:`stereo_blocks`, 1 or 2."""
        return min(2, self.channels)

    def frames_at(self, fps: float | Fraction) -> int:
        """Number of video frames that this speech fills: its length times ``fps``, rounded, at least 1."""
        return max(1, round(Fraction(self.num_samples, self.sample_rate) * frame_rate(fps)))

    def blocks(self, sample_rate: int = SAMPLE_RATE) -> Iterator[np.ndarray]:
        """A new reading of the whole speech, mono: (samples,) float32 blocks of any size.

        Together they hold exactly round(duration · sample_rate) samples; sample i is at i / sample_rate.
        """
        for block in self._read(sample_rate, self._mono_weights):
            yield block[0]

    def stereo_blocks(self, sample_rate: int | None = None) -> Iterator[np.ndarray]:
        """A new reading for a video's sound track: (track_channels, n) float32 blocks, at ``track_rate`` if None."""
        return self._read(self.track_rate if sample_rate is None else sample_rate, self._track_weights)

    @functools.cached_property
    def gain_db(self) -> float:
        """What brings this speech to the loudness that the networks know, see :mod:`atldiff.speech.loudness`."""
        meter = LoudnessMeter()
        for block in self.blocks():
            meter.hear(block)
        return meter.gain_db

    def levelled_blocks(self) -> Iterator[np.ndarray]:
        """:meth:`blocks` at 16 kHz, at the loudness that the networks know."""
        return levelled(self.blocks(), self.gain_db)

    def _read(self, sample_rate: int, weights: np.ndarray) -> Iterator[np.ndarray]:
        pieces = (_with_channels(piece.samples, self.channels) for piece in self._pieces())
        blocks: Iterator[np.ndarray] = regrouped((mixed(samples, weights) for samples in pieces), BLOCK_SAMPLES)
        if sample_rate != self.sample_rate:
            blocks = resampled(blocks, self.sample_rate, sample_rate)
        missing = round(Fraction(self.num_samples * sample_rate, self.sample_rate))
        for block in blocks:
            block = block[:, :missing]
            missing -= block.shape[1]
            if block.size:
                yield block
        if missing:
            yield np.zeros((len(weights), missing), dtype=np.float32)


def read_waveform(path: str | Path) -> np.ndarray:
    """The sound of ``path`` as (samples,) float32 in [-1, 1] at 16 kHz mono. Raises InputError."""
    return np.concatenate(list(Speech.open(path).blocks()))


def _check_array(samples: np.ndarray, sample_rate: float) -> None:
    if samples.dtype not in (np.int16, np.int32) and samples.dtype.kind != "f":
        raise InputError(f"the speech array has type {samples.dtype}; expected int16, int32, or floats in [-1, 1]")
    if samples.ndim not in (1, 2) or (samples.ndim == 2 and not 1 <= min(samples.shape) <= MAX_CHANNELS):
        raise InputError(
            f"the speech array has shape {samples.shape}; expected (samples,), (channels, samples) or "
            f"(samples, channels) with at most {MAX_CHANNELS} channels"
        )
    check_sample_rate(sample_rate)


def _from_dictionary(value: dict[str, Any], sample_rate: float | None) -> tuple[Any, float | None]:
    """What a data set's dictionary holds, and its rate."""
    rate = value.get("sampling_rate", value.get("sample_rate", sample_rate))
    for name in ("array", "bytes", "path"):
        if value.get(name) is not None:
            return value[name], rate
    keys = ", ".join(map(str, value))
    raise InputError(f"got a dictionary with {keys or 'nothing'} as speech; expected array and sampling_rate")


def check_sample_rate(sample_rate: Any) -> int:
    """``sample_rate`` in Hz if it can be read. Raises InputError."""
    try:
        rate = int(sample_rate)
    except (TypeError, ValueError, OverflowError):
        rate = 0
    if rate != sample_rate or not 1000 <= rate <= MAX_SAMPLE_RATE:
        raise InputError(
            f"got a sample rate of {sample_rate} Hz; expected a whole number from 1000 to {MAX_SAMPLE_RATE}"
        )
    return rate


def _read_array(rows: np.ndarray, sample_rate: int) -> Iterator[SoundPiece]:
    names = ("NONE",) * len(rows)
    for start in range(0, rows.shape[1], BLOCK_SAMPLES):
        yield SoundPiece(as_float(rows[:, start : start + BLOCK_SAMPLES]), sample_rate, names)


def _with_channels(samples: np.ndarray, channels: int) -> np.ndarray:
    """(any, n) → (channels, n): where a file changes their number, the mean in each."""
    if len(samples) == channels:
        return samples
    return np.repeat(samples.mean(axis=0, keepdims=True), channels, axis=0)


def resampled(blocks: Iterable[np.ndarray], source_rate: int, target_rate: int) -> Iterator[np.ndarray]:
    """(1 or 2, n) float32 blocks at one rate in Hz → blocks at another, as they come."""
    resampler = None
    for block in blocks:
        layout = "mono" if block.shape[0] == 1 else "stereo"
        if resampler is None:
            resampler = av.AudioResampler(format="fltp", layout=layout, rate=target_rate)
        frame = AudioFrame.from_ndarray(np.ascontiguousarray(block), format="fltp", layout=layout)
        frame.sample_rate = source_rate
        yield from (piece.to_ndarray() for piece in resampler.resample(frame))
    if resampler is not None:
        yield from (piece.to_ndarray() for piece in resampler.resample(None))
