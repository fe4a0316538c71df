"""The upper eyelids drawn over the eyes as far down as a frame's landmarks want them.

A smooth warp cannot shut an eye: it squeezes the iris into a line at best. A lid slides over the eye instead: what
lies between brow and lashes is stretched downwards, and the eye under it stays as it is.
"""

import math

import numpy as np
import torch
import torch.nn.functional as F

from atldiff.face.topology import EYELID_PAIRS

_UPPER_EDGES = ((36, 37, 38, 39), (42, 43, 44, 45))
_LOWER_EDGES = ((36, 41, 40, 39), (42, 47, 46, 45))
_BROWS = (slice(17, 22), slice(22, 27))
_STRETCHED_SHARE = 0.7
"""Share of the way from lashes to brow whose skin is stretched."""

_LASH_SHARE = 0.12
"""Share of the eye's opening by which the lashes hang below the landmarks of the upper lid."""

_OPEN_ABOVE = 0.95
"""Opening, as a share of the identity's, above which a lid is not drawn down, and"""

_SHUT_BELOW = 0.15
"""below which it is shut."""

_DRAWN_ABOVE = 0.3
"""Closure from which on the warp leaves the eye wholly to the drawn lid."""

_NARROWEST_EYE = 0.12
"""Opening over width of eyes that count as shut in the portrait itself."""


class Eyelids:
    """The lids of one face in one picture of it.

    Args:
        places_HW2: (H, W, 2) where each pixel of the picture lies in the upright face crop, crop pixels.
        to_image: (2, 3) from crop pixels (x, y, 1) to the picture's own [-1, 1] coordinates.
        landmarks: (68, 2) identity landmarks, crop pixels.
    """

    def __init__(self, places_HW2: torch.Tensor, to_image: torch.Tensor, landmarks: np.ndarray) -> None:
        x, self._y = places_HW2.unbind(dim=-1)
        self._x = x
        self._to_image = to_image.to(x)
        self._eyes = [
            _columns(x, landmarks, upper, lower, brow)
            for upper, lower, brow in zip(_UPPER_EDGES, _LOWER_EDGES, _BROWS, strict=True)
        ]
        height, width = x.shape
        self._pixel = 1 / math.hypot(float(to_image[0, 0]) * width / 2, float(to_image[1, 0]) * height / 2)

    def lowered(self, image_CHW: torch.Tensor, closure_F: torch.Tensor) -> torch.Tensor:
        """(F, 3, H, W) ``image`` as each frame wants its lids, 0 to 1 of the way down; not to be written to."""
        frames = image_CHW.expand(len(closure_F), -1, -1, -1)
        drawn = torch.nonzero(closure_F).flatten()
        if len(drawn):
            frames = frames.clone()
        for frame in drawn:
            frames[frame] = self.draw(image_CHW, closure_F[frame])
        return frames

    def draw(self, image_CHW: torch.Tensor, closure: torch.Tensor) -> torch.Tensor:
        """``image`` (3, H, W) with its lids lowered by ``closure``, () from 0 to 1 of the way."""
        source, cover = self._y, torch.zeros_like(self._y)
        for top, gap, height in self._eyes:
            edge = top + closure * gap
            begin = top - height
            share = (self._y - begin) / (edge - begin).clamp_min(1e-3)
            inside = ((edge - self._y) / self._pixel + 0.5).clamp(0, 1) * (self._y > begin) * (gap > 0)
            source = torch.where(inside > 0, begin + share * height, source)
            cover = torch.maximum(cover, inside)
        places = torch.stack([self._x, source, torch.ones_like(source)], dim=-1) @ self._to_image.T
        lids = F.grid_sample(
            image_CHW[None], places[None], mode="bilinear", padding_mode="border", align_corners=False
        )
        return torch.lerp(image_CHW, lids[0], cover)


def lid_closure(identity_K2: torch.Tensor, landmarks_FK2: torch.Tensor) -> torch.Tensor:
    """How far down each frame's lids are: (F,) from 0, as in the identity, to 1; 0 for an identity with shut eyes."""
    own, frames = _aperture(identity_K2[None]), _aperture(landmarks_FK2)
    if float(own) < _NARROWEST_EYE:
        return torch.zeros_like(frames)
    return ((_OPEN_ABOVE - frames / own) / (_OPEN_ABOVE - _SHUT_BELOW)).clamp(0, 1)


def open_lids(identity_K2: torch.Tensor, landmarks_FK2: torch.Tensor, closure_F: torch.Tensor) -> torch.Tensor:
    """Landmarks (F, 68, 2) whose lids, where they are drawn down, are as open as the identity's, for the warp."""
    opened = landmarks_FK2.clone()
    share = (closure_F / _DRAWN_ABOVE).clamp(max=1)
    for right, left in ((36, 39), (42, 45)):
        lids = [point for point in range(right + 1, right + 6) if point != left]
        turn = _complex(landmarks_FK2[:, left] - landmarks_FK2[:, right]) / _complex(
            identity_K2[left] - identity_K2[right]
        )
        own = turn[:, None] * _complex(identity_K2[lids] - identity_K2[right])
        places = torch.view_as_real(own) + landmarks_FK2[:, right, None]
        opened[:, lids] = torch.lerp(landmarks_FK2[:, lids], places, share[:, None, None])
    return opened


def _complex(points: torch.Tensor) -> torch.Tensor:
    return torch.view_as_complex(points.contiguous())


def _aperture(landmarks_FK2: torch.Tensor) -> torch.Tensor:
    """Mean gap of the lids over the mean width of the eyes, (F,)."""
    upper, lower = (list(points) for points in zip(*EYELID_PAIRS, strict=True))
    gap = (landmarks_FK2[:, lower] - landmarks_FK2[:, upper]).norm(dim=-1).mean(dim=1)
    width = (landmarks_FK2[:, [39, 45]] - landmarks_FK2[:, [36, 42]]).norm(dim=-1).mean(dim=1)
    return gap / width


def _columns(
    x_HW: torch.Tensor, landmarks: np.ndarray, upper: tuple[int, ...], lower: tuple[int, ...], brow: slice
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """For each pixel's column of one eye: height of the upper lashes, way to the lower lid, height of skin above."""
    corners = landmarks[[upper[0], upper[-1]], 0]
    x = x_HW.cpu().numpy()
    top, bottom = _curve(x, landmarks[list(upper)]), _curve(x, landmarks[list(lower)])
    inside = (x > corners[0]) & (x < corners[1])
    widest = 1.5 * np.ptp(landmarks[list(upper + lower), 1])
    gap = np.where(inside, np.clip(bottom - top, 0, widest), 0)
    top = top + _LASH_SHARE * gap
    gap = (1 - _LASH_SHARE) * gap
    brow_height = np.interp(x, *landmarks[brow].T)
    height = _STRETCHED_SHARE * np.maximum(top - brow_height, 1e-3)
    return torch.from_numpy(top).to(x_HW), torch.from_numpy(gap).to(x_HW), torch.from_numpy(height).to(x_HW)


def _curve(x: np.ndarray, points: np.ndarray) -> np.ndarray:
    """Height, at each ``x``, of the cubic through four points."""
    return np.polyval(np.polyfit(points[:, 0].astype(np.float64), points[:, 1].astype(np.float64), 3), x)
