"""Frames in which something lies over the mouth: a hand, a microphone, a cup."""

import numpy as np

UNLIKE = 0.16
"""How far the skin around a mouth may be from what it is like in most frames of the take, in shares of its light."""

_MOST_LOOKED_AT = 500
_MOUTH_HALF = (0.62, 0.42)
"""Half width and height of the mouth in the patch, in half sides: what speaks there is no cover."""


def covered(patches: np.ndarray, takes: list[np.ndarray]) -> np.ndarray:
    """(F,) bool, of the patches of a survey; what most frames of a take show is held to be the bare face."""
    hidden = np.zeros(len(patches), dtype=bool)
    for take in takes:
        seen = take[patches[take].any(axis=(1, 2, 3))]
        if len(seen):
            hidden[seen] = unlikeness(patches[seen]) > UNLIKE
    return hidden


def unlikeness(patches: np.ndarray) -> np.ndarray:
    """(F,) how far each of the patches, (F, P, P, 3) uint8, is from their median around the mouth."""
    around = ~_mouth(patches.shape[1])
    colours = patches[:, around].astype(np.float32)
    light = colours.mean(axis=(1, 2), keepdims=True).clip(1)
    shares = colours / light
    usual = np.median(shares[:: max(1, len(shares) // _MOST_LOOKED_AT)], axis=0)
    return np.abs(shares - usual).mean(axis=(1, 2))


def _mouth(side: int) -> np.ndarray:
    """(P, P) where the mouth is."""
    steps = (np.arange(side) + 0.5) * 2 / side - 1
    x, y = steps / _MOUTH_HALF[0], steps[:, None] / _MOUTH_HALF[1]
    return x * x + y * y < 1
