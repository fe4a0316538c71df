"""Bridge sampler: from the guided noise on the warped portrait to the frames in a few steps.

The forward process is a straight line, x_t = (1 − t)·x_0 + t·x_1 with x_1 = start + mask ⊙ ε, and the network
predicts x_0. It is the deterministic sampler of stochastic interpolants with a linear schedule (Albergo,
Boffi, Vanden-Eijnden 2023), started at guided noise in the place of pure noise.
"""

from collections.abc import Callable

import torch

Denoiser = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]
"""(x_t, t) → x̂_0, with t of shape (1,) in (0, 1]."""


def bridge_times(steps: int) -> list[float]:
    """The values of t that the sampler visits: 1, 1 − 1/N, …, 1/N."""
    return [1.0 - index / steps for index in range(steps)]


def bridge_state(clean: torch.Tensor, start: torch.Tensor, time: torch.Tensor) -> torch.Tensor:
    """x_t = (1 − t)·x_0 + t·x_1."""
    return (1 - time) * clean + time * start


def bridge_sample(denoise: Denoiser, start_FCHW: torch.Tensor, steps: int) -> torch.Tensor:
    """Take ``steps`` steps x_s = x̂_0 + (s/t)(x_t − x̂_0) from t = 1 to 0 and return the last x̂_0.

    Args:
        denoise: predicts x_0 from (x_t, t).
        start_FCHW: x_1, the guided noise.
        steps: at least 1.
    """
    state = start_FCHW
    times = bridge_times(steps)
    for time, following in zip(times, [*times[1:], 0.0], strict=True):
        clean = denoise(state, torch.tensor([time], device=state.device))
        state = clean + (following / time) * (state - clean)
    return state
