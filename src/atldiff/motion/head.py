"""Motion of the head and of the brows: drawn from a seed, as far as real talkers move, livelier in speech.

Learned from the pose tracks of thirteen people who talk freely (3 to 20 s each, close-ups; :func:`head_pose`): the
power of each channel in four bands, the median over people, is that of ``head_motion`` 0.5; and where their voice is
loud they move 1.5 times as fast as where it is low, and their brows are higher. Where the voice
is high they lift their heads and their brows.
"""

import numpy as np

from atldiff.face.topology import CHIN, JAW, NOSE, OUTER_EYE_CORNERS, interocular_distance

CHANNELS = ("roll", "yaw", "pitch", "across", "down", "towards", "brows")
"""Angles in degrees, shifts in inter-ocular distances, logarithm of the size, height in inter-ocular distances."""

LARGEST = np.array([12.0, 12.0, 12.0, 0.12, 0.12, 0.05, 0.06])
"""Each channel stays below that, either way: what the warp can carry."""

_BAND_EDGES_HZ = np.array([0.15, 0.35, 0.7, 1.4, 2.8])
_BAND_RMS = np.array(
    [
        [0.787, 0.624, 0.464, 0.290],
        [0.733, 1.066, 0.980, 0.558],
        [0.755, 0.581, 0.685, 0.497],
        [0.0170, 0.0147, 0.0095, 0.0069],
        [0.0206, 0.0213, 0.0149, 0.0105],
        [0.0061, 0.0070, 0.0047, 0.0035],
        [0.0091, 0.0081, 0.0064, 0.0054],
    ]
)
"""Root mean square of each channel in each band."""

_USUAL_STRENGTH = 0.5
_PARTIALS = 4
_SLOW_BANDS = 1
_QUIET_SHARE, _LOUD_SHARE = 0.6, 1.6
_BROW_ACCENT = 0.03
_NOD_PER_OCTAVE = -5.0
_SHIFT_PER_OCTAVE = -0.04
_BROWS_PER_OCTAVE = 0.015
_SETTLING_SECONDS = 1.0

