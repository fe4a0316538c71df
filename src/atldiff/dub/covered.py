"""Frames in which something lies over the mouth: a hand, a microphone, a cup.

Of 1,547 frames of 18 clips of bare faces 0.5 % are taken for covered, where a head turns fast. Of ellipses painted
over mouths all that were dark or bright are found, and half of those in the colour of the skin.
"""

import numpy as np

_UNLIKE, _UNLIKE_RATIO = 0.15, 3.5
"""How far a mouth and its skin may be from what the pose of the head makes expect: in shares of their light, and in
medians of the take."""

_MOST_LOOKED_AT = 600
_KEPT_SHARE = 0.6
_ROUNDS = 3
_KNOWN_SPREADS, _LEAST_SPREAD = 4.0, 0.05
"""How far from the usual a head may be turned to be judged: in standard deviations, each so many radians more."""

_LEAST_FRAMES = 12
_FACE_HALF = (0.8, 0.9)
"""Half width and height of what is looked at in the patch, in half sides: in its corners may be what is behind."""


def covered(patches: np.ndarray, poses: np.ndarray, takes: list[np.ndarray], shortest: float) -> np.ndarray:
    """Which frames show something else than the skin that most frames of their take show.

    Args:
        patches: (F, P, P, 3) uint8 of a survey, 0 where no face is seen.
        poses: (F, 3) what else they depend on: how the head is turned, to the side and up, and the mouth's opening.
        takes: numbers of the frames of each take.
        shortest: frames that a cover lasts at least.

    Returns:
        (F,) bool.
    """
    hidden = np.zeros(len(patches), dtype=bool)
    for take in takes:
        seen = take[patches[take].any(axis=(1, 2, 3))]
        if len(seen) >= _LEAST_FRAMES:
            unlike = unlikeness(patches[seen], poses[seen])
            hidden[seen] = unlike > max(_UNLIKE, _UNLIKE_RATIO * float(np.median(unlike)))
    for run in runs(hidden, takes):
        if len(run) < shortest:
            hidden[run] = False
    return hidden


def runs(chosen: np.ndarray, takes: list[np.ndarray]) -> list[np.ndarray]:
    """Numbers of consecutive chosen frames, (F,) bool, none of them across the end of a take."""
    found = []
    for take in takes:
        inside = take[chosen[take]]
        if len(inside):
            found += np.split(inside, np.flatnonzero(np.diff(inside) > 1) + 1)
    return found


def unlikeness(patches: np.ndarray, poses: np.ndarray) -> np.ndarray:
    """(F,) how far each patch is from what its pose makes expect.

    What that is, a regression says of the frames that are nearest to it (least trimmed squares, Rousseeuw 1984). 0
    for a head that is turned as it hardly ever is: nobody knows what to expect of it.
    """
    colours = patches[:, _face(patches.shape[1])].reshape(len(patches), -1).astype(np.float32)
    shares = colours / colours.mean(axis=1, keepdims=True).clip(1)
    causes = np.column_stack([np.ones(len(poses)), poses]).astype(np.float32)
    step = max(1, len(shares) // _MOST_LOOKED_AT)
    some, why = shares[::step], causes[::step]
    distance = np.abs(some - np.median(some, axis=0)).mean(axis=1)
    kept, turns = distance >= 0, poses[:, :2]
    effects = np.zeros((causes.shape[1], shares.shape[1]), dtype=np.float32)
    for _ in range(_ROUNDS):
        kept = distance <= np.quantile(distance, _KEPT_SHARE)
        damping = 1e-3 * np.eye(why.shape[1], dtype=np.float32) * kept.sum()
        effects = np.linalg.solve(why[kept].T @ why[kept] + damping, why[kept].T @ some[kept])
        distance = np.abs(some - why @ effects).mean(axis=1)
    usual, spread = turns[::step][kept].mean(axis=0), turns[::step][kept].std(axis=0) + _LEAST_SPREAD
    is_known = (np.abs(turns - usual) < _KNOWN_SPREADS * spread).all(axis=1)
    return np.abs(shares - causes @ effects).mean(axis=1) * is_known


def _face(side: int) -> np.ndarray:
    """(P, P) where the face is."""
    steps = (np.arange(side) + 0.5) * 2 / side - 1
    x, y = steps / _FACE_HALF[0], steps[:, None] / _FACE_HALF[1]
    return x * x + y * y < 1
