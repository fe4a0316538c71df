"""The shapes of a mouth, and how they are judged."""

import numpy as np
import pytest
import torch

from atldiff.evaluation.shapes import MouthDistances, frechet_distance, judge_shapes, seconds_of_mouth
from atldiff.face.similarity import apply_similarity
from atldiff.landmarks.shapes import SHAPES, mouth_shapes
from face_shapes import open_face

torch.set_num_threads(1)

MOVES = {
    "opening": ([65, 66, 67], (0, 4)),
    "width": ([54], (4, 0)),
    "height": ([56, 57, 58], (0, 4)),
    "outline": ([50, 51, 52, 56, 57, 58], (0, 30)),
    "corners": ([48, 54], (0, -4)),
    "jaw": ([8], (0, 4)),
}
TURN = np.array([[0.8, -0.6, 40.0], [0.6, 0.8, -7.0]])


@pytest.mark.parametrize("name", SHAPES)
def test_each_shape_grows_with_what_it_is_named_after_however_the_head_lies(name: str) -> None:
    face = open_face()
    moved = face.copy()
    points, way = MOVES[name]
    moved[points] += way
    before, after = (mouth_shapes(apply_similarity(2 * TURN, points)) for points in (face, moved))
    assert after[name] > before[name] + 0.01
    np.testing.assert_allclose(before[name], mouth_shapes(face)[name], atol=1e-6)
    if name in ("opening", "jaw", "corners"):
        others = [other for other in SHAPES if other not in (name, "width", "outline")]
        np.testing.assert_allclose([before[other] for other in others], [after[other] for other in others], atol=1e-6)


def test_rounded_lips_are_nearer_to_their_corners() -> None:
    face = open_face()
    rounded = face.copy()
    rounded[48, 0] += 5
    rounded[54, 0] -= 5
    before, after = mouth_shapes(face), mouth_shapes(rounded)
    assert after["outline"] < before["outline"] - 0.03
    assert after["width"] < before["width"] - 0.06


def test_tensors_have_the_shapes_of_arrays() -> None:
    faces = open_face() + np.random.default_rng(0).normal(0, 1, (2, 3, 68, 2))
    arrays, tensors = mouth_shapes(faces), mouth_shapes(torch.from_numpy(faces))
    assert tuple(arrays) == tuple(tensors) == SHAPES
    for name in SHAPES:
        np.testing.assert_allclose(tensors[name].numpy(), arrays[name])


def talking(seed: int, frames: int = 100, share: float = 1.0) -> np.ndarray:
    """(F, 68, 2) of a face whose mouth opens and widens at random, by ``share`` of it; the first frame is at rest."""
    random = np.random.default_rng(seed)
    window = np.hanning(9) / np.hanning(9).sum()
    opening, width = (np.convolve(random.normal(0, 4, frames + 8), window, "valid") for _ in range(2))
    face = np.repeat(open_face()[None], frames, axis=0)
    face[:, [57, 66, 67, 65], 1] += share * (opening - opening[0])[:, None]
    face[:, [54, 64], 0] += share * (width - width[0])[:, None]
    return face


def test_a_mouth_that_moves_half_as_far_follows_and_has_half_the_gain() -> None:
    true, half = talking(0), talking(0, share=0.5)
    perfect, shrunk = judge_shapes(true, true), judge_shapes(half, true)
    for name in ("opening", "width", "height"):
        assert [perfect[f"{name}_{figure}"] for figure in ("r", "gain", "p95")] == pytest.approx([1, 1, 1])
        assert shrunk[f"{name}_r"] == pytest.approx(1, abs=0.05)
        assert shrunk[f"{name}_gain"] == pytest.approx(0.5, abs=0.05)
    assert shrunk["width_p95"] == pytest.approx(0.5, abs=0.05)
    assert np.isnan(perfect["jaw_gain"])


def test_a_mean_of_mouths_is_further_from_true_ones_than_other_true_ones_are() -> None:
    face = open_face()

    def seconds(share: float, seeds: range) -> np.ndarray:
        return np.concatenate([seconds_of_mouth(talking(seed, share=share), face, 25.0) for seed in seeds])

    true = seconds(1.0, range(30))
    assert true.shape == (30 * 7, 25 * 21 * 2)
    others, shrunk, still = (frechet_distance(seconds(share, range(30, 60)), true) for share in (1.0, 0.5, 0.0))
    assert frechet_distance(true, true) == pytest.approx(0, abs=1e-6)
    assert others < 0.7 * shrunk < 0.7 * still


def test_a_second_is_a_second_at_any_frame_rate_and_the_heads_motion_is_left_out() -> None:
    face = open_face()
    fast = talking(0, frames=100)
    turned = apply_similarity(np.broadcast_to(TURN, (100, 2, 3)), fast)
    np.testing.assert_allclose(seconds_of_mouth(turned, face, 25.0), seconds_of_mouth(fast, face, 25.0), atol=1e-9)
    slow = seconds_of_mouth(fast, face, 50.0)
    np.testing.assert_allclose(slow[0], seconds_of_mouth(fast[::2], face, 25.0)[0], atol=1e-9)
    assert not len(seconds_of_mouth(fast[:20], face, 25.0))


def test_distances_are_kept_by_group_and_row() -> None:
    face = open_face()
    distances = MouthDistances()
    for seed in range(3):
        true = seconds_of_mouth(talking(seed), face, 25.0)
        distances.add("a", "same", true, true)
        distances.add("a", "still", np.zeros_like(true), true)
        distances.add("b", "short", true[:0], true)
    found = distances.distances()
    assert list(found) == ["a"]
    assert found["a"]["same"] == pytest.approx(0, abs=1e-6)
    assert found["a"]["still"] > 0.005
