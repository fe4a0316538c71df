"""Speech recordings of any kind and length, read in constant memory as often as needed."""

import logging
from collections.abc import Callable, Iterable, Iterator
from fractions import Fraction
from pathlib import Path
from typing import NamedTuple, Self

import av
import numpy as np
from av.audio.frame import AudioFrame
from av.audio.stream import AudioStream
from av.container import InputContainer
from av.error import FFmpegError

from atldiff.errors import InputError
from atldiff.media import existing_file, frame_rate, open_media
from atldiff.speech import SAMPLE_RATE

MIN_DURATION_S = 0.04
MIN_TRUNCATED_DURATION_S = 0.2
AAC_SAMPLE_RATES = (96000, 88200, 64000, 48000, 44100, 32000, 24000, 22050, 16000, 12000, 11025, 8000)

_EXPECTED = "a sound file or a video with sound"
_MAX_ARRAY_PEAK = 2.0
_MAX_CHANNELS = 32
_MAX_SAMPLE_RATE = 768_000
_BLOCK_SAMPLES = 16_384
_LONGEST_PADDING = 4096
"""Samples at the end of an MP4 sound track that may be the encoder's padding: two frames of HE-AAC."""

_MISSING_SHARE, _MISSING_S = 0.02, 0.1
"""How much shorter than its header states a file may be without being called broken off."""

_STEREO_WEIGHTS = {
    "FL": (1.0, 0.0),
    "FR": (0.0, 1.0),
    "FC": (0.7071, 0.7071),
    "LFE": (0.0, 0.0),
    "BL": (0.7071, 0.0),
    "BR": (0.0, 0.7071),
    "SL": (0.7071, 0.0),
    "SR": (0.0, 0.7071),
    "FLC": (0.7071, 0.3536),
    "FRC": (0.3536, 0.7071),
    "BC": (0.5, 0.5),
}
"""(left, right) weight of each loudspeaker, after ITU-R BS.775 with the rear channels at -3 dB."""

_UNNAMED_LAYOUTS = {
    6: ("FL", "FR", "FC", "LFE", "BL", "BR"),
    8: ("FL", "FR", "FC", "LFE", "BL", "BR", "SL", "SR"),
}

_log = logging.getLogger("atldiff")


class _Part(NamedTuple):
    """A piece of a sound track: (1 or 2, n) float32 samples, and rate and channel count of the source."""

    samples: np.ndarray
    sample_rate: int
    channels: int


