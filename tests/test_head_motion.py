"""The living face: head motion and blinks, drawn from a seed; then all of it together, from speech."""

import numpy as np
import pytest
import torch

from atldiff.errors import InputError
from atldiff.face.crop import CROP_SIZE, PICTURE_SIZE, face_crop
from atldiff.face.portrait import load_portrait, select_face
from atldiff.face.similarity import fit_similarity
from atldiff.face.topology import EYELID_PAIRS, interocular_distance, mouth_opening
from atldiff.image.mouth.settle import settle_lips
from atldiff.motion.blinks import Blinks, close_lids
from atldiff.motion.head import CHANNELS, LARGEST, HeadMotion, brow_height, head_pose, move_head
from atldiff.motion.living import FaceMotion
from atldiff.options import GenerationOptions
from atldiff.speech.waveform import SAMPLE_RATE, Speech
from face_shapes import open_face

torch.set_num_threads(1)

TEN_MINUTES = np.arange(600 * 25) / 25


def turned(**channels: float) -> np.ndarray:
    """A pose, (1, 7)."""
    return np.array([[channels.get(name, 0.0) for name in CHANNELS]])


def never(time: float) -> bool:
    return False


def moved(seed: int, strength: float = 1.0, times: np.ndarray = TEN_MINUTES) -> np.ndarray:
    faces = np.broadcast_to(open_face(), (len(times), 68, 2))
    return move_head(faces, open_face(), HeadMotion(seed, strength).pose(times))


def eyes_apart(landmarks: np.ndarray) -> np.ndarray:
    upper, lower = (list(points) for points in zip(*EYELID_PAIRS, strict=True))
    return np.linalg.norm(landmarks[..., upper, :] - landmarks[..., lower, :], axis=-1)


def test_the_head_begins_in_the_portraits_own_pose() -> None:
    first = moved(3)[:2]
    assert np.allclose(first[0], open_face(), atol=1e-12)
    assert np.abs(first[1] - first[0]).max() < 0.1


@pytest.mark.parametrize("seed", [0, 1, 2**40 - 1])
def test_the_head_stays_about_its_place_and_moves_smoothly(seed: int) -> None:
    path = moved(seed)
    away = path - open_face()
    assert np.abs(away.mean(axis=0)).max() < 0.5
    assert 1 < np.sqrt(np.square(away[:, 27:]).sum(axis=2).mean()) < 8
    assert np.abs(np.diff(path, 2, axis=0)).max() < 2.5
    assert (path > 0).all()
    assert (path < CROP_SIZE).all()
    pose = HeadMotion(seed, 1.0).pose(TEN_MINUTES)
    assert (np.abs(pose) < LARGEST).all()
    near = np.abs(pose[:, :3]).max(axis=1) < 1
    assert np.diff(np.flatnonzero(near)).max() < 60 * 25, "the head comes back to the portrait's pose"
    assert np.abs(pose[-7500:].std(axis=0) / pose[250:7500].std(axis=0) - 1).max() < 0.2, "it does not drift"


def test_a_frames_pose_depends_on_its_time_alone() -> None:
    motion = HeadMotion(7, 0.5)
    whole = motion.pose(TEN_MINUTES)
    pieces = [motion.pose(part) for part in np.split(TEN_MINUTES, [1, 130, 9000])]
    assert np.array_equal(whole, np.concatenate(pieces))
    assert np.array_equal(whole, HeadMotion(7, 0.5).pose(TEN_MINUTES))
    assert np.abs(whole - HeadMotion(8, 0.5).pose(TEN_MINUTES)).max() > 0.5
    assert np.allclose(HeadMotion(7, 0.02).pose(TEN_MINUTES), HeadMotion(7, 0.04).pose(TEN_MINUTES) / 2, rtol=0.02)


