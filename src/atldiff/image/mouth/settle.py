"""The inner lips laid exactly where a portrait has them.

Landmarks find lips to a millimetre or two. That is much for what lies between them: the seam of shut lips would open
beside itself, and the edge of a lip would count as teeth. So the points are moved to the dark line of shut lips, and
to where the colour of parted ones ends.
"""

import numpy as np
import torch

from atldiff.face.crop import FaceCrop, face_crop
from atldiff.image.mouth.geometry import (
    LOWER_NODES,
    PARTED_MM,
    UPPER_NODES,
    MouthGeometry,
    edge_coefficients,
    edge_height,
)
from atldiff.image.mouth.light import luma

_REACH_MM = 2.5
"""How far from the landmarks the lips are looked for."""

_REACH_SHARE = 0.3
"""How far at most, of the mean gap of parted lips."""

_STEP_MM = 0.125
_SIDE_MM = 1.2
"""How much to either side of an edge is compared."""

_COLUMNS = 25
_NEARNESS = 0.012
"""What a millimetre of way costs, in luma."""


def settle_lips(portrait: np.ndarray, landmarks: np.ndarray) -> np.ndarray:
    """Move the six points inside the lips to where the picture has the lips' edges.

    Args:
        portrait: (H, W, 3) uint8.
        landmarks: (68, 2) of a face in it, pixels.

    Returns:
        (68, 2) float32; a mouth that is shut has its upper and lower points on one line.
    """
    crop = face_crop(landmarks)
    geometry = MouthGeometry(crop.to_crop(landmarks))
    profiles = _Profiles(portrait, crop, geometry)
    gap = profiles.bottom - profiles.top
    points = geometry.landmarks.numpy().copy()
    if float(gap.mean()) < PARTED_MM:
        seam = (profiles.top + profiles.bottom) / 2
        offset = profiles.darkest(seam)
        for nodes in (UPPER_NODES, LOWER_NODES):
            points[list(nodes)] = profiles.places(nodes, seam + offset)
    else:
        most = min(_REACH_MM, _REACH_SHARE * float(gap.mean()))
        for nodes, edge, sign in ((UPPER_NODES, profiles.top, 1), (LOWER_NODES, profiles.bottom, -1)):
            offset = profiles.lip_end(edge, sign).clip(-most, most)
            points[list(nodes)] = profiles.places(nodes, edge + offset)
    return crop.to_picture(points).astype(np.float32)


