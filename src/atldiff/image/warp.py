"""Motion-compensated start: the identity picture bent so that its landmarks lie where the target's do.

A thin-plate spline (Bookstein 1989, eq. 1) through the 68 target landmarks and fixed points on the crop's
border gives, for every place of the new picture, where in the identity picture to look. The flow is computed
on a coarse grid and has no resolution of its own: the same flow bends the 128-pixel crop and the full-size
portrait.
"""

import torch
import torch.nn.functional as F

from atldiff.ramps import smoothstep

FLOW_GRID = 32
"""Side of the grid that the flow is computed on."""

_BORDER_POINTS_PER_SIDE = 5
_STIFFNESS = 1e-3

_FRAMES_AT_A_TIME = 4
"""Frames whose splines are reckoned together: few, so that what lies between stays close to the processor."""

_EDGE_FADE = 0.06


def thin_plate_flow(source_K2: torch.Tensor, target_FK2: torch.Tensor, size: int) -> torch.Tensor:
    """Backward flow that takes the target landmarks to the source landmarks and leaves the border alone.

    Args:
        source_K2: (K, 2) or (F, K, 2) identity landmarks, crop pixels.
        target_FK2: (F, K, 2) landmarks of the frames to make, crop pixels.
        size: side of the crop in pixels.

    Returns:
        (F, 2, FLOW_GRID, FLOW_GRID) float32; at each place of the new frame the way, in crop pixels, to the place
        of the identity frame to read. It is zero on the crop's border.
    """
    device = target_FK2.device
    if not has_doubles(device):
        source_K2, target_FK2 = source_K2.cpu(), target_FK2.cpu()
    target = target_FK2.double() / size
    offset = (source_K2.double() / size - target).float().double()
    frames = target.shape[0]
    border = _border_points(target).expand(frames, -1, -1)
    centres = torch.cat([target, border], dim=1)
    values = torch.cat([offset, torch.zeros_like(border)], dim=1)
    weights = solve_spline(centres, values, _STIFFNESS).float().to(device)
    centres = centres.float().to(device)
    steps = _grid_steps(FLOW_GRID, device)
    apart = (steps - centres[..., None]).square()
    across, down = apart.unbind(dim=2)
    pieces = zip(*(each.split(_FRAMES_AT_A_TIME) for each in (across, down, weights)), strict=True)
    flows = [_spline_on_grid(columns, rows, pulls, steps) for columns, rows, pulls in pieces]
    return torch.cat(flows).mul_(size * _edge_window(steps))


def _spline_on_grid(
    across_FNG: torch.Tensor, down_FNG: torch.Tensor, weights_FM2: torch.Tensor, steps_G: torch.Tensor
) -> torch.Tensor:
    """(F, 2, G, G) of squared distances of the grid's columns and rows from N centres, and N + 3 weights."""
    count = across_FNG.shape[1]
    basis = radial_basis(down_FNG[..., None] + across_FNG[:, :, None]).flatten(2)
    weights = weights_FM2.transpose(1, 2)
    bent = (weights[:, :, :count] @ basis).unflatten(2, (len(steps_G), len(steps_G)))
    fixed, along_x, along_y = weights[:, :, count:, None, None].unbind(dim=2)
    return bent.add_(fixed + along_x * steps_G).add_(along_y * steps_G[:, None])


def warp(
    image_CHW: torch.Tensor,
    flow_F2GG: torch.Tensor,
    size: int,
    window: tuple[int | torch.Tensor, int | torch.Tensor, int, int] | None = None,
) -> torch.Tensor:
    """Read a picture through a flow.

    Args:
        image_CHW: (C, H, W) or (F, C, H, W); any resolution, it covers the same square as the flow.
        flow_F2GG: (F, 2, G, G) in pixels of a crop of ``size``.
        size: side of the crop that the flow's pixels belong to.
        window: (left, top, width, height) in pixels of the picture, to make only that part of the frames; left and
            top may be tensors (F,), one corner a frame.

    Returns:
        (F, C, height, width) frames, the whole picture without ``window``.
    """
    frames = flow_F2GG.shape[0]
    images = image_CHW if image_CHW.ndim == 4 else image_CHW.expand(frames, -1, -1, -1)
    full_height, full_width = images.shape[-2:]
    left, top, width, height = window or (0, 0, full_width, full_height)
    device = flow_F2GG.device
    lefts, tops = (torch.as_tensor(corner, device=device).view(-1, 1) for corner in (left, top))
    x = (torch.arange(width, device=device) + lefts + 0.5) * (2.0 / full_width) - 1.0
    y = (torch.arange(height, device=device) + tops + 0.5) * (2.0 / full_height) - 1.0
    grid = torch.broadcast_tensors(x[:, None, :], y[:, :, None])
    base = torch.stack(grid, dim=-1).expand(frames, -1, -1, -1)
    flow = F.grid_sample(flow_F2GG, base, mode="bilinear", padding_mode="border", align_corners=False)
    places = base + flow.permute(0, 2, 3, 1) * (2.0 / size)
    return F.grid_sample(images, places, mode="bilinear", padding_mode="border", align_corners=False)


def has_doubles(device: torch.device) -> bool:
    """Whether a device calculates in float64; Apple's GPUs do not."""
    return device.type != "mps"


def solve_spline(centres_FN2: torch.Tensor, values_FN2: torch.Tensor, stiffness: float) -> torch.Tensor:
    """Weights (F, N + 3, 2) of the spline through ``values`` at ``centres``, smoothed by ``stiffness``."""
    frames, count, _ = centres_FN2.shape
    affine = torch.cat([torch.ones_like(centres_FN2[..., :1]), centres_FN2], dim=2)
    system = centres_FN2.new_zeros(frames, count + 3, count + 3)
    smoothing = stiffness * torch.eye(count, dtype=centres_FN2.dtype, device=centres_FN2.device)
    system[:, :count, :count] = radial_basis(torch.cdist(centres_FN2, centres_FN2).square()) + smoothing
    system[:, :count, count:] = affine
    system[:, count:, :count] = affine.transpose(1, 2)
    right_side = torch.cat([values_FN2, torch.zeros_like(values_FN2[:, :3])], dim=1)
    return torch.linalg.solve(system, right_side)


def radial_basis(squared_distance: torch.Tensor) -> torch.Tensor:
    """U(r) = r² log r², zero at r = 0."""
    return squared_distance.clamp_min(1e-12).log_().mul_(squared_distance)


def _border_points(like: torch.Tensor) -> torch.Tensor:
    steps = torch.linspace(0, 1, _BORDER_POINTS_PER_SIDE, dtype=like.dtype, device=like.device)
    inner = steps[1:-1]
    low, high = torch.zeros_like(steps), torch.ones_like(steps)
    sides = [
        torch.stack([steps, low], dim=1),
        torch.stack([steps, high], dim=1),
        torch.stack([torch.zeros_like(inner), inner], dim=1),
        torch.stack([torch.ones_like(inner), inner], dim=1),
    ]
    return torch.cat(sides)


def _grid_steps(count: int, device: torch.device) -> torch.Tensor:
    """(count,) centres of the cells of a grid over [0, 1]."""
    return (torch.arange(count, device=device, dtype=torch.float32) + 0.5) / count


def _edge_window(steps_G: torch.Tensor) -> torch.Tensor:
    """(G, G) factor that falls smoothly to zero at the crop's border."""
    inward = torch.minimum(steps_G, 1 - steps_G)
    margin = torch.minimum(inward, inward[:, None])
    return smoothstep((margin - 0.5 / FLOW_GRID) / _EDGE_FADE)
