"""Paints the mouths of frames into pictures of the face, at any resolution."""

from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F

from atldiff.face.crop import CROP_SIZE, FaceCrop
from atldiff.image.mouth.atlas import MouthAtlas, make_atlas, sample_atlas
from atldiff.image.mouth.geometry import WINDOW_HALF_MM, MouthGeometry, MouthShapes, edge_height
from atldiff.image.mouth.light import luma
from atldiff.ramps import smoothstep

_FADE_MM = 7.0
"""Over how many millimetres the lips' own flow fades into the face's at the window's border."""

_SEAM_MM = 0.3
"""Half width of the line along which the two lips' flows meet."""

_SEAM_SPREAD_MM = 60.0
"""By how much that line widens beyond the corners, for a mouth's width."""

_EDGE_MM = 0.25
"""Half width of the edge of a lip."""

_TOUCHING_MM = (0.3, 1.2)
"""Local gap of the lips up to which nothing is seen between them, and from which on everything."""

_CORNER_SHARE = (0.12, 0.42)
"""Local gap over the mouth's widest up to which lips hide what lies in the corners, and from which on nothing is
hidden: without it the opening ends in points, which no mouth does."""

_TEETH_FROM_MM = (0.9, 2.4)
"""Local gap up to which no teeth are seen in the dark between the lips, and from which on all of them."""

_LIP_SHADOW_MM = 0.8
"""How far lower teeth must stand out over the lip to be seen."""

_SEAM_SHADE = ((0.06, 1.5), (0.21, 1.9))
"""What the shadow of the shut seam takes from the upper and the lower lip's light at their edge, as a share of it,
and over how many millimetres: parted lips do not have it. From 54 close-ups and 40 clips of LRW-AR, whose lips in the
widest frames were held against what is painted of the most shut one."""

_PARTED_MM = (0.8, 5.0)
"""Local gap up to which that shadow stays, and from which on none of it is left."""

_LIT_DEPTH_MM = 4.0
LOWER_SHARE_OF_DROP = 0.97
"""How far lower teeth go with the jaw that the landmarks show."""