def test_usual_motion_is_as_large_as_a_talkers_and_slower_movements_are_larger() -> None:
    pose = np.concatenate([HeadMotion(seed, 0.5).pose(TEN_MINUTES)[250:] for seed in range(3)])
    deviations = dict(zip(CHANNELS, pose.std(axis=0), strict=True))
    assert 1.0 < deviations["roll"] < 1.6
    assert 1.3 < deviations["yaw"] < 2.2
    assert 1.0 < deviations["pitch"] < 1.7
    assert 0.01 < deviations["brows"] < 0.02
    part = HeadMotion(5, 0.5).pose(TEN_MINUTES)[250:] * np.hanning(len(TEN_MINUTES) - 250)[:, None]
    power = np.abs(np.fft.rfft(part, axis=0)) ** 2
    frequencies = np.fft.rfftfreq(len(part), 1 / 25)
    inside = (frequencies > 0.14) & (frequencies < 2.9)
    assert (power[inside].sum(axis=0) > 0.99 * power.sum(axis=0)).all()
    slow, fast = ((frequencies > low) & (frequencies < 2 * low) for low in (0.35, 1.4))
    assert (power[slow].sum(axis=0) > power[fast].sum(axis=0)).all()


def test_a_loud_voice_moves_the_head_faster_and_its_accents_raise_the_brows() -> None:
    motion, still = HeadMotion(3, 0.1), np.zeros(len(TEN_MINUTES))
    quiet, loud = (motion.pose(TEN_MINUTES, np.column_stack([still + level, still, still])) for level in (0.0, 1.0))
    speeds = [np.abs(np.diff(pose, axis=0)).mean(axis=0) for pose in (quiet, loud)]
    assert (speeds[1] > 1.4 * speeds[0]).all()
    accent = motion.pose(TEN_MINUTES, np.column_stack([still + 1, still + 0.5, still])) - loud
    assert np.allclose(accent[100:, 6], 0.015 / 5, rtol=0.1)
    assert np.allclose(accent[:, :6], 0, atol=1e-9)


def test_a_high_voice_lifts_face_and_brows() -> None:
    motion, still = HeadMotion(3, 0.1), np.zeros(len(TEN_MINUTES))
    usual, high = (motion.pose(TEN_MINUTES, np.column_stack([still, still, still + rise])) for rise in (0.0, 0.3))
    lifted = (high - usual)[100:]
    assert (lifted[:, [2, 4]] < 0).all()
    assert (lifted[:, 6] > 0).all()
    assert np.allclose(lifted[:, [0, 1, 3, 5]], 0, atol=1e-9)


@pytest.mark.parametrize("name", CHANNELS)
def test_the_pose_that_moved_a_head_is_found_again(name: str) -> None:
    face = open_face()
    size = {"roll": 4.0, "yaw": 6.0, "pitch": -5.0}.get(name, 0.03)
    found = head_pose(move_head(face[None], face, turned(**{name: size})), face)
    expected = turned(**{name: size})
    assert np.allclose(found[:, :3], expected[:, :3], atol=0.4)
    assert np.allclose(found[:, 3:6], expected[:, 3:6], atol=0.02)
    assert np.allclose(found[:, 6], expected[:, 6], atol=0.005 if name not in ("yaw", "pitch") else 0.05)


def test_brows_rise_alone() -> None:
    face = open_face()
    raised = move_head(face[None], face, turned(brows=0.02))[0]
    assert brow_height(raised) - brow_height(face) == pytest.approx(0.02)
    others = np.setdiff1d(np.arange(68), np.arange(17, 27))
    assert np.array_equal(raised[others], face[others]) or np.allclose(raised[others], face[others], atol=1e-9)


def test_a_turn_moves_the_nose_further_than_the_contour() -> None:
    to_the_side = move_head(open_face()[None], open_face(), turned(yaw=3.0))[0] - open_face()
    assert to_the_side[30, 0] > to_the_side[36, 0] > to_the_side[1, 0] > 0
    nodded = move_head(open_face()[None], open_face(), turned(pitch=3.0))[0] - open_face()
    assert nodded[30, 1] > nodded[36, 1] > nodded[1, 1] > 0


