"""Painting parted lips together: only between the lips, at any resolution."""

import numpy as np
import torch

from atldiff.image.lips import shut_lips
from face_shapes import open_face

SKIN, TEETH = 0.5, 1.0


def toothy_picture(size: int, extent: float = 0.5) -> torch.Tensor:
    """Grey skin with white teeth between the inner lips of :func:`open_face`, up to them if ``extent`` is 1."""
    scale = size / 128
    rows, columns = np.mgrid[0:size, 0:size] + 0.5
    face = open_face()
    centre, half = face[60:68].mean(axis=0), np.ptp(face[60:68], axis=0) / 2
    teeth = ((columns / scale - centre[0]) / half[0]) ** 2 + ((rows / scale - centre[1]) / half[1]) ** 2 < extent
    return torch.from_numpy(np.where(teeth, TEETH, SKIN)).float().expand(3, -1, -1)


def shut(size: int, extent: float = 0.5) -> torch.Tensor:
    steps = (torch.arange(size) + 0.5) * (128 / size)
    places = torch.stack(torch.meshgrid(steps, steps, indexing="xy"), dim=-1)
    to_image = torch.tensor([[2 / 128, 0.0, -1.0], [0.0, 2 / 128, -1.0]])
    return shut_lips(toothy_picture(size, extent), places, to_image, open_face())


def test_teeth_give_way_to_lips_and_nothing_else_changes() -> None:
    before, after = toothy_picture(128), shut(128)
    assert (before > 0.9).sum() > 100
    assert (after > 0.7).sum() < 0.05 * (before > 0.9).sum()
    face = open_face()
    outside = torch.ones(128, 128, dtype=torch.bool)
    outside[int(face[62, 1]) - 2 : int(face[66, 1]) + 3, int(face[60, 0]) - 1 : int(face[64, 0]) + 2] = False
    assert torch.equal(after[:, outside], before[:, outside])


def test_no_teeth_are_left_in_the_corners_of_a_mouth() -> None:
    before, after = toothy_picture(384, extent=0.9), shut(384, extent=0.9)
    columns = torch.arange(384) / 3
    corners = (columns - 64).abs() > 9
    assert (before[:, :, corners] > 0.9).sum() > 300
    assert (after[:, :, corners] > 0.7).sum() < 0.03 * (before[:, :, corners] > 0.9).sum()


def test_the_painting_is_the_same_at_another_resolution() -> None:
    reduced = torch.nn.functional.avg_pool2d(shut(384)[None], 3)[0]
    assert (reduced - shut(128)).abs().mean() < 0.005
