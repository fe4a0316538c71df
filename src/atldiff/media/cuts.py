"""Where a film cuts from one take to another."""

import numpy as np

CELLS = 16
"""Cells a side that a frame is reduced to."""

_JUMP, _JUMP_RATIO, _NEIGHBOURS = 10.0, 3.0, 2
"""A cut changes the cells by more grey levels of 255, and by so many times more than either of so many changes
before and after; how they were judged says :mod:`atldiff.data.quality`."""

_NOISE = 0.5
"""Grey levels that every frame may differ from the last."""


def cells(luma: np.ndarray) -> np.ndarray:
    """A (H, W) uint8 plane in little, (16, 16) float32 mean grey levels; of a large plane some pixels count."""
    height, width = luma.shape
    step = max(1, min(height, width) // (8 * CELLS))
    rows = np.array_split(np.arange(0, height, step), CELLS)
    columns = np.array_split(np.arange(0, width, step), CELLS)
    thin = luma[::step, ::step].astype(np.float32)
    down = np.add.reduceat(thin, [part[0] // step for part in rows], axis=0)
    both = np.add.reduceat(down, [part[0] // step for part in columns], axis=1)
    counts = np.outer([len(part) for part in rows], [len(part) for part in columns])
    return both / counts


def may_be_cut(change: float) -> bool:
    """Whether so much change from one frame to the next can be a cut; what follows tells whether it is one."""
    return change > _JUMP


def find_cuts(changes: np.ndarray) -> np.ndarray:
    """Numbers of the frames that begin another take.

    A cut is one change far above those before and after; fast movement changes the picture as much, but over several
    frames, and a flash goes as it came.

    Args:
        changes: (F - 1,) mean absolute difference of each frame's cells from those of the frame before.
    """
    padded = np.pad(np.asarray(changes, dtype=np.float64), _NEIGHBOURS)
    around = [padded[shift : shift + len(changes)] for shift in range(2 * _NEIGHBOURS + 1) if shift != _NEIGHBOURS]
    usual = np.maximum(np.max(around, axis=0), _NOISE)
    return np.flatnonzero((changes > _JUMP) & (changes > _JUMP_RATIO * usual)) + 1
