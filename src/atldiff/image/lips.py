"""A picture of the identity with its lips together: what the lips' own pixels are read from.

Of parted lips the gap is painted over with the lips' own colours, so that no tooth is drawn along with a lip's edge;
what lies behind the lips is a layer of its own (:mod:`atldiff.image.mouth`).
"""

import numpy as np
import torch
import torch.nn.functional as F

_UPPER_EDGE = (60, 61, 62, 63, 64)
_LOWER_EDGE = (60, 67, 66, 65, 64)
_LIP_DEPTH = 0.35
_SEAM_DARKNESS = 0.45
_SEAM_WIDTH = 0.2


def shut_lips(
    image_CHW: torch.Tensor, places_HW2: torch.Tensor, to_image: torch.Tensor, landmarks: np.ndarray
) -> torch.Tensor:
    """``image`` with what lies between the inner lips painted over.

    Args:
        image_CHW: (3, H, W) in [0, 1].
        places_HW2: (H, W, 2) where each of its pixels lies in the upright face crop, crop pixels.
        to_image: (2, 3) from crop pixels (x, y, 1) to the image's own [-1, 1] coordinates.
        landmarks: (68, 2) identity landmarks, crop pixels.

    Returns:
        (3, H, W).
    """
    x, y = places_HW2.unbind(dim=-1)
    top, bottom = _edge(x, landmarks[list(_UPPER_EDGE)]), _edge(x, landmarks[list(_LOWER_EDGE)])
    gap = (bottom - top).clamp_min(1e-3)
    depth = (
        _LIP_DEPTH * (landmarks[[50, 51, 52], 1] - landmarks[[61, 62, 63], 1]).mean(),
        _LIP_DEPTH * (landmarks[[58, 57, 56], 1] - landmarks[[67, 66, 65], 1]).mean(),
    )
    upper = _read(image_CHW, x, top + depth[0], to_image)
    lower = _read(image_CHW, x, bottom + depth[1], to_image)
    share = ((y - top) / gap).clamp(0, 1)
    seam = 1 - _SEAM_DARKNESS * torch.exp(-0.5 * ((share - 0.5) / _SEAM_WIDTH).square())
    painted = torch.lerp(upper, lower, share) * seam
    inside = torch.minimum(y - top, bottom - y) + 0.5
    inside = torch.minimum(inside, torch.minimum(x - landmarks[60, 0], landmarks[64, 0] - x)).clamp(0, 1)
    return torch.lerp(image_CHW, painted, inside)


def _edge(x_HW: torch.Tensor, points: np.ndarray) -> torch.Tensor:
    """Height of the line through ``points`` (from left to right) at each x."""
    heights = np.interp(x_HW.cpu().numpy(), points[:, 0], points[:, 1])
    return torch.from_numpy(heights).to(x_HW)


def _read(image_CHW: torch.Tensor, x: torch.Tensor, y: torch.Tensor, to_image: torch.Tensor) -> torch.Tensor:
    places = torch.stack([x, y, torch.ones_like(x)], dim=-1) @ to_image.to(x).T
    return F.grid_sample(image_CHW[None], places[None], mode="bilinear", padding_mode="border", align_corners=False)[
        0
    ]
