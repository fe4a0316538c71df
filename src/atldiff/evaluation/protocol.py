"""First frame + sound → video, judged against the true video, clip by clip, beside what costs nothing.

Every clip is rendered in four ways (``ROWS``): the first frame repeated; the first frame warped by the true
landmarks, without the image network; the true landmarks through the image network, which is as good as a
perfect landmark generator could make it; and the whole pipeline, from the sound alone. All are compared on
128×128 crops cut with one fixed crop, that of the first frame's face. Landmarks are always detected in the
finished pictures, those of the true video in the same way. The first frame, which is given, is not scored.
"""

from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from typing import Protocol

import numpy as np

from atldiff.data.clips import (
    MAX_MISSING_SHARE,
    Clip,
    fill_gaps,
    read_frames,
    read_manifest,
    track_landmarks,
)
from atldiff.errors import InputError
from atldiff.evaluation import metrics
from atldiff.evaluation.identity import IdentityMeter
from atldiff.face.crop import DETECTION_SIZE, face_crop, resample
from atldiff.face.detection import FaceDetector
from atldiff.face.topology import MOUTH, mouth_opening
from atldiff.speech.waveform import SAMPLE_RATE, Speech, read_waveform

ROWS = ("static", "warp", "true landmarks", "generated")
"""The four videos of each clip, in the order of the tables."""

IDENTITY_SAMPLES = 8
"""Frames of a clip, evenly spaced, whose identity is measured."""

_RESAMPLES = 2000
_PUBLISHED_CROP_SIZE = 256


class Generated(Protocol):
    """What a call of the pipeline returns, as far as the evaluation looks at it."""

    @property
    def frames(self) -> np.ndarray:
        """(F, 128, 128, 3) uint8."""
        ...


class JudgedPipeline(Protocol):
    """The two calls of a pipeline that the evaluation needs."""

    def __call__(
        self, portrait: np.ndarray, speech: Speech, /, *, fps: float, seed: int, crop_only: bool
    ) -> Generated:
        """(H, W, 3) uint8 portrait and speech → the crop's video."""
        ...

    def animate(
        self,
        crop_frame: np.ndarray,
        identity_landmarks: np.ndarray,
        landmarks: np.ndarray,
        /,
        *,
        steps: int | None,
        seed: int,
    ) -> np.ndarray:
        """(128, 128, 3) uint8, (68, 2) and (F, 68, 2) crop pixels → (F, 128, 128, 3) uint8; 0 steps: warp."""
        ...


@dataclass(frozen=True)
class Material:
    """A clip made ready.

    Attributes:
        portrait: (H, W, 3) uint8, the whole first frame.
        frames: (F, 128, 128, 3) uint8, the true frames that the sound covers, in the first frame's crop.
        landmarks: (F, 68, 2) float32 crop pixels, tracked in the whole frames.
        speech: the sound, brought into step with the picture.
        fps: frames per second.
    """

    clip: Clip
    portrait: np.ndarray
    frames: np.ndarray
    landmarks: np.ndarray
    speech: Speech
    fps: float


@dataclass(frozen=True)
class Score:
    """One row of one clip; what could not be measured is NaN. ``seen``: the speaker has training clips."""

    path: str
    corpus: str
    speaker: str
    seen: bool
    row: str
    values: dict[str, float]

    @property
    def group(self) -> str:
        """Its table: the corpus, with the speakers seen in training apart."""
        return self.corpus + (", seen speakers" if self.seen else "")


@dataclass(frozen=True)
class Statistic:
    """One metric over clips; ``low`` and ``high`` bound the median with 95 % by the bootstrap over clips.

    Clips of one speaker are alike, so with few speakers the interval is too narrow.
    """

    count: int
    median: float
    mean: float
    low: float
    high: float
    minimum: float
    maximum: float


