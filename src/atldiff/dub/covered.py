"""Frames in which something lies over the mouth: a hand, a microphone, a cup."""

import numpy as np

UNLIKE = 0.1
"""How far the skin around a mouth may be from what the pose of the head makes expect, in shares of its light."""

_MOST_LOOKED_AT = 600
_KEPT_SHARE = 0.6
_ROUNDS = 3
_LEAST_FRAMES = 12
_MOUTH_HALF = (0.62, 0.42)
"""Half width and height of the mouth in the patch, in half sides: what speaks there is no cover."""


def covered(patches: np.ndarray, poses: np.ndarray, takes: list[np.ndarray]) -> np.ndarray:
    """Which frames show something else than the skin that most frames of their take show.

    Args:
        patches: (F, P, P, 3) uint8 of a survey, 0 where no face is seen.
        poses: (F, K) what else they hang on: how the head is turned, how far the mouth is open.
        takes: numbers of the frames of each take.

    Returns:
        (F,) bool.
    """
    hidden = np.zeros(len(patches), dtype=bool)
    for take in takes:
        seen = take[patches[take].any(axis=(1, 2, 3))]
        if len(seen) >= _LEAST_FRAMES:
            hidden[seen] = unlikeness(patches[seen], poses[seen]) > UNLIKE
    return hidden


def unlikeness(patches: np.ndarray, poses: np.ndarray) -> np.ndarray:
    """(F,) how far each patch is from what its pose makes expect around the mouth.

    What that is, a regression says of the frames that are nearest to it (least trimmed squares, Rousseeuw 1984).
    """
    colours = patches[:, ~_mouth(patches.shape[1])].reshape(len(patches), -1).astype(np.float32)
    shares = colours / colours.mean(axis=1, keepdims=True).clip(1)
    causes = np.column_stack([np.ones(len(poses)), poses]).astype(np.float32)
    step = max(1, len(shares) // _MOST_LOOKED_AT)
    some, why = shares[::step], causes[::step]
    distance = np.abs(some - np.median(some, axis=0)).mean(axis=1)
    effects = np.zeros((causes.shape[1], shares.shape[1]), dtype=np.float32)
    for _ in range(_ROUNDS):
        kept = distance <= np.quantile(distance, _KEPT_SHARE)
        damping = 1e-3 * np.eye(why.shape[1], dtype=np.float32) * kept.sum()
        effects = np.linalg.solve(why[kept].T @ why[kept] + damping, why[kept].T @ some[kept])
        distance = np.abs(some - why @ effects).mean(axis=1)
    return np.abs(shares - causes @ effects).mean(axis=1)


def _mouth(side: int) -> np.ndarray:
    """(P, P) where the mouth is."""
    steps = (np.arange(side) + 0.5) * 2 / side - 1
    x, y = steps / _MOUTH_HALF[0], steps[:, None] / _MOUTH_HALF[1]
    return x * x + y * y < 1
