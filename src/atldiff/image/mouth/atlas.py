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
from atldiff.image.mouth.own import OwnTeeth, Place, PortraitReader, SeenRow
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
"""Teeth that are seen further than this share of the gap go on behind the other lip."""

_CORNER_GAP_MM = (0.8, 2.2)
"""Gap of the lips towards the corners from which on what is seen there counts: nearer to them it is lip."""

_ROOT_MM = (-1.0, 0.2)
"""How far behind where teeth begin under their lip, which shades them, the colour of their middle goes on."""

_CROWN_MM, _GUM_MM = 8.0, (0.3, 0.9)
"""How far from their lip teeth end whose gums can be seen, and begin where they are: all that is nearer to the lip
is a shadow, or the lip."""

_EDGE_MM, _SOFT_END_MM = 0.3, 0.4
"""How far from their ends teeth are read, and over what these ends are soft."""

_BESIDE_OWN = 0.75
"""How far teeth that are drawn beside the portrait's own are in the same light as these."""

_SHADOW_WARMTH, _SHADOW_WARMTH_BESIDE_OWN = 0.7, 0.15
"""How far shadows on teeth take the colour of the gums, and on those that are drawn beside the portrait's own."""

_DARK_LEVEL = 0.36
"""The hollow's level over that of the gums, where the portrait does not show it."""

_FRONT = 1.03
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
    own, place = reader.own_teeth(light), reader.place(places)
    if own.tooth_3 is not None:
        light = replace(light, tooth_3=(_FRONT * own.tooth_3).clamp(0, 1))
    blur = max(light.blur / pixels_per_mm * density - 0.3, 0.3)
    warm = _SHADOW_WARMTH if own.tooth_3 is None else _SHADOW_WARMTH_BESIDE_OWN
    rows = []
    for row, seen, edge, sign in zip(
        (UPPER, LOWER), (own.upper, own.lower), _edges_mm(own, reader), (-1, 1), strict=True
    ):
        drawn = _drawn(row, places, edge, sign, geometry.turn, light, blur, warm)
        hidden = drawn * (1 - place.inside * float(own.anything))
        rows.append(hidden if seen is None else _joined(drawn, seen, reader, place, sign))
    tint = light.gum_3 / luma(light.gum_3).clamp_min(1e-3)
    dark = _DARK_LEVEL * light.gum_3 * tint.pow(0.5) if own.dark_3 is None else own.dark_3
    device = image_3HW.device
    return MouthAtlas(rows[0].to(device), rows[1].to(device), dark.to(device), light)


def _edges_mm(own: OwnTeeth, reader: PortraitReader) -> tuple[float, float]:
    """Biting edges of the upper and the lower row below the middle of the seam."""
    if not own.anything:
        return _UPPER_BELOW_SEAM_MM, _LOWER_BELOW_SEAM_MM
    top, bottom = reader.edge_mm(0), reader.edge_mm(1)
    upper = top - 0.3 if own.upper is None else top + own.upper.usual_end * (bottom - top)
    lower = bottom + 2 * _HIDDEN_MM if own.lower is None else bottom - own.lower.usual_end * (bottom - top)
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
    row: Row,
    mm_hw2: torch.Tensor,
    edge_mm: float,
    sign: int,
    turn: float,
    light: MouthLight,
    blur: float,
    warm: float,
) -> torch.Tensor:
    """A row of teeth in the portrait's light and sharpness, (5, h, w)."""
    across, height = mm_hw2.unbind(dim=2)
    pixel_mm = float(across[0, 1] - across[0, 0])
    lightness, gum, cover = draw_row(row, across, sign * (height - edge_mm), turn, pixel_mm)
    right, left = light.sides
    side = right + (left - right) * (across / 40 + 0.5).clamp(0, 1)
    tint = (light.gum_3 / luma(light.gum_3).clamp_min(1e-3))[:, None, None]
    warmth = torch.lerp(torch.ones_like(tint), tint, (warm * (1 - lightness)).clamp(0, 1))
    tooth = light.tooth_3[:, None, None] * (lightness * side) * warmth
    gums = light.gum_3[:, None, None] * (0.85 * side)
    colour = torch.lerp(tooth, gums, gum).clamp(0, 1) * cover
    return gaussian_blur(torch.cat([colour, cover[None], torch.zeros_like(cover)[None]]), blur)


def _joined(drawn_5hw: torch.Tensor, row: SeenRow, reader: PortraitReader, place: Place, sign: int) -> torch.Tensor:
    """A row that the portrait shows, (5, h, w), continued behind its lip; drawn in columns that do not show it.

    Args:
        sign: -1 for the upper row, whose roots are above it, 1 for the lower.
    """
    begin, end, shown = row.at(place.along)
    gap, from_lip = place.gap_mm, place.share if sign < 0 else 1 - place.share

    def read(from_lip: torch.Tensor) -> torch.Tensor:
        return reader.read(place.along, from_lip if sign < 0 else 1 - from_lip)

    gum = smooth_between(begin * gap, _GUM_MM) * float(row.usual_end_mm > _CROWN_MM)
    first = begin * (1 - gum)
    margin = torch.minimum(torch.tensor(_EDGE_MM), 0.3 * (end - first) * gap) / gap.clamp_min(0.1)
    colour = read(torch.minimum(torch.maximum(from_lip, first + margin), end - margin))
    under_lip = smooth_between((begin - from_lip) * gap, _ROOT_MM) * (1 - gum)
    colour = torch.lerp(colour, read((begin + end) / 2), under_lip)
    beyond = (from_lip - end) * gap - torch.where(end > _TO_THE_LIP, _HIDDEN_MM, 0.0)
    cover = smoothstep(0.5 - beyond / _SOFT_END_MM)
    made = torch.cat([colour * cover, cover[None], cover[None]])
    drawn = drawn_5hw * cover
    drawn[4] = _BESIDE_OWN * drawn[3]
    return torch.lerp(drawn, made, shown * smooth_between(gap, _CORNER_GAP_MM))