@dataclass(frozen=True)
class EvaluationReport:
    """All that was measured.

    Attributes:
        split, seed: as asked for.
        scores: four for each clip, in the order of the clips and of ``ROWS``.
        skipped: (path, why) of clips that could not be judged.
    """

    split: str
    seed: int
    scores: list[Score] = field(default_factory=list)
    skipped: list[tuple[str, str]] = field(default_factory=list)

    def by_corpus(self) -> dict[str, dict[str, dict[str, Statistic]]]:
        """Corpus → row → metric → statistic; speakers seen in training are a corpus of their own."""
        return self._grouped(lambda score: score.group)

    def by_speaker(self) -> dict[str, dict[str, dict[str, Statistic]]]:
        """``corpus/speaker`` → row → metric → statistic."""
        return self._grouped(lambda score: f"{score.corpus}/{score.speaker}")

    def _grouped(self, group_of: Callable[[Score], str]) -> dict[str, dict[str, dict[str, Statistic]]]:
        groups: dict[str, dict[str, list[Score]]] = defaultdict(lambda: defaultdict(list))
        for score in self.scores:
            groups[group_of(score)][score.row].append(score)
        return {
            group: {row: _statistics(scores, self.seed) for row, scores in rows.items()}
            for group, rows in sorted(groups.items())
        }


def _statistics(scores: list[Score], seed: int) -> dict[str, Statistic]:
    return {name: summarise([score.values[name] for score in scores], seed) for name in scores[0].values}


def summarise(values: list[float], seed: int = 0) -> Statistic:
    """The statistic of one value a clip; NaN values are left out, and ``count`` says how many stayed."""
    finite = np.array([value for value in values if np.isfinite(value)])
    if not len(finite):
        return Statistic(0, *[float("nan")] * 6)
    drawn = np.random.default_rng(seed).integers(len(finite), size=(_RESAMPLES, len(finite)))
    low, high = np.percentile(np.median(finite[drawn], axis=1), [2.5, 97.5])
    return Statistic(
        len(finite),
        float(np.median(finite)),
        float(finite.mean()),
        float(low),
        float(high),
        float(finite.min()),
        float(finite.max()),
    )


def choose_clips(
    clips: list[Clip], limit: int | None = None, per_speaker: int | None = None, seed: int = 0
) -> list[Clip]:
    """At most ``per_speaker`` clips of each speaker and ``limit`` in all, taken from the speakers in turn.

    The choice goes by a hash of seed and path: it is the same every time and does not hang on the order of
    ``clips``, which the result keeps.
    """
    by_speaker: dict[tuple[str, str], list[Clip]] = defaultdict(list)
    for clip in sorted(clips, key=lambda clip: sha256(f"{seed}:{clip.path.as_posix()}".encode()).digest()):
        by_speaker[clip.corpus, clip.speaker].append(clip)
    turns = [(turn, key, clip) for key, own in by_speaker.items() for turn, clip in enumerate(own[:per_speaker])]
    turns.sort(key=lambda entry: entry[:2])
    chosen = {clip.path for _, _, clip in turns[:limit]}
    return [clip for clip in clips if clip.path in chosen]


def load_material(source: Path, clip: Clip, detector: FaceDetector) -> Material:
    """Read a clip and cut it with the crop of its first frame's face.

    Raises:
        InputError: no face in the first frame, or in more than a tenth of all frames.
    """
    pictures, fps = read_frames(source / clip.path)
    faces = detector.detect(pictures[0])
    if not faces:
        raise InputError("no face in the first frame")
    landmarks = track_landmarks(pictures, detector)
    if _missing_share(landmarks) > MAX_MISSING_SHARE:
        raise InputError("no face in more than a tenth of the frames")
    crop = face_crop(faces[0])
    samples = read_waveform(source / clip.path)[round(clip.audio_lag_s * SAMPLE_RATE) :]
    speech = Speech.from_array(samples, SAMPLE_RATE)
    heard = speech.frames_at(fps)
    return Material(
        clip=clip,
        portrait=pictures[0],
        frames=np.stack([crop.cut(picture) for picture in pictures[:heard]]),
        landmarks=crop.to_crop(fill_gaps(landmarks))[:heard],
        speech=speech,
        fps=fps,
    )


def _missing_share(landmarks: np.ndarray) -> float:
    return float(np.isnan(landmarks).any(axis=(1, 2)).mean())


