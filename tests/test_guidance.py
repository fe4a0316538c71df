"""Landmarks-Guide Noise: noise lies where the face moves and nowhere else changes meaning with resolution."""

import torch

from atldiff.image.guidance import guide_noise, landmark_maps, noise_mask, residual_region
from test_warp import SIZE, face_like_points


def test_mask_is_high_at_landmarks_and_a_tenth_far_away() -> None:
    points = face_like_points()
    mask = noise_mask(points[None], SIZE, SIZE)
    assert mask.shape == (1, 1, SIZE, SIZE)
    columns, rows = points.long().T
    assert mask[0, 0, rows, columns].min() > 0.3
    assert torch.isclose(mask[0, 0, 0, 0], torch.tensor(0.1), atol=1e-4)
    assert mask.max() <= 1.1 + 1e-6


def test_noise_is_scaled_by_the_mask() -> None:
    start, mask = torch.full((1, 3, 4, 4), 0.5), torch.zeros(1, 1, 4, 4)
    mask[..., 1, 1] = 1.0
    noisy = guide_noise(start, mask, torch.ones(1, 3, 4, 4), scale=0.25)
    assert torch.all(noisy[..., 1, 1] == 0.75)
    assert torch.all(noisy[..., 0, 0] == 0.5)


def test_maps_follow_a_landmark_to_a_fraction_of_a_pixel() -> None:
    points = face_like_points()
    moved = points + torch.tensor([0.5, 0.0])
    weights = torch.arange(64) * 2.0 + 1.0
    centres = []
    for landmarks in (points, moved):
        inner_lips = landmark_maps(landmarks[None, :, :], SIZE, 64)[0, 0]
        centres.append((inner_lips.sum(dim=0) * weights).sum() / inner_lips.sum())
    assert abs(centres[1] - centres[0] - 0.5) < 0.05


def test_region_covers_the_mouth_and_ends_inside_the_crop() -> None:
    points = face_like_points()
    region = residual_region(points[None], SIZE, SIZE)[0, 0]
    columns, rows = points[48:].long().T
    assert region[rows, columns].min() > 0.5
    assert max(region[0].max(), region[-1].max(), region[:, 0].max(), region[:, -1].max()) < 1e-3
