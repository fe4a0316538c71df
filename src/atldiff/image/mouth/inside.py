"""What is drawn between the lips: the dark, the tongue, two rows of teeth, the lower lip's wet inner edge.

Its levels follow the mouths of 50 people in close-ups (train speakers): the median of 325 frames over the skin around
the mouth, in 8 places from corner to corner and 6 from lip to lip, for gaps of 2.5 to 7, 7 to 13 and 13 mm and more
(``benchmarks/mouth_light.py``). Lengths in millimetres.
"""

import math

import torch

from atldiff.image.mouth.atlas import MouthAtlas, sample_atlas
from atldiff.image.mouth.geometry import MouthShapes
from atldiff.image.mouth.light import luma
from atldiff.image.mouth.place import MouthPlace
from atldiff.ramps import smooth_between, smoothstep

_TEETH_FROM_MM = (0.7, 1.6)
"""Local gap up to which no teeth are seen in the dark between the lips, and from which on all of them."""

_LIP_SHADOW_MM = 0.8
"""How far lower teeth must stand out over the lip to be seen."""

_LIT_DEPTH_MM, _LEAST_UNDER_LIP = 4.0, 0.62
"""How far below the upper lip its shadow on teeth ends, and the share of their light that it leaves."""

_LIT_GAP_MM = (2.0, 16.0)
"""Gaps from which on light falls between the lips, and from which on all that there is."""

_SHARE_OF_LIGHT = (0.58, 0.46)
"""What teeth have of their light in the narrowest gap, and what is added up to the widest."""

_LOWER_LIGHT = 0.94
"""The share of that light on lower teeth."""

_WARMTH = 0.55
"""How far teeth in a narrow gap take the colour of the lips around them."""

_CORNER_LIGHT = 0.55
"""The share of that light in the corners."""

_ROLLED_MM, _ROLLED = 1.3, 0.6
"""How far the lower lip's inner side is seen over its edge, and how much of it."""

_CHEEK, _CHEEK_LEVEL = 0.6, 0.78
"""How much of the corners is the cheeks' inner side, and its level over that of gums in the open."""

_CONTACT_SHADE = ((0.4, 0.8), (0.2, 0.6))
"""What the upper and the lower lip take of the light at their edge, as a share, and over how many millimetres."""

_TONGUE_HALF_WIDTH_MM = 17.0

LOWER_SHARE_OF_DROP = 0.97
"""How far lower teeth go with the jaw that the landmarks show."""


