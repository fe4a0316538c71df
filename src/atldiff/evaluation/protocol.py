"""First frame + sound → video, judged against the true video, clip by clip, beside what costs nothing.

Every clip is rendered in four ways (``ROWS``): the first frame repeated; the first frame warped by the true
landmarks, without the image network; the true landmarks through the image network, which is as good as a
perfect landmark generator could make it; and the whole pipeline, from the sound alone. Landmarks are always
detected in the finished pictures, those of the true video in the same way. The first frame, which is given, is not
scored.
"""

from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Protocol

import numpy as np
import torch

from atldiff.data.prepared import ClipInfo, PreparedClip, PreparedClips
from atldiff.errors import InputError
from atldiff.evaluation.gallery import keep_worst, shown_frames, strip
from atldiff.evaluation.identity import IdentityMeter
from atldiff.evaluation.judge import Judge, Judgement
from atldiff.evaluation.perceptual import FrechetDistances, PerceptualDistance
from atldiff.evaluation.scores import TRUE, ContactSheet, EvaluationReport, MouthCurves, Score
from atldiff.evaluation.shapes import MouthDistances
from atldiff.evaluation.syncnet import SyncNetMeter
from atldiff.face.detection import FaceDetector
from atldiff.speech import SAMPLE_RATE
from atldiff.speech.waveform import Speech

ROWS = ("static", "warp", "true landmarks", "generated")
"""The four videos of each clip, in the order of the tables."""

_OPENING_DECIMALS = 4


class JudgedPipeline(Protocol):
    """The two calls of a pipeline that the evaluation needs."""

    def talk(
        self, identity: np.ndarray, identity_landmarks: np.ndarray, speech: Speech, /, *, fps: float, seed: int
    ) -> np.ndarray:
        """(S, S, 3) uint8 crop, its (68, 2) landmarks in pixels and speech → (F, S, S, 3) uint8."""
        ...

    def animate(
        self,
        identity: np.ndarray,
        identity_landmarks: np.ndarray,
        landmarks: np.ndarray,
        /,
        *,
        steps: int | None,
        seed: int,
    ) -> np.ndarray:
        """(S, S, 3) uint8, (68, 2) and (F, 68, 2) pixels of it → (F, S, S, 3) uint8; 0 steps: warp."""
        ...


@dataclass(frozen=True)
class Material:
    """A clip in memory.

    Attributes:
        info: which clip.
        frames: (F, S, S, 3) uint8, the true frames that the sound covers.
        landmarks: (F, 68, 2) float32 pixels of the crops, as prepared.
        waveform: (samples,) float32 at 16 kHz, in step with the frames.
    """

    info: ClipInfo
    frames: np.ndarray
    landmarks: np.ndarray
    waveform: np.ndarray


@dataclass(frozen=True)
class WeightPaths:
    """Files of networks that measure, see docs/evaluation.md; what needs a missing one is not computed.

    Attributes:
        inception: for FID.
        lpips: for LPIPS.
        syncnet: for LSE-C and LSE-D.
    """

    inception: Path | None = None
    lpips: Path | None = None
    syncnet: Path | None = None


class _Meters:
    """All that measures, opened once."""

    def __init__(self, detector: FaceDetector, weights: WeightPaths, device: torch.device) -> None:
        self.detector, self.identity = detector, IdentityMeter()
        self.lpips = PerceptualDistance(weights.lpips, device) if weights.lpips else None
        self.frechet = FrechetDistances(weights.inception, device) if weights.inception else None
        self.sync = SyncNetMeter(weights.syncnet, device) if weights.syncnet else None


@dataclass
class _ClipResult:
    judgements: dict[str, Judgement]
    features: dict[str, tuple[torch.Tensor, torch.Tensor]]
    true_seconds: np.ndarray
    curves: MouthCurves
    sheet: ContactSheet


def choose_clips(
    clips: list[PreparedClip], limit: int | None = None, per_speaker: int | None = None, seed: int = 0
) -> list[PreparedClip]:
    """At most ``per_speaker`` clips of each speaker and ``limit`` in all, taken from the speakers in turn.

    The choice goes by a hash of seed and key: it is the same every time and does not depend on the order of
    ``clips``, which the result keeps.
    """
    by_speaker: dict[tuple[str, str], list[PreparedClip]] = defaultdict(list)
    for clip in sorted(clips, key=lambda clip: sha256(f"{seed}:{clip.info.key}".encode()).digest()):
        by_speaker[clip.info.corpus, clip.info.speaker].append(clip)
    turns = [(turn, key, clip) for key, own in by_speaker.items() for turn, clip in enumerate(own[:per_speaker])]
    turns.sort(key=lambda entry: entry[:2])
    chosen = {clip.info.key for _, _, clip in turns[:limit]}
    return [clip for clip in clips if clip.info.key in chosen]


def load_material(clip: PreparedClip) -> Material:
    """Read a clip; frames beyond the end of the sound are left out.

    Raises:
        InputError: it has no sound, or a member cannot be read.
    """
    waveform = clip.waveform()
    heard = Speech.from_array(waveform, SAMPLE_RATE).frames_at(clip.info.fps)
    return Material(clip.info, clip.frames()[:heard], clip.landmarks()[:heard], waveform)


