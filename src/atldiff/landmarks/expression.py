"""Hand-made facial expressions: small displacements of the landmarks, added to what the speech makes of them.

Nothing here is learned. Each expression is a weighted sum of *action units* of the Facial Action Coding System
(Ekman & Friesen 1978), chosen by eye, of which only what keeps the speech readable is used: no unit opens or closes
the mouth. An expression is laid over the portrait's own; a smiling portrait stays a smiling one.
"""

import numpy as np

from atldiff.errors import InputError
from atldiff.face.topology import MIRROR_68, NUM_LANDMARKS, OUTER_EYE_CORNERS
from atldiff.landmarks.geometry import RIGID_POINTS, fit_similarity
from atldiff.options import EMOTIONS

_Side = dict[int, tuple[float, float]]

_INNER_BROW_RAISER: _Side = {21: (0, 0.075), 20: (0, 0.055), 19: (0, 0.022), 18: (0, 0.005)}
_OUTER_BROW_RAISER: _Side = {17: (0, 0.05), 18: (0, 0.068), 19: (0, 0.06), 20: (0, 0.022)}
_BROW_LOWERER: _Side = {21: (-0.03, -0.06), 20: (-0.025, -0.052), 19: (-0.015, -0.034), 18: (-0.005, -0.014)}
_UPPER_LID_RAISER: _Side = {37: (0, 0.022), 38: (0, 0.022)}
_CHEEK_RAISER: _Side = {40: (0, 0.012), 41: (0, 0.014)}
_LID_TIGHTENER: _Side = {37: (0, -0.008), 38: (0, -0.008), 40: (0, 0.014), 41: (0, 0.014)}
_NOSE_WRINKLER: _Side = {
    21: (-0.02, -0.04),
    20: (-0.015, -0.032),
    19: (-0.005, -0.018),
    30: (0, 0.014),
    31: (0.012, 0.04),
    32: (0.006, 0.03),
    33: (0, 0.02),
}
_UPPER_LIP_RAISER: _Side = {49: (0, 0.036), 50: (0, 0.044), 51: (0, 0.03)}
_LIP_CORNER_PULLER: _Side = {
    48: (0.045, 0.055),
    60: (0.04, 0.046),
    49: (0.026, 0.03),
    59: (0.026, 0.032),
    61: (0.014, 0.012),
    67: (0.014, 0.012),
    50: (0.01, 0.008),
    58: (0.01, 0.01),
}
_LIP_CORNER_DEPRESSOR: _Side = {
    48: (0.006, -0.055),
    60: (0.005, -0.045),
    49: (0.003, -0.028),
    59: (0.003, -0.032),
    61: (0.002, -0.012),
    67: (0.002, -0.012),
    50: (0, -0.008),
    58: (0, -0.01),
}
_CHIN_RAISER: _Side = {58: (0, 0.012), 57: (0, 0.016), 7: (0, 0.006), 8: (0, 0.008)}
_LIP_STRETCHER: _Side = {
    48: (0.05, -0.012),
    60: (0.044, -0.01),
    49: (0.026, -0.004),
    59: (0.026, -0.008),
    61: (0.014, 0),
    67: (0.014, 0),
    50: (0.01, 0),
    58: (0.01, 0),
}
_LIP_TIGHTENER: _Side = {
    48: (-0.02, 0),
    60: (-0.018, 0),
    49: (-0.01, -0.01),
    59: (-0.01, 0.012),
    61: (-0.006, 0),
    67: (-0.006, 0),
    50: (-0.004, -0.014),
    58: (-0.004, 0.016),
    51: (0, -0.012),
    57: (0, 0.016),
}
"""(outward, upward) of the points of one side and of the middle, in inter-ocular distances at full strength."""

_BOTH_SIDES: dict[str, tuple[tuple[_Side, float], ...]] = {
    "angry": ((_BROW_LOWERER, 1.0), (_LID_TIGHTENER, 0.8), (_LIP_TIGHTENER, 1.0), (_LIP_CORNER_DEPRESSOR, 0.3)),
    "fear": (
        (_INNER_BROW_RAISER, 1.0),
        (_OUTER_BROW_RAISER, 0.4),
        (_BROW_LOWERER, 0.3),
        (_UPPER_LID_RAISER, 1.0),
        (_LIP_STRETCHER, 0.9),
    ),
    "sad": (
        (_INNER_BROW_RAISER, 1.0),
        (_BROW_LOWERER, 0.3),
        (_LIP_CORNER_DEPRESSOR, 1.0),
        (_CHIN_RAISER, 0.6),
    ),
    "contempt": (),
    "happy": ((_CHEEK_RAISER, 1.0), (_LIP_CORNER_PULLER, 1.0)),
    "surprised": ((_INNER_BROW_RAISER, 0.9), (_OUTER_BROW_RAISER, 1.0), (_UPPER_LID_RAISER, 1.0)),
    "disgusted": (
        (_NOSE_WRINKLER, 1.0),
        (_UPPER_LIP_RAISER, 1.0),
        (_LID_TIGHTENER, 0.8),
        (_LIP_CORNER_DEPRESSOR, 0.4),
    ),
    "neutral": (),
}

_LEFT_SIDE_ONLY: dict[str, tuple[tuple[_Side, float], ...]] = {
    "contempt": ((_LIP_CORNER_PULLER, 1.2), (_LID_TIGHTENER, 0.6)),
}


def expression_offsets(emotion: str, intensity: float = 0.5) -> np.ndarray:
    """How an emotion moves the landmarks of a face at rest.

    A hand-made template after action units of Ekman & Friesen (1978), not a learned one. It is the same on both
    sides of the face but for *contempt*, which raises the corner of the person's left side alone; *neutral* is all
    zeros. Points of the inner lips that face each other move together, so the mouth's opening is left as it is.

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
    return (intensity * offsets).astype(np.float32)


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
