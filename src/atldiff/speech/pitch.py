"""Pitch of a voice by the autocorrelation of its sound (Boersma 1993), and how far it rises above its usual one."""

import numpy as np

from atldiff.speech import SAMPLE_RATE

PITCH_RATE = 50
"""Values a second."""

_DECIMATION = 2
_RATE = SAMPLE_RATE // _DECIMATION
_HOP = SAMPLE_RATE // PITCH_RATE
_WINDOW = 2 * _HOP
_FFT_SIZE = 1024
_LOWEST_HZ, _HIGHEST_HZ = 70, 400
_LEAST_CORRELATION = 0.5
_OCTAVE_COST = 0.05
"""What repeats itself twice as often is preferred where it correlates nearly as well."""

_LOUD_PERCENTILE = 95
_BELOW_LOUD = 1e-3
"""Power, over that of loud sound, under which nothing is a voice."""

_FARTHEST_OCTAVES = 0.8
"""From the voice's usual pitch; what is farther is most likely another octave by mistake."""

_KEPT = 0.5 ** (1 / PITCH_RATE / 8.0)
"""Weight of what was known at each new value: half after 8 s."""

_SMOOTH_SECONDS = 0.3
"""To either side of a time, weighted by a raised cosine."""

_SILENT_WEIGHT = 1.0
"""Weight, in values, of no rise at all: a little voice in a pause says little."""


def pitch_track(samples: np.ndarray) -> np.ndarray:
    """The logarithm to base 2 of the pitch in Hz, 50 times a second; NaN where there is none.

    Args:
        samples: (n,) float32 at 16 kHz.

    Returns:
        (T,) for windows of 40 ms that lie wholly in the samples; value i is that of the sound at (i + 1) / 50 s.
    """
    octaves, powers = _periodic(samples)
    loud = np.percentile(powers, _LOUD_PERCENTILE) if len(powers) else 0.0
    return np.where(powers > _BELOW_LOUD * loud, octaves, np.nan)


def _periodic(samples: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Pitch in octaves, NaN where nothing repeats itself, and power of each window, (T,) each."""
    halved = samples[: len(samples) // _DECIMATION * _DECIMATION].reshape(-1, _DECIMATION).mean(axis=1)
    size, hop = _WINDOW // _DECIMATION, _HOP // _DECIMATION
    if len(halved) < size:
        return np.zeros(0), np.zeros(0)
    frames = np.lib.stride_tricks.sliding_window_view(halved.astype(np.float64), size)[::hop]
    taper = np.hanning(size)
    correlation = _autocorrelation((frames - frames.mean(axis=1, keepdims=True)) * taper)
    first, last = _RATE // _HIGHEST_HZ, _RATE // _LOWEST_HZ
    window = _autocorrelation(taper[None])[0]
    normed = correlation[:, first:last] / (correlation[:, :1] + 1e-9) / (window[first:last] / window[0])
    lags = np.arange(first, last)
    octaves = np.log2(_RATE / lags[(normed - _OCTAVE_COST * np.log2(lags)).argmax(axis=1)])
    return np.where(normed.max(axis=1) > _LEAST_CORRELATION, octaves, np.nan), correlation[:, 0]


def _autocorrelation(frames: np.ndarray) -> np.ndarray:
    return np.fft.irfft(np.abs(np.fft.rfft(frames, _FFT_SIZE)) ** 2)[:, : frames.shape[1]]


class VoicePitch:
    """How far a voice rises above its own usual pitch, of sound that comes in pieces.

    The usual pitch is the mean of what was heard, where what was heard 8 s ago counts half; what is 0.8 octaves
    away from it does not count.
    """

    def __init__(self) -> None:
        self._rest = np.zeros(0, dtype=np.float32)
        self._rises = np.zeros(0)
        self._forgotten = 0
        self._sum = self._weight = self._loud = 0.0

    def hear(self, samples: np.ndarray) -> None:
        """Take in the next (n,) samples at 16 kHz."""
        self._rest = np.concatenate([self._rest, samples])
        octaves, powers = _periodic(self._rest)
        self._rest = self._rest[len(octaves) * _HOP :]
        rises = [self._rise(octave, power) for octave, power in zip(octaves, powers, strict=True)]
        self._rises = np.concatenate([self._rises, rises])

    def _rise(self, octave: float, power: float) -> float:
        self._loud = max(_KEPT * self._loud, power)
        is_far = self._weight > 0 and abs(octave - self._sum / self._weight) > _FARTHEST_OCTAVES
        if np.isnan(octave) or power < _BELOW_LOUD * self._loud or is_far:
            return float("nan")
        self._sum, self._weight = _KEPT * self._sum + octave, _KEPT * self._weight + 1
        return octave - self._sum / self._weight

    def rise(self, times: np.ndarray, ahead_s: float) -> np.ndarray:
        """Octaves above the usual pitch about each time, smoothed over 0.3 s to either side; 0 in pauses.

        What lies more than a second before the first time is forgotten.

        Args:
            times: (F,) rising seconds from the beginning of the sound.
            ahead_s: sound later than that after a time does not count.

        Returns:
            (F,).
        """
        forgotten = min(max(0, int((times[0] - 1) * PITCH_RATE) - self._forgotten), len(self._rises))
        self._rises, self._forgotten = self._rises[forgotten:], self._forgotten + forgotten
        offsets = np.arange(-_SMOOTH_SECONDS, _SMOOTH_SECONDS, 1 / PITCH_RATE)
        offsets = offsets[offsets + 1 / PITCH_RATE <= ahead_s]
        places = np.round((times[:, None] + offsets) * PITCH_RATE).astype(int) - 1 - self._forgotten
        is_heard = (places >= 0) & (places < len(self._rises))
        rises = self._rises[np.clip(places, 0, len(self._rises) - 1)] if len(self._rises) else np.zeros(places.shape)
        weights = (1 + np.cos(np.pi * offsets / _SMOOTH_SECONDS)) * (is_heard & ~np.isnan(rises))
        return (weights * np.nan_to_num(rises)).sum(axis=1) / (weights.sum(axis=1) + _SILENT_WEIGHT)
