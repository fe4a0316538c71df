"""From speech of any length to the landmarks of a living face, window by window, in constant memory."""

import math
import threading
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator
from dataclasses import replace

import numpy as np
import torch

from atldiff.face.topology import INNER_LIP_PAIRS, JAW, MOUTH, interocular_distance
from atldiff.landmarks.generator import LandmarkGenerator, feature_positions
from atldiff.motion.blinks import Blinks, close_lids
from atldiff.motion.ease import speaking_mouth
from atldiff.motion.expression import apply_expression
from atldiff.motion.head import HeadMotion, move_head
from atldiff.motion.rest import closing_displacement
from atldiff.options import GenerationOptions
from atldiff.ramps import smoothstep
from atldiff.speech import SAMPLE_RATE
from atldiff.speech.activity import ActivityMeter, voice_activity, voice_level
from atldiff.speech.distilled import DistilledEncoder, FeatureStream
from atldiff.speech.pitch import VoicePitch
from atldiff.speech.whisper import WhisperEncoder
from atldiff.speech.windows import STEP, SpeechWindow, Windowing, speech_windows

_LIVELY_SECONDS = 0.75
_LOUD_SECONDS = 0.35
_BEFORE_SECONDS = 0.9
_PAUSE_SECONDS = 0.1
_PAUSE_LEVEL = 0.15
_LEVELS_HALF_LIFE_SECONDS = 10.0

_SMILE_IN_PAUSES = 0.5
"""How much of a smile returns while nothing is said for long: a slight one with lips together looks natural."""

_EASE_VOICE = 0.5
"""Share of voice around a frame from which on the smile has given way."""


class Hush:
    """The frames through which the mouth rests whatever is heard, where somebody was cut short."""

    def __init__(self) -> None:
        self._until = self._next = 0
        self._turn = threading.Lock()

    def begin(self, until: int) -> int:
        """Rest up to frame ``until``; gives the first frame that it still holds for. Any thread may."""
        with self._turn:
            self._until = until
            return self._next

    def share(self, numbers: np.ndarray) -> np.ndarray:
        """Factor on what is spoken in the frames ``numbers``, (F,) of 0 or 1; to be asked in rising order."""
        with self._turn:
            self._next = int(numbers[-1]) + 1
            return (numbers >= self._until).astype(np.float32)


