"""Two rows of teeth drawn from a few numbers, at any resolution, as they look from the front.

Sizes are means of grown-up teeth (width and height of the crowns, after Wheeler's Dental Anatomy); the arch is a
circle, seen from the front and turned with the head. The biting edges of the upper teeth that 37 talkers show are
3.1 mm higher 20 mm beside the middle (median; quartiles 1.2 and 4.3), which is most of a smile; two thirds of that
are drawn. Nothing here is anybody's picture.
"""

from dataclasses import dataclass

import numpy as np
import torch


@dataclass(frozen=True)
class Row:
    """One row of teeth, from the middle outwards, millimetres.

    Attributes:
        widths, heights: of the crowns.
        setback: how far each biting edge stands back from the line of the front teeth.
        radius: of the arch.
        curve: how far the biting edges stand back besides, 20 mm along the arch beside the middle.
    """

    widths: tuple[float, ...]
    heights: tuple[float, ...]
    setback: tuple[float, ...]
    radius: float
    curve: float


UPPER = Row(
    (8.5, 6.6, 7.5, 7.0, 6.8, 10.0), (10.2, 8.8, 9.6, 8.4, 7.6, 7.2), (0.0, 0.7, 0.35, 1.0, 1.3, 1.6), 24.0, 2.1
)
LOWER = Row(
    (5.3, 5.8, 6.8, 7.0, 7.2, 10.5), (8.8, 9.2, 10.0, 8.6, 8.0, 7.6), (0.2, 0.0, -0.2, 0.6, 1.0, 1.2), 22.0, -2.6
)

_LEVELS = np.array([1.0, 0.96, 0.90, 0.82, 0.74, 0.66])
"""Lightness of each tooth: the further back, the darker and yellower."""

_UNEVEN = np.array([[0.0, 0.12, -0.1, 0.08, 0.0, 0.0], [0.1, -0.06, 0.12, 0.0, 0.1, 0.0]])
"""Millimetres by which the biting edges to the right and left of the middle differ: no two teeth are equal."""

_STRAIGHT_TURN = 0.6
"""Sine of the angle at which a head is turned so far that the rows are drawn straight: their curve was measured on
heads that face the camera, at most 0.25."""

_GLINT = 0.07
"""How much lighter the wet front of a tooth is where it mirrors the light."""

_GAP_WIDTH, _GAP_DEPTH = 0.30, 0.17
"""Half width in millimetres and darkness of the line between two teeth."""


def draw_row(
    row: Row, across_mm: torch.Tensor, above_mm: torch.Tensor, turn: float, softness_mm: float
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Draw a row of teeth and its gum.

    Args:
        across_mm: (h, w) way to the right of the middle.
        above_mm: (h, w) way from the biting edge of the front teeth towards the gum.
        turn: sine of the angle by which the head is turned to the right of the picture.
        softness_mm: width of the softest edge, that of a pixel or more.

    Returns:
        (h, w) each: lightness, 1 for the front of a front tooth; how much is gum, 0 to 1; coverage, 0 to 1.
    """
    arc, facing = _arch(across_mm, row.radius, turn)
    side = (arc > 0).long()
    edges = np.concatenate([[0.0], np.cumsum(row.widths)])
    index = np.clip(np.searchsorted(edges, arc.abs().numpy(), side="right") - 1, 0, len(row.widths) - 1)
    widths, heights, setback = (np.array(each)[index] for each in (row.widths, row.heights, row.setback))
    place = torch.from_numpy((arc.abs().numpy() - edges[index]) / widths - 0.5).float()
    widths, heights, setback = (torch.from_numpy(each).float() for each in (widths, heights, setback))
    uneven = torch.from_numpy(_UNEVEN[side.numpy(), index]).float()
    level = torch.from_numpy(_LEVELS[index]).float()
    border = (2 * place.abs()).clamp(max=1)
    canine = torch.from_numpy((index == 2).astype(np.float32))
    curve = max(0.0, 1 - abs(turn) / _STRAIGHT_TURN) * row.curve * (arc / 20).clamp(-1.1, 1.1).square()
    edge = curve + setback + uneven + 0.45 * border**6 + canine * 0.8 * border**1.3
    height = above_mm - edge
    soft = max(softness_mm, 0.25)
    cover = (height / soft + 0.5).clamp(0, 1)
    gum_line = heights * (1 - 0.2 * border.square())
    gum = ((above_mm - gum_line) / max(soft, 0.5) + 0.5).clamp(0, 1)
    to_gap = (0.5 - place.abs()) * widths
    width = max(_GAP_WIDTH, 0.6 * softness_mm)
    gap = _GAP_DEPTH * min(1.0, _GAP_WIDTH / width) * torch.exp(-(to_gap / width).square())
    gap = gap * (1 - gum)
    lightness = level * (1 - 0.10 * border**3) * (0.9 + 0.1 * (height / 2.5).clamp(0, 1)) - gap
    lightness = lightness * (1 - 0.12 * ((above_mm - 0.5 * heights) / heights).clamp(0, 1))
    glint = torch.exp(-((place + 0.12) / 0.16).square() - ((height - 0.42 * heights) / 1.7).square())
    return (lightness + _GLINT * glint * (1 - gum)) * (0.45 + 0.55 * facing), gum, cover


def _arch(across_mm: torch.Tensor, radius: float, turn: float) -> tuple[torch.Tensor, torch.Tensor]:
    """Way along the arch that is seen at each place, and the cosine between its front and the viewer."""
    angle = np.arcsin(turn)
    along = np.linspace(-1.5, 1.5, 601)
    seen = radius * (np.sin(along) * np.cos(angle) - (1 - np.cos(along)) * np.sin(angle))
    facing = np.cos(along + angle)
    front = facing > 0.12
    arc = np.interp(across_mm.numpy(), seen[front], radius * along[front])
    cosine = np.interp(across_mm.numpy(), seen[front], facing[front])
    beyond = np.clip(np.maximum(seen[front][0] - across_mm.numpy(), across_mm.numpy() - seen[front][-1]), 0, None)
    return torch.from_numpy(arc).float(), torch.from_numpy(cosine * np.exp(-beyond / 3.0)).float()