class DrawnInside:
    """Draws what lies behind the lips of one face.

    Args:
        atlas: its teeth, and the colours of the rest.
        pixels_per_mm: crop pixels to a millimetre.
        blur_mm: standard deviation of the portrait's blur.
    """

    def __init__(self, atlas: MouthAtlas, pixels_per_mm: float, blur_mm: float) -> None:
        self._atlas, self._mm = atlas, pixels_per_mm
        device = atlas.dark_3.device
        self._gum = atlas.light.gum_3.to(device)[:, None, None]
        self._contact = [
            (share * reach / math.hypot(reach, 1.4 * blur_mm), math.hypot(reach, 1.4 * blur_mm))
            for share, reach in _CONTACT_SHADE
        ]
        self._warmth = self._gum / luma(self._gum).clamp_min(1e-3) - 1

    def paint(self, places_Fhw2: torch.Tensor, place: MouthPlace, shapes: MouthShapes) -> torch.Tensor:
        """(F, 3, h, w) for places in crop pixels."""
        skull = shapes.skull_F23
        mm = places_Fhw2 @ skull[:, None, :, :2].transpose(2, 3) + skull[:, None, None, :, 2]
        drop = shapes.drop_F.clamp_min(-2.0)[:, None, None]
        in_jaw = torch.stack([mm[..., 0], mm[..., 1] - LOWER_SHARE_OF_DROP * drop], dim=-1)
        from_top, from_bottom = (place.below - place.top) / self._mm, (place.bottom - place.below) / self._mm
        gap = from_top + from_bottom
        corners = smoothstep(4 * (place.along * (1 - place.along)).clamp_min(0) / 0.95)
        across = 0.5 * mm[..., 0] / _TONGUE_HALF_WIDTH_MM + 1.2 * (place.along - 0.5)
        colour = self._hollow(across.clamp(-2, 2), from_top, from_bottom, corners)
        light = self._teeth_light(from_top, gap, corners)
        seen = smooth_between(gap, _TEETH_FROM_MM)
        above_lip = smoothstep((from_bottom - 0.2) / _LIP_SHADOW_MM)
        for picture, where, shown, share in (
            (self._atlas.lower, in_jaw, seen * above_lip, _LOWER_LIGHT),
            (self._atlas.upper, mm, seen, 1.0),
        ):
            teeth = sample_atlas(picture, where) * shown[:, None]
            lit = torch.lerp(share * light, torch.ones_like(light), teeth[:, 4:5])
            colour = colour * (1 - teeth[:, 3:4]) + teeth[:, :3] * lit
        rolled = _ROLLED * (1 - smoothstep(from_bottom / _ROLLED_MM)) * smoothstep(gap / 3)
        cheek = _CHEEK * (1 - corners)[:, None]
        colour = torch.lerp(colour, _CHEEK_LEVEL * self._gum, cheek)
        for beyond, (share, reach) in zip((from_top, from_bottom), self._contact, strict=True):
            colour = colour * (1 - share * torch.exp(-(beyond.clamp_min(0) / reach).square()))[:, None]
        return torch.lerp(colour, self._gum * (0.5 + 0.22 * corners)[:, None], rolled[:, None])

    def _teeth_light(self, from_top: torch.Tensor, gap: torch.Tensor, corners: torch.Tensor) -> torch.Tensor:
        """What drawn teeth have of their colour, (F, 3, h, w): less under the lip, in corners and narrow gaps."""
        wide = smooth_between(gap, _LIT_GAP_MM)
        shade = _LEAST_UNDER_LIP + (1 - _LEAST_UNDER_LIP) * smoothstep((from_top + 0.3) / _LIT_DEPTH_MM)
        shade = shade * (_CORNER_LIGHT + (1 - _CORNER_LIGHT) * corners)
        shade = shade * (_SHARE_OF_LIGHT[0] + _SHARE_OF_LIGHT[1] * wide)
        return shade[:, None] * (1 + self._warmth * (_WARMTH * (1 - wide))[:, None])

    def _hollow(
        self, across: torch.Tensor, from_top: torch.Tensor, from_bottom: torch.Tensor, corners: torch.Tensor
    ) -> torch.Tensor:
        """The dark, darkest between the teeth of wide mouths, and the tongue in it, (F, 3, h, w).

        ``across`` is 1 at the tongue's side.
        """
        gap = from_top + from_bottom
        middle = gap.amax(dim=(1, 2), keepdim=True)
        deep = torch.exp(-((from_top / gap.clamp_min(0.1) - 0.45) / 0.22).square())
        lit = (0.8 + 0.6 * torch.exp(-from_bottom.clamp_min(0) / 3.5)) * (1.25 - 0.25 * corners)
        lit = lit * (0.55 + 0.45 * smoothstep(from_top / 4)) * (1 - 0.5 * smoothstep((gap - 6) / 8) * deep)
        rise = middle * (0.86 - 0.013 * middle).clamp(0.55, 0.8) * (1 - 0.65 * across.square()).clamp_min(0)
        depth = rise - from_bottom
        tongue = smoothstep(depth / 1.8 + 0.5) * smoothstep((1.08 - across.abs()) / 0.36) * smoothstep(middle / 4)
        groove = 1 - 0.10 * torch.exp(-(across * 5).square())
        wet = 0.18 * torch.exp(-((across.abs() - 0.28) / 0.16).square() - ((depth - 4.5) / 1.6).square())
        level = (0.46 + 0.50 * smoothstep(depth / 8) + wet) * groove * (1 - 0.40 * across.square())
        level = level * (0.5 + 0.5 * corners) * (0.7 + 0.3 * smoothstep((middle - 3) / 9))
        dark = self._atlas.dark_3[:, None, None] * lit[:, None]
        return torch.lerp(dark, self._gum * level[:, None], tongue[:, None])