def test_a_roll_turns_the_face_as_it_is() -> None:
    face = open_face()[None]
    rolled = move_head(face, face[0], turned(roll=4.0))
    matrix = fit_similarity(face, rolled)[0]
    assert np.degrees(np.arctan2(matrix[1, 0], matrix[0, 0])) == pytest.approx(4)
    assert np.hypot(matrix[0, 0], matrix[1, 0]) == pytest.approx(1)
    assert np.allclose(rolled[0, 8], face[0, 8])


def test_lids_close_fast_open_slower_and_rest_between() -> None:
    times = np.arange(0, 600, 0.001)
    shut = Blinks(4).closure(times, never)
    edges = np.flatnonzero(np.diff((shut > 0).astype(int)))
    begins, ends = times[edges[::2]], times[edges[1::2]]
    assert len(begins) == 150
    assert shut[0] == 0
    intervals = np.diff(begins)
    assert 3.5 < intervals.mean() < 4.5
    assert intervals.min() > 0.7
    assert intervals.max() < 7.3
    assert intervals.std() > 0.8
    for begin, end in zip(begins, ends, strict=True):
        closed = times[(times > begin) & (times < end) & (shut == 1)]
        assert 0.095 < closed[0] - begin < 0.15
        assert 0.03 < closed[-1] - closed[0] < 0.05
        assert 0.14 < end - closed[-1] < 0.21


def test_a_blink_is_seen_at_video_rates_and_does_not_depend_on_the_cut() -> None:
    for fps in (24, 25, 30):
        times = np.arange(600 * fps) / fps
        shut = Blinks(1).closure(times, never)
        per_slot = shut.reshape(150, -1).max(axis=1)
        assert per_slot.min() > 0.98
        blinks = Blinks(1)
        parts = [blinks.closure(part, never) for part in np.split(times, [7, 5001])]
        assert np.array_equal(shut, np.concatenate(parts))
    assert not np.array_equal(shut, Blinks(2).closure(times, never))


def test_blinks_prefer_pauses_and_every_place_is_asked_for_once() -> None:
    asked: list[float] = []

    def pauses(time: float) -> bool:
        asked.append(time)
        return time % 2 < 0.6

    blinks, step = Blinks(2), 1 / 25
    shut = np.concatenate([blinks.closure(part, pauses) for part in np.split(np.arange(0, 1200, step), 3000)])
    begins = np.flatnonzero((shut[1:] > 0) & (shut[:-1] == 0)) * step
    assert len(begins) == 300
    assert 0.4 < np.mean(begins % 2 < 0.6) < 0.8, "of the time 0.3 are pauses"
    assert len(asked) == len(set(asked)) <= 900


@pytest.mark.parametrize("narrowness", [1.0, 0.4, 0.0])
def test_lids_meet_whatever_the_eye(narrowness: float) -> None:
    face = open_face()
    for upper, lower in EYELID_PAIRS:
        face[upper] = face[lower] + narrowness * (face[upper] - face[lower])
    shut = close_lids(np.stack([face] * 3), np.array([0.0, 0.5, 1.0]))
    assert np.array_equal(shut[0], face)
    gaps = eyes_apart(shut)
    assert np.allclose(gaps[2], 0.15 * gaps[0])
    upper_way, lower_way = (shut[2] - face)[[37, 41], 1]
    assert upper_way >= -4 * lower_way >= 0
    still = np.setdiff1d(np.arange(68), np.ravel(EYELID_PAIRS))
    assert np.array_equal(shut[2, still], face[still])
    if narrowness == 0:
        assert np.array_equal(shut[2], face)


STILL = {"head_motion": 0.0, "blink": "off"}


@pytest.fixture(scope="module")
def sound(speech) -> Speech:
    """Silence, the sentence, silence: 20 s, three windows of the speech encoder."""
    voice = np.concatenate(list(Speech.open(speech).blocks(SAMPLE_RATE)))
    samples = np.zeros(20 * SAMPLE_RATE, dtype=np.float32)
    samples[6 * SAMPLE_RATE :][: len(voice)] = voice
    return Speech.from_array(samples, SAMPLE_RATE)


