"""Streaming mode of the landmark part: what a frame may hear, and that blocks make no difference."""

from collections.abc import Iterator

import numpy as np
import pytest
import torch

from atldiff.errors import InputError
from atldiff.motion.living import FaceMotion
from atldiff.options import GenerationOptions
from atldiff.speech import SAMPLE_RATE
from atldiff.speech.activity import ActivityMeter, activity_threshold
from atldiff.speech.blocks import regrouped
from atldiff.speech.loudness import levelled_live
from atldiff.speech.waveform import read_waveform
from atldiff.speech.windows import HOP, MARGIN, Windowing, speech_windows
from face_shapes import open_face

torch.set_num_threads(1)

LOOK_AHEADS = (0.08, 0.1, 0.2, 0.4, 1.0)
FACE = open_face().astype(np.float32)


@pytest.fixture(scope="module")
def sound(speech) -> np.ndarray:
    """1.6 s: 0.4 s of faint noise, then a voice."""
    noise = np.random.default_rng(0).normal(0, 1e-3, 2 * SAMPLE_RATE // 5)
    return np.concatenate([noise, read_waveform(speech)[: 6 * SAMPLE_RATE // 5]]).astype(np.float32)


def cut(samples: np.ndarray, size: int) -> Iterator[np.ndarray]:
    return (samples[begin : begin + size] for begin in range(0, len(samples), size))


def landmarks(pipeline, samples: np.ndarray, size: int = 1000, **options) -> np.ndarray:
    chosen = GenerationOptions(**{"look_ahead_s": 0.2, "head_motion": 1.0} | options)
    motion = FaceMotion(pipeline.speech_encoder, pipeline.landmark_generator, FACE, None, chosen)
    frames = round(len(samples) / SAMPLE_RATE * chosen.fps)
    return np.concatenate(list(motion.landmarks(cut(samples, size), frames)))


@pytest.mark.parametrize("seconds", LOOK_AHEADS)
def test_no_window_hears_beyond_the_look_ahead(seconds: float) -> None:
    windowing = Windowing.for_look_ahead(seconds)
    assert windowing.hop > 0
    assert windowing.after > 0
    sound = np.arange(3 * SAMPLE_RATE + 77, dtype=np.float32)
    windows = list(speech_windows(cut(sound, 999), windowing))
    for window in windows:
        heard_until = (window.start + len(window.samples)) / SAMPLE_RATE
        assert heard_until <= window.begin + seconds + 1e-9
        assert window.start == max(0, round(window.begin * SAMPLE_RATE) - windowing.before)
        assert np.array_equal(window.samples, sound[window.start : window.start + len(window.samples)])
    assert [window.end for window in windows[:-1]] == [window.begin for window in windows[1:]]
    assert windows[-1].start + len(windows[-1].samples) == len(sound)


def test_without_a_look_ahead_windows_are_those_of_recordings() -> None:
    assert Windowing.for_look_ahead(None) == Windowing(HOP, MARGIN, MARGIN)


@pytest.mark.parametrize(("fps", "look_ahead_s"), [(25.0, 0.2), (30000 / 1001, 0.1)])
def test_later_sound_changes_no_earlier_frame(tiny_pipeline, sound, fps, look_ahead_s) -> None:
    before = landmarks(tiny_pipeline, sound, fps=fps, look_ahead_s=look_ahead_s)
    changed_frames = []
    for frame in (10, 21, 22):
        heard = int((frame / fps + look_ahead_s) * SAMPLE_RATE) + 1
        other = sound.copy()
        other[heard:] = np.random.default_rng(frame).normal(0, 0.3, len(sound) - heard)
        after = landmarks(tiny_pipeline, other, fps=fps, look_ahead_s=look_ahead_s)
        assert np.array_equal(after[: frame + 1], before[: frame + 1])
        changed_frames.append(int(np.flatnonzero(np.abs(after - before).max(axis=(1, 2)))[0]) - frame)
    assert max(changed_frames) <= 4


def test_a_sound_that_breaks_off_has_the_same_frames_until_then(tiny_pipeline, sound) -> None:
    whole = landmarks(tiny_pipeline, sound)
    for samples in (20_480, 20_481, 23_011):
        heard = int((samples / SAMPLE_RATE - 0.2) * 25) + 1
        assert np.array_equal(landmarks(tiny_pipeline, sound[:samples])[:heard], whole[:heard])


def test_streamed_frames_do_not_depend_on_how_the_sound_is_cut(tiny_pipeline, sound) -> None:
    first = landmarks(tiny_pipeline, sound, size=160)
    for size in (1, 4_097, len(sound)):
        few = sound if size > 1 else sound[: SAMPLE_RATE // 2]
        made = landmarks(tiny_pipeline, few, size=size)
        compared = slice(0, len(made) if size > 1 else 7)
        assert np.array_equal(made[compared], first[compared])


def test_a_frame_comes_as_soon_as_its_look_ahead_has_come(tiny_pipeline, sound) -> None:
    options = GenerationOptions(look_ahead_s=0.2)
    motion = FaceMotion(tiny_pipeline.speech_encoder, tiny_pipeline.landmark_generator, FACE, None, options)
    given = 0

    def blocks() -> Iterator[np.ndarray]:
        nonlocal given
        for block in cut(sound, 160):
            given += len(block)
            yield block

    made = 0
    for part in motion.landmarks(blocks(), 40):
        assert given / SAMPLE_RATE <= made / 25 + 0.2 + 0.01 + 1e-9
        made += len(part)
    assert made == 40


def test_the_threshold_comes_from_what_was_heard(tiny_pipeline, sound) -> None:
    streamed = landmarks(tiny_pipeline, sound)
    assert np.isfinite(streamed).all()
    assert np.abs(streamed - FACE).max() > 0.5
    silent = landmarks(tiny_pipeline, np.zeros_like(sound), head_motion=0.0, blink="off")
    assert np.abs(np.diff(silent, axis=0)).max() == 0


def test_a_meter_hears_the_first_voice_after_long_noise_and_forgets_loud_sound() -> None:
    random = np.random.default_rng(0)
    hiss = random.normal(0, 0.003, 60 * SAMPLE_RATE)
    voice = random.normal(0, 0.1, SAMPLE_RATE // 10)
    meter = ActivityMeter(half_life_s=10)
    for second in cut(hiss, SAMPLE_RATE):
        meter.hear(second)
    quiet, loud = (10 * np.log10(np.mean(np.diff(part) ** 2)) for part in (hiss, voice))
    assert quiet + 3 < meter.threshold < loud - 10
    shouted = ActivityMeter(half_life_s=10)
    for second in cut(300 * hiss[: 5 * SAMPLE_RATE], SAMPLE_RATE):
        shouted.hear(second)
    high = shouted.threshold
    for second in cut(hiss, SAMPLE_RATE):
        shouted.hear(second)
    assert shouted.threshold == pytest.approx(meter.threshold, abs=1)
    assert high > loud


def test_a_recordings_threshold_counts_all_of_it_the_same(sound) -> None:
    meter = ActivityMeter()
    meter.hear(sound)
    assert activity_threshold(cut(sound, 16_000)) == pytest.approx(meter.threshold, abs=0.5)
    assert activity_threshold([np.zeros(16_000, np.float32)]) == float("inf")


@pytest.mark.parametrize("size", [1, 7, 30, 64])
def test_sound_cut_anew_is_the_same_in_blocks_of_whole_steps(size: int) -> None:
    sound = np.arange(2 * 64, dtype=np.float32).reshape(2, 64)
    blocks = list(regrouped((sound[:, begin : begin + size] for begin in range(0, 64, size)), 10, step=5))
    assert np.array_equal(np.concatenate(blocks, axis=1), sound)
    lengths = [block.shape[1] for block in blocks]
    assert all(length >= 10 and length % 5 == 0 for length in lengths[:-1])
    assert max(lengths) < 10 + size, "a block is given as soon as it is long enough"


@pytest.mark.parametrize("value", [0.05, 0, -1, 1.5, float("nan"), "0.2"])
def test_impossible_look_aheads_are_refused(value) -> None:
    with pytest.raises(InputError, match="look_ahead_s"):
        GenerationOptions(look_ahead_s=value)


def test_the_pipeline_streams(tiny_pipeline, word) -> None:
    samples = np.concatenate(list(levelled_live([read_waveform(word)])))
    streamed = tiny_pipeline.speech_landmarks(FACE, word, look_ahead_s=0.2)
    assert np.array_equal(streamed, landmarks(tiny_pipeline, samples, head_motion=0.0, blink="off"))
    assert not np.array_equal(streamed, tiny_pipeline.speech_landmarks(FACE, word))
