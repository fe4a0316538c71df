"""Train the landmark generator on the landmarks that were detected in the clips, over frozen speech features."""

import functools
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from torch import nn
from torch.utils.data import Dataset

from atldiff.data.prepared import PreparedClips
from atldiff.face.similarity import remove_head_motion
from atldiff.face.topology import (
    INNER_LIPS,
    JAW,
    MOUTH,
    NOSE,
    NUM_LANDMARKS,
    OUTER_EYE_CORNERS,
    interocular_distance,
)
from atldiff.landmarks.generator import LandmarkGenerator, LandmarkGeneratorConfig
from atldiff.landmarks.kfusion import KFusionConfig
from atldiff.landmarks.shapes import mouth_shapes
from atldiff.speech.whisper import FEATURE_RATE
from atldiff.training.engine.launch import Launch
from atldiff.training.engine.loop import fit
from atldiff.training.engine.report import Validation
from atldiff.training.engine.settings import Preset, TrainingSettings
from atldiff.training.engine.task import Batch, Task
from atldiff.training.sound.kfusion import KFusionTask, KFusionTraining, paper_preset
from atldiff.training.sound.speech_features import SpokenClip, cache_features
from atldiff.training.sound.spoken_clips import SpokenDraws, judge_shapes

SHUT, OPEN = 0.03, 0.08
"""Mouth openings, in eye distances, of lips that meet and of a mouth that was open before or after."""

CLOSURE_REACH = 6
"""So many frames before or after, the mouth was open."""

_SPEAKING = torch.zeros(NUM_LANDMARKS, 1, dtype=torch.bool)
_SPEAKING[JAW] = _SPEAKING[MOUTH] = True
"""Points that make the shapes; the eyes and the nose, against which these are measured, must not learn to help."""

_FEATURES_SEED = 0
"""Of the changed sounds: every run hears the same ones, so that they are encoded once."""


@dataclass(frozen=True)
class LandmarkTraining(TrainingSettings):
    """Settings of a run.

    Attributes:
        frames: a batch is ``clips`` runs of ``frames`` video frames.
        most_per_speaker: at most so many clips of each speaker, evenly spread over the index.
        place_weight: weight of the squared error of the landmarks.
        velocity_weight: weight of the squared error of their frame-to-frame difference.
        shape_weight: weight of 1 − concordance of the mouth's shapes, and of their changes, over each run of frames.
        closure_weight: weight of how far the lips stay apart where the true ones meet beside an opening.
    """

    steps: int = 4000
    weight_decay: float = 0.02
    frames: int = 28
    most_per_speaker: int = 40
    place_weight: float = 1.0
    velocity_weight: float = 1.0
    shape_weight: float = 0.5
    closure_weight: float = 0.05


def compact_preset() -> tuple[LandmarkTraining, LandmarkGeneratorConfig]:
    """The network that the package carries."""
    return LandmarkTraining(), LandmarkGeneratorConfig()


PRESETS: dict[str, Preset[Any, Any]] = {"compact": compact_preset, "paper": paper_preset}


class LandmarkDraws(SpokenDraws):
    """Runs of frames; see :class:`~atldiff.training.sound.spoken_clips.SpokenDraws`.

    A batch has ``features`` (B, T, C) float16, ``positions`` (B, F) of the frames among them, ``identity`` (B, 68, 2)
    and ``target`` (B, F, 68, 2), the displacements in eye distances.

    Args:
        context: features to either side of the frames that the generator hears.
    """

    def __init__(
        self, spoken: Sequence[SpokenClip], training: LandmarkTraining, context: int, share: int = 0, shares: int = 1
    ) -> None:
        super().__init__(spoken, training, training.frames, share, shares)
        self._training, self._context = training, context
        longest = max(
            FEATURE_RATE / (item.clip.info.fps * variant.speed) for item in spoken for variant in item.variants
        )
        self._length = math.ceil(training.frames * longest) + 2 * context + 1

    def row(self, spoken: SpokenClip, random: np.random.Generator) -> dict[str, np.ndarray]:
        landmarks, count = spoken.landmarks, self._training.frames
        first = int(random.integers(len(landmarks) - count + 1))
        identity = landmarks[random.integers(len(landmarks))]
        target = displacements(landmarks[first : first + count], identity)
        variant = spoken.variants[random.integers(len(spoken.variants))]
        positions = variant.positions(np.arange(first, first + count), spoken.clip.info.fps)
        begin = math.floor(positions[0]) - self._context
        features = variant.features
        identity = identity + random.normal(0, 0.004 * interocular_distance(identity), identity.shape)
        return {
            "features": features[np.clip(np.arange(begin, begin + self._length), 0, len(features) - 1)],
            "positions": positions - begin,
            "identity": identity.astype(np.float32),
            "target": target.astype(np.float32),
        }