class _Profiles:
    """Lines across the mouth, from corner to corner, read at places below the line of its corners, millimetres."""

    def __init__(self, portrait: np.ndarray, crop: FaceCrop, geometry: MouthGeometry) -> None:
        self._mm = geometry.pixels_per_mm
        self._crop = crop
        self._portrait = portrait
        points = geometry.landmarks[None]
        self._points = points[0].numpy()
        self._corner = self._points[60]
        self._across = self._points[64] - self._corner
        unit = self._across / max(float(np.linalg.norm(self._across)), 1e-6)
        self._normal = np.array([-unit[1], unit[0]])
        self.along = np.linspace(0.14, 0.86, _COLUMNS)
        along = torch.from_numpy(self.along)[None, None]
        self.top, self.bottom = (
            edge_height(edge_coefficients(points, nodes), along)[0, 0].numpy() / self._mm
            for nodes in (UPPER_NODES, LOWER_NODES)
        )

    def darkest(self, seam_mm: np.ndarray) -> np.ndarray:
        """From a line to the darkest one near it, (columns,) millimetres."""
        steps = np.arange(-_REACH_MM, _REACH_MM + 1e-9, _STEP_MM)
        level = luma(torch.from_numpy(self._read(seam_mm[:, None] + steps)).permute(2, 0, 1)).numpy()
        level = _box_blur(level, 3) + _NEARNESS * np.abs(steps)
        return self._smooth(steps[_cheapest_path(level)], np.ones(_COLUMNS))

    def lip_end(self, edge_mm: np.ndarray, sign: int) -> np.ndarray:
        """From a lip's edge to where its colour ends; ``sign`` is 1 where the mouth lies below the edge."""
        steps = np.arange(-_REACH_MM, _REACH_MM + 1e-9, _STEP_MM)
        side = round(_SIDE_MM / _STEP_MM)
        reach = np.arange(-side, side + 1) * _STEP_MM
        wide = np.arange(steps[0] + reach[0], steps[-1] + reach[-1] + 1e-9, _STEP_MM)
        colours = self._read(edge_mm[:, None] + sign * wide)
        lip = np.median(colours[:, : 2 * side], axis=1, keepdims=True)
        unlike = np.linalg.norm(colours - lip, axis=2)
        sums = np.concatenate([np.zeros((_COLUMNS, 1)), np.cumsum(unlike, axis=1)], axis=1)
        centre = np.arange(side, side + len(steps))
        outside = (sums[:, centre] - sums[:, centre - side]) / side
        within = (sums[:, centre + side] - sums[:, centre]) / side
        contrast = within - outside - _NEARNESS * np.abs(steps)
        best = _cheapest_path(-contrast)
        strength = np.take_along_axis(contrast, best[:, None], axis=1)[:, 0].clip(0)
        return sign * self._smooth(steps[best], strength)

    def places(self, nodes: tuple[int, int, int], height_mm: np.ndarray) -> np.ndarray:
        """(3, 2) crop pixels of three points at their own way along the mouth, at other heights."""
        offset = self._points[list(nodes)] - self._corner
        along = offset @ self._across / (self._across @ self._across)
        height = np.interp(along, self.along, height_mm) * self._mm
        return self._corner + along[:, None] * self._across + height[:, None] * self._normal

    def _smooth(self, offset: np.ndarray, strength: np.ndarray) -> np.ndarray:
        """A parabola through the columns, the weak ones hardly counting."""
        weight = np.sqrt(strength + 1e-3)
        fit = np.polynomial.Polynomial.fit(self.along, offset, 2, w=weight, domain=[0, 1], window=[-1, 1])
        return np.clip(fit(self.along), -_REACH_MM, _REACH_MM)

    def _read(self, height_mm: np.ndarray) -> np.ndarray:
        """(columns, n, 3) colours in [0, 1]."""
        ground = self._corner + self.along[:, None] * self._across
        places = ground[:, None] + (height_mm * self._mm)[..., None] * self._normal
        x, y = np.moveaxis(self._crop.to_picture(places) - 0.5, 2, 0)
        return _bilinear(self._portrait, x, y)


def _bilinear(image: np.ndarray, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    height, width = image.shape[:2]
    x, y = x.clip(0, width - 1.001), y.clip(0, height - 1.001)
    left, top = np.floor(x).astype(int), np.floor(y).astype(int)
    right, bottom = np.minimum(left + 1, width - 1), np.minimum(top + 1, height - 1)
    across, down = (x - left)[..., None], (y - top)[..., None]
    upper = image[top, left] * (1 - across) + image[top, right] * across
    lower = image[bottom, left] * (1 - across) + image[bottom, right] * across
    return (upper * (1 - down) + lower * down) / 255


def _box_blur(values: np.ndarray, count: int) -> np.ndarray:
    padded = np.pad(values, ((0, 0), (count // 2, count // 2)), mode="edge")
    return np.lib.stride_tricks.sliding_window_view(padded, count, axis=1).mean(axis=2)


def _cheapest_path(cost: np.ndarray) -> np.ndarray:
    """Along the first axis, at most three steps up or down at a time: the path whose cost is least (Viterbi)."""
    columns, rows = cost.shape
    total = cost[0].copy()
    came = np.zeros((columns, rows), dtype=int)
    for column in range(1, columns):
        padded = np.pad(total, 3, constant_values=np.inf)
        around = np.lib.stride_tricks.sliding_window_view(padded, 7)
        came[column] = around.argmin(axis=1) - 3
        total = around.min(axis=1) + cost[column]
    path = [int(total.argmin())]
    for column in range(columns - 1, 0, -1):
        path.append(path[-1] + came[column][path[-1]])
    return np.array(path[::-1])