def render_rows(pipeline: JudgedPipeline, material: Material, seed: int = 0) -> Iterator[tuple[str, np.ndarray]]:
    """(row, (F, 128, 128, 3) uint8) for each of ``ROWS``; the generated one may differ in length."""
    first, landmarks = material.frames[0], material.landmarks
    yield "static", np.repeat(first[None], len(material.frames), axis=0)
    yield "warp", np.asarray(pipeline.animate(first, landmarks[0], landmarks, steps=0, seed=seed))
    yield (
        "true landmarks",
        np.asarray(pipeline.animate(first, landmarks[0], landmarks, steps=None, seed=seed)),
    )
    generated = pipeline(material.portrait, material.speech, fps=material.fps, seed=seed, crop_only=True)
    yield "generated", np.asarray(generated.frames)


def detect_landmarks(frames: np.ndarray, detector: FaceDetector) -> np.ndarray:
    """Landmarks seen in crops enlarged to 256 pixels: (F, 68, 2) float32 crop pixels, NaN where no face is.

    A frame that equals the one before it is not looked at again.

    Args:
        frames: (F, size, size, 3) uint8.
        detector: reads the landmarks.
    """
    scale = frames.shape[1] / DETECTION_SIZE
    landmarks = np.full((len(frames), 68, 2), np.nan, dtype=np.float32)
    for index, frame in enumerate(frames):
        if index and np.array_equal(frame, frames[index - 1]):
            landmarks[index] = landmarks[index - 1]
            continue
        faces = detector.detect_once(_enlarged(frame))
        if faces:
            landmarks[index] = max(faces, key=np.ptp) * scale
    return landmarks


def _enlarged(frame: np.ndarray) -> np.ndarray:
    return resample(frame, np.eye(2, 3) * (frame.shape[1] / DETECTION_SIZE), DETECTION_SIZE)


class Judge:
    """Scores videos of one clip against its true video, whose own measurements are taken once.

    Args:
        true_frames: (F, 128, 128, 3) uint8; the first one is the portrait.
        detector: reads landmarks.
        meter: measures identity.

    Raises:
        InputError: no face is seen in more than a tenth of the true crops, or in the first one; or fewer than
            four frames.
    """

    def __init__(self, true_frames: np.ndarray, detector: FaceDetector, meter: IdentityMeter) -> None:
        landmarks = detect_landmarks(true_frames, detector)
        if len(landmarks) < 4 or np.isnan(landmarks[0]).any() or _missing_share(landmarks) > MAX_MISSING_SHARE:
            raise InputError("expected four frames or more whose crops show the face")
        self._frames = true_frames
        self._landmarks = fill_gaps(landmarks)
        self._box = metrics.mouth_box(self._landmarks, true_frames.shape[1])
        self._detector = detector
        self._meter = meter

    def score(self, frames: np.ndarray) -> dict[str, float]:
        """The metrics of one video over the frames that both have but for the first.

        ``frames_missing`` is how many frames fewer than the true video it has, ``faces_missing`` the share of
        its frames in which no face was seen: their landmarks are interpolated; with no face at all, what
        needs landmarks is NaN and the mouth correlates with nothing.

        Args:
            frames: (F', 128, 128, 3) uint8.
        """
        count = min(len(frames), len(self._frames))
        if frames.shape[1:] != self._frames.shape[1:] or count < 4:
            raise InputError(f"expected frames like the true {self._frames.shape}, four or more; got {frames.shape}")
        scored = slice(1, count)
        own, true = frames[scored], self._frames[scored]
        own_mouth, true_mouth = metrics.cut_box(own, self._box), metrics.cut_box(true, self._box)
        landmarks = detect_landmarks(own, self._detector)
        return {
            "psnr": metrics.psnr(own, true),
            "psnr_mouth": metrics.psnr(own_mouth, true_mouth),
            "ssim": metrics.ssim(own, true),
            "ssim_mouth": metrics.ssim(own_mouth, true_mouth),
            **self._landmark_scores(landmarks, self._landmarks[scored]),
            **self._identity_scores(own, landmarks),
            "flicker_ratio": _ratio(metrics.flicker(own, self._box), metrics.flicker(true, self._box)),
            "faces_missing": _missing_share(landmarks),
            "frames_missing": float(len(self._frames) - len(frames)),
        }

    def _landmark_scores(self, landmarks: np.ndarray, true: np.ndarray) -> dict[str, float]:
        if _missing_share(landmarks) == 1:
            names = ("m_ld", "f_ld", "lvd", "ld_as_published", "lvd_as_published", "lag", "gain")
            return dict.fromkeys(names, float("nan")) | {"r_at_zero": 0.0, "r_best": 0.0}
        own = fill_gaps(landmarks)
        published = _PUBLISHED_CROP_SIZE / self._frames.shape[1]
        opening, true_opening = mouth_opening(own), mouth_opening(true)
        correlation = metrics.mouth_correlation(opening, true_opening)
        return {
            "m_ld": metrics.landmark_distance(own, true, MOUTH),
            "f_ld": metrics.landmark_distance(own, true),
            "lvd": metrics.landmark_velocity_distance(own, true),
            "ld_as_published": metrics.landmark_distance_as_published(own * published, true * published),
            "lvd_as_published": metrics.landmark_velocity_distance_as_published(own * published, true * published),
            "r_at_zero": correlation.r_at_zero,
            "r_best": correlation.r_best,
            "lag": float(correlation.lag) if correlation.r_best else float("nan"),
            "gain": metrics.gain(opening, true_opening),
        }

    def _identity_scores(self, frames: np.ndarray, landmarks: np.ndarray) -> dict[str, float]:
        seen = np.flatnonzero(~np.isnan(landmarks).any(axis=(1, 2)))
        if not len(seen):
            return {"identity_median": float("nan"), "identity_max": float("nan")}
        sampled = seen[np.unique(np.linspace(0, len(seen) - 1, IDENTITY_SAMPLES).round().astype(int))]
        enlargement = DETECTION_SIZE / self._frames.shape[1]
        distances = self._meter.distances(
            _enlarged(self._frames[0]),
            self._landmarks[0] * enlargement,
            np.stack([_enlarged(frames[index]) for index in sampled]),
            landmarks[sampled] * enlargement,
        )
        return {"identity_median": float(np.median(distances)), "identity_max": float(distances.max())}