def test_without_head_motion_and_blinks_silence_is_still(tiny_pipeline, sound) -> None:
    face = open_face().astype(np.float32)
    still = tiny_pipeline.speech_landmarks(face, sound)
    assert np.array_equal(still, tiny_pipeline.speech_landmarks(face, sound, **STILL))
    assert np.ptp(still[:140], axis=0).max() == 0
    assert mouth_opening(still[:140]).max() < 1e-3
    alive = tiny_pipeline.speech_landmarks(face, sound, head_motion=0.5, blink="auto")
    assert alive.shape == still.shape == (500, 68, 2)
    assert np.ptp(alive[:140], axis=0).max() > 0.5
    assert eyes_apart(alive).min() < 0.3 * eyes_apart(face).min()
    assert mouth_opening(alive[:140]).max() < 1e-3


def test_the_head_is_livelier_in_speech_and_never_jumps(tiny_pipeline, sound) -> None:
    face = open_face().astype(np.float32)
    still = tiny_pipeline.speech_landmarks(face, sound)
    lively = tiny_pipeline.speech_landmarks(face, sound, head_motion=1.0)
    silence = np.zeros((500, 3))
    quiet = move_head(still, face, HeadMotion(0, 1.0).pose(np.arange(500) / 25, silence) / 2)
    assert np.allclose(lively[:120], quiet[:120], atol=1e-3)
    speeds = np.linalg.norm(np.diff(lively - still, axis=0), axis=2).mean(axis=1)
    assert speeds[160:300].mean() > 1.5 * speeds[25:120].mean()
    own, turned = (np.abs(np.diff(part, 2, axis=0)).max() for part in (still, lively - still))
    assert turned < 0.15 * own  # the random network's face jumps, and what jumps is turned along


def test_landmarks_do_not_depend_on_how_the_sound_is_cut(tiny_pipeline, sound) -> None:
    samples = np.concatenate(list(sound.blocks(SAMPLE_RATE)))
    options = GenerationOptions(seed=9, emotion="happy", mouth=1.5)
    face = open_face().astype(np.float32)

    def landmarks(size: int) -> np.ndarray:
        motion = FaceMotion(tiny_pipeline.speech_encoder, tiny_pipeline.landmark_generator, face, -40.0, options)
        blocks = (samples[begin : begin + size] for begin in range(0, len(samples), size))
        return np.concatenate(list(motion.landmarks(blocks, 500)))

    assert np.array_equal(landmarks(4000), landmarks(77_777))


def test_mouth_zero_keeps_it_shut(tiny_pipeline, speech) -> None:
    face = open_face().astype(np.float32)
    assert mouth_opening(tiny_pipeline.speech_landmarks(face, speech, mouth=0.0)).max() < 1e-3
    plain = mouth_opening(tiny_pipeline.speech_landmarks(face, speech))
    wide = mouth_opening(tiny_pipeline.speech_landmarks(face, speech, mouth=1.5))
    assert wide.mean() > 1.3 * plain.mean() > 0


def test_talking_is_what_the_stream_makes_of_the_crop(tiny_pipeline, portrait, word) -> None:
    detector = tiny_pipeline._face_detector()
    picture = load_portrait(portrait, detector)
    landmarks, _ = select_face(picture, detector)
    crop = face_crop(landmarks, PICTURE_SIZE)
    face, points = crop.cut(picture), crop.to_crop(settle_lips(picture, landmarks))
    for options in ({"seed": 2, "fps": 30.0, "head_motion": 0.7, "blink": "auto"}, STILL | {"seed": 0}):
        streamed = tiny_pipeline(portrait, word, crop_only=True, **options).frames
        assert np.array_equal(tiny_pipeline.talk(face, points, word, **options), streamed)
    with pytest.raises(InputError, match="mouth is 2"):
        tiny_pipeline.talk(face, points, word, mouth=2)


def test_seeds_move_the_head_differently(tiny_pipeline, word) -> None:
    face = open_face().astype(np.float32)
    options = {"head_motion": 1.0, "blink": "auto"}
    one, again, other = (tiny_pipeline.speech_landmarks(face, word, seed=seed, **options) for seed in (1, 1, 2))
    assert np.array_equal(one, again)
    assert np.abs(one - other).max() / interocular_distance(face) > 0.005
