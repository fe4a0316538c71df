"""Train the speech encoder of our own, and the landmark generator that hears through it, at once.

The encoder hears changed sound and learns two things from it: what Whisper's frozen encoder hears in the sound as it
is (distillation), and the landmarks that were detected in the clip, through the generator.
"""

import functools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.data import Dataset

from atldiff.data.prepared import PreparedClip, PreparedClips
from atldiff.face.topology import interocular_distance
from atldiff.landmarks.generator import LandmarkGenerator, LandmarkGeneratorConfig
from atldiff.models.registry import DISTILLED_FOLDER, LANDMARK_FOLDER
from atldiff.speech import SAMPLE_RATE
from atldiff.speech.distilled import DistilledEncoder, DistilledEncoderConfig
from atldiff.speech.distortion import change_pitch, change_speed, distort
from atldiff.speech.loudness import at_target
from atldiff.speech.whisper import FEATURE_RATE, FEATURE_SIZE, SAMPLES_PER_FEATURE
from atldiff.storage.parts import load_weights, save_part
from atldiff.training.engine.launch import Launch
from atldiff.training.engine.loop import fit
from atldiff.training.engine.report import Validation
from atldiff.training.engine.settings import Preset
from atldiff.training.engine.task import Batch, Task
from atldiff.training.sound.landmarks import LandmarkTraining, displacements, landmark_loss
from atldiff.training.sound.speech_features import SpokenClip, cache_features
from atldiff.training.sound.spoken_clips import SpokenDraws, judge_shapes

_HEARD_BEFORE = 36
"""Features of sound before the first frame; with more, most of a step would go into them."""

_FAST_LENGTH = 2048
"""Samples whose multiples have fast Fourier transforms."""

_SILENCE_SHARE = 0.25
_LONGEST_SPEED = 0.15
_HIGHEST_PITCH = 0.2


@dataclass(frozen=True)
class SpeechTraining(LandmarkTraining):
    """Settings of a run; see :class:`~atldiff.training.sound.landmarks.LandmarkTraining` for those of the landmarks.

    Attributes:
        distillation_weight: weight of the squared error of Whisper's features, each of variance 1.
        undistorted: share of the sounds without noise, echo or a telephone's band.
    """

    steps: int = 2400
    learning_rate: float = 1.5e-3
    weight_decay: float = 0.05
    distillation_weight: float = 0.3
    undistorted: float = 0.3


def compact_preset() -> tuple[SpeechTraining, DistilledEncoderConfig]:
    """The encoder that the package carries."""
    return SpeechTraining(), DistilledEncoderConfig()


PRESETS: dict[str, Preset[SpeechTraining, DistilledEncoderConfig]] = {"compact": compact_preset}


class SpeechStudent(nn.Module):
    """The encoder, the generator that hears through it, and a projection to the teacher's features."""

    def __init__(self, config: DistilledEncoderConfig) -> None:
        super().__init__()
        self.encoder = DistilledEncoder(config)
        self.projection = nn.Linear(config.channels, FEATURE_SIZE)
        self.generator = LandmarkGenerator(_generator_config(config))


def _generator_config(config: DistilledEncoderConfig) -> LandmarkGeneratorConfig:
    return LandmarkGeneratorConfig(features=config.channels, dilations=(1,), dropout=config.dropout)


class KeptSound:
    """The sound of a clip, decoded once, as loud as what is heard when a video is made."""

    def __init__(self, clip: PreparedClip) -> None:
        self._clip = clip

    def waveform(self) -> np.ndarray:
        """(samples,) float32, 16 kHz."""
        return self._decoded

    @functools.cached_property
    def _decoded(self) -> np.ndarray:
        return at_target(self._clip.waveform())


