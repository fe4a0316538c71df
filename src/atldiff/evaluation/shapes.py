"""The shapes of a mouth against the true ones: whether they follow, whether they go as far, whether they are likely.

A mouth that is always about halfway has a small error and says nothing. So each shape of
:data:`~atldiff.landmarks.shapes.SHAPES` is judged by its correlation and by how far it goes, and what a mouth does
within a second by the distance of its distribution from that of true mouths, which no mean of them comes near.
"""

from collections import defaultdict

import numpy as np

from atldiff.evaluation import metrics
from atldiff.face.similarity import remove_head_motion
from atldiff.face.topology import CHIN, MOUTH, interocular_distance
from atldiff.landmarks.shapes import SHAPES, mouth_shapes

RATE = 25
"""Samples of a second of mouth."""

_HOP = 12
"""Samples from one second of mouth to the next: half of one."""

_PERCENTILE = 95
"""How far a shape goes is this percentile: the farthest moment alone says little."""

_STILL = 1e-6
"""Reach below which the true shape does not move."""


def judge_shapes(made: np.ndarray, true: np.ndarray) -> dict[str, float]:
    """How each shape follows the true one, frame against frame.

    Args:
        made, true: (F, 68, 2) landmarks.

    Returns:
        Of each shape: ``NAME_r``, the correlation at lag 0; ``NAME_gain``, the ratio of the standard deviations;
        ``NAME_p95``, the ratio of the 95th percentiles, of the opening itself and of how far any other shape is from
        its median. NaN where the true shape is still.
    """
    values = {}
    made_shapes, true_shapes = mouth_shapes(made), mouth_shapes(true)
    for name in SHAPES:
        own, wanted = made_shapes[name], true_shapes[name]
        values[f"{name}_r"] = metrics.mouth_correlation(own, wanted, max_lag=0).r_at_zero
        values[f"{name}_gain"] = metrics.gain(own, wanted)
        extent, reach = (_reach(series, about_median=name != "opening") for series in (own, wanted))
        values[f"{name}_p95"] = extent / reach if reach > _STILL else float("nan")
    return values


def _reach(series: np.ndarray, about_median: bool) -> float:
    away = np.abs(series - np.median(series)) if about_median else series
    return float(np.percentile(away, _PERCENTILE))


def seconds_of_mouth(landmarks: np.ndarray, identity: np.ndarray, fps: float) -> np.ndarray:
    """Every second of mouth and chin, one begun each half second, as what is different from the identity's.

    Args:
        landmarks: (F, 68, 2); the head's motion is taken out.
        identity: (68, 2) of the same face.
        fps: frames per second.

    Returns:
        (N, 25 · 21 · 2) in inter-ocular distances; N is 0 for less than a second.
    """
    moved = (remove_head_motion(landmarks, identity) - identity) / interocular_distance(identity)
    points = np.concatenate([moved[:, MOUTH], moved[:, CHIN : CHIN + 1]], axis=1).reshape(len(moved), -1)
    places = np.arange(int((len(points) - 1) / fps * RATE + 1e-6) + 1) / RATE * fps
    before = np.minimum(places.astype(int), max(0, len(points) - 2))
    share = (places - before)[:, None]
    resampled = (1 - share) * points[before] + share * points[np.minimum(before + 1, len(points) - 1)]
    starts = range(0, len(resampled) - RATE + 1, _HOP)
    return np.stack([resampled[start : start + RATE].ravel() for start in starts]) if starts else np.empty((0, 0))


def frechet_distance(made: np.ndarray, true: np.ndarray) -> float:
    """Distance of two distributions, as if they were normal (Fréchet 1957; Dowson and Landau 1982).

    Args:
        made, true: (N, D) and (M, D) of :func:`seconds_of_mouth`.

    Returns:
        The root of the mean over a second's points, in inter-ocular distances; NaN for fewer than two of either.
    """
    if min(len(made), len(true)) < 2:
        return float("nan")
    means = [seconds.mean(axis=0) for seconds in (made, true)]
    first, second = (
        (seconds - mean) / np.sqrt(len(seconds)) for seconds, mean in zip((made, true), means, strict=True)
    )
    shared = np.linalg.svd(first @ second.T, compute_uv=False).sum()
    squared = np.square(means[0] - means[1]).sum() + np.square(first).sum() + np.square(second).sum() - 2 * shared
    return float(np.sqrt(max(squared, 0.0) / (made.shape[1] / 2)))


class MouthDistances:
    """Fréchet distances of many clips' mouths, by group and row."""

    def __init__(self) -> None:
        self._seconds: dict[str, dict[str, list[tuple[np.ndarray, np.ndarray]]]] = defaultdict(
            lambda: defaultdict(list)
        )

    def add(self, group: str, row: str, made: np.ndarray, true: np.ndarray) -> None:
        """Count a clip's seconds of mouth, (N, D) each, beside the true ones; a clip without any does not count."""
        if len(made) and len(true):
            self._seconds[group][row].append((made, true))

    def distances(self) -> dict[str, dict[str, float]]:
        """Group → row → distance."""
        return {
            group: {
                row: frechet_distance(*(np.concatenate(side) for side in zip(*pairs, strict=True)))
                for row, pairs in rows.items()
            }
            for group, rows in self._seconds.items()
        }
