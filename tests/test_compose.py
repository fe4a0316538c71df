"""Putting the face back: nothing moves where nothing should, what moves goes the right way in a tilted face."""

import numpy as np
import pytest
import torch

from atldiff.face.crop import face_crop
from atldiff.image import compose
from atldiff.image.animator import FaceFrames
from atldiff.image.compose import PortraitComposer
from atldiff.image.mouth.geometry import MouthGeometry, MouthShapes
from face_shapes import open_face

GRID = 32


def tilted_case(degrees: float) -> tuple[np.ndarray, PortraitComposer, np.ndarray]:
    """A random portrait, its composer, and the matrix from crop to portrait pixels."""
    angle = np.deg2rad(degrees)
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    face = (open_face() - 64) * 1.5 @ turn.T + [210, 160]
    portrait = np.random.default_rng(0).integers(0, 256, (331, 420, 3), dtype=np.uint8)
    crop = face_crop(face)
    return portrait, PortraitComposer(portrait, crop, crop.to_crop(face), torch.device("cpu")), crop.matrix


def render(
    composer: PortraitComposer,
    flow: torch.Tensor,
    shapes: MouthShapes | None,
    lids: float,
    residual: torch.Tensor,
) -> np.ndarray:
    (frame,) = composer.render(faces(flow[None], shapes, [lids], residual[None]))
    return frame


def faces(flows: torch.Tensor, shapes: MouthShapes | None, lids: list[float], residuals: torch.Tensor) -> FaceFrames:
    """With residuals over the whole crop."""
    corner = torch.zeros(len(flows), 2, dtype=torch.long)
    return FaceFrames(flows, shapes, torch.tensor(lids), residuals, corner, residuals.shape[-1] // 128)


def opening(count: int) -> MouthShapes:
    """The mouths of a face that opens its own."""
    points = np.repeat(open_face()[None], count, axis=0)
    points[:, [55, 56, 57, 58, 59, 65, 66, 67, 7, 8, 9], 1] += np.linspace(-6, 6, count)[:, None]
    crop = face_crop(open_face())
    return MouthGeometry(crop.to_crop(open_face())).shapes(torch.from_numpy(crop.to_crop(points)))


def inner_flow(x: float, y: float) -> torch.Tensor:
    flow = torch.zeros(2, GRID, GRID)
    flow[0, 4:-4, 4:-4], flow[1, 4:-4, 4:-4] = x, y
    return flow


@pytest.mark.parametrize("degrees", [0, 30, -80])
def test_no_flow_and_no_residual_is_the_portrait(degrees: float) -> None:
    portrait, composer, _ = tilted_case(degrees)
    frame = render(composer, torch.zeros(2, GRID, GRID), None, 0.0, torch.zeros(3, 128, 128))
    assert np.array_equal(frame, portrait)


@pytest.mark.parametrize("degrees", [0, 30, -80])
def test_nothing_changes_outside_the_crop(degrees: float) -> None:
    portrait, composer, matrix = tilted_case(degrees)
    residual = torch.zeros(3, 128, 128)
    residual[:, 16:-16, 16:-16] = 0.5
    frame = render(composer, inner_flow(3, 5), opening(1), 1.0, residual)
    rows, columns = np.mgrid[0 : portrait.shape[0], 0 : portrait.shape[1]] + 0.5
    inside = (np.stack([columns, rows], axis=-1) - matrix[:, 2]) @ np.linalg.inv(matrix[:, :2]).T
    outside = ((inside < 0) | (inside > 128)).any(axis=-1)
    assert outside.any()
    assert np.array_equal(frame[outside], portrait[outside])
    assert not np.array_equal(frame, portrait)


def test_flow_follows_the_tilt_of_the_face() -> None:
    portrait, composer, matrix = tilted_case(90)
    step = 4.0
    frame = render(composer, inner_flow(0, step), None, 0.0, torch.zeros(3, 128, 128))
    moved = matrix[:, :2] @ np.array([0.0, step])
    x, y = (matrix @ [64, 90, 1]).astype(int)
    shift_x, shift_y = np.round(moved).astype(int)
    window = frame[y - 6 : y + 6, x - 6 : x + 6].astype(int)
    sources = {
        (dx, dy): portrait[y - 6 + dy : y + 6 + dy, x - 6 + dx : x + 6 + dx].astype(int)
        for dx in range(-9, 10)
        for dy in range(-9, 10)
    }
    nearest = min(sources, key=lambda shift: np.abs(sources[shift] - window).mean())
    assert nearest == (shift_x, shift_y)


def test_frames_do_not_depend_on_how_many_are_made_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    _, composer, _ = tilted_case(10)
    generator = torch.Generator().manual_seed(0)
    flows = torch.stack([inner_flow(x, 2 - x) for x in range(7)])
    shapes = opening(7)
    lids = [0.0, 0.0, 0.0, 0.4, 1.0, 0.0, 0.0]
    residuals = 0.1 * torch.randn(7, 3, 128, 128, generator=generator)
    moved = faces(flows, shapes, lids, residuals)
    together = list(composer.render(moved))
    alone = [
        render(composer, flow, shapes[frame : frame + 1], lids[frame], residuals[frame])
        for frame, flow in enumerate(flows)
    ]
    monkeypatch.setattr(compose, "_PIECE_VALUES", 3 * 3 * 331 * 420)
    in_pieces = list(composer.render(moved))
    assert len(together) == 7
    for other in (alone, in_pieces):
        assert np.abs(np.stack(together).astype(int) - np.stack(other)).max() <= 1
    assert not np.array_equal(together[3], together[4])


def test_a_window_of_the_residual_lands_where_it_lies_in_the_crop() -> None:
    """The same residual as the whole crop's and as a window of it that travels gives the same pictures."""
    _, composer, _ = tilted_case(20)
    corners = torch.tensor([[40, 90], [41, 96], [37, 102]])
    windows = torch.zeros(3, 3, 100, 120)
    windows[:, :, 20:-20, 20:-20] = 0.3 * torch.rand(3, 3, 60, 80, generator=torch.Generator().manual_seed(0))
    whole = torch.zeros(3, 3, 256, 256)
    for frame, (left, top) in enumerate(corners.tolist()):
        whole[frame, :, top : top + 100, left : left + 120] = windows[frame]
    flows, lids = torch.zeros(3, 2, GRID, GRID), [0.0] * 3
    travelling = FaceFrames(flows, None, torch.tensor(lids), windows, corners, 2)
    expected = np.stack(list(composer.render(faces(flows, None, lids, whole)))).astype(int)
    assert np.abs(np.stack(list(composer.render(travelling))) - expected).max() <= 1
    assert (expected[1] != expected[0]).any()
