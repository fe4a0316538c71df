"""The shapes of a mouth as numbers: how open, how wide, how high, how far the lips are drawn together.

All of it works on NumPy arrays and on torch tensors alike, so that what is trained and what is judged is the same.
"""

from typing import Any, TypeVar

import numpy as np
import torch

from atldiff.face.topology import CHIN, INNER_LIP_PAIRS, OUTER_EYE_CORNERS, OUTER_LIP_PAIRS

Points = TypeVar("Points", np.ndarray, torch.Tensor)

SHAPES = ("opening", "width", "height", "outline", "corners", "jaw")
"""The names of :func:`mouth_shapes`."""

_CORNERS = (48, 54)
_NOSE_BASE = 33
_MIDDLE_PAIRS = OUTER_LIP_PAIRS[1:4]
_OUTLINE = (50, 58, 52, 56)
_NEARER_CORNERS = (48, 48, 54, 54)
_LEAST_SQUARE = 1e-12


def mouth_shapes(landmarks: Points) -> dict[str, Points]:
    """The shapes of the mouth in each set of landmarks, in inter-ocular distances along the face's own axes.

    - ``opening``: gap of the inner lips, the mean of three pairs of points;
    - ``width``: from corner to corner;
    - ``height``: of the outer lips, the mean of their three middle pairs;
    - ``outline``: from the middle of the outer lips to the corner that is nearer, small where the lips are rounded
      and pushed forward: as much of that as a view from the front shows;
    - ``corners``: how high the corners lie above the base of the nose (a negative number);
    - ``jaw``: from the base of the nose down to the chin.

    Args:
        landmarks: (..., 68, 2) in any unit and place.

    Returns:
        Of each shape (...).
    """
    right, left = (landmarks[..., point, :] for point in OUTER_EYE_CORNERS)
    across = left - right
    scale = _length(across)
    upper, lower = (landmarks[..., [pair[side] for pair in INNER_LIP_PAIRS], :] for side in (0, 1))
    top, bottom = (landmarks[..., [pair[side] for pair in _MIDDLE_PAIRS], :] for side in (0, 1))
    corners, outline = landmarks[..., list(_CORNERS), :], landmarks[..., list(_OUTLINE), :]
    nose = landmarks[..., _NOSE_BASE, :]

    def below_nose(points: Points) -> Points:
        away = points - nose
        return (away[..., 1] * across[..., 0] - away[..., 0] * across[..., 1]) / scale**2

    return {
        "opening": _length(lower - upper).mean(-1) / scale,
        "width": _length(corners[..., 1, :] - corners[..., 0, :]) / scale,
        "height": _length(bottom - top).mean(-1) / scale,
        "outline": _length(outline - landmarks[..., list(_NEARER_CORNERS), :]).mean(-1) / scale,
        "corners": -(below_nose(corners[..., 0, :]) + below_nose(corners[..., 1, :])) / 2,
        "jaw": below_nose(landmarks[..., CHIN, :]),
    }


def _length(vectors: Any) -> Any:
    return ((vectors * vectors).sum(-1) + _LEAST_SQUARE) ** 0.5
