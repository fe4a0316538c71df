"""Faces that are not bare, or not human: what lies over eyes and mouth, measured on the upright crop."""

from dataclasses import dataclass

import numpy as np

from atldiff.face.crop import CROP_SIZE, face_crop

LEAST_HUMAN = 0.7
"""Score of the face detector in a close crop: people's bare faces have 0.87 to 0.95 (91 of them), a cat had 0.5."""

_DARK_LENS = 0.55
"""Brightness around the eyes over that of the cheeks: under dark glasses 0.1 to 0.5, else 0.67 and more."""

_EYES = ((36, 39), (42, 45))
_LIPS = ((50, 61), (51, 62), (52, 63), (58, 67), (57, 66), (56, 65))
_AROUND_LIPS = ((8, 57), (6, 58), (10, 56), (4, 48), (12, 54))
_ONE_COLOUR, _ONE_BRIGHTNESS = 0.1, 0.12
"""Lips that differ by less from what is around them, in tint and in share of its brightness, are under cloth;"""

_OTHER_COLOUR, _DARK, _PALE = 0.2, 0.35, 1.15
"""but only if that differs from cheeks and nose by more in tint, or is darker or paler than these shares of them."""

_LUMINANCE = np.array([0.299, 0.587, 0.114])


@dataclass(frozen=True)
class Covering:
    """What covers a face.

    Attributes:
        glasses: dark glasses lie over the eyes.
        mask: cloth lies over the mouth.
    """

    glasses: bool
    mask: bool


def covering(image: np.ndarray, landmarks: np.ndarray) -> Covering:
    """What covers the face in (H, W, 3) uint8 with landmarks (68, 2), pixels."""
    crop = face_crop(landmarks, CROP_SIZE)
    pixels, points = crop.cut(image).astype(np.float32), crop.to_crop(landmarks)
    return Covering(_has_dark_glasses(pixels, points), _has_mask(pixels, points))


def _has_dark_glasses(pixels: np.ndarray, points: np.ndarray) -> bool:
    """Whether it is dark both above and below either eye, measured against the cheek under it."""
    for right, left in _EYES:
        middle, width = (points[right] + points[left]) / 2, float(np.linalg.norm(points[left] - points[right]))
        above, below, cheek = (
            _brightness(_colour(pixels, middle + (0, share * width), radius))
            for share, radius in ((-0.38, 1), (0.45, 1), (1.1, 3))
        )
        if max(above, below) > _DARK_LENS * max(cheek, 1):
            return False
    return True


def _has_mask(pixels: np.ndarray, points: np.ndarray) -> bool:
    """Whether the lips are of one colour with what is around them, and that is not the colour of cheeks and nose."""
    lips = _median([_colour(pixels, (points[a] + points[b]) / 2, 1) for a, b in _LIPS])
    around = _median([_colour(pixels, 0.47 * points[jaw] + 0.53 * points[lip], 2) for jaw, lip in _AROUND_LIPS])
    width = float(np.linalg.norm(points[39] - points[36]))
    cheeks = [(points[a] + points[b]) / 2 + (0, 0.9 * width) for a, b in _EYES]
    skin = _median([_colour(pixels, place, 2) for place in (*cheeks, points[27], (points[21] + points[22]) / 2)])
    if np.linalg.norm(_tint(lips) - _tint(around)) > _ONE_COLOUR:
        return False
    if abs(_brightness(lips) / max(_brightness(around), 1) - 1) > _ONE_BRIGHTNESS:
        return False
    contrast = _brightness(around) / max(_brightness(skin), 1)
    return bool(np.linalg.norm(_tint(around) - _tint(skin)) > _OTHER_COLOUR) or not _DARK < contrast < _PALE


def _colour(pixels: np.ndarray, place: np.ndarray, radius: int) -> np.ndarray:
    x, y = np.clip(np.round(place).astype(int), radius, CROP_SIZE - 1 - radius)
    return _median(pixels[y - radius : y + radius + 1, x - radius : x + radius + 1].reshape(-1, 3))


def _median(colours: np.ndarray | list[np.ndarray]) -> np.ndarray:
    return np.median(np.asarray(colours), axis=0)


def _brightness(colour: np.ndarray) -> float:
    return float(colour @ _LUMINANCE)


def _tint(colour: np.ndarray) -> np.ndarray:
    """(log red : green, log blue : green)."""
    red, green, blue = np.log(colour + 1)
    return np.array([red - green, blue - green])
