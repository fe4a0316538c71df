"""What a portrait shows between its lips: teeth, and the dark behind them."""

from dataclasses import dataclass

import torch
import torch.nn.functional as F

from atldiff.face.crop import FaceCrop
from atldiff.image.mouth.geometry import LOWER_NODES, UPPER_NODES, MouthGeometry, edge_coefficients, edge_height
from atldiff.image.mouth.light import MouthLight, luma

_LIP_MARGIN_MM = (0.5, 0.8)
"""How far from the upper and the lower lip's edge teeth are read at least: lips are not teeth."""

_BRIGHT_SHARE = 0.45
_DARK_SHARE = 0.3
"""Luma of teeth from the darkest to the brightest, and of the dark as a share of that of a front tooth."""

_DIMMEST_TEETH = 0.55
"""Share of the luma that teeth should have, from which on something bright is taken for teeth."""

_LEVEL_WEIGHT = 0.5
_PROFILE_ROWS = 32


@dataclass(frozen=True)
class OwnTeeth:
    """What a portrait shows between its lips, along the way from the upper lip (0) to the lower (1).

    Attributes:
        upper_end: where its upper teeth end; 0 where none are seen.
        lower_begin: where its lower teeth begin; 1 where none are seen.
        tooth_3: colour of a front tooth; None where none are seen.
        dark_3: colour of the dark between them; None where too little of it is seen.
    """

    upper_end: float = 0.0
    lower_begin: float = 1.0
    tooth_3: torch.Tensor | None = None
    dark_3: torch.Tensor | None = None


@dataclass(frozen=True)
class Seen:
    """What a portrait shows at places in its mouth, (h, w) each, and (3, h, w) the colour.

    Attributes:
        colour: of the place itself where it lies between the lips, of the nearest that does elsewhere.
        share: of the way from the upper lip (0) to the lower (1).
        below: the lower lip's edge, millimetres.
        aside: beyond the corners, millimetres.
        gap_mm: of the lips at this place along the mouth.
        inside: how far it lies between the lips, 0 or 1 but for the edge.
    """

    colour: torch.Tensor
    share: torch.Tensor
    below: torch.Tensor
    aside: torch.Tensor
    gap_mm: torch.Tensor
    inside: torch.Tensor

    def tooth_share(self, light: MouthLight) -> torch.Tensor:
        """How far what is seen has the colour of teeth (1) and not that of lips (0): (h, w)."""
        tooth, lip = (_features(each[:, None, None], light)[:, 0, 0] for each in (light.tooth_3, light.gum_3))
        axis = tooth - lip
        offset = _features(self.colour, light) - lip[:, None, None]
        share = (offset * axis[:, None, None]).sum(dim=0) / axis.square().sum().clamp_min(1e-4)
        return share.clamp(0, 1)


def _features(colour_3hw: torch.Tensor, light: MouthLight) -> torch.Tensor:
    """Chroma, and level over that of a tooth, which counts for less: teeth at the sides lie in shadow."""
    level = luma(colour_3hw)
    chroma = colour_3hw[[0, 2]] / (level + 0.03)
    return torch.cat([chroma, _LEVEL_WEIGHT * level[None] / luma(light.tooth_3).clamp_min(0.03)])


