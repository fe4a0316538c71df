"""Voice activity from the sound's level: when to keep the mouth shut."""

import numpy as np

from atldiff.speech.waveform import SAMPLE_RATE

_BLOCK = SAMPLE_RATE // 100
_SILENCE_DB = -55.0
_BELOW_PEAK_DB = 42.0
_HOLD_SECONDS = 0.08
_FADE_SECONDS = 0.12


def activity_threshold(peak: float) -> float:
    """Level in dB of full scale above which sound counts as voice, for a recording with this peak amplitude."""
    return max(_SILENCE_DB, 20 * np.log10(max(peak, 1e-9)) - _BELOW_PEAK_DB)


def voice_activity(waveform: np.ndarray, times: np.ndarray, threshold: float) -> np.ndarray:
    """How much voice there is at each of ``times``.

    Args:
        waveform: (samples,) 16 kHz mono; what lies beyond it counts as silence.
        times: (F,) seconds from the waveform's start.
        threshold: dB of full scale, from :func:`activity_threshold`.

    Returns:
        (F,) in [0, 1]: 1 within 80 ms of voice, fading to 0 over the next 120 ms.
    """
    blocks = np.pad(waveform, (0, -len(waveform) % _BLOCK)).reshape(-1, _BLOCK)
    level = 10 * np.log10(np.mean(np.square(blocks, dtype=np.float64), axis=1) + 1e-12)
    voiced = (np.flatnonzero(level > threshold) + 0.5) * _BLOCK / SAMPLE_RATE
    if not len(voiced):
        return np.zeros(len(times))
    after = np.searchsorted(voiced, times)
    nearest = np.minimum(
        np.abs(times - voiced[np.minimum(after, len(voiced) - 1)]), np.abs(times - voiced[np.maximum(after - 1, 0)])
    )
    ramp = np.clip(1 - (nearest - _HOLD_SECONDS) / _FADE_SECONDS, 0, 1)
    return ramp * ramp * (3 - 2 * ramp)
