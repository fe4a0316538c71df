"""Whether two faces of one film are the same person's: edges of the face, what is around it, and its proportions.

No network: between takes of one film hair, clothes and light stay what they are. Of 369 frames of 43 people it is at
0.45 in the median between two recordings of one person (95 % within one recording below 0.37), and above 0.62 for
95 % of the pairs of different people.
"""

from dataclasses import dataclass

import numpy as np

from atldiff.dub.head import fit_solids
from atldiff.face.crop import FaceCrop, face_crop, resample

SAME = 0.65
"""Distance below which two faces are taken for one person's."""

_SIZE = 64
_WIDER = 1.5
_CELLS, _DIRECTIONS = 8, 8
_FAINT = 20.0
_POINTS = (*range(17, 36), 36, 39, 42, 45, 0, 1, 2, 14, 15, 16, 48, 54)
_LUMA = np.array([0.299, 0.587, 0.114])
_SCALES = np.array([0.611, 0.739, 0.280])
"""Median distance between different people of each of the three parts."""

_LEARNED = 0.1
"""Weight of what was just seen against all that is known of the face."""


@dataclass(frozen=True)
class Looks:
    """What a face looks like.

    Attributes:
        edges, around: unit vectors.
        shape: (K, 3) places of landmarks, distances of the outer eye corners from their middle.
    """

    edges: np.ndarray
    around: np.ndarray
    shape: np.ndarray

    def distance(self, other: "Looks") -> float:
        """0 for equal faces, about 1 for different people's."""
        turned = _laid_over(other.shape, self.shape)
        parts = [1 - self.edges @ other.edges, 1 - self.around @ other.around, np.linalg.norm(turned - self.shape)]
        return float(np.mean(np.array(parts) / _SCALES))

    def learned(self, other: "Looks") -> "Looks":
        """A little nearer to what was seen of the same face."""
        turned = _laid_over(other.shape, self.shape)
        edges, around = self.edges + _LEARNED * other.edges, self.around + _LEARNED * other.around
        shape = self.shape + _LEARNED * (turned - self.shape)
        return Looks(edges / np.linalg.norm(edges), around / np.linalg.norm(around), shape)


def looks_of(picture: np.ndarray, window: FaceCrop, solid_683: np.ndarray) -> Looks:
    """What a face looks like.

    Args:
        picture: (S, S, 3) uint8 around it.
        window: where that lies in the frame.
        solid_683: landmarks and depths, pixels of the frame.
    """
    crop = face_crop(window.to_crop(solid_683[:, :2]), _SIZE)
    linear = crop.matrix[:, :2]
    corner = crop.matrix[:, 2] - linear @ np.full(2, (_WIDER - 1) / 2 * _SIZE)
    close = resample(picture, crop.matrix, _SIZE) @ _LUMA
    wide = resample(picture, np.column_stack([_WIDER * linear, corner]), _SIZE) @ _LUMA
    shape = solid_683[list(_POINTS)].astype(np.float64)
    eyes = np.linalg.norm(solid_683[45, :2] - solid_683[36, :2])
    return Looks(_unit(_edges(close)), _unit(_pooled(wide)), (shape - shape.mean(axis=0)) / max(float(eyes), 1e-6))


def _edges(grey: np.ndarray) -> np.ndarray:
    """How much of each cell's slopes goes which way, after Dalal and Triggs 2005."""
    across, down = np.zeros_like(grey), np.zeros_like(grey)
    across[:, 1:-1], down[1:-1] = grey[:, 2:] - grey[:, :-2], grey[2:] - grey[:-2]
    steepness = np.hypot(across, down)
    way = np.floor((np.arctan2(down, across) % np.pi) / np.pi * _DIRECTIONS).astype(int) % _DIRECTIONS
    side = len(grey) // _CELLS
    parts = np.stack([steepness * (way == each) for each in range(_DIRECTIONS)], axis=-1)
    cells = parts.reshape(_CELLS, side, _CELLS, side, _DIRECTIONS).sum(axis=(1, 3))
    return cells / (np.linalg.norm(cells, axis=-1, keepdims=True) + _FAINT * side)


def _pooled(grey: np.ndarray) -> np.ndarray:
    return grey.reshape(16, len(grey) // 16, 16, len(grey) // 16).mean(axis=(1, 3))


def _unit(values: np.ndarray) -> np.ndarray:
    flat = values.reshape(-1) - values.mean()
    return flat / max(float(np.linalg.norm(flat)), 1e-6)


def _laid_over(shape: np.ndarray, target: np.ndarray) -> np.ndarray:
    """Turned and scaled as fits best; both have their middle at 0."""
    fit = fit_solids(shape, target[None])
    return fit.scale_F[0] * (shape @ fit.turn_F33[0])
