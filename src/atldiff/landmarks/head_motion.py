"""Small, slow motion of the head, independent of what is said: drawn from a seed, a function of time alone.

How much: in 400 training clips of LRW-AR (news presenters, 1.2 s; landmarks smoothed over 0.1 s) the median
standard deviation within a clip is 0.48° of roll, 0.037 and 0.025 inter-ocular distances of the eyes' place across
and down, 0.8 % of the size, and 0.006 inter-ocular distances of the nose tip against the eyes, a yaw of 1.2°; one
clip in ten has about three times as much. In 400 of GRID (commands read in a booth, 3 s) it is 0.21°, 0.011, 0.012,
0.7 % and 0.6°. At strength 1 the same figures are 0.28°, 0.017, 0.012, 0.4 % and 0.7° within 1.2 s, 0.56°, 0.034,
0.024, 0.8 % and 1.4° within 3 s: between the two corpora. The warp, which holds the border of the face crop still,
bears little more than that.
"""

import numpy as np

from atldiff.face.topology import CHIN, JAW, interocular_distance

_CHANNELS = ("roll", "yaw", "pitch", "across", "down", "towards")
_AMPLITUDE = np.array([0.9, 2.2, 1.6, 0.03, 0.02, 0.012])
"""Root mean square at strength 1: angles in degrees, shifts in inter-ocular distances, logarithm of the size."""

_LOWEST_HZ = 0.1
_HIGHEST_HZ = 1.0
_PARTIALS = 8
_SETTLING_SECONDS = 1.0

_NECK_DEPTH = -1.0
_HALF_JAW_DEPTH = (-0.65, -0.64, -0.58, -0.45, -0.3, -0.14, 0.02, 0.12)
_DEPTH = np.array(
    [*_HALF_JAW_DEPTH, 0.15, *reversed(_HALF_JAW_DEPTH)]
    + [0.0, 0.08, 0.12, 0.15, 0.15, 0.15, 0.15, 0.12, 0.08, 0.0]
    + [0.1, 0.17, 0.24, 0.3, 0.14, 0.19, 0.22, 0.19, 0.14]
    + [0.0, 0.08, 0.08, 0.06, 0.08, 0.08, 0.06, 0.08, 0.08, 0.0, 0.08, 0.08]
    + [0.02, 0.12, 0.18, 0.19, 0.18, 0.12, 0.02, 0.1, 0.15, 0.16, 0.15, 0.1]
    + [0.03, 0.14, 0.15, 0.14, 0.03, 0.12, 0.13, 0.12]
)
"""How far each landmark of an average face lies before its outer eye corners, in inter-ocular distances."""


class HeadMotion:
    """How one head moves over time.

    Each of six channels (roll, yaw, pitch, two shifts, size) is a sum of eight sines between 0.1 and 1 Hz whose
    frequencies and phases come from the seed: smooth, bounded by four times its root mean square, zero in the mean,
    and known at any time without what came before. It grows from nothing within the first two seconds, so that the
    first frame has the portrait's own pose.

    Args:
        seed: at least 0.
        strength: 0 (still) to 1.
    """

    def __init__(self, seed: int, strength: float) -> None:
        random = np.random.default_rng([seed, 1])
        shape = (len(_CHANNELS), _PARTIALS)
        octaves = (np.arange(_PARTIALS) + random.random(shape)) / _PARTIALS
        self._frequencies = _LOWEST_HZ * (_HIGHEST_HZ / _LOWEST_HZ) ** octaves
        self._phases = 2 * np.pi * random.random(shape)
        sizes = 1 / self._frequencies
        sizes *= np.sqrt(2) / np.linalg.norm(sizes, axis=1, keepdims=True)
        self._sizes = strength * _AMPLITUDE[:, None] * sizes

    def pose(self, times: np.ndarray) -> np.ndarray:
        """(F,) seconds → (F, 6): roll, yaw, pitch in degrees, two shifts in inter-ocular distances, log size."""
        angles = 2 * np.pi * self._frequencies * times[:, None, None] + self._phases
        settled = -np.expm1(-np.square(times / _SETTLING_SECONDS))
        return settled[:, None] * (self._sizes * np.sin(angles)).sum(axis=2)


def move_head(landmarks: np.ndarray, identity: np.ndarray, pose: np.ndarray) -> np.ndarray:
    """Landmarks of a face whose head is turned and shifted a little.

    The face is turned as a solid, with the depths of an average face, about a point in the neck, and seen from afar:
    turning to the side moves the nose further than the eyes and the eyes further than the contour.

    Args:
        landmarks: (F, 68, 2) of the upright face in the identity's place, pixels.
        identity: (68, 2) its identity landmarks, which give the size and the neck.
        pose: (F, 6) from :meth:`HeadMotion.pose`; all zeros leave the landmarks as they are.

    Returns:
        (F, 68, 2) in the type of ``landmarks``.
    """
    unit = interocular_distance(identity).astype(np.float64)
    neck = np.array([identity[JAW, 0].mean(), identity[CHIN, 1]])
    flat = (landmarks - neck) / unit
    solid = np.concatenate([flat, np.broadcast_to(_DEPTH - _NECK_DEPTH, flat.shape[:2])[..., None]], axis=2)
    turned = np.einsum("fij,fkj->fki", _rotation(np.radians(pose[:, :3])), solid)[..., :2]
    moved = np.exp(pose[:, None, 5:]) * turned + pose[:, None, 3:5]
    return (neck + unit * moved).astype(landmarks.dtype)


def _rotation(angles: np.ndarray) -> np.ndarray:
    """(F, 3) roll, yaw, pitch in radians → (F, 2, 3): the picture's rows of the rotation."""
    (roll, yaw, pitch), zero = angles.T, np.zeros(len(angles))
    one = zero + 1
    turn = np.array([[np.cos(roll), -np.sin(roll), zero], [np.sin(roll), np.cos(roll), zero], [zero, zero, one]])
    side = np.array([[np.cos(yaw), zero, np.sin(yaw)], [zero, one, zero], [-np.sin(yaw), zero, np.cos(yaw)]])
    nod = np.array([[one, zero, zero], [zero, np.cos(pitch), np.sin(pitch)], [zero, -np.sin(pitch), np.cos(pitch)]])
    return np.einsum("ijf,jkf,klf->fil", turn, side, nod)[:, :2]
