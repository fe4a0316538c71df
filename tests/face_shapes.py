"""A plain frontal face of 68 points for tests: proportions of an adult, mouth a little open, 128-pixel crop."""

import numpy as np


def open_face() -> np.ndarray:
    """(68, 2) float64 crop pixels."""
    angles = np.linspace(np.pi, 0, 17)
    jaw = np.stack([64 + 46 * np.cos(angles), 42 + 70 * np.sin(angles)], axis=1)
    right_brow = np.stack([np.linspace(30, 56, 5), 30 - 4 * np.sin(np.linspace(0, np.pi, 5))], axis=1)
    left_brow = np.stack([np.linspace(72, 98, 5), 30 - 4 * np.sin(np.linspace(0, np.pi, 5))], axis=1)
    nose = np.concatenate(
        [
            np.stack([np.full(4, 64.0), np.linspace(42, 64, 4)], axis=1),
            np.stack([np.linspace(55, 73, 5), 68 + np.array([0.0, 1.5, 2.0, 1.5, 0.0])], axis=1),
        ]
    )
    eye = np.array([[-8, 0], [-3, -3], [3, -3], [8, 0], [3, 3], [-3, 3]], dtype=float)
    upper, lower = np.linspace(np.pi, 2 * np.pi, 7), np.linspace(0, np.pi, 7)[1:-1]
    outer_angles = np.concatenate([upper, lower])
    outer = np.stack([64 + 17 * np.cos(outer_angles), 86 + 8 * np.sin(outer_angles)], axis=1)
    inner_angles = np.concatenate([np.linspace(np.pi, 2 * np.pi, 5), np.linspace(0, np.pi, 5)[1:-1]])
    inner = np.stack([64 + 13 * np.cos(inner_angles), 86 + 4 * np.sin(inner_angles)], axis=1)
    return np.concatenate([jaw, right_brow, left_brow, nose, eye + [43, 42], eye + [85, 42], outer, inner])
