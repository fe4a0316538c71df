"""Landmarks-Guide Noise (ATL-Diff, arXiv 2507.12804, section 3.2) and the landmark maps of the compact preset.

Landmarks become soft maps: one Gaussian a point, on a grid of any resolution, exact to a fraction of a pixel.
"""

import torch
import torch.nn.functional as F

from atldiff.face.topology import (
    INNER_LIPS,
    JAW,
    LEFT_BROW,
    LEFT_EYE,
    MOUTH,
    NOSE,
    OUTER_LIPS,
    RIGHT_BROW,
    RIGHT_EYE,
)
from atldiff.ramps import smoothstep

MAP_GROUPS: tuple[tuple[slice, ...], ...] = (
    (INNER_LIPS,),
    (OUTER_LIPS,),
    (RIGHT_EYE, LEFT_EYE),
    (JAW, RIGHT_BROW, LEFT_BROW, NOSE),
)
"""The landmark groups that have a map of their own, in channel order."""

_MASK_SIGMA = 4.1
"""Width in crop pixels of a landmark's blur: that of the published kernel of 25 pixels."""

_MASK_GAIN = 0.25
"""What a sum of landmarks' bells is multiplied by to be a mask; 1 is the most that it may be."""

_REGION_SIGMA = 7.0
"""Width in crop pixels of a landmark's bell in the region that the network may change."""

_REGION_GAIN = 0.5
"""What their sum is multiplied by there."""


Part = tuple[slice, slice]
"""Rows and columns of a map that are made."""

WHOLE: Part = (slice(None), slice(None))


def landmark_maps(
    landmarks_FK2: torch.Tensor, size: int, resolution: int, sigma: float = 2.0, part: Part = WHOLE
) -> torch.Tensor:
    """One soft map per group of :data:`MAP_GROUPS`, values in [0, 1].

    Args:
        landmarks_FK2: (F, 68, 2) crop pixels from the corner of the square.
        size: side in crop pixels of the square that the maps cover.
        resolution: side of the maps.
        sigma: width of a point in crop pixels.
        part: which of them.

    Returns:
        (F, 4, resolution, resolution) float32, or their ``part``.
    """
    columns, rows = _profiles(landmarks_FK2, size, resolution, sigma, part)
    maps = []
    for group in MAP_GROUPS:
        x = torch.cat([columns[:, points] for points in group], dim=1)
        y = torch.cat([rows[:, points] for points in group], dim=1)
        maps.append(torch.einsum("fky,fkx->fyx", y, x))
    return torch.stack(maps, dim=1).clamp(max=1.0)


def noise_mask(landmarks_FK2: torch.Tensor, size: int, resolution: int, part: Part = WHOLE) -> torch.Tensor:
    """Where the face moves: (F, 1, resolution, resolution) in [0.1, 1.1], high around mouth, eyes and contour; or its
    ``part``.

    The published mask is a one-hot picture of the landmarks blurred with a kernel of 25 pixels, brought to
    [0, 1] over the clip, plus 0.1. This is the same blur (σ = 4.1) in closed form, with a fixed gain in the place
    of the clip's extremes, so that a frame's mask does not depend on how a stream is cut.
    """
    columns, rows = _profiles(landmarks_FK2, size, resolution, _MASK_SIGMA, part)
    density = torch.einsum("fky,fkx->fyx", rows, columns)
    return (_MASK_GAIN * density).clamp(max=1.0)[:, None] + 0.1


def noise_mask_as_published(landmarks_BFK2: torch.Tensor, size: int, kernel: int) -> torch.Tensor:
    """The paper's mask: one-hot landmark pixels, Gaussian blur, brought to [0, 1] over each clip, plus 0.1.

    The blur has σ = 0.3·((kernel − 1)/2 − 1) + 0.8 and reflects the picture at its border. Landmarks outside the crop
    leave no mark.

    Args:
        landmarks_BFK2: (B, F, K, 2) crop pixels.
        size: side of the crop in pixels.
        kernel: side of the blur in pixels, odd: 25 for CREMA-D, 11 for MEAD.

    Returns:
        (B, F, size, size) in [0.1, 1.1].
    """
    clips, frames, points = landmarks_BFK2.shape[:3]
    columns, rows = landmarks_BFK2.floor().long().clamp(-1, size).unbind(dim=-1)
    framed = torch.zeros(clips * frames, (size + 2) ** 2, device=landmarks_BFK2.device)
    framed.scatter_(1, ((rows + 1) * (size + 2) + columns + 1).reshape(-1, points), 1.0)
    marks = framed.view(-1, 1, size + 2, size + 2)[..., 1:-1, 1:-1]
    half = kernel // 2
    sigma = 0.3 * (half - 1) + 0.8
    profile = torch.exp(-0.5 * ((torch.arange(kernel, device=framed.device) - half) / sigma).square())
    profile = profile / profile.sum()
    bordered = F.pad(marks, (half, half, half, half), mode="reflect")
    blurred = F.conv2d(F.conv2d(bordered, profile.view(1, 1, 1, -1)), profile.view(1, 1, -1, 1))
    blurred = blurred.view(clips, frames, size, size)
    low, high = blurred.amin(dim=(1, 2, 3), keepdim=True), blurred.amax(dim=(1, 2, 3), keepdim=True)
    return (blurred - low) / (high - low).clamp(min=1e-12) + 0.1


def residual_region(landmarks_FK2: torch.Tensor, size: int, resolution: int, part: Part = WHOLE) -> torch.Tensor:
    """Where the image network may change the warped picture: the face, soft-edged.

    Args:
        landmarks_FK2: (F, 68, 2) crop pixels from the corner of the square.
        size: side of the square in crop pixels.
        resolution: side of the result in its own.
        part: of the result.

    Returns:
        (F, 1, resolution, resolution) in [0, 1], or its ``part``.
    """
    inside = torch.cat([landmarks_FK2[:, 2:15], landmarks_FK2[:, 17:], landmarks_FK2[:, MOUTH]], dim=1)
    columns, rows = _profiles(inside, size, resolution, _REGION_SIGMA, part)
    density = torch.einsum("fky,fkx->fyx", rows, columns)
    return smoothstep(_REGION_GAIN * density)[:, None]


def guide_noise(
    start_FCHW: torch.Tensor, mask_F1HW: torch.Tensor, noise_FCHW: torch.Tensor, scale: float
) -> torch.Tensor:
    """x_T = start + scale · mask ⊙ ε: noise where the landmarks say that the face moves, the picture elsewhere."""
    return start_FCHW + scale * mask_F1HW * noise_FCHW


def _profiles(
    landmarks_FK2: torch.Tensor, size: int, resolution: int, sigma: float, part: Part
) -> tuple[torch.Tensor, torch.Tensor]:
    """Horizontal and vertical Gaussian profile of every point, (F, K, resolution) each; their product is the blob."""
    places = (torch.arange(resolution, device=landmarks_FK2.device) + 0.5) * (size / resolution)
    x, y = landmarks_FK2[..., None].float().unbind(dim=2)
    rows, columns = part
    horizontal, vertical = x - places[columns], y - places[rows]
    return torch.exp(horizontal.square() * (-0.5 / sigma**2)), torch.exp(vertical.square() * (-0.5 / sigma**2))
