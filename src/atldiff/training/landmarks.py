"""Train the landmark generator on the landmarks that were detected in the clips, over frozen speech features."""

import math
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from atldiff.data.prepared import PreparedClip, SpeakerSampler, load_clips
from atldiff.face.topology import (
    INNER_LIP_PAIRS,
    INNER_LIPS,
    JAW,
    MOUTH,
    NOSE,
    NUM_LANDMARKS,
    OUTER_EYE_CORNERS,
    interocular_distance,
    mouth_opening,
)
from atldiff.landmarks.generator import LandmarkGenerator, LandmarkGeneratorConfig, feature_positions
from atldiff.landmarks.geometry import remove_head_motion
from atldiff.serialization import save_part
from atldiff.speech.waveform import SAMPLE_RATE
from atldiff.speech.whisper import FEATURE_RATE, SAMPLES_PER_FEATURE, WhisperEncoder
from atldiff.training.checkpoint import ExponentialAverage, TrainingState

VARIANTS = 4
"""Feature sequences kept of each clip: the clip alone as it is, then inside other speech, with noise and filters."""


@dataclass(frozen=True)
class LandmarkTraining:
    """Settings of a run.

    Attributes:
        steps: optimiser steps of the whole run; the learning rate follows a cosine over them.
        clips, frames: a batch is ``clips`` runs of ``frames`` video frames.
        correlation_weight: weight of 1 − r of the mouth opening over each run of frames.
        velocity_weight: weight of the error of the frame-to-frame difference.
        max_minutes: stop (and leave a checkpoint to go on from) after so many minutes of this call.
    """

    steps: int = 4000
    clips: int = 32
    frames: int = 28
    learning_rate: float = 1e-3
    warmup: int = 100
    weight_decay: float = 0.02
    ema_decay: float = 0.998
    correlation_weight: float = 0.1
    velocity_weight: float = 1.0
    seed: int = 0
    max_minutes: float = math.inf
    report_every: int = 250


@dataclass(frozen=True)
class SpokenClip:
    """A clip and its speech features: ``features`` (VARIANTS, T, C) float16."""

    clip: PreparedClip
    features: np.ndarray


def cache_features(prepared: Path, clips: list[PreparedClip], seed: int = 0) -> list[SpokenClip]:
    """The speech features of every clip, computed once and kept in ``prepared/features``."""
    encoder = WhisperEncoder.from_package()
    spoken = []
    for number, clip in enumerate(clips):
        path = prepared / "features" / Path(clip.path).with_suffix(".npy")
        if not path.is_file():
            random = np.random.default_rng((seed, number))
            features = np.stack([_variant_features(encoder, clips, clip, v, random) for v in range(VARIANTS)])
            path.parent.mkdir(parents=True, exist_ok=True)
            temporary = path.with_suffix(".tmp")
            with temporary.open("wb") as stream:
                np.save(stream, features.astype(np.float16))
            temporary.replace(path)
        spoken.append(SpokenClip(clip, np.load(path)))
    return spoken


