"""One frame of a shot with another mouth: its own pixels moved, and what lies behind the lips painted."""

from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F

from atldiff.face.crop import CROP_SIZE, FaceCrop
from atldiff.face.places import crop_places, crop_to_image
from atldiff.face.similarity import apply_similarity
from atldiff.image.lips import shut_lips
from atldiff.image.mouth.atlas import MouthAtlas
from atldiff.image.mouth.geometry import WINDOW_HALF_MM, MouthGeometry, MouthShapes
from atldiff.image.mouth.painter import MouthPainter
from atldiff.image.warp import FLOW_GRID, thin_plate_flow
from atldiff.ramps import smoothstep

_STILL_ABOVE, _MOVED_BELOW = 0.47, 0.57
"""Heights in the crop, shares of its side, above which nothing is moved, and below which everything: the nose."""

_SEEN_MOTION = 0.3
"""Pixels of the picture from which on a place counts as moved; what has moved by less stays as it is."""

_LIP_MARGIN_MM = 4.0
"""Millimetres around the mouth that are looked at to paint over what lies between the lips."""


@dataclass(frozen=True)
class MouthFrames:
    """What is done to F frames, crop pixels.

    Attributes:
        crop_F23: from crop pixels to pixels of the pictures.
        own_F682: landmarks of the frames as they are.
        new_F682: those of the frames as they become, pixels of the pictures.
        flow_F2GG: backward flow.
        shapes: the new mouths.
        share_F: how far what is made covers each frame, 0 to 1.
    """

    crop_F23: np.ndarray
    own_F682: np.ndarray
    new_F682: np.ndarray
    flow_F2GG: torch.Tensor
    shapes: MouthShapes
    share_F: np.ndarray

    @classmethod
    def of(
        cls,
        geometry: MouthGeometry,
        crop_F23: np.ndarray,
        own_F682: np.ndarray,
        new_F682: np.ndarray,
        skull_F23: np.ndarray,
        share_F: np.ndarray,
    ) -> "MouthFrames":
        """For new landmarks; ``skull_F23`` leads from crop pixels to the millimetres of the mouth's inside."""
        own, new = (torch.from_numpy(each).float() for each in (own_F682, new_F682))
        flow = thin_plate_flow(own, new, CROP_SIZE) * _moving_rows()
        shapes = geometry.shapes(new, own, torch.from_numpy(skull_F23))
        placed = apply_similarity(crop_F23, new_F682)
        return cls(crop_F23, own_F682.astype(np.float32), placed.astype(np.float32), flow, shapes, share_F)


class FramePainter:
    """Paints new mouths into the frames of one speaker.

    Args:
        geometry: the speaker's mouth at rest, in the coordinates of the atlas.
        atlas: what lies behind the speaker's lips.
    """

    def __init__(self, geometry: MouthGeometry, atlas: MouthAtlas) -> None:
        self._geometry = geometry
        self._atlas = atlas

    def reach(self, frames: MouthFrames, number: int) -> tuple[np.ndarray, np.ndarray]:
        """The lowest and the highest place, (2,) pixels of the picture each, that may change in a frame."""
        size = float(CROP_SIZE)
        corners = np.array([[x, y] for x in (0.0, size) for y in (_STILL_ABOVE * size, size)])
        places = FaceCrop(frames.crop_F23[number]).to_picture(corners)
        return places.min(axis=0), places.max(axis=0)

    @torch.no_grad()
    def paint(
        self, region: np.ndarray, frames: MouthFrames, number: int, corner: tuple[int, int]
    ) -> tuple[np.ndarray, np.ndarray]:
        """Change the part of a frame that holds :meth:`reach`.

        Args:
            region: (h, w, 3) uint8.
            corner: its left and top in the picture.

        Returns:
            (h, w, 3) uint8, and (h, w) whether a pixel has changed.
        """
        picture = torch.from_numpy(region).permute(2, 0, 1).float().div_(255)
        crop = FaceCrop(frames.crop_F23[number]).within(*corner)
        places = crop_places(crop, region.shape[1], region.shape[0]).float()
        flow = frames.flow_F2GG[number : number + 1]
        moved, motion = _moved(picture, places, flow, crop)
        shapes = frames.shapes[number : number + 1]
        lips = self._shut(picture, places, crop, frames.own_F682[number])
        painter = MouthPainter(lips, picture, crop, self._geometry, self._atlas)
        painter.paint(moved, flow, shapes)
        share = smoothstep(motion / _SEEN_MOTION)
        share = torch.maximum(share, self._window(places, shapes)) * float(frames.share_F[number])
        blended = torch.lerp(picture, moved[0], share)
        made = blended.mul_(255).round_().clamp_(0, 255).permute(1, 2, 0).to(torch.uint8).numpy()
        return made, share.numpy() > 0

    def _shut(self, picture: torch.Tensor, places: torch.Tensor, crop: FaceCrop, own: np.ndarray) -> torch.Tensor:
        """The picture with what lies between its lips painted over with their colours."""
        margin = _LIP_MARGIN_MM * self._geometry.pixels_per_mm
        low, high = own[48:].min(axis=0) - margin, own[48:].max(axis=0) + margin
        corners = crop.to_picture(np.array([[x, y] for x in (low[0], high[0]) for y in (low[1], high[1])]))
        height, width = picture.shape[1:]
        left, top = np.clip(np.floor(corners.min(axis=0)), 0, [width - 1, height - 1]).astype(int)
        right, bottom = np.clip(np.ceil(corners.max(axis=0)), [left + 1, top + 1], [width, height]).astype(int)
        part = picture[:, top:bottom, left:right]
        to_image = crop_to_image(crop.within(left, top), right - left, bottom - top).float()
        shut = picture.clone()
        shut[:, top:bottom, left:right] = shut_lips(part, places[top:bottom, left:right], to_image, own)
        return shut

    def _window(self, places: torch.Tensor, shapes: MouthShapes) -> torch.Tensor:
        """(h, w) from 1 around the mouth to 0 at the border of the window that is painted."""
        half = torch.tensor(WINDOW_HALF_MM) * self._geometry.pixels_per_mm
        margin = (1 - ((places - shapes.window_F2[0]) / half).abs()).amin(dim=2)
        return smoothstep(margin / 0.25)


def _moving_rows() -> torch.Tensor:
    """(FLOW_GRID, 1) what remains of the flow at each height."""
    rows = (torch.arange(FLOW_GRID) + 0.5) / FLOW_GRID
    return smoothstep((rows - _STILL_ABOVE) / (_MOVED_BELOW - _STILL_ABOVE))[:, None]


def _moved(
    picture: torch.Tensor, places: torch.Tensor, flow_12GG: torch.Tensor, crop: FaceCrop
) -> tuple[torch.Tensor, torch.Tensor]:
    """The picture through the flow, (1, 3, h, w), and how far each of its places comes, (h, w) pixels."""
    height, width = picture.shape[1:]
    turned = torch.einsum("ij,fjhw->fihw", torch.from_numpy(crop.matrix[:, :2]).float(), flow_12GG)
    way = F.grid_sample(turned, (places * (2 / CROP_SIZE) - 1)[None], padding_mode="border", align_corners=False)
    x = (torch.arange(width) + 0.5) * (2 / width) - 1
    y = (torch.arange(height) + 0.5) * (2 / height) - 1
    source = torch.stack([x + way[0, 0] * (2 / width), y[:, None] + way[0, 1] * (2 / height)], dim=-1)
    moved = F.grid_sample(picture[None], source[None], padding_mode="border", align_corners=False)
    return moved, torch.hypot(way[0, 0], way[0, 1])
