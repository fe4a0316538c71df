"""Hand-made facial expressions: small displacements of the landmarks, added to what the speech makes of them.

Nothing here is learned. Each expression is a weighted sum of *action units* of the Facial Action Coding System
(Ekman & Friesen 1978), chosen by eye, of which only what keeps the speech readable is used: no unit opens or closes
the mouth. An expression is laid over the portrait's own, of which the smile gives way (:mod:`atldiff.motion.ease`).
"""

import numpy as np

from atldiff.errors import InputError
from atldiff.face.similarity import RIGID_POINTS, fit_similarity
from atldiff.face.topology import MIRROR_68, NUM_LANDMARKS, OUTER_EYE_CORNERS
from atldiff.options import EMOTIONS

_Side = dict[int, tuple[float, float]]

_INNER_BROW_RAISER: _Side = {21: (0, 0.1), 20: (0, 0.072), 19: (0, 0.03), 18: (0, 0.006)}
_OUTER_BROW_RAISER: _Side = {17: (0, 0.07), 18: (0, 0.09), 19: (0, 0.08), 20: (0, 0.03)}
_BROW_LOWERER: _Side = {
    21: (-0.05, -0.085),
    20: (-0.04, -0.075),
    19: (-0.022, -0.05),
    18: (-0.008, -0.02),
    27: (0, -0.01),
}
_UPPER_LID_RAISER: _Side = {37: (0, 0.034), 38: (0, 0.034)}
_UPPER_LID_DROOPER: _Side = {37: (0, -0.02), 38: (0, -0.012)}
_CHEEK_RAISER: _Side = {40: (0, 0.022), 41: (0, 0.024), 37: (0, -0.006), 38: (0, -0.006)}
_LID_TIGHTENER: _Side = {37: (0, -0.012), 38: (0, -0.012), 40: (0, 0.018), 41: (0, 0.018)}
_NOSE_WRINKLER: _Side = {
    21: (-0.025, -0.055),
    20: (-0.02, -0.045),
    19: (-0.008, -0.025),
    30: (0, 0.018),
    31: (0.018, 0.055),
    32: (0.008, 0.04),
    33: (0, 0.026),
}
_UPPER_LIP_RAISER: _Side = {49: (0.006, 0.05), 50: (0, 0.062), 51: (0, 0.046)}
_LIP_CORNER_PULLER: _Side = {
    48: (0.088, 0.082),
    60: (0.078, 0.07),
    49: (0.052, 0.046),
    59: (0.05, 0.06),
    61: (0.03, 0.024),
    67: (0.03, 0.024),
    50: (0.018, 0.01),
    58: (0.018, 0.028),
    51: (0, -0.006),
    57: (0, 0.016),
    4: (0.012, 0.01),
    3: (0.016, 0.012),
    2: (0.012, 0.008),
}
_LIP_CORNER_DEPRESSOR: _Side = {
    48: (0.004, -0.088),
    60: (0.003, -0.072),
    49: (0.002, -0.044),
    59: (0.002, -0.046),
    61: (0.001, -0.018),
    67: (0.001, -0.018),
    50: (0, -0.01),
    58: (0, -0.008),
}
_CHIN_RAISER: _Side = {58: (0, 0.024), 57: (0, 0.03), 7: (0, 0.012), 8: (0, 0.016)}
_LIP_STRETCHER: _Side = {
    48: (0.075, -0.03),
    60: (0.066, -0.026),
    49: (0.04, -0.012),
    59: (0.04, -0.016),
    61: (0.022, 0),
    67: (0.022, 0),
    50: (0.015, 0),
    58: (0.015, 0),
}
_LIP_TIGHTENER: _Side = {
    48: (-0.03, -0.004),
    60: (-0.027, -0.004),
    49: (-0.015, -0.014),
    59: (-0.015, 0.016),
    61: (-0.009, 0),
    67: (-0.009, 0),
    50: (-0.006, -0.022),
    58: (-0.006, 0.024),
    51: (0, -0.02),
    57: (0, 0.024),
}
_LIP_FUNNELER: _Side = {
    48: (-0.05, 0),
    60: (-0.045, 0),
    49: (-0.024, 0.012),
    59: (-0.024, -0.014),
    61: (-0.014, 0),
    67: (-0.014, 0),
    50: (-0.01, 0.016),
    58: (-0.01, -0.018),
    51: (0, 0.014),
    57: (0, -0.018),
    7: (0, -0.02),
    8: (0, -0.026),
}
"""(outward, upward) of the points of one side and of the middle, in inter-ocular distances, as people show them."""

_FULL_STRENGTH = 1.3
"""Intensity 1 is by so much more than that."""

