"""Smooth ways from 0 to 1, in numpy; :func:`atldiff.image.warp.smoothstep` is the same for tensors."""

import numpy as np


def smooth_ramp(values: np.ndarray) -> np.ndarray:
    """From 0 to 1 with no corner at either end, of values that are clipped to [0, 1]."""
    ramp = np.clip(values, 0, 1)
    return ramp * ramp * (3 - 2 * ramp)
