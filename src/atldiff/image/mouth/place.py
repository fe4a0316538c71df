"""Where pixels lie in a mouth: along it, and between the edges of its lips."""

from dataclasses import dataclass

import torch

from atldiff.image.mouth.geometry import MouthShapes, edge_height
from atldiff.ramps import smooth_between

_TOUCHING_MM = (0.3, 1.2)
"""Local gap of the lips up to which nothing is seen between them, and from which on everything."""

_CORNER_SHARE = (0.03, 0.22)
"""Local gap over the mouth's widest up to which lips hide what lies in the corners, and from which on nothing is
hidden: an opening runs out into dark, narrow corners."""

_SEAM_SHADE = ((0.06, 1.5), (0.21, 1.9))
"""What the shadow of the shut seam takes from the upper and the lower lip's light at their edge, as a share of it,
and over how many millimetres: parted lips do not have it. From 54 close-ups and 40 clips of LRW-AR, whose lips in the
widest frames were held against what is painted of the most shut one."""

_PARTED_MM = (0.8, 5.0)
"""Local gap up to which that shadow stays, and from which on none of it is left."""


@dataclass(frozen=True)
class MouthPlace:
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
    def of(cls, places_Fhw2: torch.Tensor, shapes: MouthShapes) -> "MouthPlace":
        """Of places (F, h, w, 2), crop pixels, in the mouths of F frames."""
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
        shown = smooth_between(gap, _TOUCHING_MM)
        widest = gap.amax(dim=(1, 2), keepdim=True).clamp_min(1e-3)
        shown = shown * smooth_between(gap / widest, _CORNER_SHARE)
        within = (self.along > 0) & (self.along < 1)
        return (depth / (2 * soft_mm) + 0.5).clamp(0, 1) * shown * within

    def seam_light(self, pixels_per_mm: float) -> torch.Tensor:
        """By how much lips are brighter than where they touch: the shadow between them goes as they part."""
        gap = (self.bottom - self.top) / pixels_per_mm
        parted = smooth_between(gap, _PARTED_MM)
        parted = parted * ((self.along > 0) & (self.along < 1))
        light = torch.ones_like(gap)
        lips = (self.top - self.below, self.below - self.bottom)
        for beyond, (share, reach) in zip(lips, _SEAM_SHADE, strict=True):
            near = torch.exp(-(beyond / (pixels_per_mm * reach)).square()) * (beyond > 0)
            light = light + share * parted * near
        return light
