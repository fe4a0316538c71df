"""What a portrait shows between its lips: teeth, and the dark behind them."""

from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F

from atldiff.face.crop import FaceCrop
from atldiff.image.mouth.geometry import LOWER_NODES, UPPER_NODES, MouthGeometry, edge_coefficients, edge_height
from atldiff.image.mouth.light import MouthLight, luma

_COLUMNS, _ROWS = 120, 48
_ALONG = (0.04, 0.96)
"""Columns and rows that are looked at, and from where to where along the mouth."""

_MIDDLE_HALF = slice(_COLUMNS // 4, -_COLUMNS // 4)

_BRIGHT, _DARK = 0.6, 0.3
"""Level over that of the brightest between the lips from which on a place can be a tooth that tells the colour of
teeth, and share of a front tooth's up to which it is dark."""

_DIMMEST_TEETH = 0.55
"""Share of the luma that teeth should have, from which on something bright is taken for teeth."""

_LEAST_LEVEL = 0.4
"""Level of the darkest tooth over that of the portrait's front teeth."""

_LEVEL_WEIGHT = 0.5

_LEAST_SEEN_MM = 1.2
"""How much of a tooth must be seen in a column for it to be known."""

_STEP_ROWS = 4
_LINE_DEPTH, _STEP_DEPTH = 0.05, 0.09
"""How much darker than the teeth the line is at which two rows meet; how much darker the row behind is. Over so many
rows on either side."""

_UNEVEN_MM, _CURVE_ROUNDS = 0.6, 5
"""How far teeth end from the curve of their row, and how often that is fitted."""

_LIP_SHARE = 0.5
"""Columns of which so much has the colour of lips show no teeth: the lips' edges lie elsewhere than was found."""

_SMOOTH_COLUMNS = 7

_LEAST_COLUMNS = 0.3
"""Share of the middle half of the mouth in whose columns a row is seen, for the portrait to show it."""


@dataclass(frozen=True)
class SeenRow:
    """One row of teeth as far as a portrait shows it, in columns along the mouth.

    Attributes:
        begin, end: (n,) shares of the way from its own lip (0) to the other (1) between which it is seen.
        shown: (n,) 1 in columns that show it, 0 in those that do not.
        usual_end, usual_end_mm: the median of the ends in the middle of the mouth, and how far from its lip that is.
    """

    begin: np.ndarray
    end: np.ndarray
    shown: np.ndarray
    usual_end: float
    usual_end_mm: float

    def at(self, along: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """``begin``, ``end`` and ``shown`` at places along the mouth."""
        columns = np.linspace(*_ALONG, _COLUMNS)
        values = (np.interp(along.numpy(), columns, each) for each in (self.begin, self.end, self.shown))
        begin, end, shown = (torch.from_numpy(each).float() for each in values)
        return begin, end, shown


@dataclass(frozen=True)
class OwnTeeth:
    """What a portrait shows between its lips.

    Attributes:
        upper, lower: its rows of teeth; None where none are seen.
        tooth_3: colour of a front tooth; None where none are seen.
        dark_3: colour of the dark between them; None where too little of it is seen.
        anything: whether any of these is seen.
    """

    upper: SeenRow | None = None
    lower: SeenRow | None = None
    tooth_3: torch.Tensor | None = None
    dark_3: torch.Tensor | None = None

    @property
    def anything(self) -> bool:
        return self.upper is not None or self.lower is not None or self.dark_3 is not None


@dataclass(frozen=True)
class Place:
    """Where places lie in a portrait's mouth, (h, w) each.

    Attributes:
        along: from corner (0) to corner (1).
        share: of the way from the upper lip (0) to the lower (1).
        gap_mm: of the lips at this place along the mouth.
        inside: how far it lies between the lips, 0 or 1 but for the edge.
    """

    along: torch.Tensor
    share: torch.Tensor
    gap_mm: torch.Tensor
    inside: torch.Tensor


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

    def place(self, mm_hw2: torch.Tensor) -> Place:
        """Where places in millimetres lie, (h, w, 2)."""
        offset = (mm_hw2.double() * self._mm) + self._middle - self._corner
        along, height = (offset @ self._unit) / self._length, offset @ self._normal
        within = along.clamp(*_ALONG)
        top, bottom = self._lips(within)
        gap = (bottom - top).clamp_min(1e-3)
        depth = torch.minimum(height - top, bottom - height) / self._mm
        aside = torch.maximum(-along, along - 1).clamp_min(0)
        return Place(
            along=within,
            share=((height - top) / gap).float(),
            gap_mm=(gap / self._mm).float(),
            inside=((depth / 0.5).clamp(0, 1) * (aside == 0) * float(self.parted)).float(),
        )

    def read(self, along: torch.Tensor, share: torch.Tensor) -> torch.Tensor:
        """(3, …) colours so far along the mouth, at such a share of the way between the lips."""
        top, bottom = self._lips(along)
        height = top + share * (bottom - top)
        places = self._corner + along[..., None] * self._across + height[..., None] * self._normal
        pixels = places @ self._matrix[:, :2].T + self._matrix[:, 2]
        size = torch.tensor([self._image.shape[2], self._image.shape[1]], dtype=pixels.dtype)
        grid = (pixels * 2 / size - 1).to(self._image)
        return F.grid_sample(self._image[None], grid[None], padding_mode="border", align_corners=False)[0]

    def own_teeth(self, light: MouthLight) -> OwnTeeth:
        """Tell teeth from lips and from the dark by their light, column by column."""
        if not self.parted:
            return OwnTeeth()
        along = torch.linspace(*_ALONG, _COLUMNS, dtype=torch.float64)
        share = (torch.arange(_ROWS, dtype=torch.float64) + 0.5) / _ROWS
        grid_along, grid_share = torch.meshgrid(along, share, indexing="xy")
        top, bottom = self._lips(along[None])
        top_mm, bottom_mm = ((each / self._mm)[0].numpy() for each in (top, bottom))
        gap_mm = (bottom_mm - top_mm).clip(1e-3)
        colours = self.read(grid_along, grid_share)
        level, expected = luma(colours), float(luma(light.tooth_3))
        middle = slice(_COLUMNS // 5, -_COLUMNS // 5)
        high = float(level[:, middle].quantile(0.92))
        low = min(float(level[:, middle].quantile(0.05)), _DARK * expected)
        is_dark = level < 0.5 * (low + min(float(luma(light.gum_3)), _DARK * expected))
        dark = colours[:, is_dark].median(dim=1).values if float(is_dark[:, middle].float().mean()) > 0.06 else None
        if high < _DIMMEST_TEETH * expected:
            return OwnTeeth(dark_3=dark)
        tooth = colours[:, level > low + _BRIGHT * (high - low)].median(dim=1).values
        if not bool(_like_teeth(tooth[:, None, None], light.tooth_3, light.gum_3)):
            return OwnTeeth(dark_3=dark)
        like_tooth = _like_teeth(colours, tooth, light.gum_3)
        is_tooth = (like_tooth & (level > _LEAST_LEVEL * luma(tooth))).numpy()
        is_lip = (~like_tooth & ~is_dark).numpy()
        upper = _row(is_tooth, is_lip, level.numpy(), top_mm, gap_mm)
        lower = _row(is_tooth[::-1], is_lip[::-1], level.numpy()[::-1], -bottom_mm, gap_mm)
        if upper is not None and lower is not None and upper.usual_end + lower.usual_end > 1:
            lower = None
        if upper is None and lower is None:
            return OwnTeeth(dark_3=dark)
        return OwnTeeth(upper, lower, tooth, dark)

    def edge_mm(self, number: int) -> float:
        """The upper (0) or the lower lip's edge (1) below the seam in the middle of the mouth."""
        half = torch.full((1, 1, 1), 0.5, dtype=torch.float64)
        height = edge_height(self._edges[number], half)[0, 0, 0]
        place = self._corner + 0.5 * self._across + height * self._normal
        return float((place - self._middle)[1]) / self._mm

    def _lips(self, along: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Heights of the lips' inner edges below the line between the corners, crop pixels."""
        top, bottom = (edge_height(each, along[None])[0] for each in self._edges)
        return top, bottom


def _like_teeth(colours_3hw: torch.Tensor, tooth_3: torch.Tensor, lip_3: torch.Tensor) -> torch.Tensor:
    """Whether colours are nearer to that of teeth than to that of lips, (h, w)."""
    level = float(luma(tooth_3))
    tooth, lip = (_features(each[:, None, None], level)[:, 0, 0] for each in (tooth_3, lip_3))
    axis = tooth - lip
    offset = _features(colours_3hw, level) - lip[:, None, None]
    return (offset * axis[:, None, None]).sum(dim=0) > 0.5 * axis.square().sum()


def _features(colour_3hw: torch.Tensor, tooth_level: float) -> torch.Tensor:
    """Chroma, and level over that of a tooth, which counts for less: teeth at the sides lie in shadow."""
    level = luma(colour_3hw)
    chroma = colour_3hw[[0, 2]] / (level + 0.03)
    return torch.cat([chroma, _LEVEL_WEIGHT * level[None] / max(tooth_level, 0.03)])


def _row(
    is_tooth: np.ndarray, is_lip: np.ndarray, level: np.ndarray, lip_mm: np.ndarray, gap_mm: np.ndarray
) -> SeenRow | None:
    """The row that begins near the first of (rows, columns), between a lip, at ``lip_mm``, and the other."""
    begin, end = np.zeros(_COLUMNS), np.zeros(_COLUMNS)
    for column in range(_COLUMNS):
        run = _run(is_tooth[:, column])
        if run is not None:
            first, stop = run
            begin[column], end[column] = first, _bite(level[first:stop, column]) + first
    begin, end = begin / _ROWS, end / _ROWS
    found = (end - begin) * gap_mm >= np.minimum(_LEAST_SEEN_MM, 0.6 * gap_mm)
    shown = found | (is_lip.mean(axis=0) < _LIP_SHARE)
    if found[_MIDDLE_HALF].mean() < _LEAST_COLUMNS:
        return None
    columns = np.linspace(-1, 1, _COLUMNS)
    begin = _smoothed(np.interp(columns, columns[found], begin[found]))
    curve = _curve(columns[found], (lip_mm + end * gap_mm)[found])
    at_curve = ((np.polyval(curve, columns) - lip_mm) / gap_mm).clip(0, 1)
    near = np.where(found, (end - at_curve).clip(-_UNEVEN_MM / gap_mm, _UNEVEN_MM / gap_mm), 0)
    end = (at_curve + _smoothed(near)).clip(0, 1)
    usual = [float(np.median(each[_MIDDLE_HALF])) for each in (end, end * gap_mm)]
    return SeenRow(begin, end, _smoothed(shown.astype(float)), *usual)


def _curve(along: np.ndarray, height: np.ndarray) -> np.ndarray:
    """The parabola near most of the points: those far from it count ever less."""
    curve = np.polyfit(along, height, 2)
    for _ in range(_CURVE_ROUNDS):
        far = np.abs(height - np.polyval(curve, along))
        curve = np.polyfit(along, height, 2, w=1 / (1 + (far / _UNEVEN_MM) ** 2))
    return curve


def _run(is_tooth: np.ndarray) -> tuple[int, int] | None:
    """The first run of a column, if it begins in its first half; a row that breaks it does not end it."""
    rows = np.flatnonzero(is_tooth)
    if not len(rows) or rows[0] > _ROWS // 2:
        return None
    breaks = np.flatnonzero(np.diff(rows) > 2)
    last = rows[breaks[0]] if len(breaks) else rows[-1]
    return int(rows[0]), int(last) + 1


def _bite(level: np.ndarray) -> int:
    """Where in a run of bright rows the other row's teeth begin, which touch these or stand behind them: behind it if
    nowhere."""
    count = len(level)
    if count < 4 * _STEP_ROWS:
        return count
    sums = np.cumsum(np.concatenate([[0.0], level]))
    rows = np.arange(max(count // 3, _STEP_ROWS), count - _STEP_ROWS)
    above = (sums[rows] - sums[rows - _STEP_ROWS]) / _STEP_ROWS
    below = (sums[rows + 1 + _STEP_ROWS] - sums[rows + 1]) / _STEP_ROWS
    line, step = 1 - level[rows] / np.minimum(above, below), 1 - below / above
    depth = np.maximum(line / _LINE_DEPTH, step / _STEP_DEPTH)
    deepest = int(depth.argmax())
    return int(rows[deepest]) if depth[deepest] > 1 else count


def _smoothed(values: np.ndarray) -> np.ndarray:
    """The median of some columns, then their mean."""
    reach = _SMOOTH_COLUMNS // 2
    for mean in (np.median, np.mean):
        padded = np.pad(values, reach, mode="edge")
        values = mean(np.lib.stride_tricks.sliding_window_view(padded, _SMOOTH_COLUMNS), axis=1)
    return values
