"""The linear baselines of the landmark part: ridge regression from speech features to the mouth's opening.

Features of the 120 ms before and after a frame predict the inner-lip gap in inter-ocular distances, from which the
clip's mean is taken. Every speaker weighs the same.
"""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from atldiff.data.prepared import PreparedClip
from atldiff.errors import InputError
from atldiff.face.topology import mouth_opening
from atldiff.speech.whisper import log_mel_spectrogram

MOST_PER_SPEAKER = 20
"""So many clips of each speaker are learned from."""

_REACH_SECONDS = 0.12
_STRENGTHS = tuple(10.0**power for power in (-1, -0.5, 0, 0.5, 1, 1.5, 2))
_HELD_OUT_EVERY = 4
_LEAST_SCALE = 1e-4
_CLIPS_AT_ONCE = 32


@dataclass(frozen=True)
class SpeechFeatures:
    """What a baseline hears.

    Attributes:
        encode: a waveform (samples,) at 16 kHz → features (T, C), the first of them at its beginning.
        rate: features per second.
        step_s: seconds from one feature heard to the next.
    """

    encode: Callable[[np.ndarray], np.ndarray]
    rate: float
    step_s: float

    def around(self, waveform: np.ndarray, frames: int, fps: float) -> torch.Tensor:
        """Features around each of so many frames, (F, D) float32; frame k shows the sound at k / fps."""
        return torch.from_numpy(
            features_around(self.encode(waveform), self.rate, np.arange(frames) / fps, self.step_s)
        )


@dataclass(frozen=True)
class OpeningRidge:
    """A fitted baseline.

    Attributes:
        features: what it hears.
        mean, scale: (D,) of the features around a frame.
        weights: (D,).
        strength: of the regularisation, in the mean variance of the standardised features.
    """

    features: SpeechFeatures
    mean: torch.Tensor
    scale: torch.Tensor
    weights: torch.Tensor
    strength: float

    def __call__(self, waveform: np.ndarray, frames: int, fps: float) -> np.ndarray:
        """Mouth openings (F,) of so many frames, up to a constant; frame k shows the sound at k / fps."""
        around = self.features.around(waveform, frames, fps)
        return (((around - self.mean) / self.scale) @ self.weights).numpy()


def encode_mel(waveform: np.ndarray) -> np.ndarray:
    """(samples,) at 16 kHz → (T, 80) log-mel features, 100 a second."""
    return log_mel_spectrogram(torch.from_numpy(waveform)[None])[0].T.numpy()


MEL = SpeechFeatures(encode_mel, rate=100, step_s=0.02)


def features_around(features_TC: np.ndarray, rate: float, times_F: np.ndarray, step_s: float) -> np.ndarray:
    """Features within 120 ms of each time, (F, D) float32, linearly interpolated and clamped to the ends.

    D is C times the number of steps of ``step_s`` from 120 ms before to 120 ms after.
    """
    reach = round(_REACH_SECONDS / step_s)
    offsets = np.arange(-reach, reach + 1) * step_s
    positions = np.clip((times_F[:, None] + offsets) * rate, 0, len(features_TC) - 1)
    before = np.floor(positions + 1e-6).astype(int)
    share = (positions - before)[..., None]
    after = np.minimum(before + 1, len(features_TC) - 1)
    around = (1 - share) * features_TC[before] + share * features_TC[after]
    return around.reshape(len(times_F), -1).astype(np.float32)


@dataclass(frozen=True)
class _Example:
    """One clip: (F, D) features around its frames, (F,) openings without their mean, how much a frame weighs."""

    speaker: tuple[str, str]
    inputs: torch.Tensor
    target: torch.Tensor
    weight: float


def fit_ridge(clips: Sequence[PreparedClip], features: SpeechFeatures) -> OpeningRidge:
    """Learn from clips; the regularisation is the one that does best on every fourth speaker when left out.

    Raises:
        InputError: the clips are of fewer than two speakers.
    """
    frames: Counter[tuple[str, str]] = Counter()
    for clip in clips:
        frames[clip.info.corpus, clip.info.speaker] += clip.info.frames
    if len(frames) < 2:
        raise InputError(f"the ridge baselines need clips of 2 speakers or more to learn from; got {len(frames)}")
    held_out = set(sorted(frames)[::_HELD_OUT_EVERY])
    examples = [_example(clip, features, frames) for clip in clips]
    mean, scale = _standardise(examples)
    kept = [example for example in examples if example.speaker in held_out]
    learned, left = _sums([example for example in examples if example.speaker not in held_out]), _sums(kept)
    best = max(_STRENGTHS, key=lambda strength: _mean_correlation(_solve(*learned, strength), kept))
    weights = _solve(learned[0] + left[0], learned[1] + left[1], best)
    return OpeningRidge(features, mean, scale, weights, best)


def _example(clip: PreparedClip, features: SpeechFeatures, frames: Counter[tuple[str, str]]) -> _Example:
    speaker = clip.info.corpus, clip.info.speaker
    opening = torch.from_numpy(mouth_opening(clip.landmarks())).float()
    around = features.around(clip.waveform(), len(opening), clip.info.fps)
    return _Example(speaker, around, opening - opening.mean(), 1 / frames[speaker])


def _standardise(examples: Sequence[_Example]) -> tuple[torch.Tensor, torch.Tensor]:
    """Take the inputs' mean from them and divide them by their standard deviation, in place; (D,) each."""
    total = sum(example.weight * len(example.target) for example in examples)
    mean = torch.stack([example.weight / total * example.inputs.sum(dim=0) for example in examples]).sum(dim=0)
    for example in examples:
        example.inputs.sub_(mean)
    squares = [example.weight / total * example.inputs.square().sum(dim=0) for example in examples]
    scale = torch.stack(squares).sum(dim=0).sqrt().clamp_min(_LEAST_SCALE)
    for example in examples:
        example.inputs.div_(scale)
    return mean, scale


def _sums(examples: Sequence[_Example]) -> tuple[torch.Tensor, torch.Tensor]:
    """Weighted sums of the inputs' products with each other, (D, D), and with the target, (D,)."""
    size = examples[0].inputs.shape[1]
    products, with_target = torch.zeros(size, size), torch.zeros(size)
    for first in range(0, len(examples), _CLIPS_AT_ONCE):
        some = examples[first : first + _CLIPS_AT_ONCE]
        inputs = torch.cat([example.weight**0.5 * example.inputs for example in some])
        target = torch.cat([example.weight**0.5 * example.target for example in some])
        products.addmm_(inputs.T, inputs)
        with_target.addmv_(inputs.T, target)
    return products, with_target


def _solve(products: torch.Tensor, with_target: torch.Tensor, strength: float) -> torch.Tensor:
    ridge = products.double()
    ridge.diagonal().add_(strength * ridge.diagonal().mean())
    return torch.cholesky_solve(with_target[:, None].double(), torch.linalg.cholesky(ridge))[:, 0].float()


def _mean_correlation(weights: torch.Tensor, examples: Sequence[_Example]) -> float:
    pairs = [torch.stack([example.inputs @ weights, example.target]) for example in examples]
    return float(torch.stack([torch.corrcoef(pair)[0, 1] for pair in pairs]).nan_to_num(0.0).mean())