def displacements(landmarks: np.ndarray, identity: np.ndarray) -> np.ndarray:
    """What the generator is to predict: (F, 68, 2), head motion removed, over the identity's eye distance."""
    return (remove_head_motion(landmarks, identity) - identity) / interocular_distance(identity)


def _point_weights() -> torch.Tensor:
    weights = torch.full((NUM_LANDMARKS, 1), 0.02)
    weights[NOSE] = 0.1
    weights[JAW] = 0.3
    weights[MOUTH] = 1.0
    weights[INNER_LIPS] = 2.0
    return weights / weights.mean()


def landmark_loss(
    predicted: torch.Tensor, target: torch.Tensor, identity: torch.Tensor, training: LandmarkTraining
) -> torch.Tensor:
    """Weighted squared error of place and velocity, and how little the mouth's shapes concord with the true ones.

    A squared error alone shrinks what it is unsure of; the concordance is greatest where a shape varies as much as
    the true one does.
    """
    weights = _point_weights().to(predicted.device)
    error = predicted - target
    place = (weights * error.square()).mean()
    velocity = (weights * (error[:, 1:] - error[:, :-1]).square()).mean()
    right, left = OUTER_EYE_CORNERS
    scale = (identity[:, left] - identity[:, right]).norm(dim=-1)[:, None, None, None]
    start = identity[:, None] / scale
    speaking = torch.where(_SPEAKING.to(target.device), predicted.float(), target)
    made, true = (mouth_shapes(start + moved) for moved in (speaking, target))
    discords = torch.stack(
        [
            share * (1 - _concordance(change(made[name]), change(true[name]), floor)).mean()
            for name in made
            for share, change, floor in ((0.7, torch.clone, 5e-5), (0.3, _change, 2e-5))
        ]
    )
    return (
        100 * training.place_weight * place
        + 100 * training.velocity_weight * velocity
        + training.shape_weight * discords.sum() / len(made)
        + training.closure_weight * _gap_at_closures(made["opening"], true["opening"])
    )


def _change(series_BF: torch.Tensor) -> torch.Tensor:
    return series_BF[:, 1:] - series_BF[:, :-1]


def _concordance(made_BF: torch.Tensor, true_BF: torch.Tensor, floor: float) -> torch.Tensor:
    """Lin's concordance (1989) of each pair of series about their means, (B,); ``floor`` is a variance of noise."""
    made, true = (series - series.mean(dim=1, keepdim=True) for series in (made_BF, true_BF))
    return 2 * (made * true).mean(dim=1) / (made.square().mean(dim=1) + true.square().mean(dim=1) + floor)


def _gap_at_closures(made_BF: torch.Tensor, true_BF: torch.Tensor) -> torch.Tensor:
    """Mean gap of the lips, over :data:`SHUT`, in the frames where the true ones meet beside an opening."""
    open_near = nn.functional.max_pool1d(true_BF[:, None], 2 * CLOSURE_REACH + 1, 1, CLOSURE_REACH)[:, 0] > OPEN
    closed = (true_BF < SHUT) & open_near
    gaps = (made_BF / SHUT - 1).clamp_min(0)
    return ((gaps * closed).sum(dim=1) / closed.sum(dim=1).clamp_min(1)).mean()