class PortraitReader:
    """Reads a portrait at places in its mouth, in millimetres from the middle of the seam.

    Args:
        image_3HW: in [0, 1].
        crop: where the face crop lies in it.
        geometry: the portrait's mouth.
    """

    def __init__(self, image_3HW: torch.Tensor, crop: FaceCrop, geometry: MouthGeometry) -> None:
        self._image = image_3HW
        self._matrix = torch.from_numpy(crop.matrix)
        self._mm = geometry.pixels_per_mm
        self._middle = torch.from_numpy(geometry.middle)
        points = geometry.landmarks[None]
        self._corner, self._across = points[0, 60], points[0, 64] - points[0, 60]
        self._length = self._across.norm().clamp_min(1e-6)
        unit = self._across / self._length
        self._unit, self._normal = unit, torch.stack([-unit[1], unit[0]])
        self._edges = [edge_coefficients(points, nodes) for nodes in (UPPER_NODES, LOWER_NODES)]
        self.parted = geometry.parted

    def seen(self, mm_hw2: torch.Tensor) -> Seen:
        """What the portrait shows at places in millimetres, (h, w, 2)."""
        offset = (mm_hw2.double() * self._mm) + self._middle - self._corner
        along, height = (offset @ self._unit) / self._length, offset @ self._normal
        within = along.clamp(0.04, 0.96)
        top, bottom = (edge_height(each, within[None])[0] for each in self._edges)
        gap = (bottom - top).clamp_min(1e-3)
        upper_margin, lower_margin = (torch.clamp(0.3 * gap, max=each * self._mm) for each in _LIP_MARGIN_MM)
        nearest = torch.minimum(torch.maximum(height, top + upper_margin), bottom - lower_margin)
        places = self._corner + within[..., None] * self._across + nearest[..., None] * self._normal
        depth = torch.minimum(height - top, bottom - height) / self._mm
        aside = torch.maximum(-along, along - 1).clamp_min(0) * self._length / self._mm
        return Seen(
            colour=self._read(places),
            share=((height - top) / gap).float(),
            below=((height - bottom) / self._mm).float(),
            aside=aside.float(),
            gap_mm=(gap / self._mm).float(),
            inside=((depth / 0.5).clamp(0, 1) * (aside == 0) * float(self.parted)).float(),
        )

    def own_teeth(self, light: MouthLight) -> OwnTeeth:
        """Tell teeth from what lies between them by their light."""
        if not self.parted:
            return OwnTeeth()
        along = torch.linspace(0.2, 0.8, 48, dtype=torch.float64)
        share = (torch.arange(_PROFILE_ROWS, dtype=torch.float64) + 0.5) / _PROFILE_ROWS
        grid_along, grid_share = torch.meshgrid(along, share, indexing="xy")
        top, bottom = (edge_height(each, grid_along[None])[0] for each in self._edges)
        height = top + grid_share * (bottom - top)
        colours = self._read(self._corner + grid_along[..., None] * self._across + height[..., None] * self._normal)
        level, expected = luma(colours), float(luma(light.tooth_3))
        high, low = float(level.quantile(0.92)), min(float(level.quantile(0.05)), _DARK_SHARE * expected)
        is_dark = level < 0.5 * (low + min(float(luma(light.gum_3)), _DARK_SHARE * expected))
        dark = colours[:, is_dark].median(dim=1).values if float(is_dark.float().mean()) > 0.06 else None
        if high < _DIMMEST_TEETH * expected:
            return OwnTeeth(dark_3=dark)
        profile = level[:, 12:36].quantile(0.65, dim=1)
        upper_end, lower_begin = _runs((profile > low + _BRIGHT_SHARE * (high - low)).tolist())
        if upper_end == 0 and lower_begin == 1:
            return OwnTeeth(dark_3=dark)
        tooth = colours[:, level > low + 0.6 * (high - low)].median(dim=1).values
        return OwnTeeth(upper_end, lower_begin, tooth, dark)

    def edge_mm(self, number: int) -> float:
        """The upper (0) or the lower lip's edge (1) below the seam in the middle of the mouth."""
        half = torch.full((1, 1, 1), 0.5, dtype=torch.float64)
        height = edge_height(self._edges[number], half)[0, 0, 0]
        place = self._corner + 0.5 * self._across + height * self._normal
        return float((place - self._middle)[1]) / self._mm

    def _read(self, places_hw2: torch.Tensor) -> torch.Tensor:
        pixels = places_hw2 @ self._matrix[:, :2].T + self._matrix[:, 2]
        size = torch.tensor([self._image.shape[2], self._image.shape[1]], dtype=pixels.dtype)
        grid = (pixels * 2 / size - 1).to(self._image)
        return F.grid_sample(self._image[None], grid[None], padding_mode="border", align_corners=False)[0]


def _runs(bright: list[bool]) -> tuple[float, float]:
    """Of a profile of bright rows: where the run near its top ends, and where the one at its bottom begins."""
    rows = len(bright)
    upper_end, lower_begin = 0, rows
    first = next((row for row in range(rows // 3) if bright[row]), None)
    if first is not None:
        upper_end = next((row for row in range(first, rows) if not bright[row]), rows)
    last = next((row for row in range(rows - 1, rows - 1 - rows // 4, -1) if bright[row]), None)
    if last is not None and last >= upper_end:
        lower_begin = next((row for row in range(last, -1, -1) if not bright[row]), -1) + 1
    return upper_end / rows, lower_begin / rows
