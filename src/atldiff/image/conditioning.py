"""From an identity and landmarks to everything that the image network is given, when it learns and when it works."""

from dataclasses import dataclass

import numpy as np
import torch

from atldiff.face.crop import CROP_SIZE, PICTURE_SIZE, whole_crop
from atldiff.face.places import crop_places, crop_to_image
from atldiff.image.frames import FrameRows
from atldiff.image.guidance import Part, landmark_maps, noise_mask, residual_region
from atldiff.image.lids import lid_closure, open_lids
from atldiff.image.lips import sealed_lips, shut_lips
from atldiff.image.mouth.geometry import MouthGeometry, MouthShapes
from atldiff.image.mouth.painter import MouthPainter
from atldiff.image.unet import blurred
from atldiff.image.warp import FLOW_GRID, thin_plate_flow, warp
from atldiff.image.window import (
    WHOLE_WINDOW,
    WINDOW_SIDE,
    WINDOW_SIZE,
    border_fade,
    cut_windows,
    window_corners,
    window_fade,
    within_window,
)

_PAINT_REACH, _PAINT_GAIN = 1.5, 2.0
"""The network paints as far as this blur, in pixels of the window, of what is seen between the lips reaches, times
this: two pixels on to the lips, whose inner edge is soft and wet."""


@dataclass(frozen=True)
class Conditions(FrameRows):
    """What the network is told of F frames.

    Attributes:
        flow_F2GG: backward flow from the identity crop, crop pixels.
        shapes: the frames' mouths; None where the mouth is not a layer.
        lids_F: how far each frame's upper eyelids are drawn down, 0 to 1.
        corner_F2: left and top of each frame's window, or of the part of it that is given, in the 256-pixel crop.
        warped_F3WW: the identity moved to each frame's landmarks, on which the guided noise is laid; in the window.
        maps_F8ww: landmark maps of the frame and of the identity, at half the window's resolution.
        mask_F1WW: where the noise lies.
        region_F2WW: where the network may shade the skin, and where it may paint: between the lips and on their edge.
        inside_F1WW: how much of each place is seen between the lips; nothing where the mouth is not a layer.
    """

    flow_F2GG: torch.Tensor
    shapes: MouthShapes | None
    lids_F: torch.Tensor
    corner_F2: torch.Tensor
    warped_F3WW: torch.Tensor
    maps_F8ww: torch.Tensor
    mask_F1WW: torch.Tensor
    region_F2WW: torch.Tensor
    inside_F1WW: torch.Tensor


