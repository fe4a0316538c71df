"""The thin-plate spline warp: landmarks land where they should, the border stays, nothing else is guessed."""

import numpy as np
import torch

from atldiff.image.warp import thin_plate_flow, warp

SIZE = 128


def face_like_points(seed: int = 0) -> torch.Tensor:
    random = np.random.default_rng(seed)
    angles = np.linspace(0, 2 * np.pi, 68, endpoint=False)
    radii = np.tile([18.0, 34.0], 34)
    points = 64 + radii[:, None] * np.stack([np.cos(angles), np.sin(angles)], axis=1)
    return torch.from_numpy(points + random.normal(0, 0.5, (68, 2))).float()


def flow_at(flow_2GG: torch.Tensor, points: torch.Tensor) -> torch.Tensor:
    places = (points * 2 / SIZE - 1)[None, None]
    return torch.nn.functional.grid_sample(flow_2GG[None], places, align_corners=False)[0, :, 0].T


def test_no_motion_gives_the_picture_itself() -> None:
    points = face_like_points()
    picture = torch.rand(3, SIZE, SIZE)
    flow = thin_plate_flow(points, points[None].expand(2, -1, -1), SIZE)
    assert torch.allclose(warp(picture, flow, SIZE), picture.expand(2, -1, -1, -1), atol=1e-3)


def test_landmarks_are_read_from_where_the_identity_has_them() -> None:
    source = face_like_points()
    target = source + torch.tensor([3.0, -2.0])
    flow = thin_plate_flow(source, target[None], SIZE)[0]
    assert (flow_at(flow, target) - (source - target)).abs().max() < 0.5


def test_flow_is_zero_on_the_border() -> None:
    source = face_like_points()
    flow = thin_plate_flow(source, (source + 4)[None], SIZE)[0]
    edge = torch.cat([flow[:, 0].T, flow[:, -1].T, flow[:, :, 0].T, flow[:, :, -1].T])
    assert edge.abs().max() == 0


def test_window_is_a_part_of_the_whole() -> None:
    source = face_like_points()
    flow = thin_plate_flow(source, (source + 2)[None], SIZE)
    picture = torch.rand(3, SIZE, SIZE)
    whole = warp(picture, flow, SIZE)
    part = warp(picture, flow, SIZE, window=(24, 40, 64, 32))
    assert torch.allclose(part, whole[..., 40:72, 24:88], atol=1e-5)


def test_flow_serves_any_resolution() -> None:
    source = face_like_points()
    flow = thin_plate_flow(source, (source + torch.tensor([5.0, 0.0]))[None], SIZE)
    ramp = torch.linspace(0, 1, 512)[None, None, :].expand(3, 512, -1)
    large = warp(ramp, flow, SIZE)[0]
    small = warp(torch.nn.functional.interpolate(ramp[None], size=(SIZE, SIZE), mode="area")[0], flow, SIZE)[0]
    reduced = torch.nn.functional.interpolate(large[None], size=(SIZE, SIZE), mode="area")[0]
    assert (reduced - small)[:, 8:-8, 8:-8].abs().max() < 0.01
