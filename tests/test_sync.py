"""The lag between picture and sound, and whether the lips belong to the sound."""

import os
from pathlib import Path

import numpy as np
import pytest
import torch

from atldiff.data.sync import (
    LAGS,
    UNRELATED,
    LagMeter,
    LagTrace,
    SyncMeter,
    estimate_lag,
    lips_unrelated,
    sync_correlation,
)
from atldiff.data.tracking import fill_gaps, read_frames, track_landmarks
from atldiff.errors import InputError
from atldiff.face.detection import FaceDetector
from atldiff.face.topology import interocular_distance
from atldiff.landmarks.generator import feature_positions
from atldiff.pipeline import ATLDiffPipeline
from atldiff.speech.waveform import SAMPLE_RATE, read_waveform
from face_shapes import open_face

torch.set_num_threads(1)

FPS = 25.0


@pytest.fixture(scope="module")
def meter() -> SyncMeter:
    return SyncMeter.from_package()


@pytest.fixture(scope="module")
def waveform(speech: Path) -> np.ndarray:
    return read_waveform(speech)


@pytest.fixture(scope="module")
def spoken(waveform: np.ndarray) -> np.ndarray:
    """A face that says the sentence with no lag, (F, 68, 2), and wobbles as tracked ones do."""
    pipeline, identity = ATLDiffPipeline.from_pretrained(device="cpu"), open_face()
    frames = torch.arange(int(len(waveform) / SAMPLE_RATE * FPS))
    with torch.no_grad():
        moved = pipeline.landmark_generator(
            pipeline.speech_encoder(torch.from_numpy(waveform)[None]),
            feature_positions(frames, FPS)[None],
            torch.from_numpy(identity).float()[None],
        )[0].numpy()
    noise = np.random.default_rng(0).normal(0, 0.15, moved.shape)
    return identity + moved * interocular_distance(identity) + noise


def trailing(waveform: np.ndarray, seconds: float) -> np.ndarray:
    """The same sound later by ``seconds``, or earlier."""
    shift = round(seconds * SAMPLE_RATE)
    return np.concatenate([np.zeros(max(0, shift), np.float32), waveform[max(0, -shift) :]])


@pytest.mark.parametrize("lag", [-0.2, -0.05, 0.0, 0.013, 0.05, 0.2])
def test_sound_moved_by_a_known_time_is_found_there(
    meter: SyncMeter, spoken: np.ndarray, waveform: np.ndarray, lag: float
) -> None:
    found = estimate_lag([meter.trace(spoken, trailing(waveform, lag), FPS)])
    assert found.lag_s == pytest.approx(lag, abs=0.015)
    assert found.r > 0.8
    assert found.low_s < lag < found.high_s


