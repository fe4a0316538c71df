"""Which emotion a recording is spoken in: pooled frozen speech features and a small network on top."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from atldiff.errors import ModelError
from atldiff.options import EMOTIONS
from atldiff.speech import SAMPLE_RATE
from atldiff.speech.blocks import regrouped
from atldiff.speech.whisper import LAYER_SIZE, MAX_SECONDS, WhisperEncoder

NEUTRAL = "neutral"
MIN_VOICED_SECONDS = 0.3
"""Less voiced sound than this tells nothing: it counts as neutral."""

MIN_PROBABILITY = 0.5
"""An emotion less probable than this is not named: a wrong expression on a face costs more than none."""

_FRAME = SAMPLE_RATE // 50
"""Samples of the 20 ms whose level is measured."""

_SILENCE_RMS = 10 ** (-75 / 20)
"""Of full scale: quieter frames are not sound,"""

_VOICED_RANGE = 10 ** (-35 / 20)
"""nor are those quieter than this share of the loud parts."""

_KEPT_PAUSE_FRAMES = 10
"""Frames of a pause that are kept on either side of sound: 0.2 s."""

_LEVEL_RMS = 0.05
"""What the sound is brought to."""

_MAX_READ_SECONDS = 120
"""Seconds of a recording that are looked through for thirty with a voice."""


@dataclass(frozen=True)
class EmotionClassifierConfig:
    """Configuration of :class:`EmotionClassifier`.

    Attributes:
        layer: number (from 1) of the encoder's layer whose output is heard; the last ones keep the words and lose
            the tone of voice.
        features: size of a speech feature vector.
        hidden: width of the hidden layer.
        dropout: share of values dropped in training, before and after the hidden layer.
        trained_classes: the emotions that the training data held; no other one is ever predicted.
    """

    layer: int = 2
    features: int = LAYER_SIZE
    hidden: int = 128
    dropout: float = 0.5
    trained_classes: tuple[str, ...] = tuple(name for name in EMOTIONS if name != "contempt")


class EmotionClassifier(nn.Module):
    """Mean and standard deviation of the features over time, standardised, then a network of two layers.

    The features are one layer of the speech encoder, :meth:`~atldiff.speech.whisper.WhisperEncoder.layer`.

    The logits are over the eight classes of MEAD. Those outside ``config.trained_classes`` are minus
    infinity, so they have probability 0: the free corpora of emotional speech hold no *contempt*, and a
    classifier that has never heard it must not claim to recognise it.
    """

    feature_mean: torch.Tensor
    feature_scale: torch.Tensor
    trained: torch.Tensor

    def __init__(self, config: EmotionClassifierConfig | None = None) -> None:
        super().__init__()
        self.config = config or EmotionClassifierConfig()
        unknown = sorted(set(self.config.trained_classes) - set(EMOTIONS))
        if unknown or NEUTRAL not in self.config.trained_classes:
            raise ModelError(
                f"trained_classes are {self.config.trained_classes}; expected {NEUTRAL!r} and others of {EMOTIONS}"
            )
        size = 2 * self.config.features
        trained = [EMOTIONS.index(name) for name in self.config.trained_classes]
        self.register_buffer("feature_mean", torch.zeros(size))
        self.register_buffer("feature_scale", torch.ones(size))
        self.register_buffer("trained", torch.tensor(trained), persistent=False)
        self.network = nn.Sequential(
            nn.Dropout(self.config.dropout),
            nn.Linear(size, self.config.hidden),
            nn.GELU(),
            nn.Dropout(self.config.dropout),
            nn.Linear(self.config.hidden, len(trained)),
        )

    def forward(self, features_BTC: torch.Tensor, lengths_B: torch.Tensor | None = None) -> torch.Tensor:
        """(B, T, features), of which the first ``lengths_B`` of each row count (all without it) → logits (B, 8)."""
        return self.classify_pooled(pool_features(features_BTC, lengths_B))

    def classify_pooled(self, pooled_BP: torch.Tensor) -> torch.Tensor:
        """What :func:`pool_features` gives, (B, 2 · features) → logits (B, 8)."""
        logits = self.network((pooled_BP - self.feature_mean) / self.feature_scale)
        every = logits.new_full((logits.shape[0], len(EMOTIONS)), -torch.inf)
        return every.index_copy(1, self.trained, logits)


def pool_features(features_BTC: torch.Tensor, lengths_B: torch.Tensor | None = None) -> torch.Tensor:
    """Mean and standard deviation over the first ``lengths_B`` features of each row. (B, T, C) → (B, 2C)."""
    batch, count, _ = features_BTC.shape
    lengths = features_BTC.new_full((batch,), count) if lengths_B is None else lengths_B.to(features_BTC)
    inside = torch.arange(count, device=features_BTC.device) < lengths[:, None]
    weights = (inside / lengths[:, None])[..., None]
    mean = (features_BTC * weights).sum(dim=1)
    variance = ((features_BTC - mean[:, None]).square() * weights).sum(dim=1)
    return torch.cat([mean, variance.sqrt()], dim=1)


def voiced_sound(blocks: Iterable[np.ndarray]) -> np.ndarray:
    """The first 30 s of a recording's sound without its long pauses, at one level.

    Sound is what is less than 35 dB below the recording's loud parts and above −75 dB of full scale; pauses
    within 0.2 s of it stay. Nothing is read beyond the first two minutes that are not silent.

    Args:
        blocks: mono float32 blocks at 16 kHz, of any size.

    Returns:
        (samples,) float32 of a root mean square of 0.05; empty where the sound lasts less than 0.3 s.
    """
    frames_NS = _audible_frames(blocks)
    level = np.sqrt(np.mean(np.square(frames_NS), axis=1))
    reference = float(np.percentile(level, 95)) if len(level) else 0.0
    loud = level > max(_SILENCE_RMS, reference * _VOICED_RANGE)
    if loud.sum() * _FRAME < MIN_VOICED_SECONDS * SAMPLE_RATE:
        return np.zeros(0, dtype=np.float32)
    near = np.ones(2 * _KEPT_PAUSE_FRAMES + 1)
    kept = np.convolve(loud, near)[_KEPT_PAUSE_FRAMES : _KEPT_PAUSE_FRAMES + len(loud)] > 0.5
    scale = _LEVEL_RMS / np.sqrt(np.mean(np.square(frames_NS[loud])))
    sound = frames_NS[kept].ravel()[: int(MAX_SECONDS * SAMPLE_RATE)]
    return np.clip(sound * scale, -1, 1).astype(np.float32)


def _audible_frames(blocks: Iterable[np.ndarray]) -> np.ndarray:
    """(N, samples of 20 ms): the seconds that are not silent, two minutes at most."""
    heard: list[np.ndarray] = []
    for second in _seconds(blocks):
        if float(np.abs(second).max()) > _SILENCE_RMS:
            heard.append(second)
        if len(heard) == _MAX_READ_SECONDS:
            break
    samples = np.concatenate(heard) if heard else np.zeros(0, dtype=np.float32)
    return samples[: len(samples) // _FRAME * _FRAME].reshape(-1, _FRAME)


def _seconds(blocks: Iterable[np.ndarray]) -> Iterator[np.ndarray]:
    """The same samples in blocks of one second; the last may be shorter."""
    for whole in regrouped(blocks, SAMPLE_RATE, SAMPLE_RATE):
        yield from np.split(whole, range(SAMPLE_RATE, len(whole), SAMPLE_RATE))


@torch.no_grad()
def classify_speech(
    classifier: EmotionClassifier, encoder: WhisperEncoder, blocks: Iterable[np.ndarray]
) -> tuple[str, dict[str, float]]:
    """The emotion of a recording, by :func:`voiced_sound` of it.

    Args:
        classifier: in evaluation mode.
        encoder: the frozen speech encoder that the classifier was trained on, on the same device.
        blocks: mono float32 blocks at 16 kHz, of any size, such as ``Speech.blocks()``; ``[waveform]`` for an array.

    Returns:
        The emotion of at least :data:`MIN_PROBABILITY`, or neutral where none is so probable; and the probability
        of each of :data:`EMOTIONS`. Less than 0.3 s of sound is neutral with probability 1.
    """
    sound = voiced_sound(blocks)
    if not len(sound):
        return NEUTRAL, {name: float(name == NEUTRAL) for name in EMOTIONS}
    waveform_BN = torch.from_numpy(sound)[None].to(classifier.feature_mean.device)
    features_BTC = encoder.layer(waveform_BN, classifier.config.layer)
    probabilities = F.softmax(classifier(features_BTC)[0].cpu().double(), dim=0).tolist()
    by_name = dict(zip(EMOTIONS, probabilities, strict=True))
    likeliest = max(by_name, key=by_name.__getitem__)
    return likeliest if by_name[likeliest] >= MIN_PROBABILITY else NEUTRAL, by_name
