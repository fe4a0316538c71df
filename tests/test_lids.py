"""Lids drawn over the eyes: only there, all of the eye when shut, at any resolution, and from landmarks alone."""

import numpy as np
import pytest
import torch

from atldiff.face.similarity import apply_similarity
from atldiff.image.lids import Eyelids, lid_closure, open_lids
from atldiff.motion.blinks import close_lids
from face_shapes import open_face

torch.set_num_threads(1)

SKIN, EYE = 0.5, 1.0


def staring_picture(size: int) -> torch.Tensor:
    """Grey skin with white eyes where :func:`open_face` has them."""
    rows, columns = (np.mgrid[0:size, 0:size] + 0.5) * (128 / size)
    eyes = np.zeros((size, size), dtype=bool)
    for x in (43, 85):
        eyes |= ((columns - x) / 7) ** 2 + ((rows - 42) / 2.2) ** 2 < 1
    return torch.from_numpy(np.where(eyes, EYE, SKIN)).float().expand(3, -1, -1)


def drawn(size: int, closure: float) -> torch.Tensor:
    steps = (torch.arange(size) + 0.5) * (128 / size)
    places = torch.stack(torch.meshgrid(steps, steps, indexing="xy"), dim=-1)
    to_image = torch.tensor([[2 / 128, 0.0, -1.0], [0.0, 2 / 128, -1.0]])
    return Eyelids(places, to_image, open_face()).draw(staring_picture(size), torch.tensor(closure))


def test_lids_cover_the_eyes_and_nothing_else() -> None:
    before = staring_picture(128)
    assert torch.allclose(drawn(128, 0.0), before, atol=1e-5)
    shut = drawn(128, 1.0)
    assert (shut > 0.75).sum() < 0.15 * (before > 0.75).sum()
    half = (drawn(128, 0.5) > 0.75).sum() / (before > 0.75).sum()
    assert 0.2 < half < 0.8
    below = torch.ones(128, 128, dtype=torch.bool)
    below[27:47] = False
    assert torch.allclose(shut[:, below], before[:, below], atol=1e-5)


@pytest.mark.parametrize("degrees", range(0, 360, 15))
def test_lids_are_the_same_however_the_head_lies(degrees: int) -> None:
    """The face turned in its picture: read upright again, it is as if it had never been turned."""
    size, angle = 192, np.deg2rad(degrees)
    turn = torch.tensor([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]], dtype=torch.float32)
    steps = torch.arange(size) + 0.5 - size / 2
    places = torch.stack(torch.meshgrid(steps, steps, indexing="xy"), dim=-1) @ turn + 64
    to_image = torch.cat([turn, -(turn @ torch.full((2, 1), 64.0))], dim=1) * (2 / size)
    upright = staring_picture(128)[None]
    picture = torch.nn.functional.grid_sample(
        upright, places[None] / 64 - 1, padding_mode="border", align_corners=False
    )
    shut = Eyelids(places, to_image, open_face()).draw(picture[0], torch.tensor(1.0))
    inside = (places - 64).norm(dim=-1) < 60
    untouched = inside & ((places[..., 1] < 27) | (places[..., 1] > 48))
    assert torch.allclose(shut[:, untouched], picture[0][:, untouched], atol=1e-4)
    assert (shut > 0.75).sum() < 0.15 * (picture > 0.75).sum()


def test_lids_are_the_same_at_another_resolution() -> None:
    small, large = drawn(128, 0.7), drawn(512, 0.7)
    shrunk = torch.nn.functional.avg_pool2d(large[None], 4)[0]
    assert (small - shrunk).abs().mean() < 0.01


def turned(landmarks: np.ndarray) -> np.ndarray:
    return apply_similarity(np.array([[0.9, -0.1, 9.0], [0.1, 0.9, 3.0]]), landmarks)


def test_closure_is_read_from_the_lids_wherever_the_head_is() -> None:
    identity = open_face()
    frames = turned(close_lids(np.stack([identity] * 5), np.array([0, 0.03, 0.5, 0.9, 1.0])))
    own = torch.from_numpy(identity).float()
    closure = lid_closure(own, torch.from_numpy(frames).float())
    assert closure[:2].tolist() == [0, 0]
    assert 0.4 < closure[2] < 0.7
    assert closure[3] < closure[4] == pytest.approx(1, abs=1e-3)
    opened = open_lids(own, torch.from_numpy(frames).float(), closure)
    assert torch.allclose(opened[2:], torch.from_numpy(turned(identity)).float().expand(3, -1, -1), atol=1e-3)
    assert torch.equal(opened[:2], torch.from_numpy(frames[:2]).float())


def test_shut_eyes_of_the_portrait_stay_as_they_are() -> None:
    identity = close_lids(open_face()[None], np.ones(1))
    assert lid_closure(torch.from_numpy(identity[0]), torch.from_numpy(close_lids(identity, np.ones(1)))) == 0