_BOTH_SIDES: dict[str, tuple[tuple[_Side, float], ...]] = {
    "angry": ((_BROW_LOWERER, 1.0), (_LID_TIGHTENER, 0.5), (_LIP_TIGHTENER, 1.0), (_LIP_CORNER_DEPRESSOR, 0.3)),
    "fear": (
        (_INNER_BROW_RAISER, 1.0),
        (_OUTER_BROW_RAISER, 0.3),
        (_BROW_LOWERER, 0.25),
        (_UPPER_LID_RAISER, 1.0),
        (_LIP_STRETCHER, 1.0),
    ),
    "sad": (
        (_INNER_BROW_RAISER, 0.9),
        (_BROW_LOWERER, 0.2),
        (_UPPER_LID_DROOPER, 1.0),
        (_LIP_CORNER_DEPRESSOR, 1.0),
        (_CHIN_RAISER, 0.7),
    ),
    "contempt": (),
    "happy": ((_CHEEK_RAISER, 1.0), (_LIP_CORNER_PULLER, 1.0)),
    "surprised": (
        (_INNER_BROW_RAISER, 1.0),
        (_OUTER_BROW_RAISER, 1.0),
        (_UPPER_LID_RAISER, 1.0),
        (_LIP_FUNNELER, 1.0),
    ),
    "disgusted": (
        (_NOSE_WRINKLER, 1.0),
        (_UPPER_LIP_RAISER, 1.0),
        (_LID_TIGHTENER, 1.0),
        (_LIP_CORNER_DEPRESSOR, 0.5),
    ),
    "neutral": (),
}

_LEFT_SIDE_ONLY: dict[str, tuple[tuple[_Side, float], ...]] = {
    "contempt": ((_LIP_CORNER_PULLER, 1.15), (_LID_TIGHTENER, 0.6)),
}

_RIGHT_SIDE_ONLY: dict[str, tuple[tuple[_Side, float], ...]] = {
    "contempt": ((_LIP_CORNER_DEPRESSOR, 0.25), (_OUTER_BROW_RAISER, 0.5), (_INNER_BROW_RAISER, 0.3)),
}


def expression_offsets(emotion: str, intensity: float = 0.5) -> np.ndarray:
    """How an emotion moves the landmarks of a face at rest.

    A hand-made template after action units of Ekman & Friesen (1978), not a learned one. It is the same on both
    sides of the face but for *contempt*, which raises the left corner of the person's mouth and the right brow;
    *neutral* is all zeros. Points of the inner lips that face each other move together, so the mouth's opening is
    left as it is.

    Args:
        emotion: one of :data:`~atldiff.options.EMOTIONS`.
        intensity: from 0 (nothing) to 1; the offsets are proportional to it.

    Returns:
        (68, 2) float32, in inter-ocular distances, x to the right in the picture of an upright face, y down.

    Raises:
        InputError: an unknown emotion, or an intensity outside 0…1.
    """
    if emotion not in _BOTH_SIDES:
        raise InputError(f"unknown emotion {emotion!r}; expected one of {', '.join(EMOTIONS)}")
    if not 0 <= intensity <= 1:
        raise InputError(f"got an expression intensity of {intensity}; expected a number from 0 to 1")
    right = _side_offsets(_BOTH_SIDES[emotion])
    offsets = np.where(right != 0, right, _mirrored(right))
    offsets = offsets + _mirrored(_side_offsets(_LEFT_SIDE_ONLY.get(emotion, ())))
    offsets = offsets + _side_offsets(_RIGHT_SIDE_ONLY.get(emotion, ()))
    return (_FULL_STRENGTH * intensity * offsets).astype(np.float32)


def apply_expression(landmarks: np.ndarray, identity: np.ndarray, emotion: str, intensity: float = 0.5) -> np.ndarray:
    """Landmarks with an expression laid over them, along the face's own axes and in its own size.

    Args:
        landmarks: (F, 68, 2) in any unit, of a face that may turn and move.
        identity: (68, 2) landmarks of the same face in the same unit; its eye line gives the axes and the size,
            which follow the rigid points of each frame.
        emotion, intensity: as for :func:`expression_offsets`, which says what is raised.

    Returns:
        (F, 68, 2) in the type of ``landmarks``.
    """
    offsets = expression_offsets(emotion, intensity).astype(np.float64)
    right, left = OUTER_EYE_CORNERS
    across = identity[left].astype(np.float64) - identity[right]
    down = np.array([-across[1], across[0]])
    in_identity = offsets[:, :1] * across + offsets[:, 1:] * down
    turn = fit_similarity(identity[RIGID_POINTS], landmarks[:, RIGID_POINTS])[..., :2]
    return (landmarks + np.einsum("fij,kj->fki", turn, in_identity)).astype(landmarks.dtype)


def _side_offsets(units: tuple[tuple[_Side, float], ...]) -> np.ndarray:
    """Weighted sum of action units on the person's right side, which is on the left of the picture. (68, 2)"""
    offsets = np.zeros((NUM_LANDMARKS, 2))
    for unit, weight in units:
        for point, (outward, upward) in unit.items():
            offsets[point] += (-weight * outward, -weight * upward)
    return offsets


def _mirrored(offsets: np.ndarray) -> np.ndarray:
    return offsets[MIRROR_68] * (-1, 1)
