"""Smooth ways from 0 to 1."""

from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    import numpy as np
    import torch

Array = TypeVar("Array", "np.ndarray", "torch.Tensor")


def smoothstep(values: Array) -> Array:
    """From 0 to 1 with no corner at either end, of an array or a tensor that is clipped to [0, 1]."""
    ramp = values.clip(0, 1)
    return ramp * ramp * (3 - 2 * ramp)


def smooth_between(values: Array, ends: tuple[float, float]) -> Array:
    """The same of values that go from the first of ``ends`` (0) to the second (1)."""
    return smoothstep((values - ends[0]) / (ends[1] - ends[0]))