class SpeechDraws(SpokenDraws):
    """Runs of frames with their sound, changed anew for every draw.

    A batch has ``sound`` (B, samples), ``positions`` (B, F) of the frames among its features, ``identity``
    (B, 68, 2), ``target`` (B, F, 68, 2), the displacements in eye distances, ``taught`` (B, T, C) float16, the
    teacher's features of the unchanged sound at the same moments, and ``weight`` (B, T), 0 outside the clip.

    Args:
        spoken: with the features of the sound as it is.
        look_ahead: samples that the encoder hears beyond a feature's time.
    """

    def __init__(
        self, spoken: Sequence[SpokenClip], training: SpeechTraining, look_ahead: int, share: int = 0, shares: int = 1
    ) -> None:
        super().__init__(spoken, training, training.frames, share, shares)
        self._training = training
        self._sounds = {item.clip.info.key: KeptSound(item.clip) for item in spoken}
        self._others = list(self._sounds.values())
        slowest = min(item.clip.info.fps for item in spoken) * math.exp(-_LONGEST_SPEED)
        self._features = _HEARD_BEFORE + math.ceil(training.frames * FEATURE_RATE / slowest) + 3
        needed = self._features * SAMPLES_PER_FEATURE + look_ahead
        self._samples = -(-needed // _FAST_LENGTH) * _FAST_LENGTH

    def row(self, spoken: SpokenClip, random: np.random.Generator) -> dict[str, np.ndarray]:
        landmarks, count, fps = spoken.landmarks, self._training.frames, spoken.clip.info.fps
        first = int(random.integers(len(landmarks) - count + 1))
        identity = landmarks[random.integers(len(landmarks))]
        target = displacements(landmarks[first : first + count], identity)
        identity = identity + random.normal(0, 0.004 * interocular_distance(identity), identity.shape)
        speed = math.exp(random.uniform(-_LONGEST_SPEED, _LONGEST_SPEED)) if random.random() < 0.5 else 1.0
        seconds = (first + np.arange(count)) / fps / speed
        begin = round(seconds[0] * SAMPLE_RATE) - _HEARD_BEFORE * SAMPLES_PER_FEATURE
        begin -= int(random.integers(SAMPLES_PER_FEATURE))
        sound = self._sound_from(spoken, begin, speed, random)
        if random.random() >= self._training.undistorted:
            sound = distort(sound, self._others, random)
        moments = (begin + SAMPLES_PER_FEATURE * np.arange(self._features)) / SAMPLES_PER_FEATURE * speed
        taught, weight = _at(spoken.variants[0].features, moments)
        return {
            "sound": sound,
            "positions": (seconds * SAMPLE_RATE - begin) / SAMPLES_PER_FEATURE,
            "identity": identity.astype(np.float32),
            "target": target.astype(np.float32),
            "taught": taught,
            "weight": weight,
        }

    def _sound_from(self, spoken: SpokenClip, begin: int, speed: float, random: np.random.Generator) -> np.ndarray:
        """(samples,) from sample ``begin`` of the clip, higher or lower, between other speech or silence."""
        own = self._sounds[spoken.clip.info.key].waveform()
        if random.random() < 0.5:
            own = change_pitch(own, math.exp(random.uniform(-_HIGHEST_PITCH, _HIGHEST_PITCH)))
        own = change_speed(own, speed)
        sound = np.zeros(self._samples, dtype=np.float32)
        if random.random() >= _SILENCE_SHARE:
            before, after = (self._others[index].waveform() for index in random.integers(len(self._others), size=2))
            head, tail = max(0, -begin), min(len(sound), max(0, len(own) - begin))
            sound[max(0, head - len(before)) : head] = before[len(before) - min(head, len(before)) :]
            after = after[: len(sound) - tail]
            sound[tail : tail + len(after)] = after
        source, place = max(0, begin), max(0, -begin)
        piece = own[source : source + len(sound) - place]
        sound[place : place + len(piece)] = piece
        return sound


def _at(features_TC: np.ndarray, moments: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Features at fractional places by linear interpolation, float16, and 1 where they lie within, else 0."""
    last = len(features_TC) - 1
    inside = (moments >= 0) & (moments <= last)
    places = np.clip(moments, 0, last)
    before = places.astype(int)
    share = (places - before).astype(np.float32)[:, None]
    earlier, later = (features_TC[at].astype(np.float32) for at in (before, np.minimum(before + 1, last)))
    return (earlier + share * (later - earlier)).astype(np.float16), inside.astype(np.float32)


class SpeechTask(Task[SpeechStudent]):
    """Encoder and generator, learned from prepared clips with splits ``train`` and ``val``.

    Raises:
        InputError: when opened: the folder is not one of prepared clips, or lacks a split.
    """

    part: ClassVar[str] = DISTILLED_FOLDER

    def __init__(self, prepared: Path, training: SpeechTraining, config: DistilledEncoderConfig) -> None:
        torch.manual_seed(training.seed)
        model = SpeechStudent(config)
        super().__init__(prepared, training, config, model, betas=(0.9, 0.98))
        self._training = training
        self._spoken: list[SpokenClip] = []
        self._validation: list[SpokenClip] = []
        self._mean, self._scale = torch.zeros(0), torch.zeros(0)

    def open(self, device: torch.device) -> None:
        prepared = PreparedClips.open(self._prepared)
        train, val = prepared.split("train", heard=True), prepared.split("val", heard=True)
        self._spoken = cache_features(train, prepared.folder)
        self._validation = cache_features(val, prepared.folder)
        taught = np.concatenate([item.variants[0].features[::10] for item in self._spoken]).astype(np.float32)
        self._mean = torch.from_numpy(taught.mean(axis=0)).to(device)
        self._scale = torch.from_numpy(taught.std(axis=0) + 1e-3).to(device)

    def draws(self, share: int, shares: int) -> Dataset[Batch]:
        return SpeechDraws(self._spoken, self._training, self.model.encoder.look_ahead, share, shares)

    def learning_rate(self, step: int) -> float:
        return self._training.cosine_rate(step)

    def loss(self, batch: Batch, step: int) -> torch.Tensor:
        heard = self.model.encoder(batch["sound"])[:, : batch["taught"].shape[1]]
        wanted = (batch["taught"].float() - self._mean) / self._scale
        error = (self.model.projection(F.gelu(heard)).float() - wanted).square().mean(dim=2)
        distillation = (error * batch["weight"]).sum() / batch["weight"].sum().clamp_min(1)
        predicted = self.model.generator(heard, batch["positions"], batch["identity"]).float()
        landmarks = landmark_loss(predicted, batch["target"], batch["identity"], self._training)
        return landmarks + self._training.distillation_weight * distillation

    @torch.no_grad()
    def validate(self, model: SpeechStudent) -> Validation:
        return judge_shapes(self._predicted(model, item) for item in self._validation)

    def _predicted(self, model: SpeechStudent, spoken: SpokenClip) -> tuple[str, np.ndarray, np.ndarray]:
        """Corpus, predicted and true landmarks of a clip."""
        device, landmarks = self._mean.device, spoken.landmarks
        identity = landmarks[0]
        sound = torch.from_numpy(at_target(spoken.clip.waveform())).to(device)
        positions = torch.arange(len(landmarks)).double() * (FEATURE_RATE / spoken.clip.info.fps)
        start = torch.from_numpy(identity).to(device)[None]
        moved = model.generator(model.encoder(sound[None]), positions.to(device)[None], start)[0].float().cpu()
        predicted = identity + moved.numpy() * interocular_distance(identity)
        return spoken.clip.info.corpus, predicted, landmarks

    def begin_from(self, folder: Path) -> None:
        """Begin with the weights of a trained speech encoder; the generator begins anew."""
        load_weights(folder, self.model.encoder)

    def export(self, model: SpeechStudent, run: Path) -> None:
        save_part(run / DISTILLED_FOLDER, model.encoder, model.encoder.config)
        save_part(run / LANDMARK_FOLDER, model.generator, model.generator.config)


def train_speech(
    prepared: Path,
    run: Path,
    training: SpeechTraining | None = None,
    config: DistilledEncoderConfig | None = None,
    launch: Launch | None = None,
) -> Path:
    """Train (or go on training) a speech encoder with its landmark generator; return the encoder's folder.

    The best weights are those with the highest correlation of the mouth opening on the split ``val``; the generator
    lies beside the encoder in the run's folder. The teacher's features are cached in the prepared folder. See
    :func:`atldiff.training.engine.loop.fit` for the run's folder and the errors.
    """
    training = training or SpeechTraining()
    task = functools.partial(SpeechTask, prepared, training, config or DistilledEncoderConfig())
    return fit(task, training, run, launch or Launch())
