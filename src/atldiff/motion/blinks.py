"""Blinks: when the lids close is drawn from a seed and prefers pauses; how, from the eyes as they are."""

from collections.abc import Callable

import numpy as np

from atldiff.face.topology import EYELID_PAIRS
from atldiff.ramps import smoothstep

_SLOT_SECONDS = 4.0
_LARGEST_OFFSET = 0.4
_CANDIDATES = 3
_TAKEN_IN_PAUSES, _TAKEN_IN_SPEECH = 0.85, 0.25
_CLOSING_SECONDS = (0.1, 0.14)
_CLOSED_SECONDS = 0.04
_OPENING_SECONDS = (0.15, 0.2)

_UPPER_SHARE = 0.73
_LOWER_SHARE = 0.12


class Blinks:
    """When one person blinks.

    Time is cut into slots of four seconds with one blink each: 0.8 to 7.2 s from blink to blink, four in the mean.
    Where in its slot, three places are drawn for, one after the other, from the seed and the slot's number: the first
    two are taken in 85 % of the cases where the voice pauses, and in 25 % where it does not, the last in any case.
    The lids take 0.10 to 0.14 s to close and 0.15 to 0.20 s to open, and stay shut for one frame at 25 fps.

    Args:
        seed: at least 0.
    """

    def __init__(self, seed: int) -> None:
        self._seed = seed
        self._taken: dict[tuple[int, int], bool] = {}

    def closure(self, times: np.ndarray, pauses: Callable[[float], bool]) -> np.ndarray:
        """How far the lids are shut.

        Args:
            times: (F,) seconds from the start of the video, later than those of the calls before.
            pauses: whether the voice pauses at a time, which is not after the last of ``times``. It is asked once
                for each place.

        Returns:
            (F,) from 0, open, to 1, shut.
        """
        slots = np.floor(times / _SLOT_SECONDS).astype(int)
        shut = np.zeros(len(times))
        for slot in np.unique(slots):
            here = slots == slot
            shut[here] = self._slot_closure(int(slot), times[here], pauses)
        for key in [key for key in self._taken if key[0] < slots[0]]:
            del self._taken[key]
        return shut

    def _slot_closure(self, slot: int, times: np.ndarray, pauses: Callable[[float], bool]) -> np.ndarray:
        random = np.random.default_rng([self._seed, 2, slot])
        closing, opening = random.uniform(*_CLOSING_SECONDS), random.uniform(*_OPENING_SECONDS)
        places = (np.arange(_CANDIDATES) + random.random(_CANDIDATES)) / _CANDIDATES
        reluctance = random.random(_CANDIDATES)
        for number, place in enumerate(places):
            middle = (slot + 0.5 + _LARGEST_OFFSET * (2 * place - 1)) * _SLOT_SECONDS
            begin, end = middle - _CLOSED_SECONDS / 2, middle + _CLOSED_SECONDS / 2
            if begin - closing > times[-1]:
                break
            last = number == _CANDIDATES - 1
            if (slot, number) not in self._taken:
                share = _TAKEN_IN_PAUSES if pauses(begin - closing) else _TAKEN_IN_SPEECH
                self._taken[slot, number] = last or bool(reluctance[number] < share)
            if self._taken[slot, number]:
                return self._lids(times, begin - closing, begin, end, end + opening)
        return np.zeros(len(times))

    @staticmethod
    def _lids(times: np.ndarray, begin: float, shut: float, opens: float, end: float) -> np.ndarray:
        """(F,) how far the lids are shut that begin to close, are shut, begin to open and are open at these times."""
        return 1 - smoothstep(np.maximum((shut - times) / (shut - begin), (times - opens) / (end - opens)))


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
