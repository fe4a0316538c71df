"""Similarity transforms of landmarks, among them those that hold the rigid points of the face still."""

import numpy as np

RIGID_POINTS = np.array([27, 28, 29, 30, 36, 39, 42, 45])
"""Nose bridge and eye corners: what speech and expression hardly move."""


def fit_similarity(source: np.ndarray, target: np.ndarray) -> np.ndarray:
    """Least-squares similarity (Umeyama 1991) from ``source`` to ``target``, (..., K, 2) each → (..., 2, 3)."""
    source, target = source.astype(np.float64), target.astype(np.float64)
    source_mean, target_mean = source.mean(axis=-2), target.mean(axis=-2)
    a = _as_complex(source - source_mean[..., None, :])
    b = _as_complex(target - target_mean[..., None, :])
    turn = (a.conj() * b).sum(axis=-1) / (np.abs(a) ** 2).sum(axis=-1)
    linear = np.stack(
        [np.stack([turn.real, -turn.imag], axis=-1), np.stack([turn.imag, turn.real], axis=-1)], axis=-2
    )
    shift = target_mean - np.einsum("...ij,...j->...i", linear, source_mean)
    return np.concatenate([linear, shift[..., None]], axis=-1)


def apply_similarity(matrix: np.ndarray, points: np.ndarray) -> np.ndarray:
    """(..., 2, 3) on (..., K, 2)."""
    return np.einsum("...ij,...kj->...ki", matrix[..., :2], points) + matrix[..., None, :, 2]


def undo_similarity(matrix: np.ndarray, points: np.ndarray) -> np.ndarray:
    """The way back of :func:`apply_similarity`."""
    inverse = np.linalg.inv(matrix[..., :2])
    return np.einsum("...ij,...kj->...ki", inverse, points - matrix[..., None, :, 2])


def remove_head_motion(landmarks: np.ndarray, reference: np.ndarray) -> np.ndarray:
    """Each frame's landmarks (F, 68, 2) laid over ``reference`` (68, 2) by the rigid points."""
    still = np.broadcast_to(reference[RIGID_POINTS], (len(landmarks), len(RIGID_POINTS), 2))
    return apply_similarity(fit_similarity(landmarks[:, RIGID_POINTS], still), landmarks)


def _as_complex(points: np.ndarray) -> np.ndarray:
    return points[..., 0] + 1j * points[..., 1]