@torch.no_grad()
def validate(model: LandmarkGenerator, spoken: Sequence[SpokenClip]) -> Validation:
    """How well the mouth moves on whole clips; see :func:`~atldiff.training.sound.spoken_clips.judge_shapes`."""
    return judge_shapes(_predicted(model, spoken))


def _predicted(
    model: LandmarkGenerator, spoken: Sequence[SpokenClip]
) -> Iterator[tuple[str, np.ndarray, np.ndarray]]:
    """Corpus, predicted and true landmarks of each clip."""
    device = next(model.parameters()).device
    for item in spoken:
        landmarks, variant = item.landmarks, item.variants[0]
        identity = landmarks[0]
        positions = torch.from_numpy(variant.positions(np.arange(len(landmarks)), item.clip.info.fps))
        features = torch.from_numpy(variant.features).to(device).float()
        moved = model(features[None], positions.to(device)[None], torch.from_numpy(identity).to(device)[None])[0]
        yield (
            item.clip.info.corpus,
            identity + moved.float().cpu().numpy() * interocular_distance(identity),
            landmarks,
        )


class LandmarkTask(Task[LandmarkGenerator]):
    """The landmark generator, learned from prepared clips with splits ``train`` and ``val``.

    Raises:
        InputError: when opened: the folder is not one of prepared clips, or lacks a split.
    """

    part: ClassVar[str] = "landmark_generator"

    def __init__(self, prepared: Path, training: LandmarkTraining, config: LandmarkGeneratorConfig) -> None:
        torch.manual_seed(training.seed)
        model = LandmarkGenerator(config)
        super().__init__(prepared, training, config, model, betas=(0.9, 0.98))
        self._training = training
        self._spoken: list[SpokenClip] = []
        self._validation: list[SpokenClip] = []

    def open(self, device: torch.device) -> None:
        prepared = PreparedClips.open(self._prepared)
        train = prepared.split("train", self._training.most_per_speaker, heard=True)
        val = prepared.split("val", heard=True)
        self._spoken = cache_features(train, prepared.folder, seed=_FEATURES_SEED)
        self._validation = cache_features(val, prepared.folder)

    def draws(self, share: int, shares: int) -> Dataset[Batch]:
        return LandmarkDraws(self._spoken, self._training, self.model.context_features, share, shares)

    def learning_rate(self, step: int) -> float:
        return self._training.cosine_rate(step)

    def loss(self, batch: Batch, step: int) -> torch.Tensor:
        predicted = self.model(batch["features"].float(), batch["positions"], batch["identity"])
        return landmark_loss(predicted, batch["target"], batch["identity"], self._training)

    def validate(self, model: LandmarkGenerator) -> Validation:
        return validate(model, self._validation)


def landmark_task(
    prepared: Path, training: LandmarkTraining | KFusionTraining, config: LandmarkGeneratorConfig | KFusionConfig
) -> Task:
    """The task of a preset: its settings say which generator is trained."""
    if isinstance(training, KFusionTraining) and isinstance(config, KFusionConfig):
        return KFusionTask(prepared, training, config)
    if isinstance(training, LandmarkTraining) and isinstance(config, LandmarkGeneratorConfig):
        return LandmarkTask(prepared, training, config)
    raise TypeError(f"{type(training).__name__} are not settings for {type(config).__name__}")


def train_landmarks(
    prepared: Path,
    run: Path,
    training: LandmarkTraining | KFusionTraining | None = None,
    config: LandmarkGeneratorConfig | KFusionConfig | None = None,
    launch: Launch | None = None,
) -> Path:
    """Train (or go on training) a landmark generator and return the folder of its best weights.

    The best are those whose mouths concord most with the true ones on the split ``val``. Speech features are
    cached in the prepared folder. See :func:`atldiff.training.engine.loop.fit` for the run's folder and the errors.
    """
    training = training or LandmarkTraining()
    task = functools.partial(landmark_task, prepared, training, config or LandmarkGeneratorConfig())
    return fit(task, training, run, launch or Launch())
