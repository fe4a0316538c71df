"""Blinks: when the lids close is drawn from a seed, a function of time alone; how, from the eyes as they are."""

import numpy as np

from atldiff.face.topology import EYELID_PAIRS

_SLOT_SECONDS = 4.0
_LARGEST_OFFSET = 0.4
_CLOSING_SECONDS = (0.1, 0.14)
_CLOSED_SECONDS = 0.04
_OPENING_SECONDS = (0.15, 0.2)

_UPPER_SHARE = 0.73
_LOWER_SHARE = 0.12


class Blinks:
    """When one person blinks.

    Time is cut into slots of four seconds with one blink each, its place drawn from the seed and the slot's number:
    0.8 to 7.2 s from blink to blink, four in the mean. The lids take 0.10 to 0.14 s to close and 0.15 to 0.20 s to
    open, and stay shut for one frame at 25 fps.

    Args:
        seed: at least 0.
    """

    def __init__(self, seed: int) -> None:
        self._seed = seed

    def closure(self, times: np.ndarray) -> np.ndarray:
        """(F,) seconds from the start of the video → (F,) from 0, open, to 1, shut."""
        slots = np.floor(times / _SLOT_SECONDS).astype(int)
        shut = np.zeros(len(times))
        for slot in np.unique(slots):
            here = slots == slot
            shut[here] = self._slot_closure(int(slot), times[here])
        return shut

    def _slot_closure(self, slot: int, times: np.ndarray) -> np.ndarray:
        offset, *paces = np.random.default_rng([self._seed, 2, slot]).random(3)
        middle = (slot + 0.5 + _LARGEST_OFFSET * (2 * offset - 1)) * _SLOT_SECONDS
        closing, opening = (
            low + pace * (high - low)
            for pace, (low, high) in zip(paces, (_CLOSING_SECONDS, _OPENING_SECONDS), strict=True)
        )
        begin, end = middle - _CLOSED_SECONDS / 2, middle + _CLOSED_SECONDS / 2
        open_share = np.clip(np.maximum((begin - times) / closing, (times - end) / opening), 0, 1)
        return 1 - open_share * open_share * (3 - 2 * open_share)


def close_lids(landmarks: np.ndarray, closure: np.ndarray) -> np.ndarray:
    """Landmarks with their eyes as far shut as ``closure`` says.

    Each upper lid point moves towards the lower lid point that faces it, which rises a little to meet it, by a
    share of their distance: narrow eyes move less, shut ones not at all. The shares are those of 437 blinks in the
    training clips: 0.73 and 0.12 of the distance, the rest of which a detector does not see close.

    Args:
        landmarks: (F, 68, 2).
        closure: (F,) from 0, as they are, to 1, shut.

    Returns:
        (F, 68, 2) in the type of ``landmarks``.
    """
    upper, lower = (list(points) for points in zip(*EYELID_PAIRS, strict=True))
    moved = landmarks.copy()
    gap = closure[:, None, None] * (landmarks[:, lower] - landmarks[:, upper])
    moved[:, upper] += _UPPER_SHARE * gap
    moved[:, lower] -= _LOWER_SHARE * gap
    return moved
