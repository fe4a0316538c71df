"""From speech of any length to landmarks, window by window, in constant memory."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np
import torch

from atldiff.face.topology import interocular_distance
from atldiff.landmarks.generator import LandmarkGenerator, feature_positions
from atldiff.landmarks.rest import closing_displacement
from atldiff.speech.activity import voice_activity
from atldiff.speech.waveform import SAMPLE_RATE
from atldiff.speech.whisper import FEATURE_RATE, WhisperEncoder

HOP = 8 * SAMPLE_RATE
"""Samples of sound that one window of the encoder answers for."""

MARGIN = SAMPLE_RATE
"""Samples of sound heard before and after them."""


@dataclass(frozen=True)
class SpeechWindow:
    """A stretch of sound: ``samples`` begin at sample ``start``, frames from ``begin`` to ``end`` seconds are its."""

    samples: np.ndarray
    start: int
    begin: float
    end: float


def speech_windows(blocks: Iterable[np.ndarray], hop: int = HOP, margin: int = MARGIN) -> Iterator[SpeechWindow]:
    """Cut a stream of 16 kHz mono blocks into overlapping windows."""
    held, start, begin = np.zeros(0, dtype=np.float32), 0, 0
    for block in blocks:
        held = np.concatenate([held, block])
        while start + len(held) >= begin + hop + margin + 1:
            used = held[: begin + hop + margin - start]
            yield SpeechWindow(used, start, begin / SAMPLE_RATE, (begin + hop) / SAMPLE_RATE)
            begin += hop
            dropped = begin - margin - start
            held, start = held[dropped:], start + dropped
    yield SpeechWindow(held, start, begin / SAMPLE_RATE, float("inf"))


class SpeechMotion:
    """Landmarks of one face for a stream of sound.

    Args:
        encoder, generator: the speech encoder and the landmark generator, on the same device.
        identity: (68, 2) identity landmarks in crop pixels; the crop is upright.
        fps: frames per second.
        threshold: level in dB under which the mouth rests, see :func:`atldiff.speech.activity.activity_threshold`.
    """

    def __init__(
        self,
        encoder: WhisperEncoder,
        generator: LandmarkGenerator,
        identity: np.ndarray,
        fps: float,
        threshold: float,
    ) -> None:
        self._encoder = encoder
        self._generator = generator
        self._identity = identity
        self._rest = closing_displacement(identity)
        self._fps = fps
        self._threshold = threshold

    def landmarks(self, blocks: Iterable[np.ndarray], frames: int) -> Iterator[np.ndarray]:
        """Landmarks of ``frames`` video frames as (n, 68, 2) float32 blocks in crop pixels."""
        first = 0
        for window in speech_windows(blocks):
            last = frames if window.end == float("inf") else min(frames, int(np.ceil(window.end * self._fps)))
            if last > first:
                yield self._window_landmarks(window, np.arange(first, last))
            first = max(first, last)

    @torch.no_grad()
    def _window_landmarks(self, window: SpeechWindow, numbers: np.ndarray) -> np.ndarray:
        device = next(self._generator.parameters()).device
        sound = torch.from_numpy(window.samples).to(device)[None]
        offset = window.start / SAMPLE_RATE
        positions = feature_positions(torch.from_numpy(numbers), self._fps) - offset * FEATURE_RATE
        identity = torch.from_numpy(self._identity).float().to(device)[None]
        moved = self._generator(self._encoder(sound), positions.to(device)[None], identity)[0].cpu().numpy()
        spoken = moved * interocular_distance(self._identity)
        voice = voice_activity(window.samples, numbers / self._fps - offset, self._threshold)[:, None, None]
        return (self._identity + voice * spoken + (1 - voice) * self._rest).astype(np.float32)
