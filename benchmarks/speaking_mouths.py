"""What a mouth is like when its face speaks, learned from clips: ``python benchmarks/speaking_mouths.py prepared …``.

Fits, on train speakers, what ``atldiff.motion.ease`` holds: how wide a speaking mouth is and how high its corners
lie, given the nose; and how the points of a mouth move where that changes, other things being equal. Prints the
constants, and of train and validation speakers how far each one's median lies from what is expected.
"""

import argparse
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path

import numpy as np

import common  # noqa: F401
from atldiff.data.prepared import PreparedClips
from atldiff.face.similarity import remove_head_motion
from atldiff.face.topology import MIRROR_68, MOUTH, NUM_LANDMARKS, mouth_opening
from atldiff.motion.ease import in_eye_distances, mouth_posture, nose_measures

RIDGE = 10.0
MOST_FRAMES = 300
"""Frames from which on a speaker counts in full."""

RIGHT_SIDE = (48, 49, 50, 51, 57, 58, 59, 60, 61, 62, 66, 67)
"""The person's, and the middle; the other side mirrors it."""

Frames = dict[tuple[str, str], np.ndarray]


def main() -> None:
    parser = argparse.ArgumentParser(description="Fit what a mouth is like when its face speaks.")
    parser.add_argument("data", type=Path, nargs="+", help="folders that atldiff prepare wrote")
    arguments = parser.parse_args()
    train, val = (gather(arguments.data, split) for split in ("train", "val"))
    mean_nose, mean_posture, coefficients = fit_posture(train)
    print(
        "mean nose",
        mean_nose.round(3),
        "mean posture",
        mean_posture.round(4),
        f"\ncoefficients\n{coefficients.round(3)}",
    )
    for name, speakers in (("train", train), ("val", {key: val[key] for key in val.keys() - train.keys()})):
        nose, posture = (medians(speakers, measure) for measure in (nose_measures, mouth_posture))
        missed = posture - mean_posture - (nose - mean_nose) @ coefficients
        print(f"{name}: {len(speakers)} speakers, expected but for {missed.std(axis=0).round(4)}")
    for name, field in zip(("width", "lift"), fit_fields(train), strict=True):
        print(name, {point: tuple(map(float, field[point].round(3))) for point in RIGHT_SIDE})


def gather(folders: list[Path], split: str) -> Frames:
    """The landmarks of each speaker's clips, without the head's motion, (F, 68, 2) in eye distances."""
    found: dict[tuple[str, str], list[np.ndarray]] = defaultdict(list)
    for folder in folders:
        for clip in PreparedClips.open(folder).split(split):
            landmarks = clip.landmarks().astype(np.float64)
            still = remove_head_motion(landmarks, landmarks[len(landmarks) // 2])
            found[clip.info.corpus, clip.info.speaker].append(in_eye_distances(still))
    return {speaker: np.concatenate(parts) for speaker, parts in found.items()}


def medians(speakers: Frames, measure: Callable[[np.ndarray], np.ndarray]) -> np.ndarray:
    return np.array([np.median(measure(frames), axis=0) for frames in speakers.values()])


def fit_posture(speakers: Frames) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Mean nose (3,), mean posture (2,) and the regression of one on the other, (3, 2)."""
    nose, posture = (medians(speakers, measure) for measure in (nose_measures, mouth_posture))
    mean, spread = nose.mean(axis=0), nose.std(axis=0)
    known = (nose - mean) / spread
    fitted = np.linalg.solve(known.T @ known + RIDGE * np.eye(3), known.T @ (posture - posture.mean(axis=0)))
    return mean, posture.mean(axis=0), fitted / spread[:, None]


def fit_fields(speakers: Frames) -> np.ndarray:
    """How the points move for each unit of width and of lift, opening and pose being equal, (2, 68, 2)."""
    causes, effects = np.zeros((6, 6)), np.zeros((6, 2 * NUM_LANDMARKS))
    for frames in speakers.values():
        pose = np.stack([frames[:, 30, 0], frames[:, 30, 1], frames[:, 33, 1]], axis=1)
        known = np.column_stack([mouth_posture(frames), mouth_opening(frames), pose])
        known, moved = (each - each.mean(axis=0) for each in (known, frames.reshape(len(frames), -1)))
        weight = min(1.0, len(frames) / MOST_FRAMES) / len(frames)
        causes, effects = causes + weight * known.T @ known, effects + weight * known.T @ moved
    fields = np.linalg.solve(causes, effects)[:2].reshape(2, NUM_LANDMARKS, 2)
    symmetric = (fields + fields[:, MIRROR_68] * (-1, 1)) / 2
    return np.where(np.isin(np.arange(NUM_LANDMARKS), np.r_[MOUTH])[:, None], symmetric, 0)


if __name__ == "__main__":
    main()
