"""Speech in windows of one second, each of which gives 30 landmark sets, and how frames are read from them.

Windows overlap by half and are blended, so that nothing shows where one ends. Landmark set i of a window that begins
at b seconds shows the sound at b + i/30 s; frames of any rate are interpolated between them.
"""

from collections.abc import Sequence

import numpy as np
import torch

from atldiff.face.crop import CROP_SIZE
from atldiff.face.similarity import remove_head_motion
from atldiff.landmarks.kfusion import FRAMES, KFusionGenerator
from atldiff.motion.living import Motion
from atldiff.options import EMOTIONS, GenerationOptions
from atldiff.speech import SAMPLE_RATE
from atldiff.speech.wav2vec2 import Wav2Vec2Encoder
from atldiff.speech.windows import SpeechWindow

WINDOW = SAMPLE_RATE
"""Samples of sound that the generator hears at once."""

HOP = WINDOW // 2

_REACH = (FRAMES - 1) / FRAMES
"""Seconds from the first to the last landmark set of a window."""

_NEUTRAL = EMOTIONS.index("neutral")


def window_starts(samples: int) -> list[int]:
    """First samples of the windows over a sound: one every half second, and one whose last set shows its end.

    That last one reaches 33 ms beyond the sound, into silence, or farther where the sound is shorter than a window.
    """
    last = max(0, samples - int(_REACH * SAMPLE_RATE))
    return sorted({0, *range(0, max(0, samples - WINDOW), HOP), last})


def encode_window(encoder: Wav2Vec2Encoder, samples: np.ndarray, start: int) -> torch.Tensor:
    """Features (49, C) of the window at sample ``start`` of a sound (samples,), heard alone."""
    heard = samples[start : start + WINDOW]
    padded = np.pad(heard, (0, WINDOW - len(heard)))
    return encoder(torch.from_numpy(padded).to(next(encoder.parameters()).device)[None])[0]


@torch.no_grad()
def predict_window(
    generator: KFusionGenerator, features_TC: torch.Tensor, identity: np.ndarray, crop_size: int, emotion: str
) -> np.ndarray:
    """What the generator predicts for one window, laid over the identity by the points that speech does not move.

    The face's place, size and tilt stay so; an emotion that the generator never learned counts as neutral.

    Args:
        features_TC: (49, C) of :func:`encode_window`.
        identity: (68, 2) identity landmarks in crop pixels.
        crop_size: side of the crop in pixels.
        emotion: one of :data:`~atldiff.options.EMOTIONS`.

    Returns:
        (30, 68, 2) crop pixels.
    """
    points = generator.config.from_pixels(torch.from_numpy(identity).to(features_TC), crop_size)
    number = torch.tensor([_emotion_number(generator, emotion)], device=features_TC.device)
    predicted = generator(features_TC[None], points[None], number)[0].cpu().double().numpy()
    return remove_head_motion(generator.config.to_pixels(predicted, crop_size), identity)


def _emotion_number(generator: KFusionGenerator, emotion: str) -> int:
    """Number of an emotion; that of neutral where its factor is still at zero, where it began."""
    number = EMOTIONS.index(emotion)
    return number if generator.config.emotions and bool(generator.emotion.weight[number].any()) else _NEUTRAL


def blend_windows(windows_W: Sequence[np.ndarray], begins_W: Sequence[float], times_F: np.ndarray) -> np.ndarray:
    """Frames at any times from overlapping windows.

    Where windows overlap, the later takes over linearly, from its own beginning to the end of the earlier.

    Args:
        windows_W: (30, 68, 2) each, 30 a second.
        begins_W: seconds at which they begin, rising by less than the reach of a window.
        times_F: (F,) seconds.

    Returns:
        (F, 68, 2).
    """
    blended, end = _read(windows_W[0], times_F - begins_W[0]), begins_W[0] + _REACH
    for window, begin in zip(windows_W[1:], begins_W[1:], strict=True):
        share = np.clip((times_F - begin) / (end - begin), 0, 1)[:, None, None]
        blended = (1 - share) * blended + share * _read(window, times_F - begin)
        end = begin + _REACH
    return blended


def _read(window: np.ndarray, times_F: np.ndarray) -> np.ndarray:
    """Linear interpolation at seconds from the window's beginning, clamped to its ends."""
    positions = np.clip(times_F * FRAMES, 0, FRAMES - 1)
    before = np.minimum(positions.astype(int), FRAMES - 2)
    share = (positions - before)[:, None, None]
    return (1 - share) * window[before] + share * window[before + 1]


class WindowedMotion(Motion):
    """What :class:`~atldiff.landmarks.kfusion.KFusionGenerator` hears in wav2vec2's features.

    Windows lie at the same places of the sound however it is cut into blocks; a published checkpoint must hear them
    one by one.

    Args:
        encoder, generator: the speech encoder and the landmark generator, on the same device.
        identity, threshold, options, speaking: see :class:`~atldiff.motion.living.Motion`.
    """

    def __init__(
        self,
        encoder: Wav2Vec2Encoder,
        generator: KFusionGenerator,
        identity: np.ndarray,
        threshold: float,
        options: GenerationOptions,
        speaking: np.ndarray | None = None,
    ) -> None:
        super().__init__(identity, threshold, options, speaking)
        self._encoder = encoder
        self._generator = generator

    def _displacements(self, window: SpeechWindow, numbers: np.ndarray) -> np.ndarray:
        times = numbers / self._options.fps - window.start / SAMPLE_RATE
        starts = [
            start
            for start in window_starts(len(window.samples))
            if start / SAMPLE_RATE <= times[-1] and start / SAMPLE_RATE + _REACH > times[0]
        ]
        predicted = [self._predict(encode_window(self._encoder, window.samples, start)) for start in starts]
        blended = blend_windows(predicted, [start / SAMPLE_RATE for start in starts], times)
        return blended - self._speaking

    def _predict(self, features_TC: torch.Tensor) -> np.ndarray:
        return predict_window(self._generator, features_TC, self._speaking, CROP_SIZE, self._options.emotion)
