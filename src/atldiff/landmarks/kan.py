"""Kolmogorov-Arnold network (Liu et al. 2024, arXiv 2404.19756): a learned curve on every edge.

The curve of the edge from input i to output o is

    base_weight[o, i] · silu(x_i) + spline_scaler[o, i] · Σ_k spline_weight[o, i, k] · B_k(x_i)

with B-splines B_k on a knot vector of their own for each input. Names and shapes of the tensors are those of the
published landmark checkpoints. Two things are ours: spline coefficients start as small uniform noise instead of
a fit to noise, and :meth:`KANLinear.update_grid` refits the curves before ``spline_scaler``, so that it counts once.
"""

import itertools
import math
from collections.abc import Sequence
from typing import cast

import torch
import torch.nn.functional as F
from torch import nn

_NOISE = 0.1
_UNIFORM_SHARE = 0.02
_MARGIN = 0.01


def b_spline_bases(x: torch.Tensor, knots_IG: torch.Tensor, order: int) -> torch.Tensor:
    """Values of all B-splines of degree ``order`` (recursion of Cox and de Boor).

    Args:
        x: (..., I) places, one knot vector for each of the I inputs.
        knots_IG: (I, G) strictly increasing knots.
        order: degree of the polynomial pieces.

    Returns:
        (..., I, G − order − 1); zero outside the knots.
    """
    x = x[..., None]
    bases = ((knots_IG[:, :-1] <= x) & (x < knots_IG[:, 1:])).to(x.dtype)
    for degree in range(1, order + 1):
        ramp = (x - knots_IG[:, :-degree]) / (knots_IG[:, degree:] - knots_IG[:, :-degree])
        bases = ramp[..., :-1] * bases[..., :-1] + (1 - ramp[..., 1:]) * bases[..., 1:]
    return bases


class KANLinear(nn.Module):
    """One layer of curves.

    Args:
        inputs: number of inputs I.
        outputs: number of outputs O.
        intervals: pieces of each spline between ``low`` and ``high``.
        order: degree of the pieces.
        low, high: where the splines live at first; ``order`` more intervals lie beyond either end.
    """

    grid: torch.Tensor

    def __init__(
        self, inputs: int, outputs: int, intervals: int = 5, order: int = 3, low: float = -1.0, high: float = 1.0
    ) -> None:
        super().__init__()
        self.order = order
        self.intervals = intervals
        step = (high - low) / intervals
        knots = low + step * torch.arange(-order, intervals + order + 1)
        self.register_buffer("grid", knots.repeat(inputs, 1))
        self.base_weight = nn.Parameter(torch.empty(outputs, inputs))
        self.spline_weight = nn.Parameter(torch.empty(outputs, inputs, intervals + order))
        self.spline_scaler = nn.Parameter(torch.empty(outputs, inputs))
        nn.init.kaiming_uniform_(self.base_weight, a=math.sqrt(5))
        nn.init.kaiming_uniform_(self.spline_scaler, a=math.sqrt(5))
        bound = _NOISE / (2 * intervals)
        nn.init.uniform_(self.spline_weight, -bound, bound)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(..., I) → (..., O)."""
        bases = b_spline_bases(x, self.grid, self.order)
        weight = self.spline_weight * self.spline_scaler[..., None]
        return F.linear(F.silu(x), self.base_weight) + F.linear(bases.flatten(-2), weight.flatten(1))

    @torch.no_grad()
    def update_grid(self, samples_NI: torch.Tensor) -> None:
        """Lay the knots where the inputs are and refit the splines to themselves (arXiv 2404.19756, section 2.2).

        The new knots are quantiles of the samples, mixed with 2 % of a uniform grid so that no two coincide.
        On the samples the layer stays the same function as far as the new knots can express it, by least squares.
        """
        old_NIK = b_spline_bases(samples_NI.double(), self.grid.double(), self.order)
        self.grid.copy_(self._adapted_grid(samples_NI))
        new_NIK = b_spline_bases(samples_NI.double(), self.grid.double(), self.order)
        change_IKK = torch.linalg.lstsq(
            new_NIK.transpose(0, 1).cpu(), old_NIK.transpose(0, 1).cpu(), driver="gelsd"
        ).solution.to(self.grid.device)
        refitted = torch.einsum("ijk,oik->oij", change_IKK, self.spline_weight.double())
        self.spline_weight.copy_(refitted)

    def _adapted_grid(self, samples_NI: torch.Tensor) -> torch.Tensor:
        ordered = samples_NI.sort(dim=0).values
        shares = torch.linspace(0, 1, self.intervals + 1, device=samples_NI.device)[:, None]
        low, high = ordered[0] - _MARGIN, ordered[-1] + _MARGIN
        uniform = low + (high - low) * shares
        quantiles = ordered[((len(ordered) - 1) * shares[:, 0]).long()]
        inner = torch.lerp(quantiles, uniform, _UNIFORM_SHARE)
        step = (high - low) / self.intervals
        beyond = torch.arange(1, self.order + 1, device=samples_NI.device)[:, None] * step
        return torch.cat([inner[0] - beyond.flip(0), inner, inner[-1] + beyond]).T

    def regularisation_loss(self) -> torch.Tensor:
        """Sum of the edges' magnitudes plus the entropy of their shares (arXiv 2404.19756, section 2.5.1).

        As in the published module, an edge's magnitude is its mean absolute spline coefficient: no samples needed.
        """
        magnitudes = self.spline_weight.abs().mean(dim=-1)
        total = magnitudes.sum()
        shares = magnitudes / total.clamp_min(torch.finfo(total.dtype).tiny)
        return total - torch.xlogy(shares, shares).sum()


class KAN(nn.Module):
    """Layers of curves, ``sizes[0]`` inputs to ``sizes[-1]`` outputs."""

    def __init__(self, sizes: Sequence[int]) -> None:
        super().__init__()
        self.layers = nn.ModuleList(KANLinear(inputs, outputs) for inputs, outputs in itertools.pairwise(sizes))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(..., sizes[0]) → (..., sizes[-1])."""
        for layer in self.layers:
            x = layer(x)
        return x

    @torch.no_grad()
    def update_grid(self, samples: torch.Tensor) -> None:
        """:meth:`KANLinear.update_grid` of every layer, for the inputs (..., sizes[0]) of the first."""
        for layer in self._curves():
            layer.update_grid(samples.flatten(0, -2))
            samples = layer(samples)

    def regularisation_loss(self) -> torch.Tensor:
        """Sum of the layers' :meth:`KANLinear.regularisation_loss`."""
        return torch.stack([layer.regularisation_loss() for layer in self._curves()]).sum()

    def _curves(self) -> list[KANLinear]:
        return cast(list[KANLinear], list(self.layers))