class Motion(ABC):
    """Landmarks of one face for a stream of sound: what is spoken, then the expression, the blinks, the head.

    Args:
        identity: (68, 2) identity landmarks in crop pixels; the crop is upright.
        threshold: level in dB under which the mouth rests, see :func:`atldiff.speech.activity.activity_threshold`;
            None: by what has been heard so far, as it must be for live sound.
        options: frame rate, seed, look-ahead, and how much of each motion; the emotion is not ``auto``.
        speaking: (68, 2) the same face as it speaks; None: see :func:`~atldiff.motion.ease.speaking_mouth`.

    Attributes:
        hush: frames through which the mouth rests.
    """

    def __init__(
        self,
        identity: np.ndarray,
        threshold: float | None,
        options: GenerationOptions,
        speaking: np.ndarray | None = None,
    ) -> None:
        self._identity = identity
        self._speaking = speaking_mouth(identity) if speaking is None else speaking
        pausing = speaking_mouth(identity, _SMILE_IN_PAUSES) if speaking is None else speaking
        self._rest = closing_displacement(self._speaking)
        self._resting = pausing + closing_displacement(pausing), self._speaking + self._rest
        self._threshold = threshold
        self._options = options
        self._windowing = Windowing.for_look_ahead(options.look_ahead_s)
        self._blinks = Blinks(options.seed)
        self._head = HeadMotion(options.seed, options.head_motion)
        self._pitch = VoicePitch()
        self.hush = Hush()

    def catch_up(self) -> None:
        """From now on hear all that has come in one window: frames that are late cost less, and may hear more."""
        self._windowing = replace(self._windowing, grows=True)

    def landmarks(self, blocks: Iterable[np.ndarray], frames: int) -> Iterator[np.ndarray]:
        """Landmarks of ``frames`` video frames as (n, 68, 2) float32 blocks in crop pixels.

        With a look-ahead, a frame at time t depends on no sound after t + ``look_ahead_s`` (nor does its threshold,
        if that is None), and it is given as soon as one sample after that has come. Another sound begins anew.
        """
        self._restart()
        meter, heard, first = ActivityMeter(_LEVELS_HALF_LIFE_SECONDS), 0, 0
        for window in speech_windows(blocks, self._windowing):
            threshold = self._threshold
            new, heard = window.samples[heard - window.start :], window.start + len(window.samples)
            self._pitch.hear(new)
            if threshold is None:
                meter.hear(new)
                threshold = meter.threshold
            last = min(frames, self._frames_before(window.end))
            if last > first:
                yield self._window_landmarks(window, np.arange(first, last), threshold)
            first = max(first, last)

    def _restart(self) -> None:
        """Forget what was heard before."""
        self._blinks = Blinks(self._options.seed)
        self._pitch = VoicePitch()

    def _frames_before(self, seconds: float) -> float:
        """How many frames lie before a time; a frame that lies at it, but for rounding, is not one of them."""
        return seconds if seconds == float("inf") else math.ceil(seconds * self._options.fps - 1e-6)

    def _window_landmarks(self, window: SpeechWindow, numbers: np.ndarray, threshold: float) -> np.ndarray:
        options, times = self._options, numbers / self._options.fps
        start_s = window.start / SAMPLE_RATE
        heard = window.samples, times - start_s, threshold, self._windowing.after / SAMPLE_RATE
        voice = _voice_around(*heard)
        landmarks = self._spoken(window, numbers, threshold, voice)
        landmarks = apply_expression(landmarks, self._identity, options.emotion, options.intensity)
        if options.blink == "auto":

            def pauses(time: float) -> bool:
                heard = time - start_s + np.linspace(-_PAUSE_SECONDS, 0, 11)
                return voice_level(window.samples, heard, threshold).mean() < _PAUSE_LEVEL

            landmarks = close_lids(landmarks, self._blinks.closure(times, pauses))
        higher = self._pitch.rise(times, self._windowing.after / SAMPLE_RATE)
        moves = self._head.pose(times, np.column_stack([_loudness(*heard), higher]))
        pose = (0.5 + 0.5 * voice)[:, None] * moves
        return move_head(landmarks, self._identity, pose)

    def _spoken(
        self, window: SpeechWindow, numbers: np.ndarray, threshold: float, voice_around: np.ndarray
    ) -> np.ndarray:
        """The speaking face, (F, 68, 2) float32; the mouth rests where there is no voice."""
        spoken = self._displacements(window, numbers)
        times = numbers / self._options.fps - window.start / SAMPLE_RATE
        voice = (voice_activity(window.samples, times, threshold) * self.hush.share(numbers))[:, None, None]
        ease = smoothstep(voice_around / _EASE_VOICE)[:, None, None]
        pausing, speaking = self._resting
        moved = voice * scale_mouth(spoken - self._rest, self._options.mouth)
        return keep_lips_apart(((1 - ease) * pausing + ease * speaking + moved).astype(np.float32))

    @abstractmethod
    def _displacements(self, window: SpeechWindow, numbers: np.ndarray) -> np.ndarray:
        """What is spoken in the frames ``numbers``: (F, 68, 2) crop pixels from the speaking face's landmarks."""