class IdentityFace:
    """One identity crop made ready to be moved.

    Args:
        identity_3SS: (3, 256, 256) the crop in [0, 1].
        landmarks: (68, 2) its landmarks, crop pixels.
        bent: whether the start is the identity moved to each frame's landmarks, or the identity as it is.
        paints: whether the network paints between the lips; where it may is not made otherwise.

    Attributes:
        window_3WW: (3, 128, 128) the identity's own window, from which the network knows whom it sees.
    """

    def __init__(
        self, identity_3SS: torch.Tensor, landmarks: np.ndarray, bent: bool = True, paints: bool = True
    ) -> None:
        self._identity, self._bent, self._paints = identity_3SS, bent, paints
        device = identity_3SS.device
        self._landmarks = torch.from_numpy(np.asarray(landmarks)).float().to(device)[None]
        self._geometry = MouthGeometry(landmarks)
        corner = window_corners(self._geometry, self._landmarks)
        self.window_3WW = cut_windows(identity_3SS[None], corner)[0]
        self._fade = window_fade(device)
        if bent:
            whole = whole_crop(PICTURE_SIZE)
            places, to_image = (each(whole, PICTURE_SIZE, PICTURE_SIZE) for each in (crop_places, crop_to_image))
            given = (identity_3SS, places.float().to(device), to_image.float().to(device))
            self._lips = shut_lips(*given, landmarks)
            sealed = sealed_lips(*given, self._geometry)
            self._painter = MouthPainter(self._lips, identity_3SS, whole, self._geometry, sealed_3HW=sealed)

    def conditions(self, points_FK2: torch.Tensor, part: Part = WHOLE_WINDOW) -> Conditions:
        """For frames with these landmarks, (F, 68, 2) crop pixels on the identity's device.

        Args:
            part: rows and columns of the windows, even; in a part of them what the network does fades in from its
                border, too.
        """
        whole_corner = window_corners(self._geometry, points_FK2)
        points = within_window(points_FK2, whole_corner)
        own = within_window(self._landmarks.expand(len(points), -1, -1), whole_corner)
        half = slice(part[0].start // 2, part[0].stop // 2), slice(part[1].start // 2, part[1].stop // 2)
        maps = [landmark_maps(each, WINDOW_SIDE, WINDOW_SIZE // 2, part=half) for each in (points, own)]
        corner = whole_corner + whole_corner.new_tensor([part[1].start, part[0].start])
        height, width = (side.stop - side.start for side in part)
        flow, shapes, lids, warped = (self._moved if self._bent else self._still)(points_FK2, corner, height, width)
        inside = self._between_lips(shapes, corner, height, width)
        region = residual_region(points, WINDOW_SIDE, WINDOW_SIZE, part) * self._fade[part]
        if part != WHOLE_WINDOW:
            region = region * border_fade(height, width, region.device)
        return Conditions(
            flow_F2GG=flow,
            shapes=shapes,
            lids_F=lids,
            corner_F2=corner,
            warped_F3WW=warped,
            maps_F8ww=torch.cat(maps, dim=1),
            mask_F1WW=noise_mask(points, WINDOW_SIDE, WINDOW_SIZE, part),
            region_F2WW=torch.cat([region * (1 - inside), region * self._paint(inside)], dim=1),
            inside_F1WW=inside,
        )

    def _paint(self, inside_F1WW: torch.Tensor) -> torch.Tensor:
        if not self._paints:
            return torch.zeros_like(inside_F1WW)
        return (_PAINT_GAIN * blurred(inside_F1WW, _PAINT_REACH)).clamp(max=1)

    def _between_lips(
        self, shapes: MouthShapes | None, corner_F2: torch.Tensor, height: int, width: int
    ) -> torch.Tensor:
        """(F, 1, height, width) in [0, 1]."""
        if shapes is None:
            return torch.zeros(len(corner_F2), 1, height, width, device=corner_F2.device)
        return self._painter.cover(shapes, corner_F2, height, width)

    def _moved(
        self, points_FK2: torch.Tensor, corner_F2: torch.Tensor, height: int, width: int
    ) -> tuple[torch.Tensor, MouthShapes | None, torch.Tensor, torch.Tensor]:
        own = self._landmarks[0]
        lids = lid_closure(own, points_FK2)
        flow = thin_plate_flow(self._landmarks, open_lids(own, points_FK2, lids), CROP_SIZE)
        shapes = self._geometry.shapes(points_FK2)
        left, top = corner_F2.unbind(dim=1)
        warped = warp(self._lips, flow, CROP_SIZE, (left, top, width, height))
        self._painter.paint(warped, flow, shapes, corner_F2)
        return flow, shapes, lids, warped

    def _still(
        self, points_FK2: torch.Tensor, corner_F2: torch.Tensor, height: int, width: int
    ) -> tuple[torch.Tensor, None, torch.Tensor, torch.Tensor]:
        """For a network that begins at the identity as it is."""
        frames, device = len(points_FK2), points_FK2.device
        flow = torch.zeros(frames, 2, FLOW_GRID, FLOW_GRID, device=device)
        pictures = self._identity.expand(frames, -1, -1, -1)
        return flow, None, torch.zeros(frames, device=device), cut_windows(pictures, corner_F2, height, width)
