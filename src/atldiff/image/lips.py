"""A picture of the identity with its lips together: what the lips' own pixels are read from.

Of parted lips the gap is painted over with the lips' own colours, so that no tooth is drawn along with a lip's edge;
what lies behind the lips is a layer of its own (:mod:`atldiff.image.mouth`).
"""

import numpy as np
import torch
import torch.nn.functional as F

from atldiff.image.mouth.geometry import MouthGeometry, edge_coefficients, edge_height

_UPPER_EDGE = (60, 61, 62, 63, 64)
_LOWER_EDGE = (60, 67, 66, 65, 64)
_LIP_DEPTH = 0.35
"""Share of a lip's height behind its inner edge at which its colour is read."""

_SEAM_DARKNESS = 0.45
"""Share of the light that the seam between the painted lips loses in its middle, and"""

_SEAM_WIDTH = 0.2
"""its width (standard deviation) as a share of the gap."""

_TOUCHED_MM = 1.3
"""How far from the inner lips' landmarks teeth of a portrait with parted lips may still be seen."""


def shut_lips(
    image_CHW: torch.Tensor,
    places_HW2: torch.Tensor,
    to_image: torch.Tensor,
    landmarks: np.ndarray,
    margin: float = 0.0,
) -> torch.Tensor:
    """``image`` with what lies between the inner lips painted over.

    Args:
        image_CHW: (3, H, W) in [0, 1].
        places_HW2: (H, W, 2) where each of its pixels lies in the upright face crop, crop pixels.
        to_image: (2, 3) from crop pixels (x, y, 1) to the image's own [-1, 1] coordinates.
        landmarks: (68, 2) identity landmarks, crop pixels.
        margin: how much further than the inner lips is painted over, crop pixels.

    Returns:
        (3, H, W).
    """
    points = torch.from_numpy(landmarks).to(places_HW2)
    corner, across = points[_UPPER_EDGE[0]], points[_UPPER_EDGE[-1]] - points[_UPPER_EDGE[0]]
    length = across.norm().clamp_min(1e-3)
    ahead = across / length
    below = torch.stack([-ahead[1], ahead[0]])
    along, height = (((places_HW2 - corner) @ axis) for axis in (ahead, below))
    top, bottom = (
        edge_height(edge_coefficients(points[None], nodes), (along / length).clip(0, 1)[None])[0]
        for nodes in (_UPPER_EDGE[1:4], _LOWER_EDGE[1:4])
    )
    top, bottom = top - margin, bottom + margin
    gap = (bottom - top).clamp_min(1e-3)
    depth = (
        _LIP_DEPTH * (landmarks[[50, 51, 52], 1] - landmarks[[61, 62, 63], 1]).mean(),
        _LIP_DEPTH * (landmarks[[58, 57, 56], 1] - landmarks[[67, 66, 65], 1]).mean(),
    )

    def colours(heights: torch.Tensor) -> torch.Tensor:
        return _read(image_CHW, corner + along[..., None] * ahead + heights[..., None] * below, to_image)

    share = ((height - top) / gap).clamp(0, 1)
    seam = 1 - _SEAM_DARKNESS * torch.exp(-0.5 * ((share - 0.5) / _SEAM_WIDTH).square())
    painted = torch.lerp(colours(top + depth[0]), colours(bottom + depth[1]), share) * seam
    inside = torch.minimum(height - top, bottom - height) + 0.5
    inside = torch.minimum(inside, torch.minimum(along, length - along) + margin).clamp(0, 1)
    return torch.lerp(image_CHW, painted, inside)


def _read(image_CHW: torch.Tensor, places_HW2: torch.Tensor, to_image: torch.Tensor) -> torch.Tensor:
    places = torch.cat([places_HW2, torch.ones_like(places_HW2[..., :1])], dim=-1) @ to_image.to(places_HW2).T
    return F.grid_sample(image_CHW[None], places[None], mode="bilinear", padding_mode="border", align_corners=False)[
        0
    ]


def sealed_lips(
    image_CHW: torch.Tensor, places_HW2: torch.Tensor, to_image: torch.Tensor, geometry: MouthGeometry
) -> torch.Tensor | None:
    """The same with the teeth that parted lips touch, None where the lips are not parted: see :func:`shut_lips`."""
    if not geometry.parted:
        return None
    margin = _TOUCHED_MM * geometry.pixels_per_mm
    return shut_lips(image_CHW, places_HW2, to_image, geometry.landmarks.numpy(), margin)
