"""Pitch of a voice: what it is, how far it rises, whatever pieces it comes in."""

import numpy as np
import pytest

from atldiff.speech import SAMPLE_RATE
from atldiff.speech.pitch import PITCH_RATE, VoicePitch, pitch_track


def voice(hertz: np.ndarray) -> np.ndarray:
    """A pulse-like tone whose pitch is given sample by sample."""
    phase, numbers = np.cumsum(hertz) / SAMPLE_RATE, np.arange(1, 9)
    return (np.sin(2 * np.pi * numbers * phase[:, None]) / numbers).sum(axis=1).astype(np.float32) / 4


def steady(hertz: float, seconds: float) -> np.ndarray:
    return voice(np.full(round(seconds * SAMPLE_RATE), hertz))


@pytest.mark.parametrize("hertz", [85, 120, 200, 310])
def test_pitch_of_a_tone(hertz: float) -> None:
    track = pitch_track(steady(hertz, 0.5))
    assert len(track) == 0.5 * PITCH_RATE - 1
    assert np.abs(track - np.log2(hertz)).max() < 0.06


def test_noise_and_pauses_have_none() -> None:
    noise = np.random.default_rng(0).standard_normal(SAMPLE_RATE).astype(np.float32)
    assert np.isnan(pitch_track(noise)).mean() > 0.95
    quiet = np.concatenate([steady(150, 0.5), 0.001 * steady(150, 0.5)])
    assert np.isnan(pitch_track(quiet)[26:]).all()
    assert len(pitch_track(np.zeros(100, np.float32))) == 0


def test_a_rise_above_the_usual_pitch() -> None:
    hertz = np.concatenate([np.full(3 * SAMPLE_RATE, 120.0), np.full(SAMPLE_RATE, 150.0)])
    heard = VoicePitch()
    heard.hear(np.concatenate([voice(hertz), np.zeros(SAMPLE_RATE, np.float32)]))
    rise = heard.rise(np.array([1.0, 2.0, 3.5, 4.6]), 0.5)
    assert np.abs(rise[:2]).max() < 0.03
    assert 0.2 < rise[2] < np.log2(150 / 120)
    assert rise[3] == 0


def test_pieces_and_look_ahead() -> None:
    samples = voice(140 + 40 * np.sin(np.arange(3 * SAMPLE_RATE) / 5000))
    times = np.arange(50) / 25
    whole = VoicePitch()
    whole.hear(samples)
    expected = whole.rise(times, 0.12)
    for size in (160, 1280, 7777):
        pieces, found, first = VoicePitch(), [], 0
        for start in range(0, len(samples), size):
            pieces.hear(samples[start : start + size])
            known = (start + size) / SAMPLE_RATE - 0.12 - 1e-9
            while first < len(times) and times[first] <= known:
                found.append(pieces.rise(times[first : first + 1], 0.12)[0])
                first += 1
        assert np.allclose(found, expected[: len(found)], atol=1e-6)
        assert len(found) == len(times)