@torch.no_grad()
def _variant_features(
    encoder: WhisperEncoder, clips: list[PreparedClip], clip: PreparedClip, variant: int, random: np.random.Generator
) -> np.ndarray:
    own = clip.waveform.astype(np.float32) / 32768
    unit = SAMPLES_PER_FEATURE
    count = -(-len(own) // unit)
    if variant == 0:
        return encoder(torch.from_numpy(own)[None])[0, :count].numpy()
    before, after = (clips[random.integers(len(clips))].waveform.astype(np.float32) / 32768 for _ in range(2))
    lead = int(random.integers(0, len(before) // unit + 1)) * unit
    joined = np.concatenate([before[len(before) - lead :], own, np.zeros(count * unit - len(own), np.float32), after])
    joined = _distort(joined, clips, random)
    features = encoder(torch.from_numpy(joined)[None])[0].numpy()
    return features[lead // unit : lead // unit + count]


def _distort(waveform: np.ndarray, clips: list[PreparedClip], random: np.random.Generator) -> np.ndarray:
    """Gain, band limits, and white noise or babble at 5 to 30 dB."""
    power = float(np.mean(waveform**2)) + 1e-9
    kind = random.integers(4)
    if kind == 0:
        noise = random.standard_normal(len(waveform)).astype(np.float32)
    else:
        voices = [clips[random.integers(len(clips))].waveform for _ in range(4)]
        noise = np.sum([np.resize(voice.astype(np.float32) / 32768, len(waveform)) for voice in voices], axis=0)
    ratio = 10 ** (-random.uniform(5, 30) / 10)
    noisy = waveform + noise * math.sqrt(power * ratio / (float(np.mean(noise**2)) + 1e-12)) * (kind < 3)
    if random.random() < 0.3:
        spectrum = np.fft.rfft(noisy)
        hertz = np.fft.rfftfreq(len(noisy), 1 / SAMPLE_RATE)
        spectrum[(hertz < random.uniform(50, 300)) | (hertz > random.uniform(3400, 7500))] = 0
        noisy = np.fft.irfft(spectrum, len(noisy))
    gain = 10 ** (random.uniform(-15, 6) / 20)
    return np.clip(noisy * gain, -1, 1).astype(np.float32)


class LandmarkBatches:
    """Batch number ``step`` of a run, a function of the seed and the step alone."""

    def __init__(self, spoken: list[SpokenClip], training: LandmarkTraining, context: int) -> None:
        self.training = training
        self.context = context
        self.features = {item.clip.path: item.features for item in spoken}
        self.sampler = SpeakerSampler([item.clip for item in spoken], training.frames)
        slowest = min(item.clip.fps for item in spoken)
        self.length = math.ceil(training.frames * FEATURE_RATE / slowest) + 2 * context + 1

    def batch(self, step: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
        """Features (B, T, C), positions (B, F), identity (B, 68, 2), displacements (B, F, 68, 2) in eye distances."""
        random = np.random.default_rng((self.training.seed, step))
        rows = [self._row(self.sampler.draw(random), random) for _ in range(self.training.clips)]
        features, positions, identities, targets = (np.stack(part) for part in zip(*rows, strict=True))
        return (
            torch.from_numpy(features).float(),
            torch.from_numpy(positions),
            torch.from_numpy(identities).float(),
            torch.from_numpy(targets).float(),
        )

    def _row(self, clip: PreparedClip, random: np.random.Generator) -> tuple[np.ndarray, ...]:
        count = self.training.frames
        first = int(random.integers(len(clip.landmarks) - count + 1))
        identity = clip.landmarks[random.integers(len(clip.landmarks))]
        target = displacements(clip.landmarks[first : first + count], identity)
        variant = 0 if random.random() < 0.4 else int(random.integers(1, VARIANTS))
        features = self.features[clip.path][variant]
        positions = feature_positions(torch.arange(first, first + count), clip.fps).numpy()
        begin = math.floor(positions[0]) - self.context
        window = features[np.clip(np.arange(begin, begin + self.length), 0, len(features) - 1)]
        identity = identity + random.normal(0, 0.004 * interocular_distance(identity), identity.shape)
        return window, positions - begin, identity, target


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


def _opening(landmarks_BFK2: torch.Tensor) -> torch.Tensor:
    upper, lower = (landmarks_BFK2[..., [pair[side] for pair in INNER_LIP_PAIRS], :] for side in (0, 1))
    return (lower - upper).norm(dim=-1).mean(dim=-1)


def landmark_loss(
    predicted: torch.Tensor, target: torch.Tensor, identity: torch.Tensor, training: LandmarkTraining
) -> torch.Tensor:
    """Weighted squared error of place and velocity, and 1 − r of the mouth opening."""
    weights = _point_weights()
    error = predicted - target
    place = (weights * error.square()).mean()
    velocity = (weights * (error[:, 1:] - error[:, :-1]).square()).mean()
    right, left = OUTER_EYE_CORNERS
    scale = (identity[:, left] - identity[:, right]).norm(dim=-1)[:, None, None, None]
    start = identity[:, None] / scale
    made, true = (_opening(start + moved) for moved in (predicted, target))
    made, true = made - made.mean(dim=1, keepdim=True), true - true.mean(dim=1, keepdim=True)
    floor = 1e-4
    r = (made * true).mean(dim=1) / torch.sqrt((made.square().mean(1) + floor) * (true.square().mean(1) + floor))
    return 100 * place + training.velocity_weight * 100 * velocity + training.correlation_weight * (1 - r).mean()


@torch.no_grad()
def validate(model: LandmarkGenerator, spoken: list[SpokenClip]) -> dict[str, float]:
    """Median r at lag 0 of the mouth opening per corpus, and the median ratio of its standard deviations (gain)."""
    found: dict[str, list[tuple[float, float]]] = {}
    for item in spoken:
        clip, identity = item.clip, item.clip.landmarks[0]
        positions = feature_positions(torch.arange(len(clip.landmarks)), clip.fps)[None]
        features = torch.from_numpy(item.features[:1]).float()
        moved = model(features, positions, torch.from_numpy(identity)[None])[0].numpy()
        made = mouth_opening(identity + moved * interocular_distance(identity))
        true = mouth_opening(clip.landmarks)
        found.setdefault(clip.corpus, []).append(
            (float(np.corrcoef(made, true)[0, 1]), float(made.std() / true.std()))
        )
    scores = {f"r {corpus}": float(np.median([r for r, _ in rows])) for corpus, rows in found.items()}
    return scores | {f"gain {corpus}": float(np.median([g for _, g in rows])) for corpus, rows in found.items()}


def train_landmarks(
    prepared: Path,
    run: Path,
    training: LandmarkTraining | None = None,
    config: LandmarkGeneratorConfig | None = None,
) -> Path:
    """Train (or go on training) the landmark generator and return the folder of its best weights.

    Args:
        prepared: folder of prepared clips with splits ``train`` and ``val``; speech features are cached in it.
        run: folder of the run: ``last.pt``, ``log.csv`` and ``landmark_generator/``, the best by validation r.
    """
    training, config = training or LandmarkTraining(), config or LandmarkGeneratorConfig()
    torch.manual_seed(training.seed)
    model = LandmarkGenerator(config)
    average = ExponentialAverage(model, training.ema_decay)
    optimiser = torch.optim.AdamW(
        model.parameters(), lr=training.learning_rate, betas=(0.9, 0.98), weight_decay=training.weight_decay
    )
    state = TrainingState(run, training, model, average, optimiser)
    spoken = cache_features(prepared, load_clips(prepared, "train", with_frames=False))
    validation = cache_features(prepared, load_clips(prepared, "val", with_frames=False), seed=1)
    batches = LandmarkBatches(spoken, training, model.context_features)
    fresh = torch.Generator().manual_seed(training.seed).get_state()
    torch.set_rng_state(state.kept.get("random", fresh))
    began, losses = time.monotonic(), []
    model.train()
    while state.step < training.steps:
        features, positions, identity, target = batches.batch(state.step)
        loss = landmark_loss(model(features, positions, identity), target, identity, training)
        losses.append(state.learn(loss, _learning_rate(training, state.step)))
        last = state.step == training.steps or time.monotonic() - began > 60 * training.max_minutes
        if state.step % training.report_every == 0 or last:
            scores = validate(average.module, validation)
            score = float(np.mean([value for name, value in scores.items() if name.startswith("r ")]))
            if score > state.best:
                state.best = score
                save_part(run / "landmark_generator", average.module, config)
            _report(run, state.step, training, float(np.mean(losses)), scores)
            losses.clear()
            state.save(random=torch.get_rng_state())
        if last:
            break
    return run / "landmark_generator"


def _learning_rate(training: LandmarkTraining, step: int) -> float:
    ramp = min(1.0, (step + 1) / training.warmup)
    return training.learning_rate * ramp * 0.5 * (1 + math.cos(math.pi * step / training.steps))


def _report(run: Path, step: int, training: LandmarkTraining, loss: float, scores: dict[str, float]) -> None:
    run.mkdir(parents=True, exist_ok=True)
    log = run / "log.csv"
    if not log.exists():
        log.write_text(",".join(["step", "loss", *scores]) + "\n")
    with log.open("a") as stream:
        stream.write(",".join([str(step), f"{loss:.5f}", *(f"{value:.4f}" for value in scores.values())]) + "\n")
    shown = "  ".join(f"{name} {value:.3f}" for name, value in scores.items())
    print(f"step {step}/{training.steps}  loss {loss:.4f}  {shown}", flush=True)