def _ratio(value: float, reference: float) -> float:
    return value / reference if reference else float("nan")


def evaluate(
    pipeline: JudgedPipeline,
    data: Path,
    split: str = "val",
    limit: int | None = None,
    per_speaker: int | None = None,
    seed: int = 0,
    progress: Callable[[int, int, Clip], None] | None = None,
) -> EvaluationReport:
    """Judge ``pipeline`` on the clips of ``data/clips.csv``.

    Args:
        pipeline: what is judged.
        data: folder with ``clips.csv``.
        split: which clips, by their column ``split``.
        limit: at most so many clips.
        per_speaker: at most so many clips of each speaker.
        seed: of the choice of clips, the pipeline's noise and the bootstrap.
        progress: called after each clip with (clips done, clips in all, the clip).

    Raises:
        InputError: no such clips, or the packages of the ``eval`` extra are missing.
    """
    every = read_manifest(data)
    clips = choose_clips([clip for clip in every if clip.split == split], limit, per_speaker, seed)
    if not clips:
        splits = sorted({clip.split for clip in every})
        raise InputError(f"no clip of split {split!r} in {data}; its splits are {splits}")
    trained = {(clip.corpus, clip.speaker) for clip in every if clip.split == "train"}
    report = EvaluationReport(split, seed)
    meter = IdentityMeter()
    with FaceDetector() as detector:
        for done, clip in enumerate(clips, start=1):
            try:
                material = load_material(data, clip, detector)
                judge = Judge(material.frames, detector, meter)
            except InputError as error:
                report.skipped.append((clip.path.as_posix(), str(error)))
            else:
                seen = (clip.corpus, clip.speaker) in trained
                for row, frames in render_rows(pipeline, material, seed):
                    values = judge.score(frames)
                    report.scores.append(Score(clip.path.as_posix(), clip.corpus, clip.speaker, seen, row, values))
            if progress is not None:
                progress(done, len(clips), clip)
    return report
