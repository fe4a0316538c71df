"""What lies behind one portrait's lips, as pictures that move rigidly: with the skull, with the jaw.

Where the portrait shows its own teeth or the dark between them, these are taken; what the lips hide is drawn in their
colour. So what is seen of a mouth stays as it is, and only what was hidden is invented.
"""

from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F

from atldiff.face.crop import FaceCrop
from atldiff.image.mouth.anatomy import LOWER, UPPER, Row, draw_row
from atldiff.image.mouth.geometry import MouthGeometry
from atldiff.image.mouth.light import MouthLight, gaussian_blur, luma, mouth_light
from atldiff.image.mouth.own import OwnTeeth, PortraitReader, Seen
from atldiff.ramps import smooth_between, smoothstep

EXTENT_MM = (36.0, 18.0, 24.0)
"""How far the pictures reach to either side of the middle of the seam, above it and below it."""

_MOST_PIXELS_PER_MM = 10.0

_UPPER_BELOW_SEAM_MM = 1.8
_LOWER_BELOW_SEAM_MM = -0.6
"""Where the biting edges lie when the lips are shut."""

_HIDDEN_MM = 0.9
"""How far teeth go on behind a lip that covers their ends."""

_TO_THE_LIP = 0.93
"""Upper teeth that are seen further than this share of the gap go on behind the lower lip."""

_CORNER_GAP_MM = (0.8, 2.2)
"""Gap of the lips towards the corners from which on what is seen there counts: nearer to them it is lip."""

_TOOTH_FROM = (0.12, 0.32)
"""How much of what is seen around a place must look like teeth for it to count as the portrait's own."""

_LIP_BLUR_MM, _HIDDEN_BLUR_MM = 1.2, 1.6
"""Over what that is judged; how far the colours of teeth run into each other where lips hide them."""

_SHADOW_WARMTH = 0.7
"""How far shadows on teeth take the colour of the gums."""

_DARK_LEVEL = 0.36
"""The hollow's level over that of the gums, where the portrait does not show it."""

_FRONT = 1.06
"""Colour of a front tooth in the open over the median of those that a portrait shows."""


@dataclass(frozen=True)
class MouthAtlas:
    """Pictures (5, h, w): colour and coverage, the colour multiplied by it, and how much is the portrait's own.

    Attributes:
        upper: teeth that stay with the skull.
        lower: teeth that go with the jaw.
        dark_3: colour of the hollow behind them, where it is brightest.
    """

    upper: torch.Tensor
    lower: torch.Tensor
    dark_3: torch.Tensor
    light: MouthLight

    def with_lower_raised(self, by_mm: float) -> "MouthAtlas":
        """The same with the lower teeth so much higher."""
        places = _places_mm(self.lower.shape[2], self.lower.shape[1]) + torch.tensor([0.0, by_mm])
        return replace(self, lower=sample_atlas(self.lower, places[None].to(self.lower.device))[0])


def make_atlas(image_3HW: torch.Tensor, crop: FaceCrop, geometry: MouthGeometry) -> MouthAtlas:
    """Draw what lies behind a portrait's lips.

    Args:
        image_3HW: a picture of the face in [0, 1].
        crop: where the face crop lies in it.
        geometry: the portrait's mouth.
    """
    image = image_3HW.cpu().float()
    light = mouth_light(image, torch.from_numpy(crop.to_picture(geometry.landmarks.numpy())))
    pixels_per_mm = crop.scale * geometry.pixels_per_mm
    density = min(max(1.5 * pixels_per_mm, 1.0), _MOST_PIXELS_PER_MM)
    half_width, above, below = EXTENT_MM
    places = _places_mm(round(2 * half_width * density), round((above + below) * density))
    reader = PortraitReader(image, crop, geometry)
    own, seen = reader.own_teeth(light), reader.seen(places)
    if own.tooth_3 is not None:
        light = replace(light, tooth_3=(_FRONT * own.tooth_3).clamp(0, 1))
    edges = _edges_mm(own, reader)
    blur = max(light.blur / pixels_per_mm * density - 0.3, 0.3)
    covers = [_upper_cover(seen, own.upper_end), _lower_cover(seen, own.lower_begin)]
    rows = []
    for row, edge, sign, cover in ((UPPER, edges[0], -1, covers[0]), (LOWER, edges[1], 1, covers[1])):
        drawn = _drawn(row, places, edge, sign, geometry.turn, light, blur)
        rows.append(drawn * (1 - seen.inside) if cover is None else _joined(drawn, seen, cover, light, density))
    tint = light.gum_3 / luma(light.gum_3).clamp_min(1e-3)
    dark = _DARK_LEVEL * light.gum_3 * tint.pow(0.5) if own.dark_3 is None else own.dark_3
    device = image_3HW.device
    return MouthAtlas(rows[0].to(device), rows[1].to(device), dark.to(device), light)


