"""Train the KFusion landmark generator of the paper preset (arXiv 2409.05330), over frozen wav2vec2 features.

Clips are cut into the windows of one second that generation hears. Landmark set i of a window shows the sound at
i/30 s, so the targets are the clip's landmarks interpolated in time at those moments, whatever its frame rate.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import ClassVar

import numpy as np
import torch
from torch.utils.data import Dataset

from atldiff.data.prepared import PreparedClip, PreparedClips
from atldiff.errors import InputError
from atldiff.face.similarity import remove_head_motion
from atldiff.landmarks.kfusion import FRAMES, KFusionConfig, KFusionGenerator, landmark_loss_as_published
from atldiff.motion.windowed import blend_windows, encode_window, predict_window, window_starts
from atldiff.options import EMOTIONS
from atldiff.speech.wav2vec2 import HUB_NAME, Wav2Vec2Encoder
from atldiff.speech.whisper import FEATURE_RATE, SAMPLES_PER_FEATURE
from atldiff.training.engine.report import Validation
from atldiff.training.engine.settings import TrainingSettings
from atldiff.training.engine.task import Batch, Task
from atldiff.training.sound.speech_features import FOLDER_NAME, SpeechVariant, SpokenClip, keep_variants
from atldiff.training.sound.spoken_clips import SpokenDraws, judge_shapes

_LOWEST_RATE = 1e-5
_NEUTRAL = "neutral"


@dataclass(frozen=True)
class KFusionTraining(TrainingSettings):
    """Settings of a run; rate, loss and optimiser as published, the rest was never published.

    Attributes:
        kan_weight: weight of the KAN's regularisation term; the published training has none.
        speech_encoder: wav2vec2's hub name, or a folder in transformers' format.
    """

    steps: int = 20_000
    learning_rate: float = 3e-4
    warmup: int = 1
    weight_decay: float = 0.0
    report_every: int = 500
    kan_weight: float = 0.0
    speech_encoder: str = HUB_NAME

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.kan_weight >= 0:
            raise InputError(f"kan_weight is {self.kan_weight}; expected at least 0")


def paper_preset() -> tuple[KFusionTraining, KFusionConfig]:
    """The published network with tokens that attend along time and a learned factor for every emotion."""
    return KFusionTraining(), KFusionConfig(sequence_first=False, emotions=len(EMOTIONS))


class KFusionDraws(SpokenDraws):
    """Windows of one second; see :class:`~atldiff.training.sound.spoken_clips.SpokenDraws`.

    A batch has ``features`` (B, 49, C) float16, ``identity`` (B, 68, 2) of a random frame and ``target``
    (B, 30, 68, 2), without the head's motion, in the configuration's unit, and ``emotion`` (B,).

    Raises:
        InputError: no clip lasts a second.
    """

    def __init__(
        self,
        spoken: Sequence[SpokenClip],
        training: KFusionTraining,
        config: KFusionConfig,
        share: int = 0,
        shares: int = 1,
    ) -> None:
        whole = [item for item in spoken if item.clip.info.frames >= item.clip.info.fps]
        if not whole:
            longest = max(item.clip.info.frames / item.clip.info.fps for item in spoken)
            raise InputError(f"no clip lasts a second, which a window takes; the longest has {longest:.2f} s")
        super().__init__(whole, training, 1, share, shares)
        self._config = config

    def row(self, spoken: SpokenClip, random: np.random.Generator) -> dict[str, np.ndarray]:
        info, landmarks = spoken.clip.info, spoken.landmarks
        identity = landmarks[random.integers(len(landmarks))]
        variant = spoken.variants[random.integers(len(spoken.variants))]
        shown = landmarks_at(landmarks, info.fps, _begin(variant) + np.arange(FRAMES) / FRAMES)
        target = remove_head_motion(shown, identity)
        return {
            "features": variant.features,
            "identity": self._config.from_pixels(identity, info.size).astype(np.float32),
            "target": self._config.from_pixels(target, info.size).astype(np.float32),
            "emotion": np.array(EMOTIONS.index(info.emotion or _NEUTRAL)),
        }


def landmarks_at(landmarks: np.ndarray, fps: float, times: np.ndarray) -> np.ndarray:
    """Landmarks (F, 68, 2) of a clip, interpolated at ``times`` in seconds and held beyond its ends. (n, 68, 2)."""
    positions = np.clip(times * fps, 0, len(landmarks) - 1)
    before = np.floor(positions).astype(int)
    share = (positions - before)[:, None, None]
    return (1 - share) * landmarks[before] + share * landmarks[np.minimum(before + 1, len(landmarks) - 1)]


def _begin(variant: SpeechVariant) -> float:
    """Seconds into the clip at which a window begins."""
    return -variant.start / FEATURE_RATE


class KFusionTask(Task[KFusionGenerator]):
    """The KFusion generator, learned from prepared clips with splits ``train`` and ``val``.

    Raises:
        InputError: when opened: the folder is not one of prepared clips, or lacks a split; transformers is not
            installed; the encoder's features are not of the model's size.
        ModelError: when opened: there is no such speech encoder.
    """

    part: ClassVar[str] = "landmark_generator"

    def __init__(self, prepared: Path, training: KFusionTraining, config: KFusionConfig) -> None:
        torch.manual_seed(training.seed)
        model = KFusionGenerator(config)
        super().__init__(prepared, training, config, model)
        self._training, self._config = training, config
        self._spoken: list[SpokenClip] = []
        self._validation: list[SpokenClip] = []

    def open(self, device: torch.device) -> None:
        prepared = PreparedClips.open(self._prepared)
        splits = [prepared.split("train", heard=True), prepared.split("val", heard=True)]
        name = self._training.speech_encoder
        cache = prepared.folder / FOLDER_NAME / f"windows-{sha256(name.encode()).hexdigest()[:12]}"
        encode = _window_encoder(name, device)
        self._spoken, self._validation = (keep_variants(clips, cache, encode) for clips in splits)
        size = self._spoken[0].variants[0].features.shape[1]
        if size != self._config.features:
            raise InputError(f"{name} gives {size} features; model.features is {self._config.features}")

    def draws(self, share: int, shares: int) -> Dataset[Batch]:
        return KFusionDraws(self._spoken, self._training, self._config, share, shares)

    def learning_rate(self, step: int) -> float:
        return self._training.cosine_rate(step, floor=min(1.0, _LOWEST_RATE / self._training.learning_rate))

    def loss(self, batch: Batch, step: int) -> torch.Tensor:
        predicted = self.model(batch["features"].float(), batch["identity"], batch["emotion"])
        weight = self._training.kan_weight
        return landmark_loss_as_published(predicted, batch["target"], self.model.KAN if weight else None, weight)

    def validate(self, model: KFusionGenerator) -> Validation:
        return judge_shapes(_predicted(model, self._validation))


def _window_encoder(name: str, device: torch.device) -> Callable[[PreparedClip], list[SpeechVariant]]:
    """Gives the windows of a clip; the encoder is loaded for the first one."""
    loaded: list[Wav2Vec2Encoder] = []

    def encode(clip: PreparedClip) -> list[SpeechVariant]:
        if not loaded:
            loaded.append(Wav2Vec2Encoder.from_pretrained(name).to(device))
        sound = clip.waveform()
        return [
            SpeechVariant(
                encode_window(loaded[0], sound, start).cpu().numpy().astype(np.float16),
                start=-start / SAMPLES_PER_FEATURE,
                speed=1.0,
            )
            for start in window_starts(len(sound))
        ]

    return encode


def _predicted(model: KFusionGenerator, spoken: Sequence[SpokenClip]) -> Iterator[tuple[str, np.ndarray, np.ndarray]]:
    """Corpus, predicted and true landmarks of each clip, read from its windows as in generation."""
    device = next(model.parameters()).device
    for item in spoken:
        info, landmarks = item.clip.info, item.landmarks
        windows = [
            predict_window(
                model,
                torch.from_numpy(variant.features).to(device).float(),
                landmarks[0],
                info.size,
                info.emotion or _NEUTRAL,
            )
            for variant in item.variants
        ]
        times = np.arange(len(landmarks)) / info.fps
        yield info.corpus, blend_windows(windows, [_begin(variant) for variant in item.variants], times), landmarks
