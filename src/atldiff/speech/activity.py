"""Voice activity from the sound's level: when to keep the mouth shut."""

from collections.abc import Iterable

import numpy as np

from atldiff.ramps import smoothstep
from atldiff.speech import SAMPLE_RATE
from atldiff.speech.blocks import regrouped

_BLOCK = SAMPLE_RATE // 100
_SILENCE_DB = -85.0
"""Level of full scale below which nothing is heard."""

_BELOW_LOUD_DB = 35.0
"""Voice lies at most so far under the loud parts,"""

_ABOVE_FLOOR_DB = 4.0
"""so far above the steady background,"""

_LEAST_BELOW_LOUD_DB = 10.0
"""but never nearer to the loud parts than this."""

_STEADY_RANGE_DB = 4.0
"""Sound whose loud and quiet parts are less apart, and"""

_STEADY_SECONDS = 2.0
"""of which there is so much, is background alone."""

_HOLD_SECONDS = 0.08
"""Voice counts as going on for so long before and after it is heard, and"""

_FADE_SECONDS = 0.12
"""fades away in this time."""

_LOUD_ABOVE_DB = 25.0
"""So far above the threshold voice is as loud as it counts."""

_LEVEL_BINS = np.arange(-130.0, 20.0, 0.5)


class ActivityMeter:
    """The level above which sound counts as voice, from the loud and the quiet parts of what has been heard so far.

    Voice lies at most 35 dB under the loud parts (the 95th percentile of 10 ms levels; a click does not count) and
    above the steady background (the 5th percentile). Two seconds or more of sound that hardly varies are background
    alone: voice lies 10 dB above it.

    Args:
        half_life_s: what was heard so many seconds ago counts half; by default all of it counts the same.
    """

    def __init__(self, half_life_s: float = float("inf")) -> None:
        self._half_life_s = half_life_s
        self._counts = np.zeros(len(_LEVEL_BINS) - 1)

    def hear(self, samples: np.ndarray) -> None:
        """Take in the next (n,) samples at 16 kHz, best a multiple of 10 ms."""
        levels = np.clip(_levels(samples), _LEVEL_BINS[0], _LEVEL_BINS[-1])
        self._counts *= 0.5 ** (len(samples) / SAMPLE_RATE / self._half_life_s)
        self._counts += np.histogram(levels, _LEVEL_BINS)[0]

    @property
    def threshold(self) -> float:
        """dB, for :func:`voice_activity`; infinite where nothing audible was heard."""
        audible = np.where(_LEVEL_BINS[:-1] >= _SILENCE_DB, self._counts, 0)
        if not audible.any():
            return float("inf")
        loud, floor = _percentile(audible, 0.95), _percentile(self._counts, 0.05)
        if loud - floor < _STEADY_RANGE_DB and self._counts.sum() * _BLOCK / SAMPLE_RATE >= _STEADY_SECONDS:
            return max(_SILENCE_DB, floor + _LEAST_BELOW_LOUD_DB)
        above_floor = min(floor + _ABOVE_FLOOR_DB, loud - _LEAST_BELOW_LOUD_DB)
        return max(_SILENCE_DB, loud - _BELOW_LOUD_DB, above_floor)


def activity_threshold(blocks: Iterable[np.ndarray]) -> float:
    """What :class:`ActivityMeter` finds in a whole recording, given in 16 kHz mono blocks."""
    meter = ActivityMeter()
    for piece in regrouped(blocks, SAMPLE_RATE, _BLOCK):
        meter.hear(piece)
    return meter.threshold


def voice_activity(waveform: np.ndarray, times: np.ndarray, threshold: float) -> np.ndarray:
    """How much voice there is at each of ``times``.

    Args:
        waveform: (samples,) 16 kHz mono; what lies beyond it counts as silence.
        times: (F,) seconds from the waveform's start.
        threshold: dB, from :func:`activity_threshold` or an :class:`ActivityMeter`.

    Returns:
        (F,) in [0, 1]: 1 within 80 ms of voice, fading to 0 over the next 120 ms.
    """
    voiced = (np.flatnonzero(_levels(waveform) > threshold) + 0.5) * _BLOCK / SAMPLE_RATE
    if not len(voiced):
        return np.zeros(len(times))
    after = np.searchsorted(voiced, times)
    nearest = np.minimum(
        np.abs(times - voiced[np.minimum(after, len(voiced) - 1)]), np.abs(times - voiced[np.maximum(after - 1, 0)])
    )
    return smoothstep(1 - (nearest - _HOLD_SECONDS) / _FADE_SECONDS)


def voice_level(waveform: np.ndarray, times: np.ndarray, threshold: float) -> np.ndarray:
    """How loud the voice is at each of ``times``, within 10 ms.

    Args:
        waveform: (samples,) 16 kHz mono; what lies beyond it counts as silence.
        times: (...,) seconds from the waveform's start.
        threshold: dB, as for :func:`voice_activity`.

    Returns:
        (...,) from 0 at the threshold to 1 where the voice is 25 dB above it or more.
    """
    levels = np.clip((_levels(waveform) - threshold) / _LOUD_ABOVE_DB, 0, 1)
    places = np.floor(times * SAMPLE_RATE / _BLOCK).astype(int)
    inside = (places >= 0) & (places < len(levels))
    return np.where(inside, levels[np.clip(places, 0, max(0, len(levels) - 1))], 0.0) if len(levels) else 0.0 * times


def _levels(waveform: np.ndarray) -> np.ndarray:
    """Level in dB of each 10 ms of the waveform's differences, which hold the voice but neither offset nor hum."""
    steps = np.diff(waveform.astype(np.float64), prepend=waveform[:1])
    blocks = np.pad(steps, (0, -len(steps) % _BLOCK)).reshape(-1, _BLOCK)
    return 10 * np.log10(np.mean(np.square(blocks), axis=1) + 1e-14)


def _percentile(counts: np.ndarray, share: float) -> float:
    return float(_LEVEL_BINS[np.searchsorted(np.cumsum(counts), share * counts.sum())])