class MouthPainter:
    """Paints the mouth of one face into pictures of it.

    Args:
        image_3HW: the face with its lips closed over what lies between them, in [0, 1], see
            :func:`atldiff.image.lips.shut_lips`; what the lips' own pixels are read from.
        shown_3HW: the face as it is.
        crop: where the face crop lies in the picture.
        geometry: the face's mouth at rest.
        atlas: what lies behind the lips, where another picture showed it; read from ``shown_3HW`` if None.
    """

    def __init__(
        self,
        image_3HW: torch.Tensor,
        shown_3HW: torch.Tensor,
        crop: FaceCrop,
        geometry: MouthGeometry,
        atlas: MouthAtlas | None = None,
    ) -> None:
        self._image = image_3HW
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
        light = self._atlas.light
        tint = light.gum_3 / luma(light.gum_3).clamp_min(1e-3)
        self._tongue = (light.gum_3 * tint.pow(0.25)).clamp(0, 1).to(device)

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
        place = _Place.of(window.places_Fhw2, shapes)
        flow = self._flow(window.places_Fhw2, place, flow_F2GG, shapes)
        lips = self._lips(window.places_Fhw2 + flow)
        if not bool((shapes.opening_F > 0).any()):
            window.write(frames_F3HW, lips)
            return
        window.write(frames_F3HW, lips * place.seam_light(self._mm)[:, None])
        self._paint_inside(frames_F3HW, origin_F2, shapes)

    def cover(self, shapes: MouthShapes, places_Fhw2: torch.Tensor) -> torch.Tensor:
        """How much of each place, (F, h, w, 2) crop pixels, is seen between the lips: (F, 1, h, w) in [0, 1]."""
        return _Place.of(places_Fhw2, shapes).cover(self._mm, _EDGE_MM)[:, None]

    def _paint_inside(self, frames_F3HW: torch.Tensor, origin_F2: torch.Tensor, shapes: MouthShapes) -> None:
        """Paint what is seen between the lips."""
        middle = torch.full_like(shapes.drop_F, 0.5)[:, None, None]
        top, bottom = (edge_height(each, middle).flatten() for each in (shapes.upper_F3, shapes.lower_F3))
        length = shapes.across_F2.norm(dim=1).clamp_min(1e-6)
        normal = torch.stack([-shapes.across_F2[:, 1], shapes.across_F2[:, 0]], dim=1) / length[:, None]
        centre = shapes.corner_F2 + shapes.across_F2 / 2 + normal * ((top + bottom) / 2)[:, None]
        curve = torch.maximum(top.abs(), bottom.abs()) + self._mm
        reach = (shapes.across_F2.abs() / 2 + normal.abs() * curve[:, None]).amax(dim=0).cpu()
        window = self._window(frames_F3HW, origin_F2, centre, reach + 2 * self._mm)
        place = _Place.of(window.places_Fhw2, shapes)
        soft = max(_EDGE_MM, 0.6 * self._pixel_mm, 0.5 * self._pixel_mm * self._atlas.light.blur)
        cover = place.cover(self._mm, soft)
        inside = self._inside(window.places_Fhw2, place, shapes)
        window.write(frames_F3HW, inside, cover)

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
        self, places_Fhw2: torch.Tensor, place: "_Place", flow_F2GG: torch.Tensor, shapes: MouthShapes
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

    def _lips(self, source_Fhw2: torch.Tensor) -> torch.Tensor:
        matrix = self._to_picture
        pixels = source_Fhw2 @ matrix[:, :2].T + matrix[:, 2]
        size = torch.tensor([self._image.shape[2], self._image.shape[1]], device=pixels.device)
        images = self._image.expand(len(source_Fhw2), -1, -1, -1)
        return F.grid_sample(images, pixels * 2 / size - 1, padding_mode="border", align_corners=False)

    def _inside(self, places_Fhw2: torch.Tensor, place: "_Place", shapes: MouthShapes) -> torch.Tensor:
        """What lies behind the lips, (F, 3, h, w)."""
        skull = shapes.skull_F23
        mm = places_Fhw2 @ skull[:, None, :, :2].transpose(2, 3) + skull[:, None, None, :, 2]
        drop = shapes.drop_F.clamp_min(-2.0)[:, None, None]
        in_jaw = torch.stack([mm[..., 0], mm[..., 1] - LOWER_SHARE_OF_DROP * drop], dim=-1)
        from_top, from_bottom = (place.below - place.top) / self._mm, (place.bottom - place.below) / self._mm
        gap = from_top + from_bottom
        corners = smoothstep(4 * (place.along * (1 - place.along)).clamp_min(0) / 0.75)
        shade = 0.5 + 0.5 * smoothstep((from_top + 0.3) / _LIT_DEPTH_MM)
        shade = shade * (0.65 + 0.35 * corners) * (0.7 + 0.3 * smoothstep((gap - 1) / 8))
        colour = self._hollow(mm[..., 0], from_top, from_bottom, gap, corners)
        seen = smoothstep((gap - _TEETH_FROM_MM[0]) / (_TEETH_FROM_MM[1] - _TEETH_FROM_MM[0]))
        above_lip = smoothstep((from_bottom - 0.2) / _LIP_SHADOW_MM)
        for picture, where, shown in (
            (self._atlas.lower, in_jaw, seen * above_lip),
            (self._atlas.upper, mm, seen),
        ):
            teeth = sample_atlas(picture, where) * shown[:, None]
            lit = torch.lerp(shade[:, None], torch.ones_like(teeth[:, 4:5]), teeth[:, 4:5])
            colour = colour * (1 - teeth[:, 3:4]) + teeth[:, :3] * lit
        return colour

    def _hollow(
        self,
        across_Fhw: torch.Tensor,
        from_top_Fhw: torch.Tensor,
        from_bottom_Fhw: torch.Tensor,
        gap_Fhw: torch.Tensor,
        corners_Fhw: torch.Tensor,
    ) -> torch.Tensor:
        """The dark, lit a little towards the lower lip, and the tongue in it, (F, 3, h, w); lengths in mm."""
        x = across_Fhw / 17
        middle = gap_Fhw.amax(dim=(1, 2), keepdim=True)
        rise = middle * (0.78 - 0.014 * middle).clamp(0.45, 0.7) * (1 - 0.75 * x.square()).clamp_min(0)
        depth = rise - from_bottom_Fhw
        tongue = smoothstep(depth / 3.5 + 0.5) * smoothstep((1.15 - x.abs()) / 0.6) * smoothstep(middle / 4)
        groove = 1 - 0.10 * torch.exp(-(x * 5).square())
        level = (0.50 + 0.38 * smoothstep(depth / 6)) * groove * (0.55 + 0.45 * corners_Fhw)
        lit = (0.55 + 0.9 * torch.exp(-from_bottom_Fhw.clamp_min(0) / 3.5)) * (0.6 + 0.4 * corners_Fhw)
        lit = lit * (0.55 + 0.45 * smoothstep(from_top_Fhw / 4))
        dark = self._atlas.dark_3[:, None, None] * lit[:, None]
        return torch.lerp(dark, self._tongue[:, None, None] * level[:, None], tongue[:, None])


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


