"""KAN: B-splines against SciPy, curves, regularisation."""

import math

import numpy as np
import pytest
import torch
from scipy.interpolate import BSpline

from atldiff.landmarks.kan import KAN, KANLinear, b_spline_bases


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize("order", [0, 1, 2, 3])
def test_bases_are_those_of_scipy(order: int) -> None:
    knots = torch.rand(2, 12, generator=seeded(), dtype=torch.float64).add(0.05).cumsum(dim=1)
    x = torch.rand(50, 2, generator=seeded(1), dtype=torch.float64) * 8 - 1
    bases = b_spline_bases(x, knots, order)
    assert bases.shape == (50, 2, 12 - order - 1)
    for i in range(2):
        for k in range(bases.shape[2]):
            element = BSpline.basis_element(knots[i, k : k + order + 2].numpy(), extrapolate=False)
            expected = np.nan_to_num(element(x[:, i].numpy()))
            assert np.allclose(bases[:, i, k], expected, atol=1e-12)


def test_layer_is_the_sum_of_its_curves() -> None:
    torch.manual_seed(0)
    layer = KANLinear(3, 2).double()
    torch.nn.init.normal_(layer.spline_weight)
    x = torch.rand(4, 5, 3, generator=seeded(), dtype=torch.float64) * 2 - 1
    expected = torch.zeros(4, 5, 2, dtype=torch.float64)
    with torch.no_grad():
        for o in range(2):
            for i in range(3):
                spline = BSpline(layer.grid[i].numpy(), layer.spline_weight[o, i].numpy(), 3)
                curve = torch.from_numpy(spline(x[..., i].numpy()))
                expected[..., o] += layer.base_weight[o, i] * x[..., i] * torch.sigmoid(x[..., i])
                expected[..., o] += layer.spline_scaler[o, i] * curve
        assert torch.allclose(layer(x), expected, atol=1e-12)


def test_first_grid_reaches_three_intervals_beyond_either_end() -> None:
    grid = KANLinear(2, 2).grid
    assert torch.allclose(grid[1], torch.linspace(-2.2, 2.2, 12), atol=1e-6)


def test_far_outside_the_grid_only_the_base_is_left() -> None:
    layer = KANLinear(3, 2)
    x = torch.full((1, 3), 100.0)
    assert torch.allclose(layer(x), x @ layer.base_weight.T)


def test_regularisation_of_equal_edges() -> None:
    """Six edges of magnitude 0.5: sum 3, entropy log 6; an edge of zero adds nothing."""
    layer = KANLinear(3, 2)
    torch.nn.init.constant_(layer.spline_weight, -0.5)
    assert layer.regularisation_loss().item() == pytest.approx(3 + math.log(6))
    with torch.no_grad():
        layer.spline_weight[0, 0] = 0
    assert layer.regularisation_loss().item() == pytest.approx(2.5 + math.log(5))


def test_regularisation_of_a_network_has_gradients() -> None:
    network = KAN([2, 3, 2])
    network.regularisation_loss().backward()
    for layer in network._curves():
        assert layer.spline_weight.grad is not None and bool(torch.isfinite(layer.spline_weight.grad).all())
