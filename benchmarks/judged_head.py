"""How a head moves against how talkers' heads move: how far, how fast, and whether it goes with the voice."""

import numpy as np

from atldiff.data.sync import voiced_level
from atldiff.motion.head import CHANNELS, head_pose
from atldiff.speech.pitch import PITCH_RATE, pitch_track

VOICE_AHEAD_S = 0.1
"""The head is set against the voice so much later: talkers' heads move a little before they are heard."""

_SMOOTHED_FRAMES = 3
_VOICE_SECONDS = 0.4
_LEVEL_RATE = 100
_JUMP_OCTAVES = 0.8
SPECTRUM_SECONDS = 4.0


def head_track(landmarks: np.ndarray) -> np.ndarray:
    """(F, 68, 2) landmarks → (F, 7) pose and brows against the median face, smoothed over three frames."""
    return _smoothed(head_pose(landmarks, np.median(landmarks, axis=0)), _SMOOTHED_FRAMES)


def judge_head(landmarks: np.ndarray, waveform: np.ndarray, fps: float) -> dict[str, float]:
    """How one talker's head moves.

    Args:
        landmarks: (F, 68, 2) with the head's motion in them.
        waveform: (samples,) at 16 kHz, in step with them.
        fps: frames per second.

    Returns:
        Of each channel of :data:`~atldiff.motion.head.CHANNELS` ``NAME_std`` and ``NAME_speed``, the mean
        absolute change a second; ``speed_r`` and ``brows_r``, the correlation over time of the turning's speed, and
        of the brows' height, with the voice's level, both over 0.4 s; ``lift_pitch_r`` and ``brows_pitch_r``, that of
        how far the face is lifted, and of the brows' height, with the voice's pitch.
    """
    track = head_track(landmarks)
    changes = np.diff(track, axis=0) * fps
    window = round(_VOICE_SECONDS * fps) // 2 * 2 + 1
    level = voiced_level(waveform)
    places = (np.arange(len(track)) / fps + VOICE_AHEAD_S) * _LEVEL_RATE
    voice = _smoothed(np.interp(places, np.arange(len(level)), level)[:, None], window)[:, 0]
    speed = _smoothed(np.linalg.norm(changes[:, :3], axis=1)[:, None], window)[:, 0]
    values = {f"{name}_std": float(value) for name, value in zip(CHANNELS, track.std(axis=0), strict=True)}
    values |= {
        f"{name}_speed": float(value) for name, value in zip(CHANNELS, np.abs(changes).mean(axis=0), strict=True)
    }
    values |= {"speed_r": _correlation(speed, voice[1:]), "brows_r": _correlation(track[:, 6], voice)}
    pitch = _smoothed(_pitch(waveform, np.arange(len(track)) / fps)[:, None], window)[:, 0]
    return values | {
        "lift_pitch_r": _correlation(-track[:, CHANNELS.index("pitch")], pitch),
        "brows_pitch_r": _correlation(track[:, 6], pitch),
    }


def _pitch(waveform: np.ndarray, times: np.ndarray) -> np.ndarray:
    """Octaves of the voice at each time, (F,): interpolated where there is none, the median's where it jumps off."""
    octaves = pitch_track(waveform)
    is_voice = ~np.isnan(octaves)
    if not is_voice.any():
        return np.zeros(len(times))
    usual = np.median(octaves[is_voice])
    octaves = np.where(np.abs(octaves - usual) < _JUMP_OCTAVES, octaves, usual)
    moments = (np.arange(len(octaves)) + 1) / PITCH_RATE
    return np.interp(times, moments[is_voice], octaves[is_voice])


def head_spectrum(landmarks: np.ndarray, fps: float) -> tuple[np.ndarray, np.ndarray]:
    """Power of a head's motion by frequency.

    Args:
        landmarks: (F, 68, 2).
        fps: frames per second.

    Returns:
        (N,) hertz, and (N, 7) power per hertz of each channel: windows of four seconds, half overlapping; none for
        less.
    """
    size = round(SPECTRUM_SECONDS * fps)
    hertz, track = np.fft.rfftfreq(size, 1 / fps), head_track(landmarks)
    window = np.hanning(size)[:, None]
    parts = [track[start : start + size] for start in range(0, len(track) - size + 1, size // 2)]
    powers = [np.abs(np.fft.rfft((part - part.mean(axis=0)) * window, axis=0)) ** 2 for part in parts]
    scale = 2 / (fps * np.square(window).sum())
    return hertz, np.mean(powers, axis=0) * scale if powers else np.full((len(hertz), len(CHANNELS)), np.nan)


def _smoothed(series: np.ndarray, frames: int) -> np.ndarray:
    weights = np.hanning(frames + 2)[1:-1] / np.hanning(frames + 2).sum()
    padded = np.pad(series, ((frames // 2, frames // 2), (0, 0)), mode="edge")
    return np.stack([np.convolve(channel, weights, "valid") for channel in padded.T], axis=1)


def _correlation(first: np.ndarray, second: np.ndarray) -> float:
    if first.std() < 1e-9 or second.std() < 1e-9:
        return 0.0
    return float(np.corrcoef(first, second)[0, 1])
