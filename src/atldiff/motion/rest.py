"""The mouth at rest: what the face does while nobody speaks."""

import numpy as np

from atldiff.face.topology import INNER_LIP_PAIRS, MOUTH

_LOWER_LIP = np.array([65, 66, 67, 55, 56, 57, 58, 59])
_UPPER_LIP = np.array([61, 62, 63, 49, 50, 51, 52, 53])
_JAW = np.array([4, 5, 6, 7, 8, 9, 10, 11, 12])
_LOWER_SHARE = 0.75
_JAW_SHARE = np.array([0.2, 0.35, 0.5, 0.6, 0.65, 0.6, 0.5, 0.35, 0.2])


def closing_displacement(identity: np.ndarray) -> np.ndarray:
    """Displacement (68, 2), in pixels, that shuts the identity's mouth: the inner lips meet, the jaw follows.

    The lower lip does most of the way, the chin follows it in part; a mouth that is shut stays as it is.
    """
    upper = identity[[pair[0] for pair in INNER_LIP_PAIRS]]
    lower = identity[[pair[1] for pair in INNER_LIP_PAIRS]]
    gaps = upper - lower
    moved = np.zeros_like(identity)
    for (upper_point, lower_point), gap in zip(INNER_LIP_PAIRS, gaps, strict=True):
        moved[lower_point] = _LOWER_SHARE * gap
        moved[upper_point] = -(1 - _LOWER_SHARE) * gap
    mean_gap = gaps.mean(axis=0)
    centre_x = identity[MOUTH, 0].mean()
    half_width = max(float(np.ptp(identity[MOUTH, 0])) / 2, 1e-6)
    for points, share in ((_LOWER_LIP[3:], _LOWER_SHARE), (_UPPER_LIP[3:], _LOWER_SHARE - 1)):
        for point in points:
            nearness = 1 - min(1.0, abs(identity[point, 0] - centre_x) / half_width) ** 2
            moved[point] = share * nearness * mean_gap
    moved[_JAW] = _JAW_SHARE[:, None] * mean_gap
    return moved
