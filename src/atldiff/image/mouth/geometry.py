"""Where lips, skull and jaw are in each frame: numbers without a resolution, from landmarks alone.

Lengths of the mouth's inside are in millimetres of a grown-up face, whose outer eye corners are 88 mm apart.
"""

from dataclasses import dataclass, fields

import numpy as np
import torch

from atldiff.face.crop import CROP_SIZE
from atldiff.face.similarity import RIGID_POINTS, fit_similarity
from atldiff.face.topology import interocular_distance
from atldiff.image.frames import FrameRows
from atldiff.image.warp import radial_basis, solve_spline

WINDOW_HALF_MM = (38.0, 27.0)
"""Half the width and height of the window around the mouth that is painted anew."""

FLOW_CELLS = (24, 17)
"""Columns and rows of the lips' flow over the window: one in about 3 mm."""

_EYE_CORNERS_MM = 88.0
_MOUTH_MM = (40.0, 62.0)
"""Least and greatest width of a mouth, corner to corner of the inner lips: bounds the scale that the eyes give."""

UPPER_NODES, LOWER_NODES = (61, 62, 63), (67, 66, 65)
_CHIN = (7, 8, 9)
_AROUND = (*range(5, 12), *range(31, 36), *range(48, 61), 64)
"""Landmarks that bend both lips: chin, base of the nose, the lips' outline and corners."""

PARTED_MM = 1.5
"""Mean gap of the inner lips from which on a portrait is taken to show what lies between them."""

_STIFFNESS = 2e-5
_LIP_SHARE_OF_DROP = 0.6
"""How much of the lower lip's way counts for the jaw's; the chin's, which the outline hides in part, for the rest."""


@dataclass(frozen=True)
class MouthShapes(FrameRows):
    """The mouths of F consecutive frames, float32.

    Attributes:
        window_F2: centre of the painted window, crop pixels.
        flow_F4hw: backward flow of the upper lip (x, y) and of the lower lip over the window, crop pixels.
        corner_F2: the right corner of the inner lips, crop pixels.
        across_F2: the way from there to the left corner, crop pixels.
        upper_F3, lower_F3: the lips' inner edges, see :func:`edge_height`.
        skull_F23: from crop pixels (x, y, 1) to millimetres from the middle of the resting lips' seam, fixed to the
            skull.
        drop_F: how far the jaw is below its place in the portrait, millimetres.
        opening_F: mean gap of the inner lips, millimetres.
    """

    window_F2: torch.Tensor
    flow_F4hw: torch.Tensor
    corner_F2: torch.Tensor
    across_F2: torch.Tensor
    upper_F3: torch.Tensor
    lower_F3: torch.Tensor
    skull_F23: torch.Tensor
    drop_F: torch.Tensor
    opening_F: torch.Tensor

    def to(self, device: torch.device) -> "MouthShapes":
        """In single precision on a device."""
        return MouthShapes(*(getattr(self, each.name).float().to(device) for each in fields(self)))