class FaceMotion(Motion):
    """What :class:`~atldiff.landmarks.generator.LandmarkGenerator` hears in the speech encoder's features.

    Whisper hears each window anew; an encoder of our own hears each sample once, and the same with a look-ahead as
    without one, if that is :attr:`~atldiff.speech.distilled.DistilledEncoder.look_ahead` and 60 ms more.

    Args:
        encoder, generator: the speech encoder and the landmark generator, on the same device.
        identity, threshold, options, speaking: see :class:`Motion`.
    """

    def __init__(
        self,
        encoder: WhisperEncoder | DistilledEncoder,
        generator: LandmarkGenerator,
        identity: np.ndarray,
        threshold: float | None,
        options: GenerationOptions,
        speaking: np.ndarray | None = None,
    ) -> None:
        super().__init__(identity, threshold, options, speaking)
        self._encoder = encoder
        self._generator = generator
        self._heard = 0
        self._stream: FeatureStream | None = None
        if isinstance(encoder, DistilledEncoder):
            self._stream = FeatureStream(encoder)
            self._windowing = Windowing.for_look_ahead(options.look_ahead_s, most_hop=STEP)

    def _restart(self) -> None:
        super()._restart()
        self._heard = 0
        if isinstance(self._encoder, DistilledEncoder):
            self._stream = FeatureStream(self._encoder)

    @torch.no_grad()
    def _displacements(self, window: SpeechWindow, numbers: np.ndarray) -> np.ndarray:
        device = next(self._generator.parameters()).device
        positions = feature_positions(torch.from_numpy(numbers), self._options.fps)
        features, first = self._features(window, positions, device)
        face = torch.from_numpy(self._speaking).float().to(device)[None]
        moved = self._generator(features, (positions - first).float().to(device)[None], face)[0].cpu().numpy()
        return moved * interocular_distance(self._speaking)

    def _features(
        self, window: SpeechWindow, positions: torch.Tensor, device: torch.device
    ) -> tuple[torch.Tensor, float]:
        """Features (1, T, C) for frames at ``positions``, and at which place the first of them lies."""
        if self._stream is None:
            return self._encoder(torch.from_numpy(window.samples).to(device)[None]), window.start / STEP
        self._stream.hear(torch.from_numpy(window.samples[self._heard - window.start :]).to(device))
        self._heard = window.start + len(window.samples)
        context = self._generator.context_features
        self._stream.forget(int(positions[0]) - context)
        end = math.ceil(float(positions[-1])) + context + 1
        if math.isinf(window.end):
            end = min(end, max(1, -(-self._heard // STEP)))
        return self._stream.features(end), self._stream.first


def scale_mouth(displacement: np.ndarray, amplitude: float) -> np.ndarray:
    """Displacements from the resting face, (F, 68, 2), with those of mouth and jaw ``amplitude`` times as large."""
    scaled = displacement.copy()
    scaled[:, JAW] *= amplitude
    scaled[:, MOUTH] *= amplitude
    return scaled


def keep_lips_apart(landmarks: np.ndarray) -> np.ndarray:
    """Landmarks (F, 68, 2) of upright faces; inner lip points that have passed each other meet halfway."""
    upper, lower = (list(points) for points in zip(*INNER_LIP_PAIRS, strict=True))
    apart = landmarks.copy()
    crossed = np.maximum(landmarks[:, upper, 1] - landmarks[:, lower, 1], 0) / 2
    apart[:, upper, 1] -= crossed
    apart[:, lower, 1] += crossed
    return apart


def _voice_around(samples: np.ndarray, times: np.ndarray, threshold: float, ahead_s: float) -> np.ndarray:
    """How much voice there is about each time, (F,) from 0 in silence to 1; it changes within about a second.

    Sound later than ``ahead_s`` after a frame does not count.
    """
    offsets = np.linspace(-_LIVELY_SECONDS, _LIVELY_SECONDS, 31)
    offsets = offsets[offsets <= ahead_s]
    around = (times[:, None] + offsets).ravel()
    voice = voice_activity(samples, around, threshold).reshape(len(times), len(offsets))
    return np.average(voice, axis=1, weights=1 + np.cos(np.pi * offsets / _LIVELY_SECONDS))


def _loudness(samples: np.ndarray, times: np.ndarray, threshold: float, ahead_s: float) -> np.ndarray:
    """How loud the voice is about each time, and how much louder than in the second before, (F, 2).

    Sound later than ``ahead_s`` after a frame does not count.
    """
    offsets = np.linspace(-_LOUD_SECONDS, _LOUD_SECONDS, 36)
    offsets = offsets[offsets <= ahead_s]
    weights = 1 + np.cos(np.pi * offsets / _LOUD_SECONDS)
    loud = np.average(voice_level(samples, times[:, None] + offsets, threshold), axis=1, weights=weights)
    before = voice_level(samples, times[:, None] - np.linspace(0, _BEFORE_SECONDS, 31), threshold).mean(axis=1)
    return np.column_stack([loud, loud - before])
