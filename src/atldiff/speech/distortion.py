"""Sound as the world does it to speech: other speeds and pitches, noise, babble, echoes, a telephone's band."""

import math
from collections.abc import Sequence
from typing import Protocol

import numpy as np

from atldiff.speech import SAMPLE_RATE
from atldiff.speech.loudness import at_target

_PIECE = SAMPLE_RATE // 50
"""Samples of the overlapping pieces that longer sound is made of: 20 ms."""

_PIECE_SLACK = SAMPLE_RATE // 125
"""How far one is moved at most to fit the one before: 8 ms."""

_LEVEL_DEVIATION_DB = 2.5


class Sounding(Protocol):
    """What other sounds are drawn from."""

    def waveform(self) -> np.ndarray:
        """(samples,) float32, 16 kHz."""
        ...


def change_speed(samples: np.ndarray, speed: float) -> np.ndarray:
    """(n,) → (n / speed,): played faster, and so higher, by linear-phase resampling in the frequency domain."""
    length = round(len(samples) / speed)
    if speed == 1.0 or not length:
        return samples
    spectrum = np.fft.rfft(samples)
    bins = length // 2 + 1
    fitted = np.zeros(bins, dtype=spectrum.dtype)
    fitted[: min(bins, len(spectrum))] = spectrum[:bins]
    return (np.fft.irfft(fitted, length) * (length / len(samples))).astype(np.float32)


def change_pitch(samples: np.ndarray, factor: float) -> np.ndarray:
    """(n,) → (n,): ``factor`` times as high with its formants, as fast as it was.

    It is made longer by overlapping pieces that fit each other (WSOLA, Verhelst and Roelands 1993), which stay
    within 8 ms of their place, and then by :func:`change_speed` as long as before.
    """
    if factor == 1.0 or not len(samples):
        return samples
    hop, slack = _PIECE // 2, _PIECE_SLACK
    count = round(len(samples) * factor) // hop + 2
    padded = np.pad(samples, (hop + slack, 2 * _PIECE + 2 * slack + hop)).astype(np.float32)
    window = np.hanning(_PIECE + 1)[:-1].astype(np.float32)
    joined = np.zeros((count + 1) * hop, dtype=np.float32)
    place = slack
    for number in range(count):
        wanted = min(round(number * hop / factor), len(samples)) + slack
        if number:
            around = padded[wanted - slack : wanted + slack + _PIECE]
            following = padded[place + hop : place + hop + _PIECE]
            place = wanted - slack + int(np.argmax(np.correlate(around, following, "valid")))
        joined[number * hop : number * hop + _PIECE] += padded[place : place + _PIECE] * window
    stretched = joined[hop : hop + round(len(samples) * factor)]
    return change_speed(stretched, len(stretched) / len(samples))


def distort(samples: np.ndarray, clips: Sequence[Sounding], random: np.random.Generator) -> np.ndarray:
    """(n,) float32 → the same length: an echo, babble or noise at −3 to 22 dB, a telephone's band.

    Each is drawn with its own chance. The direct sound stays where it was; all of it is brought to the loudness that
    the networks know, but for 2.5 dB that a short piece of speech is louder or quieter than the whole.
    """
    changed = samples
    if random.random() < 0.3:
        changed = add_echo(changed, random.uniform(0.1, 0.6), random.uniform(0.1, 0.7), random)
    kind = random.choice(["none", "noise", "babble"], p=[0.3, 0.2, 0.5])
    if kind != "none":
        noise = random.standard_normal(len(samples)) if kind == "noise" else _babble(clips, len(samples), random)
        changed = add_noise(changed, noise, random.uniform(-3, 22))
    if random.random() < 0.3:
        changed = limit_band(changed, random.uniform(50, 300), random.uniform(3400, 7500))
    gain = 10 ** (random.normal(0, _LEVEL_DEVIATION_DB) / 20)
    return np.clip(at_target(changed.astype(np.float32)) * gain, -1, 1).astype(np.float32)


def add_noise(samples: np.ndarray, noise: np.ndarray, ratio_db: float) -> np.ndarray:
    """Add ``noise`` so that the sound's power is ``ratio_db`` above its."""
    power, noise_power = (float(np.mean(np.square(part, dtype=np.float64))) + 1e-12 for part in (samples, noise))
    return samples + noise * math.sqrt(power / noise_power * 10 ** (-ratio_db / 10))


def limit_band(samples: np.ndarray, low_hz: float, high_hz: float) -> np.ndarray:
    """Take away what lies under ``low_hz`` and over ``high_hz``; 300 to 3400 Hz is a telephone's band."""
    spectrum = np.fft.rfft(samples)
    hertz = np.fft.rfftfreq(len(samples), 1 / SAMPLE_RATE)
    spectrum[(hertz < low_hz) | (hertz > high_hz)] = 0
    return np.fft.irfft(spectrum, len(samples))


def add_echo(samples: np.ndarray, decay_s: float, strength: float, random: np.random.Generator) -> np.ndarray:
    """Add a diffuse echo: noise that falls by 60 dB in ``decay_s``, ``strength`` times as strong as the sound."""
    count = int(decay_s * SAMPLE_RATE)
    tail = random.standard_normal(count) * 10 ** (-3 * np.arange(count) / count)
    tail *= strength / np.linalg.norm(tail)
    size = -(-(len(samples) + count) // 2048) * 2048
    echo = np.fft.irfft(np.fft.rfft(samples, size) * np.fft.rfft(tail, size), size)[: len(samples)]
    return samples + echo


def drawn(clips: Sequence[Sounding], random: np.random.Generator) -> Sounding:
    """One of the clips, by chance."""
    return clips[int(random.integers(len(clips)))]


def _babble(clips: Sequence[Sounding], length: int, random: np.random.Generator) -> np.ndarray:
    voices = [np.resize(drawn(clips, random).waveform(), length) for _ in range(4)]
    return np.sum([voice / (np.abs(voice).max() + 1e-6) for voice in voices], axis=0)
