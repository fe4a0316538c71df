"""Kolmogorov-Arnold network (Liu et al. 2024, arXiv 2404.19756): a learned curve on every edge.

The curve of the edge from input i to output o is

    base_weight[o, i] · silu(x_i) + spline_scaler[o, i] · Σ_k spline_weight[o, i, k] · B_k(x_i)

with B-splines B_k on a knot vector of their own for each input. Names and shapes of the tensors are those of the
published landmark checkpoints. Spline coefficients start as small uniform noise, not as a fit to noise, and
learning leaves the knots where they lie.
"""

import itertools
import math
from collections.abc import Sequence
from typing import cast

import torch
import torch.nn.functional as F
from torch import nn

_NOISE = 0.1


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
        low, high: where the splines live; ``order`` more intervals lie beyond either end.
    """

    grid: torch.Tensor

    def __init__(
        self, inputs: int, outputs: int, intervals: int = 5, order: int = 3, low: float = -1.0, high: float = 1.0
    ) -> None:
        super().__init__()
        self.order = order
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

    def regularisation_loss(self) -> torch.Tensor:
        """Sum of the layers' :meth:`KANLinear.regularisation_loss`."""
        return torch.stack([layer.regularisation_loss() for layer in self._curves()]).sum()

    def _curves(self) -> list[KANLinear]:
        return cast(list[KANLinear], list(self.layers))
