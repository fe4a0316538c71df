"""The 68 facial landmarks of iBUG 300-W: their groups, their mirror image, and where MediaPipe has them."""

import numpy as np

NUM_LANDMARKS = 68

JAW = slice(0, 17)
RIGHT_BROW = slice(17, 22)
LEFT_BROW = slice(22, 27)
NOSE = slice(27, 36)
RIGHT_EYE = slice(36, 42)
LEFT_EYE = slice(42, 48)
OUTER_LIPS = slice(48, 60)
INNER_LIPS = slice(60, 68)
MOUTH = slice(48, 68)

CHIN = 8
NOSE_TIP = 30
OUTER_EYE_CORNERS = (36, 45)
INNER_LIP_PAIRS = ((61, 67), (62, 66), (63, 65))
"""(upper, lower) points of the inner lips that face each other, seen from right to left of the person."""

OUTER_LIP_PAIRS = ((49, 59), (50, 58), (51, 57), (52, 56), (53, 55))
EYELID_PAIRS = ((37, 41), (38, 40), (43, 47), (44, 46))

MEDIAPIPE_TO_68 = np.array(
    [162, 234, 93, 58, 172, 136, 149, 148, 152, 377, 378, 365, 397, 288, 323, 454, 389]
    + [71, 63, 105, 66, 107]
    + [336, 296, 334, 293, 301]
    + [168, 197, 5, 4, 75, 97, 2, 326, 305]
    + [33, 160, 158, 133, 153, 144]
    + [362, 385, 387, 263, 373, 380]
    + [61, 39, 37, 0, 267, 269, 291, 405, 314, 17, 84, 181]
    + [78, 82, 13, 312, 308, 317, 14, 87]
)
"""Index of each iBUG point among the 478 points of MediaPipe's Face Landmarker."""

MIRROR_68 = np.array(
    [16, 15, 14, 13, 12, 11, 10, 9, 8, 7, 6, 5, 4, 3, 2, 1, 0]
    + [26, 25, 24, 23, 22, 21, 20, 19, 18, 17]
    + [27, 28, 29, 30, 35, 34, 33, 32, 31]
    + [45, 44, 43, 42, 47, 46, 39, 38, 37, 36, 41, 40]
    + [54, 53, 52, 51, 50, 49, 48, 59, 58, 57, 56, 55]
    + [64, 63, 62, 61, 60, 67, 66, 65]
)
"""``landmarks[MIRROR_68]`` is the landmark order of the horizontally flipped picture."""


def interocular_distance(landmarks: np.ndarray) -> np.ndarray:
    """Distance between the outer eye corners, the norm of iBUG 300-W. (..., 68, 2) → (...)."""
    right, left = OUTER_EYE_CORNERS
    return np.linalg.norm(landmarks[..., left, :] - landmarks[..., right, :], axis=-1)


def mouth_opening(landmarks: np.ndarray) -> np.ndarray:
    """Inner-lip gap over inter-ocular distance, the mean of three pairs of points. (..., 68, 2) → (...)."""
    upper = landmarks[..., [pair[0] for pair in INNER_LIP_PAIRS], :]
    lower = landmarks[..., [pair[1] for pair in INNER_LIP_PAIRS], :]
    gap = np.linalg.norm(lower - upper, axis=-1).mean(axis=-1)
    return gap / interocular_distance(landmarks)