def render_rows(pipeline: JudgedPipeline, material: Material, seed: int = 0) -> Iterator[tuple[str, np.ndarray]]:
    """(row, (F, S, S, 3) uint8) for each of ``ROWS``; the generated one may differ in length."""
    first, landmarks = material.frames[0], material.landmarks
    yield "static", np.repeat(first[None], len(material.frames), axis=0)
    yield "warp", pipeline.animate(first, landmarks[0], landmarks, steps=0, seed=seed)
    yield "true landmarks", pipeline.animate(first, landmarks[0], landmarks, steps=None, seed=seed)
    speech = Speech.from_array(material.waveform, SAMPLE_RATE)
    yield "generated", pipeline.talk(first, landmarks[0], speech, fps=material.info.fps, seed=seed)


def _judge_clip(pipeline: JudgedPipeline, material: Material, meters: _Meters, seed: int) -> _ClipResult:
    judge = Judge(material.frames, meters.detector, meters.identity, material.info.fps)
    shown = shown_frames(judge.true_openings)
    info, true_frames = material.info, material.frames
    judgements, features, strips = {}, {}, {TRUE: strip(true_frames, shown)}
    if meters.sync:
        scored = meters.sync.score(true_frames, material.waveform, info.fps)
        judgements[TRUE] = Judgement(scored, np.empty(0), np.empty((0, 0)))
    true_features = meters.frechet.features(true_frames) if meters.frechet else None
    for row, frames in render_rows(pipeline, material, seed):
        judgement = judgements[row] = judge.score(frames)
        own, true = judge.common(frames)
        if meters.lpips:
            judgement.values["lpips"] = meters.lpips(own, true)
        if meters.sync:
            judgement.values.update(meters.sync.score(frames, material.waveform, info.fps))
        if meters.frechet and true_features is not None:
            features[row] = meters.frechet.features(own), true_features[1 : len(own) + 1]
        if row != "static":
            strips[row] = strip(frames, shown)
    openings = {TRUE: judge.true_openings} | {row: judgements[row].openings for row in ROWS}
    rounded = {row: np.round(values.astype(float), _OPENING_DECIMALS).tolist() for row, values in openings.items()}
    sheet = ContactSheet(info.key, judgements["generated"].values["r_at_zero"], shown, strips)
    curves = MouthCurves(info.key, info.fps, rounded)
    return _ClipResult(judgements, features, judge.true_seconds, curves, sheet)


def evaluate(
    pipeline: JudgedPipeline,
    data: PreparedClips,
    split: str = "val",
    *,
    limit: int | None = None,
    per_speaker: int | None = None,
    seed: int = 0,
    weights: WeightPaths | None = None,
    device: str | torch.device = "cpu",
    model: str = "",
    progress: Callable[[int, int, PreparedClip], None] | None = None,
) -> EvaluationReport:
    """Judge ``pipeline`` on prepared clips.

    Args:
        pipeline: what is judged.
        data: the clips.
        split: which of them.
        limit: at most so many clips.
        per_speaker: at most so many clips of each speaker.
        seed: of the choice of clips, the pipeline's noise and the bootstrap.
        weights: files of networks that measure.
        device: where those networks run.
        model: name of what is judged, for the report.
        progress: called after each clip with (clips done, clips in all, the clip).

    Raises:
        InputError: no such clips, none of them can be judged, a file of weights cannot be used, or the packages
            of the ``eval`` extra are missing.
    """
    clips = choose_clips(data.split(split, heard=True), limit, per_speaker, seed)
    trained = {(clip.info.corpus, clip.info.speaker) for clip in data.clips if clip.info.split == "train"}
    report = EvaluationReport(model, str(data.folder), split, seed)
    mouths = MouthDistances()
    with FaceDetector() as detector:
        meters = _Meters(detector, weights or WeightPaths(), torch.device(device))
        for done, clip in enumerate(clips, start=1):
            info = clip.info
            try:
                result = _judge_clip(pipeline, load_material(clip), meters, seed)
            except InputError as error:
                report.skipped.append((info.key, str(error)))
            else:
                seen = (info.corpus, info.speaker) in trained
                for row, judgement in result.judgements.items():
                    named = (info.key, info.corpus, info.speaker, info.emotion, seen, row)
                    report.scores.append(Score(*named, judgement.values))
                    mouths.add(report.scores[-1].group, row, judgement.seconds, result.true_seconds)
                    if meters.frechet and row in result.features:
                        meters.frechet.add(report.scores[-1].group, row, *result.features[row])
                report.curves.append(result.curves)
                keep_worst(report.sheets, result.sheet)
            if progress is not None:
                progress(done, len(clips), clip)
    if not report.scores:
        key, reason = report.skipped[0]
        raise InputError(f"none of the {len(clips)} clips can be judged; {key}: {reason}")
    if meters.frechet:
        report.frechet.update(meters.frechet.distances())
    report.mouth_frechet.update(mouths.distances())
    return report
