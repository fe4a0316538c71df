"""A portrait's mouth as it is when its face speaks: a smile gives way, pursed lips do.

What a mouth can say depends on the mouth, not on what it did when the picture was taken: lips drawn wide by a smile
neither meet at p, b and m nor round at o and u. So the mouth is moved towards what is expected of the face, as far
as it lies outside of what people differ by. The numbers were learned from 73 people who talk
(``benchmarks/speaking_mouths.py``).
"""

import numpy as np

from atldiff.face.topology import MIRROR_68, NUM_LANDMARKS, OUTER_EYE_CORNERS

_MEAN_NOSE = np.array([0.274, 0.523, 0.154])
_MEAN_POSTURE = np.array([0.564, 0.013])
_POSTURE_OF_NOSE = np.array([[0.806, 0.098], [-0.128, 0.083], [0.07, -0.489]])
"""Change of width and lift for each unit of :func:`nose_measures`."""

_TOLERANCE = np.array([0.02, 0.012])
"""By so much a mouth may differ from what is expected; faces differ by 0.034 and 0.014 (standard deviation)."""

_MOST = np.array([0.25, 0.15])
"""What a mouth is moved by nears this."""

_Side = dict[int, tuple[float, float]]

_WIDTH: _Side = {
    48: (-0.499, -0.173),
    49: (-0.226, -0.134),
    50: (-0.106, -0.111),
    51: (0, -0.107),
    57: (0, -0.266),
    58: (-0.072, -0.247),
    59: (-0.168, -0.203),
    60: (-0.51, -0.169),
    61: (-0.124, -0.17),
    62: (0, -0.169),
    66: (0, -0.178),
    67: (-0.116, -0.166),
}
_LIFT: _Side = {
    48: (0.003, -0.639),
    49: (0.079, 0.064),
    50: (0.006, 0.257),
    51: (0, 0.3),
    57: (0, 0.453),
    58: (-0.059, 0.375),
    59: (-0.058, 0.16),
    60: (-0.037, -0.537),
    61: (-0.027, 0.295),
    62: (0, 0.361),
    66: (0, 0.361),
    67: (-0.029, 0.291),
}
"""How the points of the person's right side and of the middle move, (to the right, down), for each unit of either."""


def in_eye_distances(landmarks: np.ndarray) -> np.ndarray:
    """Landmarks (..., 68, 2) with the outer eye corners at (∓0.5, 0)."""
    right, left = (landmarks[..., [point], :] for point in OUTER_EYE_CORNERS)
    across = left - right
    away = landmarks - (left + right) / 2
    along = (away * across).sum(axis=-1)
    below = away[..., 1] * across[..., 0] - away[..., 0] * across[..., 1]
    return np.stack([along, below], axis=-1) / np.square(across).sum(axis=-1)[..., None]


def mouth_posture(points: np.ndarray) -> np.ndarray:
    """Width from corner to corner, and how high the corners lie above the seam: (..., 68, 2) → (..., 2)."""
    width = np.linalg.norm(points[..., 54, :] - points[..., 48, :], axis=-1)
    lift = points[..., [62, 66], 1].mean(axis=-1) - points[..., [48, 54], 1].mean(axis=-1)
    return np.stack([width, lift], axis=-1)


def nose_measures(points: np.ndarray) -> np.ndarray:
    """Width of the nose, place of its base below the eyes and of its tip above that: (..., 68, 2) → (..., 3).

    The last two say how the head is tilted.
    """
    width = np.linalg.norm(points[..., 35, :] - points[..., 31, :], axis=-1)
    base, tip = points[..., 33, 1], points[..., 30, 1]
    return np.stack([width, base, base - tip], axis=-1)


def speaking_mouth(identity: np.ndarray, smile: float = 0.0) -> np.ndarray:
    """Identity landmarks with the mouth that the face would speak with.

    Args:
        identity: (68, 2) in any unit and place.
        smile: how much of what is too wide and too high stays, 0 to 1.

    Returns:
        (68, 2) float64; a mouth that is as expected stays, and all other points do.
    """
    points = in_eye_distances(np.asarray(identity, dtype=np.float64))
    expected = _MEAN_POSTURE + (nose_measures(points) - _MEAN_NOSE) @ _POSTURE_OF_NOSE
    width, lift = mouth_posture(points) - expected
    too_wide, too_high = np.maximum([width, lift] - _TOLERANCE, 0)
    too_narrow = max(0.0, -width - _TOLERANCE[0])
    outside = (1 - smile) * np.array([too_wide, too_high]) - (too_narrow, 0)
    taken = _MOST * np.tanh(outside / _MOST)
    moved = -np.tensordot(taken, _FIELDS, axes=1)
    right, left = OUTER_EYE_CORNERS
    x, y = identity[left].astype(np.float64) - identity[right]
    return identity + moved @ np.array([[x, y], [-y, x]])


def _both_sides(side: _Side) -> np.ndarray:
    field = np.zeros((NUM_LANDMARKS, 2))
    for point, way in side.items():
        field[point] = way
    return np.where(field != 0, field, field[MIRROR_68] * (-1, 1))


_FIELDS = np.stack([_both_sides(_WIDTH), _both_sides(_LIFT)])