class MouthGeometry:
    """The mouth of one face at rest, that is, as its portrait shows it.

    Args:
        landmarks: (68, 2) identity landmarks, crop pixels.

    Attributes:
        pixels_per_mm: crop pixels to a millimetre.
        middle: (2,) the middle of the seam, crop pixels.
        opening: mean gap of the inner lips, millimetres.
        parted: whether its lips are parted so far that it is taken to show what lies between them.
        turn: sine of the angle by which the head is turned, positive towards the picture's right.
    """

    def __init__(self, landmarks: np.ndarray) -> None:
        self.landmarks = torch.from_numpy(np.asarray(landmarks)).double()
        width = float(np.linalg.norm(landmarks[64] - landmarks[60]))
        by_eyes = float(interocular_distance(landmarks)) / _EYE_CORNERS_MM
        self.pixels_per_mm = float(np.clip(by_eyes, width / _MOUTH_MM[1], width / _MOUTH_MM[0]))
        seam_y = float(landmarks[[62, 66], 1].mean())
        self.middle = np.array([float(landmarks[[51, 62, 66], 0].mean()), seam_y])
        gaps = landmarks[list(LOWER_NODES), 1] - landmarks[list(UPPER_NODES), 1]
        self.opening = float(gaps.mean()) / self.pixels_per_mm
        self.parted = self._gap_across_mm() >= PARTED_MM
        nose = float(landmarks[30, 0] - landmarks[[36, 45], 0].mean()) / self.pixels_per_mm
        self.turn = float(np.clip(nose / 28.0, -0.6, 0.6))

    def _gap_across_mm(self) -> float:
        """Mean gap of the inner lips at right angles to the mouth."""
        across = self.landmarks[64] - self.landmarks[60]
        unit = across / across.norm().clamp_min(1e-6)
        gaps = self.landmarks[list(LOWER_NODES)] - self.landmarks[list(UPPER_NODES)]
        return float((gaps @ torch.stack([-unit[1], unit[0]])).mean()) / self.pixels_per_mm

    def shapes(
        self,
        points_FK2: torch.Tensor,
        moved_FK2: torch.Tensor | None = None,
        skull_F23: torch.Tensor | None = None,
    ) -> MouthShapes:
        """The mouths of frames with these landmarks, (F, 68, 2) crop pixels; on the landmarks' device.

        Args:
            moved_FK2: landmarks of the pictures that are to be moved, where that is not the portrait.
            skull_F23: from crop pixels to millimetres, where more is known of it than nose and eye corners tell.
        """
        points = points_FK2.detach().cpu().double()
        moved = self.landmarks.expand_as(points) if moved_FK2 is None else moved_FK2.detach().cpu().double()
        skull = self.skull(points) if skull_F23 is None else skull_F23.detach().cpu().double()
        still = _transformed(skull, points)
        rest = _transformed(self.to_mm()[None], self.landmarks[None])
        lip = still[:, [66, 57], 1].mean(dim=1) - rest[:, [66, 57], 1].mean(dim=1)
        chin = (still[:, _CHIN, 1] - rest[:, _CHIN, 1]).mean(dim=1)
        drop = _LIP_SHARE_OF_DROP * lip + (1 - _LIP_SHARE_OF_DROP) * chin
        corner, across = points[:, 60], points[:, 64] - points[:, 60]
        upper, lower = (edge_coefficients(points, nodes) for nodes in (UPPER_NODES, LOWER_NODES))
        gaps = still[:, LOWER_NODES, 1] - still[:, UPPER_NODES, 1]
        window = points[:, 48:60].mean(dim=1)
        made = MouthShapes(
            window_F2=window,
            flow_F4hw=self._flow(points, moved, window),
            corner_F2=corner,
            across_F2=across,
            upper_F3=upper,
            lower_F3=lower,
            skull_F23=skull,
            drop_F=drop,
            opening_F=gaps.mean(dim=1),
        )
        return made.to(points_FK2.device)

    def to_mm(self) -> torch.Tensor:
        """(2, 3) from the portrait's crop pixels to millimetres from the middle of its seam."""
        scale = torch.eye(2, dtype=torch.float64) / self.pixels_per_mm
        return torch.cat([scale, -scale @ torch.from_numpy(self.middle)[:, None]], dim=1)

    def skull(self, points_FK2: torch.Tensor) -> torch.Tensor:
        """The way from a frame's crop pixels (x, y, 1) to millimetres from the middle of the resting lips' seam.

        Args:
            points_FK2: (F, 68, 2) float64 crop pixels, of which nose bridge and eye corners count.

        Returns:
            (F, 2, 3), fixed to the skull.
        """
        still = self.landmarks[None, RIGID_POINTS].numpy()
        moved = torch.from_numpy(fit_similarity(points_FK2[:, RIGID_POINTS].numpy(), still))
        to_mm = self.to_mm()
        whole = to_mm[:, :2] @ moved
        whole[:, :, 2] += to_mm[:, 2]
        return whole

    def _flow(self, points_FK2: torch.Tensor, moved_FK2: torch.Tensor, window_F2: torch.Tensor) -> torch.Tensor:
        """(F, 4, rows, columns): each lip bent by the points around the mouth and its own inner edge alone."""
        columns, rows = FLOW_CELLS
        half = torch.tensor(WINDOW_HALF_MM, dtype=torch.float64) * self.pixels_per_mm
        steps = [(2 * torch.arange(count, dtype=torch.float64) + 1) / count - 1 for count in (columns, rows)]
        cells = torch.stack(torch.meshgrid(*steps, indexing="xy"), dim=-1).reshape(-1, 2) * half
        places = (window_F2[:, None] + cells) / CROP_SIZE
        chosen = [*_AROUND, *UPPER_NODES, *LOWER_NODES]
        target, source = points_FK2[:, chosen] / CROP_SIZE, moved_FK2[:, chosen] / CROP_SIZE
        basis = radial_basis(torch.cdist(places.float(), target.float()).square())
        common = len(_AROUND)
        flows = []
        for lip in (range(common, common + 3), range(common + 3, common + 6)):
            centres = [*range(common), *lip]
            weights = solve_spline(target[:, centres], source[:, centres] - target[:, centres], _STIFFNESS).float()
            affine = torch.cat([torch.ones_like(places[..., :1]), places], dim=2).float()
            flow = torch.cat([basis[:, :, centres], affine], dim=2) @ weights
            flows.append(flow.transpose(1, 2).unflatten(2, (rows, columns)))
        return CROP_SIZE * torch.cat(flows, dim=1)


def edge_coefficients(points_FK2: torch.Tensor, nodes: tuple[int, int, int]) -> torch.Tensor:
    """The curve from corner to corner through three points of a lip's inner edge, (F, 3), for :func:`edge_height`."""
    corner, across = points_FK2[:, 60], points_FK2[:, 64] - points_FK2[:, 60]
    length = across.norm(dim=1).clamp_min(1e-6)
    unit = across / length[:, None]
    offset = points_FK2[:, list(nodes)] - corner[:, None]
    along = (offset * unit[:, None]).sum(dim=2) / length[:, None]
    normal = torch.stack([-unit[:, 1], unit[:, 0]], dim=1)
    height = (offset * normal[:, None]).sum(dim=2)
    low, middle, high = along.unbind(dim=1)
    middle = middle.clamp(0.35, 0.65)
    along = torch.stack([low.clamp(0.1, 0.3), middle, high.clamp(0.7, 0.9)], dim=1)
    shape = height / (along * (1 - along))
    powers = torch.stack([torch.ones_like(along), along, along.square()], dim=2)
    return torch.linalg.solve(powers, shape[:, :, None])[:, :, 0]


def edge_height(coefficients_F3: torch.Tensor, along_Fhw: torch.Tensor) -> torch.Tensor:
    """Height of a lip's inner edge below the line between the corners, crop pixels; ``along`` 0 to 1 between them.

    a (1 − a) (c₀ + c₁ a + c₂ a²): a smooth curve with a sharp corner at either end.
    """
    first, second, third = coefficients_F3[:, :, None, None].unbind(dim=1)
    return along_Fhw * (1 - along_Fhw) * (first + along_Fhw * (second + along_Fhw * third))


def _transformed(matrix_F23: torch.Tensor, points_FK2: torch.Tensor) -> torch.Tensor:
    return points_FK2 @ matrix_F23[:, :, :2].transpose(1, 2) + matrix_F23[:, None, :, 2]
