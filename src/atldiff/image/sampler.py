"""Samplers: from the guided noise to the frames in a few steps. In both the network predicts x_0.

Bridge, of the compact preset. The forward process is a straight line, x_t = (1 − t)·x_0 + t·x_1 with
x_1 = start + mask ⊙ ε. It is the deterministic sampler of stochastic interpolants with a linear schedule (Albergo,
Boffi, Vanden-Eijnden 2023), started at guided noise in the place of pure noise.

DDIM, of the paper preset. The paper starts DDIM at x_T = I + m ⊙ ε, I being the identity frame and m the noise mask;
how its network was trained for that was never published. Ours is the process that ends there: diffusion (Ho et al.
2020, eq. 4) of the difference to the identity frame, with noise of the mask's size,

    x_t = I + √ᾱ_t·(x_0 − I) + √(1 − ᾱ_t)·m ⊙ ε,

with DDPM's linear schedule of 1000 steps rescaled to ᾱ_T = 0 (Lin et al. 2024, algorithm 1), so that x_T is the
guided noise exactly. A step is that of DDIM (Song et al. 2021, eq. 12, η = 0) for the same difference; m cancels out.
"""

import functools
import itertools
from collections.abc import Callable

import torch

from atldiff.image.temporal import TEMPORAL_MIXES, PassingFrames

Denoiser = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]
"""(x_t, t) → x̂_0, with t of shape (1,), from 0 to 999."""

PassingDenoiser = Callable[..., torch.Tensor]
"""(x_t, t, what else is given …, frames as they pass) → x̂_0 of those that are done with the piece."""

TIMESTEPS = 1000
"""Steps of the process that DDIM samples from."""


def bridge_times(steps: int) -> list[float]:
    """The values of t that the sampler visits: 1, 1 − 1/N, …, 1/N."""
    return [1.0 - index / steps for index in range(steps)]


def bridge_state(clean: torch.Tensor, start: torch.Tensor, time: torch.Tensor) -> torch.Tensor:
    """x_t = (1 − t)·x_0 + t·x_1."""
    return (1 - time) * clean + time * start


class BridgeSampler:
    """Takes steps x_s = x̂_0 + (s/t)(x_t − x̂_0) from t = 1 to 0, with frames that come piece by piece.

    Args:
        denoise: predicts x_0 from (x_t, t) and what else the frames are given.
        steps: at least 1.
        looks_ahead: False lets no frame wait for those that follow, see
            :class:`~atldiff.image.temporal.PassingFrames`.
    """

    def __init__(self, denoise: PassingDenoiser, steps: int, looks_ahead: bool = True) -> None:
        self._denoise = denoise
        times = [*bridge_times(steps), 0.0]
        self._steps = [(*pair, PassingFrames(looks_ahead)) for pair in itertools.pairwise(times)]

    def take(self, start_F3HW: torch.Tensor, *given_F: torch.Tensor, last: bool = False) -> torch.Tensor:
        """x_1 and what else is given of a piece → x_0 of the frames that are done with it.

        The first piece has more than :data:`~atldiff.image.temporal.TEMPORAL_MIXES` frames for each step if it is
        not the last.
        """
        state, given = start_F3HW, given_F
        for time, following, frames in self._steps:
            frames.begin_piece(last)
            clean = self._denoise(state, torch.tensor([time], device=state.device), *given, frames)
            if following == 0:
                return clean
            state, *given = (frames.waited(each, TEMPORAL_MIXES) for each in (state, *given))
            state = clean + (following / time) * (state - clean)
        raise AssertionError("a sampler has a step")


@functools.cache
def ddim_signal() -> torch.Tensor:
    """ᾱ_t for t = 0 … 999, (1000,) float32, falling to exactly 0."""
    steps = torch.linspace(1e-4, 0.02, TIMESTEPS, dtype=torch.float64)
    roots = (1 - steps).cumprod(dim=0).sqrt()
    roots = (roots - roots[-1]) * roots[0] / (roots[0] - roots[-1])
    return roots.square().float()


def ddim_timesteps(steps: int) -> list[int]:
    """The values of t that the sampler visits, equally spaced from 999 down."""
    return [round(TIMESTEPS * (steps - index) / steps) - 1 for index in range(steps)]


def ddim_state(
    clean: torch.Tensor, identity: torch.Tensor, guided_noise: torch.Tensor, signal: torch.Tensor
) -> torch.Tensor:
    """x_t for x_0, I, m ⊙ ε and ᾱ_t, all of shapes that broadcast."""
    return identity + signal.sqrt() * (clean - identity) + (1 - signal).sqrt() * guided_noise


def ddim_sample(denoise: Denoiser, identity: torch.Tensor, start: torch.Tensor, steps: int) -> torch.Tensor:
    """Take ``steps`` steps from x_T to x_0 and return the last x̂_0.

    Args:
        denoise: predicts x_0 from (x_t, t).
        identity: I, of a shape that broadcasts to that of x_T.
        start: x_T, the guided noise.
        steps: 1 to 1000.
    """
    state, signals, times = start, ddim_signal().to(start.device), ddim_timesteps(steps)
    following = [*(signals[time] for time in times[1:]), torch.ones((), device=start.device)]
    for time, next_signal in zip(times, following, strict=True):
        clean = denoise(state, torch.tensor([time], device=start.device))
        noise = (state - identity - signals[time].sqrt() * (clean - identity)) / (1 - signals[time]).sqrt()
        state = ddim_state(clean, identity, noise, next_signal)
    return state
