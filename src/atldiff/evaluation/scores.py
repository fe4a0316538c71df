"""What was measured on many clips, put together by corpus, speaker and emotion."""

from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np

TRUE = "true"
"""Name of the true video among the rows of a report."""

_RESAMPLES = 1000
"""Bootstrap samples for an interval."""


@dataclass(frozen=True)
class Score:
    """One video of one clip.

    Attributes:
        key, corpus, speaker, emotion: of the clip; no emotion is the empty text.
        seen: the speaker has training clips in the same data.
        row: which video, see :data:`atldiff.evaluation.protocol.ROWS`.
        values: by metric; NaN where it could not be measured, absent where its weights were not given.
    """

    key: str
    corpus: str
    speaker: str
    emotion: str
    seen: bool
    row: str
    values: dict[str, float]

    @property
    def group(self) -> str:
        """Its table: the corpus, with the speakers seen in training apart."""
        return self.corpus + (", seen speakers" if self.seen else "")


@dataclass(frozen=True)
class Statistic:
    """One metric over clips; ``low`` and ``high`` bound the median with 95 %, see :func:`draw_resamples`."""

    count: int
    median: float
    mean: float
    low: float
    high: float
    minimum: float
    maximum: float


Groups = dict[str, dict[str, dict[str, Statistic]]]
"""Group → row → metric → statistic."""


@dataclass(frozen=True)
class MouthCurves:
    """Mouth openings of one clip.

    Attributes:
        key: of the clip.
        fps: frames per second.
        openings: by row, and the true one: inner-lip gap over inter-ocular distance of frame 1 and those after it.
    """

    key: str
    fps: float
    openings: dict[str, list[float]]


@dataclass(frozen=True)
class ContactSheet:
    """Pictures of one clip.

    Attributes:
        key: of the clip.
        r_at_zero: mouth correlation of the generated video at lag 0.
        frames: the frames shown.
        strips: by row, the frames side by side as a JPEG file.
    """

    key: str
    r_at_zero: float
    frames: list[int]
    strips: dict[str, bytes] = field(repr=False)


@dataclass(frozen=True)
class EvaluationReport:
    """All that was measured.

    Attributes:
        model, data, split, seed: as asked for.
        scores: one for each row of each clip, in the order of the clips.
        skipped: (key, why) of clips that could not be judged.
        curves: mouth openings of every clip.
        frechet: group → row → FID; empty without weights.
        sheets: pictures of the worst clips, the worst first.
        mouth_frechet: group → row → Fréchet distance of a second of mouth.
    """

    model: str
    data: str
    split: str
    seed: int
    scores: list[Score] = field(default_factory=list)
    skipped: list[tuple[str, str]] = field(default_factory=list)
    curves: list[MouthCurves] = field(default_factory=list)
    frechet: dict[str, dict[str, float]] = field(default_factory=dict)
    sheets: list[ContactSheet] = field(default_factory=list)
    mouth_frechet: dict[str, dict[str, float]] = field(default_factory=dict)

    def by_corpus(self) -> Groups:
        """Speakers seen in training are a corpus of their own."""
        return grouped(self.scores, lambda score: score.group, self.seed)

    def by_speaker(self) -> Groups:
        """Groups are named ``corpus/speaker``."""
        return grouped(self.scores, lambda score: f"{score.corpus}/{score.speaker}", self.seed)

    def by_emotion(self) -> Groups:
        """Groups are named ``corpus: emotion``; speakers seen in training apart, clips without emotion left out."""
        labelled = [score for score in self.scores if score.emotion]
        return grouped(labelled, lambda score: f"{score.group}: {score.emotion}", self.seed)


def grouped(scores: Sequence[Score], group_of: Callable[[Score], str], seed: int) -> Groups:
    """Every metric of every group and row."""
    groups: dict[str, dict[str, list[Score]]] = defaultdict(lambda: defaultdict(list))
    for score in scores:
        groups[group_of(score)][score.row].append(score)
    return {
        group: {row: _statistics(own, seed) for row, own in rows.items()} for group, rows in sorted(groups.items())
    }


def _statistics(scores: Sequence[Score], seed: int) -> dict[str, Statistic]:
    resamples = draw_resamples([score.speaker for score in scores], seed)
    return {name: summarise([score.values[name] for score in scores], resamples) for name in scores[0].values}


def draw_resamples(speakers: Sequence[str], seed: int = 0) -> np.ndarray:
    """Bootstrap resamples of clips: speakers are drawn first, then clips of each, both with replacement.

    Clips of one speaker are alike, so clips drawn as if they were independent give intervals that are too narrow.
    With one speaker it is the plain bootstrap over clips.

    Args:
        speakers: the speaker of each clip.
        seed: of the draw.

    Returns:
        (resamples, width) indices of clips; -1 where a resample has fewer clips than the width.
    """
    random = np.random.default_rng(seed)
    _, owner, counts = np.unique(np.asarray(speakers), return_inverse=True, return_counts=True)
    most = int(counts.max())
    clips_SC = np.full((len(counts), most), -1)
    for speaker, count in enumerate(counts):
        clips_SC[speaker, :count] = np.flatnonzero(owner == speaker)
    drawn_RS = random.integers(len(counts), size=(_RESAMPLES, len(counts)))
    counts_RS1 = counts[drawn_RS][..., None]
    places_RSC = (random.random((*drawn_RS.shape, most)) * counts_RS1).astype(int)
    chosen_RSC = np.where(np.arange(most) < counts_RS1, clips_SC[drawn_RS[..., None], places_RSC], -1)
    return chosen_RSC.reshape(_RESAMPLES, -1)


def summarise(values: Sequence[float], resamples: np.ndarray) -> Statistic:
    """The statistic of one value a clip; NaN values are left out, and ``count`` says how many stayed."""
    every = np.append(np.asarray(values, dtype=np.float64), np.nan)
    every[~np.isfinite(every)] = np.nan
    finite = every[np.isfinite(every)]
    if not len(finite):
        return Statistic(0, *[float("nan")] * 6)
    medians = _row_medians(every[resamples])
    low, high = np.percentile(medians, [2.5, 97.5])
    return Statistic(
        len(finite),
        float(np.median(finite)),
        float(finite.mean()),
        float(low),
        float(high),
        float(finite.min()),
        float(finite.max()),
    )


def _row_medians(values: np.ndarray) -> np.ndarray:
    """Median of each row's finite values; rows without any are left out."""
    ordered = np.sort(values, axis=1)
    counts = np.isfinite(ordered).sum(axis=1)
    ordered, counts = ordered[counts > 0], counts[counts > 0]
    rows = np.arange(len(ordered))
    return (ordered[rows, (counts - 1) // 2] + ordered[rows, counts // 2]) / 2
