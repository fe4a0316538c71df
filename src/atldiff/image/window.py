"""The window that the compact network sees: mouth, chin and nose at twice the crop's resolution.

It travels with the skull, by whole pixels, so that a head that moves stays in the middle of it while the jaw moves
in it. All else of the face is the portrait's own pixels, moved.
"""

import functools

import torch

from atldiff.face.crop import CROP_SIZE, PICTURE_SIZE
from atldiff.image.mouth.geometry import MouthGeometry
from atldiff.ramps import smoothstep

WINDOW_SCALE = PICTURE_SIZE // CROP_SIZE
"""Window pixels to a crop pixel."""

WINDOW_SIZE = 128
"""Side of the window in its own pixels."""

WINDOW_SIDE = WINDOW_SIZE // WINDOW_SCALE
"""Side of the window in crop pixels."""

WHOLE_WINDOW = (slice(0, WINDOW_SIZE), slice(0, WINDOW_SIZE))
"""Its rows and columns."""

WORKED_WINDOW = (slice(24, 128), slice(8, 120))
"""The part of the window that the network works on when it generates, multiples of 8: what lies above and beside is
nose and cheeks, which speech hardly changes."""

_BELOW_SEAM_MM = 9.0
"""How far the window's middle lies below the seam of the resting lips: it holds the nose's tip and the open chin."""

_EDGE_FADE = 12.0
"""Over how many of its pixels what the network does fades in from the window's border."""


def window_corners(geometry: MouthGeometry, points_FK2: torch.Tensor) -> torch.Tensor:
    """Where the windows of frames with these landmarks lie, (F, 68, 2) crop pixels → (F, 2) int64 pixels."""
    skull = geometry.skull(points_FK2.detach().cpu().double())
    below = skull.new_tensor([0.0, _BELOW_SEAM_MM])
    middle = torch.linalg.solve(skull[:, :, :2], (below - skull[:, :, 2])[:, :, None])[:, :, 0]
    corner = (middle * WINDOW_SCALE - WINDOW_SIZE / 2).round().long()
    return corner.clamp(0, PICTURE_SIZE - WINDOW_SIZE).to(points_FK2.device)


def within_window(points_FK2: torch.Tensor, corner_F2: torch.Tensor) -> torch.Tensor:
    """Landmarks in crop pixels from the frame's window's corner, (F, 68, 2)."""
    return points_FK2 - corner_F2[:, None] / WINDOW_SCALE


def cut_windows(
    pictures_F3SS: torch.Tensor, corner_F2: torch.Tensor, height: int = WINDOW_SIZE, width: int = WINDOW_SIZE
) -> torch.Tensor:
    """The windows of (F, 3, 256, 256) crops, (F, 3, height, width)."""
    cuts = [
        picture[:, top : top + height, left : left + width]
        for picture, (left, top) in zip(pictures_F3SS, corner_F2.tolist(), strict=True)
    ]
    return torch.stack(cuts)


def window_fade(device: torch.device) -> torch.Tensor:
    """(128, 128) from 0 at the window's border to 1."""
    return border_fade(WINDOW_SIZE, WINDOW_SIZE, device)


@functools.cache
def border_fade(height: int, width: int, device: torch.device) -> torch.Tensor:
    """(height, width) from 0 at the border to 1."""
    down, across = (torch.arange(side, device=device) + 0.5 for side in (height, width))
    rows, columns = (smoothstep(torch.minimum(steps, len(steps) - steps) / _EDGE_FADE) for steps in (down, across))
    return rows[:, None] * columns