def as_open_as_loud(waveform: np.ndarray) -> np.ndarray:
    """A face whose mouth is open by the root of the sound's power in the 40 ms around each frame, (F, 68, 2)."""
    step = SAMPLE_RATE // int(FPS)
    around = np.pad(waveform, (step // 2, step))[: len(waveform) // step * step].reshape(-1, step)
    face = np.repeat(open_face()[None], len(around), axis=0)
    face[:, 65:68, 1] += 30 * around.std(axis=1)[:, None]
    return face + np.random.default_rng(0).normal(0, 0.15, face.shape)


@pytest.mark.parametrize("lag", [-0.2, -0.05, 0.0, 0.013, 0.2])
def test_judge_of_lags_finds_by_how_much_sound_was_moved(waveform: np.ndarray, lag: float) -> None:
    found = estimate_lag([LagMeter().trace(as_open_as_loud(waveform), trailing(waveform, lag), FPS)])
    assert found.lag_s == pytest.approx(lag, abs=0.02)
    assert found.low_s < lag < found.high_s
    assert found.is_clear


def test_no_lag_is_clear_where_too_little_is_said_or_something_else(spoken: np.ndarray, waveform: np.ndarray) -> None:
    meter = LagMeter()
    short = estimate_lag([meter.trace(spoken[:40], waveform, FPS)])
    assert (short.low_s, short.high_s) == (LAGS[0], LAGS[-1])
    assert not short.is_clear
    assert not estimate_lag([meter.trace(spoken[::-1], waveform, FPS)]).is_clear


def test_frame_rate_does_not_move_the_lag(meter: SyncMeter, spoken: np.ndarray, waveform: np.ndarray) -> None:
    sound = trailing(waveform, 0.1)
    every, second = meter.trace(spoken, sound, FPS), meter.trace(spoken[::2], sound, FPS / 2)
    assert estimate_lag([second]).lag_s == pytest.approx(estimate_lag([every]).lag_s, abs=0.01)


def test_clip_longer_than_the_encoder_hears_at_once(
    meter: SyncMeter, spoken: np.ndarray, waveform: np.ndarray
) -> None:
    sound = waveform[: len(spoken) * SAMPLE_RATE // int(FPS)]
    trace = meter.trace(np.tile(spoken, (5, 1, 1)), trailing(np.tile(sound, 5), 0.08), FPS)
    assert trace.duration_s > 30
    found = estimate_lag([trace])
    assert found.lag_s == pytest.approx(0.08, abs=0.02)
    assert found.r > 0.8
    assert found.high_s - found.low_s < 0.05


def test_interval_of_several_clips_holds_their_lag(
    meter: SyncMeter, spoken: np.ndarray, waveform: np.ndarray
) -> None:
    traces = [
        meter.trace(spoken[first : first + 30], trailing(waveform[first * 640 : (first + 30) * 640], 0.05), FPS)
        for first in range(0, len(spoken) - 30, 15)
    ]
    found = estimate_lag(traces)
    assert found.low_s < 0.05 < found.high_s
    assert 0.02 < found.high_s - found.low_s < 0.08
    assert estimate_lag(traces) == found


def test_trace_is_small_and_comes_back_from_its_array(
    meter: SyncMeter, spoken: np.ndarray, waveform: np.ndarray
) -> None:
    trace = meter.trace(spoken, waveform, FPS)
    array = trace.to_array()
    assert array.dtype == np.float32
    assert array.nbytes < 1500 * trace.duration_s + 1000
    back = LagTrace.from_array(array)
    np.testing.assert_array_equal(back.pieces, trace.pieces)
    assert trace.pieces.shape == (-(-len(spoken) * 2 // 25), 3, len(LAGS))
    assert (back.motion, back.duration_s) == (trace.motion, trace.duration_s)
    with pytest.raises(InputError, match=r"expected \(n \* 183 \+ 2,\)"):
        LagTrace.from_array(array[:-1])


def test_lips_that_say_something_else_are_unrelated(
    meter: SyncMeter, spoken: np.ndarray, waveform: np.ndarray
) -> None:
    own, other = meter.trace(spoken, waveform, FPS), meter.trace(spoken[::-1], waveform, FPS)
    assert not lips_unrelated(own, 0.0)
    assert sync_correlation(own, 0.0) > 0.8
    assert sync_correlation(other, 0.0) < UNRELATED
    assert lips_unrelated(other, 0.0)


def test_lips_are_unrelated_to_silence(meter: SyncMeter, spoken: np.ndarray, waveform: np.ndarray) -> None:
    trace = meter.trace(spoken, np.zeros_like(waveform), FPS)
    assert lips_unrelated(trace, 0.0)


def test_nothing_is_said_of_a_short_or_still_clip_or_of_one_with_too_little_sound(
    meter: SyncMeter, spoken: np.ndarray, waveform: np.ndarray
) -> None:
    backwards = spoken[::-1]
    still = np.repeat(backwards[:1], len(backwards), axis=0)
    assert not lips_unrelated(meter.trace(backwards[:20], waveform, FPS), 0.0)
    assert not lips_unrelated(meter.trace(still, waveform, FPS), 0.0)
    assert not lips_unrelated(meter.trace(backwards, waveform[:SAMPLE_RATE], FPS), 0.0)
    assert sync_correlation(meter.trace(still, waveform, FPS), 0.0) == 0


def test_what_cannot_be_measured_is_refused(meter: SyncMeter, spoken: np.ndarray, waveform: np.ndarray) -> None:
    gap = spoken.copy()
    gap[3] = np.nan
    for landmarks, sound in ((gap, waveform), (spoken[:0], waveform), (spoken, waveform[:0])):
        with pytest.raises(InputError, match="expected finite landmarks and sound"):
            meter.trace(landmarks, sound, FPS)
    with pytest.raises(InputError, match="at least one clip"):
        estimate_lag([])
    with pytest.raises(InputError, match=r"lag_s is 0\.5"):
        sync_correlation(meter.trace(spoken, waveform, FPS), 0.5)


@pytest.mark.skipif("ATLDIFF_DATA" not in os.environ, reason="needs real clips: set ATLDIFF_DATA")
@pytest.mark.parametrize(("corpus", "lag", "clips"), [("grid", 0.0, 6), ("lrwar", 0.05, 64)])
def test_lag_of_real_clips_is_found_untold(meter: SyncMeter, corpus: str, lag: float, clips: int) -> None:
    paths = sorted((Path(os.environ["ATLDIFF_DATA"]) / corpus).rglob("*.mp4"))
    traces, related, judge = [], [], LagMeter()
    with FaceDetector(max_faces=1) as detector:
        for number in range(clips):
            path = paths[number * len(paths) // clips]
            frames, fps = read_frames(path)
            landmarks, sound = fill_gaps(track_landmarks(frames, detector)), read_waveform(path)
            traces.append(judge.trace(landmarks, sound, fps))
            related.append(meter.trace(landmarks, sound, fps))
    found = estimate_lag(traces)
    assert found.lag_s == pytest.approx(lag, abs=0.02)
    assert found.low_s <= lag <= found.high_s
    assert sum(lips_unrelated(trace, found.lag_s) for trace in related) <= clips // 10
