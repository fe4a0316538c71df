"""The landmark generator and what stands around it: timing, windows, rest, head motion, voice activity."""

import numpy as np
import pytest
import torch

from atldiff.face.similarity import apply_similarity, fit_similarity, remove_head_motion
from atldiff.face.topology import MIRROR_68, mouth_opening
from atldiff.landmarks.generator import LandmarkGenerator, LandmarkGeneratorConfig, feature_positions
from atldiff.motion.living import keep_lips_apart, scale_mouth
from atldiff.motion.rest import closing_displacement
from atldiff.speech.activity import activity_threshold, voice_activity
from atldiff.speech.waveform import SAMPLE_RATE
from atldiff.speech.windows import HOP, MARGIN, speech_windows
from face_shapes import open_face

torch.set_num_threads(1)


def small_generator() -> LandmarkGenerator:
    torch.manual_seed(0)
    return LandmarkGenerator(LandmarkGeneratorConfig(features=12, channels=16, dilations=(1, 2))).eval()


def test_frames_are_placed_at_their_own_time_at_any_rate() -> None:
    numbers = torch.arange(600)
    for fps in (24, 25, 30000 / 1001, 30):
        assert torch.allclose(feature_positions(numbers, fps) / 50, numbers.double() / fps)


@torch.no_grad()
def test_an_event_in_the_features_moves_the_frames_around_it_only() -> None:
    generator = small_generator()
    features = torch.randn(1, 100, 12)
    positions = feature_positions(torch.arange(50), 25)[None]
    identity = torch.from_numpy(open_face())[None].float()
    before = generator(features, positions, identity)
    features[0, 60] += 3
    changed = (generator(features, positions, identity) - before).abs().amax(dim=(0, 2, 3)) > 1e-7
    reach = generator.context_features / 50 * 25
    frames = torch.nonzero(changed).flatten()
    assert frames.min() >= 30 - reach
    assert frames.max() <= 30 + reach
    assert changed[30]


@torch.no_grad()
def test_generator_ignores_where_and_how_large_the_face_is() -> None:
    generator = small_generator()
    features, positions = torch.randn(1, 20, 12), torch.arange(5.0)[None]
    identity = torch.from_numpy(open_face())[None].float()
    near = generator(features, positions, identity)
    far = generator(features, positions, identity * 3 + 40)
    assert torch.allclose(near, far, atol=1e-5)


def test_windows_cover_the_sound_once_and_hear_their_margins() -> None:
    total = 3 * HOP + MARGIN + 12345
    sound = np.random.default_rng(0).standard_normal(total).astype(np.float32)
    blocks = [sound[begin : begin + 10_007] for begin in range(0, total, 10_007)]
    windows = list(speech_windows(blocks))
    assert [window.begin for window in windows] == [index * HOP / SAMPLE_RATE for index in range(4)]
    assert [window.end for window in windows[:-1]] == [window.begin for window in windows[1:]]
    for window in windows:
        assert np.array_equal(window.samples, sound[window.start : window.start + len(window.samples)])
        assert window.start == max(0, round(window.begin * SAMPLE_RATE) - MARGIN)
    assert windows[-1].start + len(windows[-1].samples) == total


@pytest.mark.parametrize("total", [1, 3200, HOP, HOP + MARGIN, HOP + MARGIN + 1])
def test_windows_of_awkward_lengths_end_once(total: int) -> None:
    windows = list(speech_windows([np.ones(total, dtype=np.float32)]))
    assert windows[-1].end == float("inf")
    assert sum(window.end == float("inf") for window in windows) == 1


def test_rest_shuts_the_mouth_and_leaves_eyes_and_corners() -> None:
    identity = open_face()
    moved = closing_displacement(identity)
    assert mouth_opening(identity) > 0.05
    assert mouth_opening(identity + moved) < 1e-6
    assert np.array_equal(moved[17:48], np.zeros((31, 2)))
    assert np.array_equal(moved[[48, 54, 60, 64]], np.zeros((4, 2)))
    assert np.abs(closing_displacement(identity + moved)).max() < 1e-9