@dataclass(frozen=True)
class _Place:
    """Where pixels lie in a mouth, (F, h, w) each.

    Attributes:
        along: from the right corner (0) to the left (1), and beyond.
        below: the line between the corners, crop pixels.
        top, bottom: the inner edges of the lips there.
    """

    along: torch.Tensor
    below: torch.Tensor
    top: torch.Tensor
    bottom: torch.Tensor

    @classmethod
    def of(cls, places_Fhw2: torch.Tensor, shapes: MouthShapes) -> "_Place":
        length = shapes.across_F2.norm(dim=1).clamp_min(1e-6)
        x, y = (places_Fhw2 - shapes.corner_F2[:, None, None]).unbind(dim=3)
        unit_x, unit_y = (shapes.across_F2 / length[:, None])[:, :, None, None].unbind(dim=1)
        along = (x * unit_x + y * unit_y) / length[:, None, None]
        within = along.clamp(0, 1)
        top, bottom = edge_height(shapes.upper_F3, within), edge_height(shapes.lower_F3, within)
        return cls(along, y * unit_x - x * unit_y, top, bottom)

    def cover(self, pixels_per_mm: float, soft_mm: float) -> torch.Tensor:
        """How much of each pixel is seen between the lips: nothing where they touch."""
        depth = torch.minimum(self.below - self.top, self.bottom - self.below) / pixels_per_mm
        gap = (self.bottom - self.top) / pixels_per_mm
        shown = smoothstep((gap - _TOUCHING_MM[0]) / (_TOUCHING_MM[1] - _TOUCHING_MM[0]))
        widest = gap.amax(dim=(1, 2), keepdim=True).clamp_min(1e-3)
        shown = shown * smoothstep((gap / widest - _CORNER_SHARE[0]) / (_CORNER_SHARE[1] - _CORNER_SHARE[0]))
        within = (self.along > 0) & (self.along < 1)
        return (depth / (2 * soft_mm) + 0.5).clamp(0, 1) * shown * within

    def seam_light(self, pixels_per_mm: float) -> torch.Tensor:
        """By how much lips are brighter than where they touch: the shadow between them goes as they part."""
        gap = (self.bottom - self.top) / pixels_per_mm
        parted = smoothstep((gap - _PARTED_MM[0]) / (_PARTED_MM[1] - _PARTED_MM[0]))
        parted = parted * ((self.along > 0) & (self.along < 1))
        light = torch.ones_like(gap)
        lips = (self.top - self.below, self.below - self.bottom)
        for beyond, (share, reach) in zip(lips, _SEAM_SHADE, strict=True):
            near = torch.exp(-(beyond / (pixels_per_mm * reach)).square()) * (beyond > 0)
            light = light + share * parted * near
        return light