class Speech:
    """A recording that can be read any number of times; a file is decoded anew each time, never held.

    A sound track of a video keeps its time: second 0 is the first picture, so a track that starts late is
    preceded by silence and one that starts early loses what comes before. The padding that an encoder
    appended at the end of an MP4 track is left out. More than two channels are mixed down to two.

    Attributes:
        path: the file; None when made from an array.
        sample_rate: of the recording, in Hz.
        channels: of the recording, before any mixing.
        num_samples: per channel, at ``sample_rate``; counted, not taken from the file's header.
        peak: largest absolute sample of the (at most two) channels; 1.0 is full scale.
    """

    def __init__(
        self, parts: Callable[[], Iterable[_Part]], path: Path | None = None, name: str = "the speech array"
    ) -> None:
        """Use :meth:`open` or :meth:`from_array`. ``parts`` starts a new reading at each call."""
        self._parts = parts
        self.path = path
        self.sample_rate = 0
        self.channels = 0
        self.num_samples = 0
        self.peak = 0.0
        for part in parts():
            if not self.num_samples:
                self.sample_rate, self.channels = part.sample_rate, part.channels
            if part.sample_rate != self.sample_rate:
                raise InputError(
                    f"{name} changes its sample rate from {self.sample_rate} to {part.sample_rate} Hz; "
                    "expected one rate"
                )
            finite = np.isfinite(part.samples).all(axis=0)
            if not finite.all():
                index = self.num_samples + int(np.argmin(finite))
                raise InputError(
                    f"{name} has a NaN or infinite sample at {index / self.sample_rate:.3f} s "
                    f"(sample {index}); expected finite numbers"
                )
            self.num_samples += part.samples.shape[1]
            self.peak = max(self.peak, float(np.abs(part.samples).max(initial=0.0)))
        if not self.num_samples:
            raise InputError(f"{name} has a sound track of zero length; expected at least {MIN_DURATION_S} s")
        if self.duration_s < MIN_DURATION_S:
            raise InputError(f"{name} lasts {self.duration_s:.4f} s; expected at least {MIN_DURATION_S} s")

    @classmethod
    def open(cls, path: str | Path) -> Self:
        """Speech from a file: sound of any format, rate and channel count, or a video's first sound track.

        The file is decoded once to count and to check its samples. Of a file that breaks off, what can be
        decoded is taken, with a warning, if it is at least ``MIN_TRUNCATED_DURATION_S`` long.

        Raises:
            InputError: missing, a folder, not media, no sound track, too short, or NaN/infinite samples.
        """
        path = existing_file(path, _EXPECTED)
        speech = cls(lambda: _read_file(path), path, str(path))
        stated = _stated_duration(path)
        if stated is not None and speech.duration_s < stated * (1 - _MISSING_SHARE) - MIN_TRUNCATED_DURATION_S:
            if speech.duration_s < MIN_TRUNCATED_DURATION_S:
                raise InputError(
                    f"{path} breaks off after {speech.duration_s:.3f} s of {stated:.3f} s; "
                    f"expected at least {MIN_TRUNCATED_DURATION_S} s"
                )
            _log.warning("%s breaks off after %.2f s of %.2f s", path, speech.duration_s, stated)
        return speech

    @classmethod
    def from_array(cls, samples: np.ndarray, sample_rate: int) -> Self:
        """Speech from memory; the samples are copied.

        Args:
            samples: (samples,) or (channels, samples); int16, or floating point in [-1, 1].
            sample_rate: in Hz.

        Raises:
            InputError: any other shape, type or range, too short, or NaN/infinite samples.
        """
        samples = np.array(samples)
        _check_array(samples, sample_rate)
        rows = np.atleast_2d(samples)
        speech = cls(lambda: _read_array(rows, int(sample_rate)))
        if speech.peak > _MAX_ARRAY_PEAK:
            raise InputError(f"the speech array peaks at {speech.peak:g}; expected int16, or floats in [-1, 1]")
        return speech

    @classmethod
    def coerce(cls, value: "Speech | str | Path") -> "Speech":
        """``value`` itself when it is a ``Speech``; otherwise the file of that path, opened."""
        if isinstance(value, Speech):
            return value
        if isinstance(value, str | Path):
            return cls.open(value)
        raise InputError(f"got {type(value).__name__} as speech; expected a path or Speech.from_array(...)")

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
        for block in self._read(sample_rate, 1):
            yield block[0]

    def stereo_blocks(self) -> Iterator[np.ndarray]:
        """A new reading for a video's sound track: (track_channels, n) float32 blocks at ``track_rate``."""
        return self._read(self.track_rate, self.track_channels)

    def _read(self, sample_rate: int, channels: int) -> Iterator[np.ndarray]:
        blocks: Iterator[np.ndarray] = (_with_channels(part.samples, channels) for part in self._parts())
        blocks = _joined(blocks)
        if sample_rate != self.sample_rate:
            blocks = resampled(blocks, self.sample_rate, sample_rate)
        missing = round(Fraction(self.num_samples * sample_rate, self.sample_rate))
        for block in blocks:
            block = block[:, :missing]
            missing -= block.shape[1]
            if block.size:
                yield block
        if missing:
            yield np.zeros((channels, missing), dtype=np.float32)


def read_waveform(path: str | Path) -> np.ndarray:
    """The sound of ``path`` as (samples,) float32 in [-1, 1] at 16 kHz mono. Raises InputError."""
    return np.concatenate(list(Speech.open(path).blocks()))


def _check_array(samples: np.ndarray, sample_rate: int) -> None:
    if samples.dtype != np.int16 and samples.dtype.kind != "f":
        raise InputError(f"the speech array has type {samples.dtype}; expected int16, or floats in [-1, 1]")
    if samples.ndim not in (1, 2) or (samples.ndim == 2 and not 1 <= samples.shape[0] <= _MAX_CHANNELS):
        raise InputError(
            f"the speech array has shape {samples.shape}; expected (samples,) or (channels, samples) "
            f"with at most {_MAX_CHANNELS} channels"
        )
    check_sample_rate(sample_rate)


def check_sample_rate(sample_rate: float) -> None:
    """Raise InputError unless ``sample_rate`` in Hz can be read."""
    if int(sample_rate) != sample_rate or not 1000 <= sample_rate <= _MAX_SAMPLE_RATE:
        raise InputError(
            f"got a sample rate of {sample_rate} Hz; expected a whole number from 1000 to {_MAX_SAMPLE_RATE}"
        )


def _read_array(rows: np.ndarray, sample_rate: int) -> Iterator[_Part]:
    names = ("NONE",) * len(rows)
    for start in range(0, rows.shape[1], _BLOCK_SAMPLES):
        samples = as_float(rows[:, start : start + _BLOCK_SAMPLES])
        yield _Part(_mixed_down(samples, names), sample_rate, len(rows))


def _read_file(path: Path) -> Iterator[_Part]:
    """The first sound track of a file, from the time of its first picture."""
    with open_media(path, _EXPECTED) as container:
        if not container.streams.audio:
            raise InputError(f"{path} has no sound track; expected {_EXPECTED}")
        stream = container.streams.audio[0]
        parts = _without_padding(_decoded(container, stream), _mp4_duration(container, stream))
        trimmed = None
        for frame_start, part in parts:
            samples, channels = part.samples, part.samples.shape[0]
            if trimmed is None:
                lead = round((frame_start - _picture_start(container, frame_start)) * part.sample_rate)
                trimmed = max(0, -lead)
                for done in range(0, lead, _BLOCK_SAMPLES):
                    silence = np.zeros((channels, min(_BLOCK_SAMPLES, lead - done)), dtype=np.float32)
                    yield part._replace(samples=silence)
            dropped = min(trimmed, samples.shape[1])
            trimmed -= dropped
            if samples.shape[1] > dropped:
                yield part._replace(samples=samples[:, dropped:])