@pytest.mark.parametrize("amplitude", [0.0, 0.5, 1.0, 1.5])
def test_the_mouth_amplitude_is_counted_from_rest(amplitude: float) -> None:
    identity = open_face()
    rest = identity + closing_displacement(identity)
    scaled = rest + scale_mouth((identity - rest)[None], amplitude)[0]
    assert mouth_opening(scaled) == pytest.approx(amplitude * mouth_opening(identity))
    assert np.array_equal(scaled[17:48], identity[17:48])
    assert np.allclose(scaled[8] - rest[8], amplitude * (identity[8] - rest[8]))


def test_lips_never_turn_inside_out() -> None:
    face = open_face()[None]
    assert np.array_equal(keep_lips_apart(face), face)
    crossed = face + 1.2 * closing_displacement(face[0])
    assert crossed[0, 62, 1] > crossed[0, 66, 1] + 1
    mended = keep_lips_apart(crossed)
    assert np.allclose(mended[0, 62], mended[0, 66])
    assert np.array_equal(mended[0, :60], crossed[0, :60])


def test_head_motion_is_removed_and_the_mouth_kept() -> None:
    identity = open_face()
    spoken = identity + closing_displacement(identity) * 0.5
    turn = np.array([[0.95, -0.1, 7.0], [0.1, 0.95, -3.0]])
    still = remove_head_motion(apply_similarity(turn, spoken)[None], identity)
    assert np.abs(still - spoken).max() < 1e-6
    fitted = fit_similarity(identity, apply_similarity(turn, identity))
    assert np.allclose(fitted, turn, atol=1e-9)


def test_mirrored_landmarks_are_those_of_the_mirrored_face() -> None:
    assert np.array_equal(MIRROR_68[MIRROR_68], np.arange(68))
    flipped = ([128, 0] + open_face() * [-1, 1])[MIRROR_68]
    assert np.abs(flipped - open_face()).max() < 1e-9


TIMES = np.arange(0, 3, 0.04)


def speech_like(gain: float = 0.3) -> np.ndarray:
    """3 s with a tone that swells and fades, a voice's way, between 1 s and 2 s; silence around it."""
    seconds = np.arange(3 * SAMPLE_RATE) / SAMPLE_RATE
    swell = np.where((seconds >= 1) & (seconds < 2), 0.55 + 0.45 * np.sin(2 * np.pi * 4 * seconds), 0)
    return (gain * swell * np.sin(2 * np.pi * 500 * seconds)).astype(np.float32)


def activity(sound: np.ndarray) -> np.ndarray:
    return voice_activity(sound, TIMES, activity_threshold([sound[:7000], sound[7000:]]))


@pytest.mark.parametrize("gain", [0.9, 0.1, 0.003])
def test_voice_activity_follows_the_sound_loud_or_quiet(gain: float) -> None:
    voice = activity(speech_like(gain))
    assert voice[(TIMES > 1.02) & (TIMES < 1.98)].min() == 1
    assert voice[(TIMES < 0.75) | (TIMES > 2.25)].max() == 0


def test_a_click_does_not_silence_the_voice() -> None:
    sound = speech_like(0.05)
    sound[-400:-320] = 0.95
    assert activity(sound)[(TIMES > 1.1) & (TIMES < 1.9)].min() == 1


@pytest.mark.parametrize("kind", ["silence", "offset", "hum", "hiss"])
def test_background_is_no_voice(kind: str) -> None:
    seconds = np.arange(3 * SAMPLE_RATE) / SAMPLE_RATE
    background = {
        "silence": np.zeros_like(seconds),
        "offset": np.full_like(seconds, 0.02),
        "hum": 0.01 * np.sin(2 * np.pi * 50 * seconds),
        "hiss": np.random.default_rng(0).normal(0, 0.01, len(seconds)),
    }[kind].astype(np.float32)
    assert activity(background).max() == 0
    voice = activity(background * 0.3 + speech_like(0.3))
    assert voice[(TIMES > 1.1) & (TIMES < 1.9)].min() == 1
    assert voice[(TIMES < 0.7) | (TIMES > 2.3)].max() == 0
