"""One frame's time of a face that talks. Costs no heavy import."""

from dataclasses import dataclass

import numpy as np

LOOK_AHEAD_S = 0.12
"""Seconds of the following sound that a frame of a talking face waits for."""


@dataclass(frozen=True)
class Moment:
    """One frame's time: its picture and its sound.

    Attributes:
        number: from 0; the moment begins at number / fps.
        picture: (H, W, 3) uint8 RGB; None: the one before stays.
        sound: (n,) int16, 1 / fps long; silence where nothing is said.
        speaks: whether something is said in it.
        marks: those that were set before its end, in order.
        late: of how many frames before this moment the picture is; below zero where one is shown early, after an
            interruption; 0 without a picture.
    """

    number: int
    picture: np.ndarray | None
    sound: np.ndarray
    speaks: bool
    marks: tuple[int, ...]
    late: int = 0