def _decoded(container: InputContainer, stream: AudioStream) -> Iterator[tuple[Fraction, _Part]]:
    """(start in seconds, part) of everything that decodes; what a broken packet lost becomes silence."""
    end, lost = Fraction(0), False
    for frame in _frames(container, stream):
        if frame is None:
            lost = True
            continue
        start = end if frame.pts is None or frame.time_base is None else frame.pts * frame.time_base
        samples = frame.to_ndarray()
        if not frame.format.is_planar:
            samples = samples.reshape(-1, frame.layout.nb_channels).T
        names = tuple(channel.name for channel in frame.layout.channels)
        part = _Part(_mixed_down(as_float(samples), names), frame.sample_rate, len(names))
        gap = round((start - end) * frame.sample_rate)
        if lost and end and 0 < gap < _BLOCK_SAMPLES * 10:
            silence = np.zeros((part.samples.shape[0], gap), dtype=np.float32)
            yield end, part._replace(samples=silence)
        lost = False
        end = start + Fraction(frame.samples, frame.sample_rate)
        yield start, part


def _frames(container: InputContainer, stream: AudioStream) -> Iterator[AudioFrame | None]:
    """The decoded frames up to where the file breaks off; None in place of a packet that does not decode."""
    packets = container.demux(stream)
    while True:
        try:
            packet = next(packets, None)
        except FFmpegError:
            return
        if packet is None:
            return
        try:
            frames = packet.decode()
        except FFmpegError:
            yield None
        else:
            for frame in frames:
                assert isinstance(frame, AudioFrame)
                yield frame


def _without_padding(
    parts: Iterable[tuple[Fraction, _Part]], duration: Fraction | None
) -> Iterator[tuple[Fraction, _Part]]:
    """``parts`` up to ``duration`` seconds when no more than an encoder's padding lies beyond."""
    held: list[tuple[Fraction, _Part]] = []
    heard = 0
    for start, part in parts:
        length = part.samples.shape[1]
        left = length if duration is None else round(duration * part.sample_rate) - heard
        heard += length
        if left >= length:
            yield start, part
        elif left + _LONGEST_PADDING < length:
            yield from held
            held, duration = [], None
            yield start, part
        else:
            kept = max(0, left)
            if kept:
                yield start, part._replace(samples=part.samples[:, :kept])
            held.append((start + Fraction(kept, part.sample_rate), part._replace(samples=part.samples[:, kept:])))


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


def _stated_duration(path: Path) -> float | None:
    with open_media(path, _EXPECTED) as container:
        stream = container.streams.audio[0]
        if stream.duration is None or stream.time_base is None:
            return None
        return float(stream.duration * stream.time_base)


def as_float(samples: np.ndarray) -> np.ndarray:
    """Integer samples of any width scaled to [-1, 1]; all as float32."""
    if samples.dtype == np.uint8:
        return (samples.astype(np.float32) - 128) / 128
    if samples.dtype.kind == "i":
        return (samples / float(2 ** (samples.dtype.itemsize * 8 - 1))).astype(np.float32)
    return samples.astype(np.float32)


def _mixed_down(samples: np.ndarray, names: tuple[str, ...]) -> np.ndarray:
    """(channels, n) → (1 or 2, n): more than two are mixed by where their loudspeakers stand."""
    if len(names) <= 2:
        return samples
    if not set(names) <= _STEREO_WEIGHTS.keys():
        names = _UNNAMED_LAYOUTS.get(len(names), ("FC",) * len(names))
    weights = np.array([_STEREO_WEIGHTS[name] for name in names], dtype=np.float32).T
    with np.errstate(invalid="ignore"):
        return (weights / weights.sum(axis=1, keepdims=True)) @ samples


def _with_channels(samples: np.ndarray, channels: int) -> np.ndarray:
    """(1 or 2, n) → (channels, n): the mean, or the same twice."""
    if samples.shape[0] == channels:
        return samples
    return samples.mean(axis=0, keepdims=True) if channels == 1 else samples.repeat(2, axis=0)


def _joined(blocks: Iterable[np.ndarray]) -> Iterator[np.ndarray]:
    """The same samples in blocks of at least ``_BLOCK_SAMPLES``, but for the last."""
    waiting: list[np.ndarray] = []
    count = 0
    for block in blocks:
        waiting.append(block)
        count += block.shape[1]
        if count >= _BLOCK_SAMPLES:
            yield np.concatenate(waiting, axis=1)
            waiting, count = [], 0
    if waiting:
        yield np.concatenate(waiting, axis=1)


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
