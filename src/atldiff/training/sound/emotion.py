"""Train the emotion classifier on recordings whose emotion is known, over frozen speech features."""

import csv
import dataclasses
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F

from atldiff.errors import InputError
from atldiff.options import EMOTIONS
from atldiff.speech.emotion import (
    NEUTRAL,
    EmotionClassifier,
    EmotionClassifierConfig,
    pool_features,
    voiced_sound,
)
from atldiff.speech.waveform import read_waveform
from atldiff.speech.whisper import WhisperEncoder
from atldiff.storage.files import write_json
from atldiff.storage.parts import load_weights, save_part
from atldiff.training.engine.checkpoint import lock_run
from atldiff.training.engine.settings import Preset

MANIFEST_NAME = "clips.csv"
PART_NAME = "emotion_classifier"
METRICS_NAME = "metrics.json"
LABEL_ALIASES = {"calm": NEUTRAL, "boredom": NEUTRAL}
"""Labels of the corpora that MEAD lacks and the class that they are taken for."""

LINEAR_BASELINE = {"ravdess": 0.49, "emodb": 0.67, "nemo": 0.34}
"""Mean recall of a linear classifier on log-mel and pitch statistics, trained and judged on each corpus alone."""

_MIN_SCALE = 1e-2


@dataclass(frozen=True)
class EmotionTraining:
    """Settings of a run, chosen by cross-validation over the training speakers.

    Attributes:
        steps: optimiser steps; the learning rate follows a cosine over them.
        batch: recordings a step, drawn so that every emotion is equally likely.
        label_smoothing: share of the target that is spread over all emotions.
    """

    steps: int = 1000
    batch: int = 128
    learning_rate: float = 1e-3
    weight_decay: float = 0.01
    label_smoothing: float = 0.1
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("steps", "batch"):
            if getattr(self, name) < 1:
                raise InputError(f"{name} is {getattr(self, name)}; expected at least 1")
        if self.seed < 0:
            raise InputError(f"seed is {self.seed}; expected at least 0")


def compact_preset() -> tuple[EmotionTraining, EmotionClassifierConfig]:
    """The classifier that the package carries."""
    return EmotionTraining(), EmotionClassifierConfig()


PRESETS: dict[str, Preset[EmotionTraining, EmotionClassifierConfig]] = {"compact": compact_preset}


@dataclass(frozen=True)
class EmotionClip:
    """One row of the manifest; ``emotion`` is one of ``EMOTIONS``."""

    path: str
    corpus: str
    emotion: str
    split: str


def read_emotion_manifest(data: Path) -> list[EmotionClip]:
    """The recordings that ``data/clips.csv`` lists, its labels mapped by :data:`LABEL_ALIASES`.

    Raises:
        InputError: there is no such file, a column is missing, or a label is unknown.
    """
    manifest = data / MANIFEST_NAME
    if not manifest.is_file():
        raise InputError(f"no {MANIFEST_NAME} in {data}; expected a folder of recordings listed in a {MANIFEST_NAME}")
    with manifest.open(newline="") as stream:
        reader = csv.DictReader(stream)
        names = [field.name for field in dataclasses.fields(EmotionClip)]
        missing = set(names) - set(reader.fieldnames or ())
        if missing:
            raise InputError(f"{manifest} lacks the columns {sorted(missing)}; it has {reader.fieldnames}")
        clips = [EmotionClip(**{name: row[name] for name in names}) for row in reader]
    clips = [dataclasses.replace(clip, emotion=LABEL_ALIASES.get(clip.emotion, clip.emotion)) for clip in clips]
    unknown = sorted({clip.emotion for clip in clips} - set(EMOTIONS))
    if unknown:
        raise InputError(f"{manifest} has the emotions {unknown}; expected {[*EMOTIONS, *LABEL_ALIASES]}")
    return clips


@torch.no_grad()
def pooled_features(data: Path, clips: list[EmotionClip], layer: int, cache: Path) -> torch.Tensor:
    """(clips, 2 · features): each recording's :func:`voiced_sound`, encoded and pooled; kept in ``cache`` (npz)."""
    paths = np.array([clip.path for clip in clips])
    if cache.is_file():
        with np.load(cache) as stored:
            if np.array_equal(stored["paths"], paths) and int(stored["layer"]) == layer:
                return torch.from_numpy(stored["pooled"])
    encoder = WhisperEncoder.from_package()
    rows = []
    for clip in clips:
        sound = voiced_sound([read_waveform(data / clip.path)])
        if not len(sound):
            raise InputError(f"{data / clip.path} has no sound to learn from; expected at least 0.3 s of speech")
        rows.append(pool_features(encoder.layer(torch.from_numpy(sound)[None], layer))[0])
        if len(rows) % 500 == 0:
            print(f"encoded {len(rows)} of {len(clips)} recordings", flush=True)
    pooled = torch.stack(rows)
    cache.parent.mkdir(parents=True, exist_ok=True)
    temporary = cache.with_name(f".{cache.name}")
    with temporary.open("wb") as stream:
        np.savez(stream, paths=paths, layer=layer, pooled=pooled.numpy())
    temporary.replace(cache)
    return pooled


def balanced_weights(clips: list[EmotionClip]) -> torch.Tensor:
    """Chance of each recording to be drawn, (clips,): the same for every emotion together.

    Within an emotion a corpus counts by the square root of its size, so that the largest does not drown the others.
    """
    sizes: dict[tuple[str, str], int] = {}
    for clip in clips:
        sizes[clip.emotion, clip.corpus] = sizes.get((clip.emotion, clip.corpus), 0) + 1
    shares = {emotion: sum(n**0.5 for (e, _), n in sizes.items() if e == emotion) for emotion, _ in sizes}
    return torch.tensor([sizes[c.emotion, c.corpus] ** -0.5 / shares[c.emotion] for c in clips])


