"""The landmark part alone, held against the landmarks that were detected in the clips: no pictures are made.

The first frame's landmarks and the sound go in. The first frame, which is given, is not scored; the head's motion,
which nobody can hear, is taken out of the true landmarks.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from typing import Protocol

import numpy as np
from torch import nn

from atldiff.data.prepared import PreparedClip, PreparedClips
from atldiff.errors import InputError
from atldiff.evaluation import metrics
from atldiff.evaluation.page import opening_plot
from atldiff.evaluation.scores import TRUE, MouthCurves, Score
from atldiff.evaluation.shapes import MouthDistances, judge_shapes, seconds_of_mouth
from atldiff.face.similarity import remove_head_motion
from atldiff.face.topology import MOUTH, mouth_opening
from atldiff.speech import SAMPLE_RATE
from atldiff.speech.distortion import add_noise, limit_band
from atldiff.speech.waveform import Speech

LOOK_AHEAD_S = 0.2
"""Of the row that shows what streaming costs."""

STATIC, OURS, STREAMED, BABBLE, TELEPHONE = ROWS = (
    "static",
    "landmark part",
    "landmark part, streamed",
    "landmark part, 0 dB babble",
    "landmark part, telephone",
)
"""The first frame repeated; the sound as it is; with 200 ms of look-ahead; changed sounds."""

GENERATED = "generated"
"""Name of the landmark part among the openings of :class:`~atldiff.evaluation.scores.MouthCurves`."""

_VOICES = 4
_TELEPHONE_RATE = 8000
_TELEPHONE_HZ = (300.0, 3400.0)
_LEAST_FRAMES = 4
_PLOT_WIDTH, _PLOT_HEIGHT, _TITLE_HEIGHT = 720, 170, 22
_STYLE = (
    "text { font: 11px system-ui, sans-serif; fill: #5b6470 } polyline { stroke-width: 1.6 } "
    ".axis { stroke: #8a93a0 } .true { stroke: #5b6470 } .generated { stroke: #d1242f }"
)

Baseline = Callable[[np.ndarray, int, float], np.ndarray]
"""Waveform, number of frames, frames per second → mouth openings (F,), up to a constant."""


@dataclass(frozen=True)
class RealTimeFactors:
    """Seconds of one core for a second of sound: the landmark part alone, and with the speech encoder."""

    alone: float
    with_encoder: float


class LandmarkPipeline(Protocol):
    """What of a pipeline this needs."""

    @property
    def speech_encoder(self) -> nn.Module: ...

    def speech_landmarks(
        self, identity_landmarks: np.ndarray, speech: Speech, /, *, fps: float, look_ahead_s: float | None = None
    ) -> np.ndarray:
        """(68, 2) identity landmarks in crop pixels and speech → (F, 68, 2)."""
        ...


def evaluate_landmarks(
    pipeline: LandmarkPipeline,
    data: PreparedClips,
    clips: Sequence[PreparedClip],
    baselines: Mapping[str, Baseline],
    seed: int = 0,
    progress: Callable[[int, int], None] | None = None,
) -> tuple[list[Score], list[MouthCurves], dict[str, dict[str, float]]]:
    """Judge the landmark part, and baselines that only know the mouth's opening.

    Args:
        pipeline: what is judged.
        data: where ``clips`` are from; says which speakers are trained on.
        clips: those judged; they also lend each other voices to babble.
        baselines: by name of their row.
        seed: of the babble.
        progress: called after each clip with (clips done, clips in all).

    Returns:
        Scores of each row of each clip: ``r_at_zero``, ``r_best``, ``lag``, ``gain``; but for the baselines also
        ``m_ld``, ``m_ld_ratio`` (to the static mouth's) and ``lvd``, over the mouth, and those of
        :func:`~atldiff.evaluation.shapes.judge_shapes`. Each clip's openings. And by group and row the Fréchet
        distance of a second of mouth.

    Raises:
        InputError: a clip cannot be read or is too short, or the babble has no voice to draw from.
    """
    trained = {(clip.info.corpus, clip.info.speaker) for clip in data.clips if clip.info.split == "train"}
    scores, curves, distances = [], [], MouthDistances()
    for done, clip in enumerate(clips, start=1):
        info, true, waveform = clip.info, clip.landmarks(), clip.waveform()
        rows, true = _rows(pipeline, true, waveform, info.fps, babble(clip, clips, len(waveform), seed))
        values = {row: judge_landmarks(made, true) for row, made in rows.items()}
        for row, baseline in baselines.items():
            values[row] = judge_openings(baseline(waveform, len(true), info.fps)[1:], mouth_opening(true[1:]))
        named = (info.key, info.corpus, info.speaker, info.emotion, (info.corpus, info.speaker) in trained)
        scores += [Score(*named, row, found) for row, found in values.items()]
        seconds = seconds_of_mouth(true[1:], true[0], info.fps)
        for row, made in rows.items():
            distances.add(scores[-1].group, row, seconds_of_mouth(made[1:], true[0], info.fps), seconds)
        openings = {TRUE: true, GENERATED: rows[OURS]}
        series = {row: mouth_opening(landmarks[1:]).astype(float).tolist() for row, landmarks in openings.items()}
        curves.append(MouthCurves(info.key, info.fps, series))
        if progress is not None:
            progress(done, len(clips))
    return scores, curves, distances.distances()


def _rows(
    pipeline: LandmarkPipeline, true: np.ndarray, waveform: np.ndarray, fps: float, voices: np.ndarray
) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """The landmarks of each of ``ROWS`` and the true ones, all (F, 68, 2), as many as the sound covers."""
    identity = true[0]
    plain = Speech.from_array(waveform, SAMPLE_RATE)
    rows = {
        OURS: pipeline.speech_landmarks(identity, plain, fps=fps),
        STREAMED: pipeline.speech_landmarks(identity, plain, fps=fps, look_ahead_s=LOOK_AHEAD_S),
        BABBLE: pipeline.speech_landmarks(identity, _loud_enough(add_noise(waveform, voices, 0.0)), fps=fps),
        TELEPHONE: pipeline.speech_landmarks(identity, telephone(waveform), fps=fps),
    }
    count = min(len(true), *map(len, rows.values()))
    if count < _LEAST_FRAMES:
        raise InputError(f"expected clips of {_LEAST_FRAMES} frames with sound or more, got one of {count}")
    rows = {STATIC: np.repeat(identity[None], count, axis=0)} | rows
    return {row: made[:count] for row, made in rows.items()}, true[:count]


def judge_landmarks(made: np.ndarray, true: np.ndarray) -> dict[str, float]:
    """The values of one row of one clip, frame 0 left out.

    Args:
        made: (F, 68, 2) of a head that keeps still.
        true: (F, 68, 2), of which the first are the identity landmarks.
    """
    identity = true[:1]
    still, own = remove_head_motion(true, identity[0])[1:], made[1:]
    resting = metrics.landmark_distance(np.repeat(identity, len(still), axis=0), still, MOUTH)
    distance = metrics.landmark_distance(own, still, MOUTH)
    return judge_openings(mouth_opening(own), mouth_opening(still)) | {
        "m_ld": distance,
        "m_ld_ratio": distance / resting if resting else float("nan"),
        "lvd": metrics.landmark_velocity_distance(own, still, MOUTH),
        **judge_shapes(own, still),
    }


def judge_openings(made: np.ndarray, true: np.ndarray) -> dict[str, float]:
    """Correlation, lag and gain of mouth openings, (F,) each."""
    correlation = metrics.mouth_correlation(made, true)
    return {
        "r_at_zero": correlation.r_at_zero,
        "r_best": correlation.r_best,
        "lag": float(correlation.lag) if correlation.r_best else float("nan"),
        "gain": metrics.gain(made, true),
    }


def babble(clip: PreparedClip, clips: Sequence[PreparedClip], length: int, seed: int = 0) -> np.ndarray:
    """Four voices of other speakers among ``clips``, equally loud, (length,).

    Raises:
        InputError: there is no other speaker.
    """
    own = clip.info.corpus, clip.info.speaker
    others = [other for other in clips if (other.info.corpus, other.info.speaker) != own]
    if not others:
        raise InputError(f"the babble needs clips of 2 speakers or more; all {len(clips)} are of {'/'.join(own)}")
    random = np.random.default_rng([seed, *clip.info.key.encode()])
    voices = [np.resize(others[index].waveform(), length) for index in random.integers(len(others), size=_VOICES)]
    return np.sum([voice / (voice.std() + 1e-6) for voice in voices], axis=0)


def telephone(waveform: np.ndarray) -> Speech:
    """(samples,) at 16 kHz → what a telephone gives: 300 to 3400 Hz at 8 kHz."""
    return Speech.from_array(limit_band(waveform, *_TELEPHONE_HZ)[:: SAMPLE_RATE // _TELEPHONE_RATE], _TELEPHONE_RATE)


def _loud_enough(samples: np.ndarray) -> Speech:
    """Samples as speech, quieter where they would not fit."""
    return Speech.from_array(samples / max(1.0, float(np.abs(samples).max())), SAMPLE_RATE)


def real_time_factors(
    pipeline: LandmarkPipeline, sound: np.ndarray, identity: np.ndarray, look_ahead_s: float | None = None
) -> RealTimeFactors:
    """Processor time of the landmark part for one second of (samples,) ``sound`` at 16 kHz.

    On one thread (``torch.set_num_threads(1)``) that is the real-time factor on one core that does nothing else.
    """
    spent, began = 0.0, 0.0

    def begin(*_: object) -> None:
        nonlocal began
        began = time.process_time()

    def end(*_: object) -> None:
        nonlocal spent
        spent += time.process_time() - began

    speech = Speech.from_array(sound, SAMPLE_RATE)
    pipeline.speech_landmarks(identity, Speech.from_array(sound[:SAMPLE_RATE], SAMPLE_RATE), fps=25.0)
    hooks = [
        pipeline.speech_encoder.register_forward_pre_hook(begin),
        pipeline.speech_encoder.register_forward_hook(end),
    ]
    start = time.process_time()
    pipeline.speech_landmarks(identity, speech, fps=25.0, look_ahead_s=look_ahead_s)
    total = time.process_time() - start
    for hook in hooks:
        hook.remove()
    seconds = len(sound) / SAMPLE_RATE
    return RealTimeFactors((total - spent) / seconds, total / seconds)


def middle_curves(curves: Sequence[MouthCurves], scores: Sequence[Score], count: int = 3) -> list[MouthCurves]:
    """The clips in the middle of the order by r at lag 0 of the landmark part, neither the best nor the worst."""
    r = {score.key: score.values["r_at_zero"] for score in scores if score.row == OURS}
    ordered = sorted((entry for entry in curves if entry.key in r), key=lambda entry: r[entry.key])
    first = max(0, (len(ordered) - count) // 2)
    return ordered[first : first + count]


def opening_figure(curves: Sequence[MouthCurves], scores: Sequence[Score]) -> str:
    """Mouth openings over time of some clips below each other, true and generated, as an SVG file."""
    r = {score.key: score.values["r_at_zero"] for score in scores if score.row == OURS}
    step = _PLOT_HEIGHT + _TITLE_HEIGHT
    height = step * len(curves)
    parts = [
        f'<g transform="translate(0 {number * step})"><text x="0" y="14">{escape(entry.key)}: r at lag 0 is '
        f'{r[entry.key]:.2f}</text><g transform="translate(0 {_TITLE_HEIGHT})">{opening_plot(entry)}</g></g>'
        for number, entry in enumerate(curves)
    ]
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_PLOT_WIDTH} {height}" width="{_PLOT_WIDTH}" '
        f'height="{height}">\n<style>{_STYLE}</style>\n' + "\n".join(parts) + "\n</svg>\n"
    )