_BROWS, _EYES = slice(17, 27), [36, 39, 42, 45]
_SOLID_POINTS = [0, 1, 2, 14, 15, 16, *range(NOSE.start, NOSE.stop), *_EYES]
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

    Each of seven channels is a sum of sines, four in each of four bands from 0.15 to 2.8 Hz, whose frequencies and
    phases come from the seed: smooth, zero in the mean, and known at any time without what came before, so that there
    is no drift and the head comes back to the portrait's pose again and again. The sines above the slowest band grow
    with the voice; an accent of the voice raises the brows, and a high voice lifts the face. All of it grows from
    nothing within the first two seconds, so that the first frame has the portrait's own pose.

    Args:
        seed: at least 0.
        strength: 0 (still) to 1; 0.5 moves as far as the median talker.
    """

    def __init__(self, seed: int, strength: float) -> None:
        random = np.random.default_rng([seed, 1])
        shape = (len(CHANNELS), len(_BAND_EDGES_HZ) - 1, _PARTIALS)
        octaves = (np.arange(_PARTIALS) + random.random(shape)) / _PARTIALS
        low, high = _BAND_EDGES_HZ[:-1, None], _BAND_EDGES_HZ[1:, None]
        self._frequencies = low * (high / low) ** octaves
        self._phases = 2 * np.pi * random.random(shape)
        self._strength = strength / _USUAL_STRENGTH
        self._sizes = _BAND_RMS[..., None] * np.sqrt(2 / _PARTIALS)

    def pose(self, times: np.ndarray, voice: np.ndarray | None = None) -> np.ndarray:
        """Where the head is.

        Args:
            times: (F,) seconds from the start of the video.
            voice: (F,) how loud the voice is, 0 to 1, how much louder than just before, -1 to 1, and how far above
                its usual pitch, in octaves, as (F, 3); None: half as loud as it gets, steadily.

        Returns:
            (F, 7) in the order and units of :data:`CHANNELS`; none exceeds :data:`LARGEST`.
        """
        loud, louder, higher = [np.full(len(times), 0.5), *np.zeros((2, len(times)))] if voice is None else voice.T
        angles = 2 * np.pi * self._frequencies * times[:, None, None, None] + self._phases
        bands = (self._sizes * np.sin(angles)).sum(axis=3)
        lively = _QUIET_SHARE + (_LOUD_SHARE - _QUIET_SHARE) * loud
        pose = bands[..., :_SLOW_BANDS].sum(axis=2) + lively[:, None] * bands[..., _SLOW_BANDS:].sum(axis=2)
        pose[:, 2] += _NOD_PER_OCTAVE * higher
        pose[:, 4] += _SHIFT_PER_OCTAVE * higher
        pose[:, 6] += _BROW_ACCENT * louder + _BROWS_PER_OCTAVE * higher
        settled = -np.expm1(-np.square(times / _SETTLING_SECONDS))
        pose *= self._strength * settled[:, None]
        return LARGEST * np.tanh(pose / LARGEST)


def move_head(landmarks: np.ndarray, identity: np.ndarray, pose: np.ndarray) -> np.ndarray:
    """Landmarks of a face whose head is turned and shifted a little.

    The face is turned as a solid, with the depths of an average face, about a point in the neck, and seen from afar:
    turning to the side moves the nose further than the eyes and the eyes further than the contour.

    Args:
        landmarks: (F, 68, 2) of the upright face in the identity's place, pixels.
        identity: (68, 2) its identity landmarks, which give the size and the neck.
        pose: (F, 7) from :meth:`HeadMotion.pose`; all zeros leave the landmarks as they are.

    Returns:
        (F, 68, 2) in the type of ``landmarks``.
    """
    unit, neck = _unit_and_neck(identity)
    flat = (landmarks - neck) / unit
    flat[:, _BROWS, 1] -= pose[:, 6:7]
    solid = np.concatenate([flat, np.broadcast_to(_DEPTH - _NECK_DEPTH, flat.shape[:2])[..., None]], axis=2)
    turned = np.einsum("fij,fkj->fki", _rotation(np.radians(pose[:, :3])), solid)[..., :2]
    moved = np.exp(pose[:, None, 5:6]) * turned + pose[:, None, 3:5]
    return (neck + unit * moved).astype(landmarks.dtype)


def head_pose(landmarks: np.ndarray, reference: np.ndarray) -> np.ndarray:
    """How a face is turned, shifted and sized against a reference: what :func:`move_head` would do to it.

    Fitted by least squares to the points that speech hardly moves, with the depths of an average face.

    Args:
        landmarks: (F, 68, 2).
        reference: (68, 2) of the same face, in the same unit.

    Returns:
        (F, 7) in the order and units of :data:`CHANNELS`.
    """
    unit, neck = _unit_and_neck(reference)
    solid = np.concatenate([(reference - neck) / unit, (_DEPTH - _NECK_DEPTH)[:, None]], axis=1)[_SOLID_POINTS]
    seen = ((landmarks - neck) / unit)[:, _SOLID_POINTS].astype(np.float64)
    fitted = np.linalg.pinv(np.concatenate([solid, np.ones((len(solid), 1))], axis=1)) @ seen
    rows = fitted[:, :3].transpose(0, 2, 1)
    sizes = np.linalg.norm(rows, axis=2)
    right, down = (rows / sizes[..., None]).transpose(1, 0, 2)
    ahead = np.cross(right, down)
    roll = np.arctan2(down[:, 0], right[:, 0])
    yaw, pitch = np.arcsin(np.clip(-ahead[:, 0], -1, 1)), np.arctan2(-ahead[:, 1], ahead[:, 2])
    brows = brow_height(landmarks) - brow_height(reference)
    return np.column_stack([*np.degrees([roll, yaw, pitch]), fitted[:, 3], np.log(sizes.mean(axis=1)), brows])


def brow_height(landmarks: np.ndarray) -> np.ndarray:
    """Mean height of both brows above the eyes, in inter-ocular distances. (..., 68, 2) → (...)."""
    right, left = (landmarks[..., point, :] for point in OUTER_EYE_CORNERS)
    across = left - right
    above = landmarks[..., _EYES, :].mean(axis=-2) - landmarks[..., _BROWS, :].mean(axis=-2)
    return (above[..., 1] * across[..., 0] - above[..., 0] * across[..., 1]) / np.square(across).sum(axis=-1)


def _unit_and_neck(identity: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    neck = np.array([identity[JAW, 0].mean(), identity[CHIN, 1]])
    return interocular_distance(identity).astype(np.float64), neck


def _rotation(angles: np.ndarray) -> np.ndarray:
    """(F, 3) roll, yaw, pitch in radians → (F, 2, 3): the picture's rows of the rotation."""
    (roll, yaw, pitch), zero = angles.T, np.zeros(len(angles))
    one = zero + 1
    turn = np.array([[np.cos(roll), -np.sin(roll), zero], [np.sin(roll), np.cos(roll), zero], [zero, zero, one]])
    side = np.array([[np.cos(yaw), zero, np.sin(yaw)], [zero, one, zero], [-np.sin(yaw), zero, np.cos(yaw)]])
    nod = np.array([[one, zero, zero], [zero, np.cos(pitch), np.sin(pitch)], [zero, -np.sin(pitch), np.cos(pitch)]])
    return np.einsum("ijf,jkf,klf->fil", turn, side, nod)[:, :2]