def fit(
    pooled: torch.Tensor, clips: list[EmotionClip], training: EmotionTraining, config: EmotionClassifierConfig
) -> EmotionClassifier:
    """A classifier trained on (clips, 2 · features) pooled features, in evaluation mode."""
    torch.manual_seed(training.seed)
    model = EmotionClassifier(config)
    model.feature_mean.copy_(pooled.mean(dim=0))
    model.feature_scale.copy_(pooled.std(dim=0).clamp_min(_MIN_SCALE))
    places = torch.tensor([config.trained_classes.index(clip.emotion) for clip in clips])
    weights = balanced_weights(clips)
    optimiser = torch.optim.AdamW(model.parameters(), lr=training.learning_rate, weight_decay=training.weight_decay)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, training.steps)
    for _ in range(training.steps):
        rows = torch.multinomial(weights, training.batch, replacement=True)
        logits = model.classify_pooled(pooled[rows])[:, model.trained]
        loss = F.cross_entropy(logits, places[rows], label_smoothing=training.label_smoothing)
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        optimiser.step()
        schedule.step()
    return model.eval()


def confusion_matrix(true: torch.Tensor, predicted: torch.Tensor) -> np.ndarray:
    """Counts (8, 8): row = true class, column = predicted class."""
    counts = np.zeros((len(EMOTIONS), len(EMOTIONS)), dtype=int)
    np.add.at(counts, (true.numpy(), predicted.numpy()), 1)
    return counts


def mean_recall(confusion: np.ndarray) -> float:
    """Unweighted average recall over the classes that occur."""
    occurring = confusion.sum(axis=1) > 0
    return float((confusion.diagonal()[occurring] / confusion.sum(axis=1)[occurring]).mean())


@torch.no_grad()
def evaluate(model: EmotionClassifier, pooled: torch.Tensor, clips: list[EmotionClip]) -> dict[str, dict]:
    """Mean recall, its linear baseline where known, and confusion matrix of each corpus and of all together."""
    true, predicted = _class_numbers(clips), model.classify_pooled(pooled).argmax(dim=1)
    metrics = {}
    for corpus in [*dict.fromkeys(clip.corpus for clip in clips), "all"]:
        rows = torch.tensor([corpus in (clip.corpus, "all") for clip in clips])
        counts = confusion_matrix(true[rows], predicted[rows])
        metrics[corpus] = {"mean_recall": round(mean_recall(counts), 4), "clips": int(rows.sum())}
        metrics[corpus] |= {"linear_baseline": LINEAR_BASELINE[corpus]} if corpus in LINEAR_BASELINE else {}
        metrics[corpus]["confusion"] = counts.tolist()
    return metrics


def train_emotion(
    data: Path,
    run: Path,
    training: EmotionTraining | None = None,
    config: EmotionClassifierConfig | None = None,
) -> Path:
    """Train the emotion classifier on the ``train`` recordings, judge it on ``val``, and return its folder.

    The length of the run is fixed, so the recordings of ``val`` choose nothing.

    Args:
        data: folder with ``clips.csv`` (columns path, corpus, emotion, split) and the recordings that it lists.
        run: folder of the run: ``features.npz`` (the encoded recordings, used again), ``emotion_classifier/``
            and ``metrics.json``, which are those of the weights as stored.

    Raises:
        InputError: the manifest or a recording cannot be used, a split lacks recordings, or another process works in
            ``run``.
        OutputError: ``run`` cannot be written.
    """
    training, config = training or EmotionTraining(), config or EmotionClassifierConfig()
    clips = read_emotion_manifest(data)
    present = {clip.emotion for clip in clips if clip.split == "train"}
    if present != set(config.trained_classes) or not any(clip.split == "val" for clip in clips):
        raise InputError(
            f"the train split of {data} has the emotions {sorted(present)}; "
            f"expected {sorted(config.trained_classes)}, and a val split"
        )
    with lock_run(run):
        pooled = pooled_features(data, clips, config.layer, run / "features.npz")
        train, val = ([row for row, clip in enumerate(clips) if clip.split == split] for split in ("train", "val"))
        model = fit(pooled[train], [clips[row] for row in train], training, config)
        save_part(run / PART_NAME, model, config)
        load_weights(run / PART_NAME, model)
        metrics = evaluate(model, pooled[val], [clips[row] for row in val])
        settings = {"training": dataclasses.asdict(training), "config": dataclasses.asdict(config)}
        write_json(run / METRICS_NAME, {"emotions": EMOTIONS, "val": metrics, **settings})
        print(format_metrics(metrics), flush=True)
    return run / PART_NAME


def format_metrics(metrics: dict[str, dict]) -> str:
    """What :func:`evaluate` found, as text: recall and confusion matrix (rows true, columns predicted)."""
    lines = []
    for corpus, found in metrics.items():
        baseline = f", linear baseline {found['linear_baseline']:.2f}" if "linear_baseline" in found else ""
        lines.append(f"{corpus}: {found['clips']} clips, mean recall {found['mean_recall']:.3f}{baseline}")
        lines.append(" " * 10 + "".join(f"{name[:7]:>9}" for name in EMOTIONS))
        for name, counts in zip(EMOTIONS, found["confusion"], strict=True):
            if any(counts):
                lines.append(f"{name:<10}" + "".join(f"{count:9d}" for count in counts))
        lines.append("")
    return "\n".join(lines)


def _class_numbers(clips: list[EmotionClip]) -> torch.Tensor:
    return torch.tensor([EMOTIONS.index(clip.emotion) for clip in clips])
