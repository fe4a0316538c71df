"""Paints the mouths of frames into pictures of the face, at any resolution."""

from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F

from atldiff.face.crop import CROP_SIZE, FaceCrop
from atldiff.image.mouth.atlas import MouthAtlas, make_atlas
from atldiff.image.mouth.geometry import WINDOW_HALF_MM, MouthGeometry, MouthShapes, edge_height
from atldiff.image.mouth.inside import DrawnInside
from atldiff.image.mouth.place import MouthPlace
from atldiff.ramps import smoothstep

_FADE_MM = 7.0
"""Over how many millimetres the lips' own flow fades into the face's at the window's border."""

_SEAM_MM = 0.3
"""Half width of the line along which the two lips' flows meet."""

_SEAM_SPREAD_MM = 60.0
"""By how much that line widens beyond the corners, for a mouth's width."""

_SEALED_SHARE = (0.25, 0.8)
"""Opening over that of a portrait with parted lips from which down its lips are those that touch, and from which up
those that it shows."""

_EDGE_MM, _BLURRED_EDGE = 0.25, 1.4
"""Half width of the edge of a lip, and of a blurred one for a standard deviation of the blur."""


class MouthPainter:
    """Paints the mouth of one face into pictures of it.

    Args:
        image_3HW: the face with its lips closed over what lies between them, in [0, 1], see
            :func:`atldiff.image.lips.shut_lips`; what the lips' own pixels are read from.
        shown_3HW: the face as it is.
        crop: where the face crop lies in the picture.
        geometry: the face's mouth at rest.
        atlas: what lies behind the lips, where another picture showed it; read from ``shown_3HW`` if None.
        sealed_3HW: what lips that come together are read from, where those of the face are parted: the teeth that
            they touched are painted over too.
    """

    def __init__(
        self,
        image_3HW: torch.Tensor,
        shown_3HW: torch.Tensor,
        crop: FaceCrop,
        geometry: MouthGeometry,
        atlas: MouthAtlas | None = None,
        sealed_3HW: torch.Tensor | None = None,
    ) -> None:
        self._image, self._sealed = image_3HW, sealed_3HW
        self._rest_opening = geometry.opening
        self._mm = geometry.pixels_per_mm
        device = image_3HW.device
        self._atlas = make_atlas(shown_3HW, crop, geometry) if atlas is None else atlas
        self._to_picture = torch.from_numpy(crop.matrix).float().to(device)
        inverse = np.linalg.inv(crop.matrix[:, :2])
        shift = -inverse @ crop.matrix[:, 2]
        self._to_crop = torch.from_numpy(np.concatenate([inverse, shift[:, None]], axis=1)).float().to(device)
        self._turned = torch.from_numpy(np.abs(crop.matrix[:, :2])).float()
        self._pixel_mm = 1 / (crop.scale * self._mm)
        self._half = torch.tensor(WINDOW_HALF_MM) * self._mm
        self._blur_mm = self._pixel_mm * self._atlas.light.blur
        self._inside = DrawnInside(self._atlas, self._mm, self._blur_mm)

    def paint(
        self,
        frames_F3HW: torch.Tensor,
        flow_F2GG: torch.Tensor,
        shapes: MouthShapes,
        origin_F2: torch.Tensor | None = None,
    ) -> None:
        """Paint the window around each frame's mouth, in place.

        Args:
            frames_F3HW: the face moved by ``flow``.
            flow_F2GG: the face's backward flow, crop pixels, over the whole crop.
            shapes: of as many frames.
            origin_F2: left and top of the frames in the picture, whole pixels; its corner if None.
        """
        if origin_F2 is None:
            origin_F2 = torch.zeros(len(shapes), 2, dtype=torch.long, device=frames_F3HW.device)
        window = self._window(frames_F3HW, origin_F2, shapes.window_F2, self._half)
        place = MouthPlace.of(window.places_Fhw2, shapes)
        flow = self._flow(window.places_Fhw2, place, flow_F2GG, shapes)
        lips = self._lips(window.places_Fhw2 + flow, shapes.opening_F)
        if not bool((shapes.opening_F > 0).any()):
            window.write(frames_F3HW, lips)
            return
        window.write(frames_F3HW, lips * place.seam_light(self._mm)[:, None])
        self._paint_inside(frames_F3HW, origin_F2, shapes)

    def cover(self, shapes: MouthShapes, origin_F2: torch.Tensor, height: int, width: int) -> torch.Tensor:
        """How much of each pixel is seen between the lips: (F, 1, height, width) in [0, 1], from ``origin`` on."""
        cover = torch.zeros(len(shapes), 1, height, width, device=origin_F2.device)
        if bool((shapes.opening_F > 0).any()):
            window = self._opening(cover, origin_F2, shapes)
            place = MouthPlace.of(window.places_Fhw2, shapes)
            window.write(cover, place.cover(self._mm, _EDGE_MM)[:, None])
        return cover

    def _paint_inside(self, frames_F3HW: torch.Tensor, origin_F2: torch.Tensor, shapes: MouthShapes) -> None:
        """Paint what is seen between the lips."""
        window = self._opening(frames_F3HW, origin_F2, shapes)
        place = MouthPlace.of(window.places_Fhw2, shapes)
        soft = max(_EDGE_MM, 0.6 * self._pixel_mm, _BLURRED_EDGE * self._blur_mm)
        cover = place.cover(self._mm, soft)
        inside = self._inside.paint(window.places_Fhw2, place, shapes)
        window.write(frames_F3HW, inside, cover)

    def _opening(self, frames_FCHW: torch.Tensor, origin_F2: torch.Tensor, shapes: MouthShapes) -> "_Window":
        """The window around the inner edges of the lips."""
        middle = torch.full_like(shapes.drop_F, 0.5)[:, None, None]
        top, bottom = (edge_height(each, middle).flatten() for each in (shapes.upper_F3, shapes.lower_F3))
        length = shapes.across_F2.norm(dim=1).clamp_min(1e-6)
        normal = torch.stack([-shapes.across_F2[:, 1], shapes.across_F2[:, 0]], dim=1) / length[:, None]
        centre = shapes.corner_F2 + shapes.across_F2 / 2 + normal * ((top + bottom) / 2)[:, None]
        curve = torch.maximum(top.abs(), bottom.abs()) + self._mm
        reach = (shapes.across_F2.abs() / 2 + normal.abs() * curve[:, None]).amax(dim=0).cpu()
        return self._window(frames_FCHW, origin_F2, centre, reach + 2 * self._mm)

    def _window(
        self, frames_F3HW: torch.Tensor, origin_F2: torch.Tensor, centre_F2: torch.Tensor, half_2: torch.Tensor
    ) -> "_Window":
        """The pixels around places in the crop, ``half`` crop pixels to either side."""
        reach = self._turned @ half_2
        width = min(frames_F3HW.shape[3], int(2 * reach[0]) + 2)
        height = min(frames_F3HW.shape[2], int(2 * reach[1]) + 2)
        device = centre_F2.device
        centre = centre_F2 @ self._to_picture[:, :2].T + self._to_picture[:, 2] - origin_F2
        most = torch.tensor([frames_F3HW.shape[3] - width, frames_F3HW.shape[2] - height], device=device)
        corner = (centre - torch.tensor([width, height], device=device) / 2).round().long()
        corner = torch.minimum(corner.clamp_min(0), most)
        x = torch.arange(width, device=device) + 0.5
        y = torch.arange(height, device=device) + 0.5
        pixels = torch.stack(torch.meshgrid(x, y, indexing="xy"), dim=-1) + (corner + origin_F2)[:, None, None]
        return _Window(corner.tolist(), pixels @ self._to_crop[:, :2].T + self._to_crop[:, 2])

    def _flow(
        self, places_Fhw2: torch.Tensor, place: "MouthPlace", flow_F2GG: torch.Tensor, shapes: MouthShapes
    ) -> torch.Tensor:
        """(F, h, w, 2): above the seam the upper lip's, below it the lower lip's, at the border the face's."""
        half = self._half.to(places_Fhw2.device)
        local = (places_Fhw2 - shapes.window_F2[:, None, None]) / half
        options = {"padding_mode": "border", "align_corners": False}
        face = F.grid_sample(flow_F2GG, places_Fhw2 * (2 / CROP_SIZE) - 1, **options)
        lips = F.grid_sample(shapes.flow_F4hw, local, **options)
        beyond = torch.maximum(-place.along, place.along - 1).clamp_min(0)
        width = self._mm * (_SEAM_MM + _SEAM_SPREAD_MM * beyond)
        share = ((place.below - (place.top + place.bottom) / 2) / (2 * width) + 0.5).clamp(0, 1)[:, None]
        own = torch.lerp(lips[:, :2], lips[:, 2:], share)
        margin = ((1 - local.abs()) * half).amin(dim=3)[:, None]
        near = smoothstep(margin / (_FADE_MM * self._mm))
        return torch.lerp(face, own, near).permute(0, 2, 3, 1)

    def _lips(self, source_Fhw2: torch.Tensor, opening_F: torch.Tensor) -> torch.Tensor:
        matrix = self._to_picture
        pixels = source_Fhw2 @ matrix[:, :2].T + matrix[:, 2]
        size = torch.tensor([self._image.shape[2], self._image.shape[1]], device=pixels.device)
        grid = pixels * 2 / size - 1
        lips = _read(self._image, grid)
        if self._sealed is None:
            return lips
        first, last = (share * self._rest_opening for share in _SEALED_SHARE)
        sealed = smoothstep((last - opening_F) / (last - first))
        return torch.lerp(lips, _read(self._sealed, grid), sealed[:, None, None, None])


def _read(image_3HW: torch.Tensor, grid_Fhw2: torch.Tensor) -> torch.Tensor:
    images = image_3HW.expand(len(grid_Fhw2), -1, -1, -1)
    return F.grid_sample(images, grid_Fhw2, padding_mode="border", align_corners=False)


@dataclass(frozen=True)
class _Window:
    """Pixels of F pictures, as many of each: their corners, and their places in the crop."""

    corners: list[list[int]]
    places_Fhw2: torch.Tensor

    def write(
        self, frames_F3HW: torch.Tensor, made_F3hw: torch.Tensor, cover_Fhw: torch.Tensor | None = None
    ) -> None:
        height, width = self.places_Fhw2.shape[1:3]
        for frame, (left, top) in enumerate(self.corners):
            target = frames_F3HW[frame, :, top : top + height, left : left + width]
            target.copy_(made_F3hw[frame] if cover_Fhw is None else target.lerp(made_F3hw[frame], cover_Fhw[frame]))
