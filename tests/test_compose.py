"""Putting the face back: nothing moves where nothing should, what moves goes the right way in a tilted face."""

import numpy as np
import pytest
import torch

from atldiff.face import compose
from atldiff.face.compose import PortraitComposer
from atldiff.face.crop import face_crop
from atldiff.face.mouth.geometry import MouthGeometry, MouthShapes
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
    (frame,) = composer.render(flow[None], shapes, torch.tensor([lids]), residual[None])
    return frame


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
    lids = torch.tensor([0.0, 0.0, 0.0, 0.4, 1.0, 0.0, 0.0])
    residuals = 0.1 * torch.randn(7, 3, 128, 128, generator=generator)
    together = list(composer.render(flows, shapes, lids, residuals))
    alone = [
        render(composer, flow, shapes[frame : frame + 1], float(lids[frame]), residuals[frame])
        for frame, flow in enumerate(flows)
    ]
    monkeypatch.setattr(compose, "_PIECE_VALUES", 3 * 3 * 331 * 420)
    in_pieces = list(composer.render(flows, shapes, lids, residuals))
    assert len(together) == 7
    for other in (alone, in_pieces):
        assert np.abs(np.stack(together).astype(int) - np.stack(other)).max() <= 1
    assert not np.array_equal(together[3], together[4])
