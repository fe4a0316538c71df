"""A portrait's mouth when its face speaks: smiles and pursed lips give way, mouths at rest stay."""

import numpy as np
import pytest
import torch

from atldiff.face.similarity import apply_similarity
from atldiff.face.topology import MIRROR_68, MOUTH, interocular_distance
from atldiff.motion.ease import in_eye_distances, mouth_posture, nose_measures, speaking_mouth
from atldiff.motion.living import FaceMotion
from atldiff.motion.rest import closing_displacement
from atldiff.options import GenerationOptions
from atldiff.speech import SAMPLE_RATE
from atldiff.speech.waveform import read_waveform
from face_shapes import open_face

torch.set_num_threads(1)


def posed_face(wider: float, higher: float) -> np.ndarray:
    """:func:`open_face` with the corners so much further apart and higher, in eye distances."""
    face = open_face()
    away = np.abs(face[:, 0] - 64) / 17
    size = float(interocular_distance(face))
    face[MOUTH, 0] += (wider * size / 2 * away * np.sign(face[:, 0] - 64))[MOUTH]
    face[MOUTH, 1] -= (higher * size * away**2)[MOUTH]
    return face


def postures(face: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    return tuple(mouth_posture(in_eye_distances(each)) for each in (face, speaking_mouth(face)))  # pyright: ignore


def test_a_mouth_at_rest_speaks_as_it_is() -> None:
    moved = speaking_mouth(open_face()) - open_face()
    assert np.abs(moved).max() < 0.01 * interocular_distance(open_face())


@pytest.mark.parametrize(("wider", "higher"), [(0.12, 0.08), (0.22, 0.12)])
def test_a_smile_gives_way(wider: float, higher: float) -> None:
    own, speaking = postures(posed_face(wider, higher))
    assert 0.5 * wider < own[0] - speaking[0] < wider
    assert speaking[1] < 0.7 * own[1]


def test_pursed_lips_give_way_and_hanging_corners_stay() -> None:
    own, speaking = postures(posed_face(-0.12, -0.06))
    assert 0.5 * 0.12 < speaking[0] - own[0] < 0.12
    assert abs(speaking[1] - own[1]) < 0.03
    assert np.array_equal(
        speaking_mouth(posed_face(-0.12, -0.06), smile=0.5), speaking_mouth(posed_face(-0.12, -0.06))
    )


def test_part_of_a_smile_stays_where_it_is_asked_for() -> None:
    own, half, speaking = (
        mouth_posture(in_eye_distances(face))
        for face in (posed_face(0.15, 0.12), *(speaking_mouth(posed_face(0.15, 0.12), smile) for smile in (0.5, 0.0)))
    )
    assert np.all(speaking < half - 0.2 * (own - speaking))
    assert np.all(half < own - 0.2 * (own - speaking))


def test_only_the_mouth_moves_and_both_sides_alike() -> None:
    face = posed_face(0.15, 0.08)
    moved = speaking_mouth(face) - face
    assert not moved[:48].any()
    assert np.allclose(moved, (moved * [-1, 1])[MIRROR_68], atol=1e-9)


def test_size_place_and_tilt_of_the_face_do_not_matter() -> None:
    face, way = posed_face(0.15, 0.08), np.array([[2.1, -0.7, 30.0], [0.7, 2.1, -12.0]])
    assert np.allclose(speaking_mouth(apply_similarity(way, face)), apply_similarity(way, speaking_mouth(face)))
    assert np.allclose(
        nose_measures(in_eye_distances(apply_similarity(way, face))), nose_measures(in_eye_distances(face))
    )


def test_a_smile_goes_while_there_is_voice_and_half_returns(tiny_pipeline, speech) -> None:
    face = posed_face(0.15, 0.08).astype(np.float32)
    voice = np.tile(read_waveform(speech)[14 * SAMPLE_RATE // 10 : 24 * SAMPLE_RATE // 10], 2)
    sound = np.concatenate([voice, np.zeros(3 * SAMPLE_RATE, np.float32)])
    options = GenerationOptions(mouth=0.0, blink="off", head_motion=0.0)
    parts = tiny_pipeline.speech_encoder, tiny_pipeline.landmark_generator, face, -40.0, options

    def made(*speaking: np.ndarray) -> np.ndarray:
        return np.concatenate(list(FaceMotion(*parts, *speaking).landmarks([sound], 125)))

    own, half, eased = (
        each + closing_displacement(each) for each in (face, speaking_mouth(face, smile=0.5), speaking_mouth(face))
    )
    landmarks = made()[:, MOUTH]
    assert np.allclose(landmarks[25], eased[MOUTH], atol=0.02)
    assert np.allclose(landmarks[110], half[MOUTH], atol=1e-3)
    assert np.abs(np.diff(landmarks, axis=0)).max() < 0.02 * interocular_distance(face)
    assert np.allclose(made(face)[:, MOUTH], own[MOUTH], atol=1e-3)
