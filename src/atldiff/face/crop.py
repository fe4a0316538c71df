"""The square, upright face crop that the networks see, and its place in the whole picture.

Coordinates are continuous everywhere: the first pixel spans 0 to 1, its centre lies at 0.5.
"""

from dataclasses import dataclass

import numpy as np

from atldiff.face.topology import CHIN, LEFT_EYE, RIGHT_EYE

CROP_SIZE = 128
"""Side of the crop in crop pixels, the unit in which landmarks and flows are given, whatever its resolution."""

PICTURE_SIZE = 256
"""Side in pixels of the crops that clips are prepared as and that the compact network's windows are cut from."""

DETECTION_SIZE = 256
"""Side in pixels of the square that a face is resampled to where its landmarks are read closely."""

_DETECTION_MARGIN = 1.9
"""Side of the square that landmarks are read in, over the longer side of the face."""

_EYE_TO_CHIN = 0.55
"""Distance from the eyes to the chin, and"""

_EYES_FROM_TOP = 0.33
"""from the upper border to the eyes, in sides of the crop."""

_MAX_FACE_WIDTH = 0.75
"""The crop is larger where the landmarks would be wider than this share of it."""


@dataclass(frozen=True)
class FaceCrop:
    """Where a square crop lies in a picture.

    Attributes:
        matrix: (2, 3) float64; takes crop coordinates (x, y, 1), in pixels of a crop of ``size``, to pixels
            of the picture. It is a similarity: rotation, one scale, a shift.
        size: side of the crop in pixels.
    """

    matrix: np.ndarray
    size: int = CROP_SIZE

    @property
    def scale(self) -> float:
        """Picture pixels per crop pixel."""
        return float(np.hypot(self.matrix[0, 0], self.matrix[1, 0]))

    def to_picture(self, points: np.ndarray) -> np.ndarray:
        """(..., 2) crop coordinates → picture coordinates."""
        return points @ self.matrix[:, :2].T + self.matrix[:, 2]

    def to_crop(self, points: np.ndarray) -> np.ndarray:
        """(..., 2) picture coordinates → crop coordinates."""
        inverse = np.linalg.inv(self.matrix[:, :2])
        return ((points - self.matrix[:, 2]) @ inverse.T).astype(np.float32)

    def within(self, left: float, top: float) -> "FaceCrop":
        """Where the crop lies in the part of the picture that begins there."""
        return FaceCrop(self.matrix - np.array([[0, 0, left], [0, 0, top]]), self.size)

    def cut(self, image: np.ndarray) -> np.ndarray:
        """(H, W, 3) uint8 picture → (size, size, 3) uint8 crop; beyond the picture its edge is repeated."""
        return resample(image, self.matrix, self.size)


def face_crop(landmarks: np.ndarray, size: int = CROP_SIZE) -> FaceCrop:
    """The crop for a face: upright, eyes at a third of its height, the chin well inside, any pose inside.

    Args:
        landmarks: (68, 2) or, for one stable crop of a whole clip, (F, 68, 2) picture pixels.
        size: side of the crop in pixels.
    """
    if landmarks.ndim == 3:
        landmarks = np.median(landmarks, axis=0)
    landmarks = landmarks.astype(np.float64)
    right_eye, left_eye = landmarks[RIGHT_EYE].mean(axis=0), landmarks[LEFT_EYE].mean(axis=0)
    across = left_eye - right_eye
    angle = np.arctan2(across[1], across[0])
    rotation = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    upright = landmarks @ rotation
    eyes = (upright[RIGHT_EYE].mean(axis=0) + upright[LEFT_EYE].mean(axis=0)) / 2
    width = np.ptp(upright[:, 0])
    side = max((upright[CHIN, 1] - eyes[1]) / _EYE_TO_CHIN, width / _MAX_FACE_WIDTH)
    middle = (upright[:, 0].min() + upright[:, 0].max()) / 2
    corner = np.array([middle - side / 2, eyes[1] - _EYES_FROM_TOP * side])
    matrix = np.concatenate([rotation * (side / size), (rotation @ corner)[:, None]], axis=1)
    return FaceCrop(matrix, size)


def whole_crop(size: int) -> FaceCrop:
    """Where the crop lies in a picture of nothing else, ``size`` pixels a side."""
    return FaceCrop(np.eye(2, 3) * (size / CROP_SIZE))


def detection_window(landmarks: np.ndarray) -> FaceCrop:
    """The square around a face, upright in the picture, that the landmarker reads best. (68, 2) picture pixels."""
    low, high = landmarks.min(axis=0), landmarks.max(axis=0)
    side = float((high - low).max()) * _DETECTION_MARGIN
    corner = (low + high) / 2 - side / 2
    scale = side / DETECTION_SIZE
    return FaceCrop(np.array([[scale, 0.0, corner[0]], [0.0, scale, corner[1]]]), DETECTION_SIZE)


def resample(image: np.ndarray, matrix: np.ndarray, size: int) -> np.ndarray:
    """A (size, size, 3) square of ``image`` through a similarity, with the right blur when it shrinks.

    Args:
        image: (H, W, 3) uint8.
        matrix: (2, 3); square coordinates (x, y, 1) → picture pixels.
        size: side of the square in pixels.
    """
    from PIL import Image

    left, top, right, bottom = _bounding_box(matrix, size)
    height, width = image.shape[:2]
    columns = np.clip(np.arange(left, right), 0, width - 1)
    rows = np.clip(np.arange(top, bottom), 0, height - 1)
    region = Image.fromarray(np.ascontiguousarray(image[rows[:, None], columns]))
    shrink = max(1, int(np.hypot(matrix[0, 0], matrix[1, 0]) + 0.25))
    if shrink > 1:
        region = region.reduce(shrink)
    local = matrix.astype(np.float64).copy()
    local[:, 2] -= (left, top)
    local /= shrink
    square = region.transform(
        (size, size), Image.Transform.AFFINE, tuple(local.ravel()), resample=Image.Resampling.BICUBIC
    )
    return np.asarray(square)


def resized(picture: np.ndarray, size: int) -> np.ndarray:
    """A square picture (S, S, 3) uint8 in another size, (size, size, 3)."""
    return resample(picture, np.eye(2, 3) * (len(picture) / size), size)


def _bounding_box(matrix: np.ndarray, size: int) -> tuple[int, int, int, int]:
    corners = np.array([[0, 0, 1], [size, 0, 1], [0, size, 1], [size, size, 1]]) @ matrix.T
    margin = 4 + 2 * np.hypot(matrix[0, 0], matrix[1, 0])
    low, high = np.floor(corners.min(axis=0) - margin), np.ceil(corners.max(axis=0) + margin)
    return int(low[0]), int(low[1]), int(high[0]), int(high[1])