def _edges_mm(own: OwnTeeth, reader: PortraitReader) -> tuple[float, float]:
    """Biting edges of the upper and the lower row below the middle of the seam."""
    if not reader.parted:
        return _UPPER_BELOW_SEAM_MM, _LOWER_BELOW_SEAM_MM
    top, bottom = reader.edge_mm(0), reader.edge_mm(1)
    upper = top - 0.3 if own.upper_end == 0 else top + own.upper_end * (bottom - top)
    lower = bottom + 2 * _HIDDEN_MM if own.lower_begin == 1 else top + own.lower_begin * (bottom - top)
    return upper, lower


def _places_mm(columns: int, rows: int) -> torch.Tensor:
    """(h, w, 2) the pixels' places, millimetres from the middle of the seam."""
    half_width, above, below = EXTENT_MM
    x = (torch.arange(columns) + 0.5) * (2 * half_width / columns) - half_width
    y = (torch.arange(rows) + 0.5) * ((above + below) / rows) - above
    return torch.stack(torch.meshgrid(x, y, indexing="xy"), dim=-1)


def sample_atlas(picture_Chw: torch.Tensor, places_Fhw2: torch.Tensor) -> torch.Tensor:
    """Read such a picture at places in millimetres, (F, C, h, w); nothing lies beyond it."""
    half_width, above, below = EXTENT_MM
    x = places_Fhw2[..., 0] / half_width
    y = (places_Fhw2[..., 1] + above) * (2 / (above + below)) - 1
    pictures = picture_Chw.expand(len(places_Fhw2), -1, -1, -1)
    return F.grid_sample(pictures, torch.stack([x, y], dim=-1), padding_mode="zeros", align_corners=False)


def _drawn(
    row: Row, mm_hw2: torch.Tensor, edge_mm: float, sign: int, turn: float, light: MouthLight, blur: float
) -> torch.Tensor:
    """A row of teeth in the portrait's light and sharpness, (5, h, w)."""
    across, height = mm_hw2.unbind(dim=2)
    pixel_mm = float(across[0, 1] - across[0, 0])
    lightness, gum, cover = draw_row(row, across, sign * (height - edge_mm), turn, pixel_mm)
    right, left = light.sides
    side = right + (left - right) * (across / 40 + 0.5).clamp(0, 1)
    tint = (light.gum_3 / luma(light.gum_3).clamp_min(1e-3))[:, None, None]
    warmth = torch.lerp(torch.ones_like(tint), tint, (_SHADOW_WARMTH * (1 - lightness)).clamp(0, 1))
    tooth = light.tooth_3[:, None, None] * (lightness * side) * warmth
    gums = light.gum_3[:, None, None] * (0.85 * side)
    colour = torch.lerp(tooth, gums, gum).clamp(0, 1) * cover
    return gaussian_blur(torch.cat([colour, cover[None], torch.zeros_like(cover)[None]]), blur)


def _upper_cover(seen: Seen, end: float) -> torch.Tensor | None:
    """Where upper teeth are that a portrait shows; those that reach the lower lip go on behind it."""
    if end == 0:
        return None
    if end > _TO_THE_LIP:
        return smoothstep((_HIDDEN_MM - seen.below) / 0.5 + 0.5)
    return smoothstep((end - seen.share) / 0.06 + 0.5)


def _lower_cover(seen: Seen, begin: float) -> torch.Tensor | None:
    return smoothstep((seen.share - begin) / 0.06 + 0.5) if begin < 1 else None


def _joined(
    drawn_5hw: torch.Tensor, seen: Seen, cover_hw: torch.Tensor, light: MouthLight, density: float
) -> torch.Tensor:
    """A row that the portrait shows, (5, h, w), continued behind the lips; drawn where lip is seen in its place."""
    teeth = gaussian_blur(seen.tooth_share(light)[None], _LIP_BLUR_MM * density)[0]
    corner = smooth_between(seen.gap_mm, _CORNER_GAP_MM)
    own = smooth_between(teeth, _TOOTH_FROM) * corner
    hidden = torch.maximum(-seen.share * seen.gap_mm, seen.below).clamp(0, 1)
    smooth = gaussian_blur(seen.colour, _HIDDEN_BLUR_MM * density)
    colour = torch.lerp(seen.colour, smooth, hidden) * torch.exp(-seen.aside / 4.0)
    shown = torch.cat([colour * cover_hw, cover_hw[None], cover_hw[None]])
    return torch.lerp(drawn_5hw * torch.minimum(cover_hw, drawn_5hw[3]), shown, own)
