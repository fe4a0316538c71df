"""Live sessions: what comes out of a stream of sound, when, and what is dropped."""

import io
import itertools
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import av
import numpy as np
import pytest
import torch

from atldiff.errors import InputError
from atldiff.face.crop import PICTURE_SIZE, whole_crop
from atldiff.image.animator import FaceAnimator
from atldiff.image.compose import PortraitComposer
from atldiff.live.face import LiveFace
from atldiff.live.lateness import DropRule, PlaybackClock
from atldiff.live.session import QUEUED_FRAMES, QUEUED_SOUND_S, LiveSession
from atldiff.media.provenance import INTACT, read_provenance
from atldiff.motion.living import FaceMotion
from atldiff.options import GenerationOptions
from atldiff.pipeline import ATLDiffPipeline
from atldiff.results import Frame
from atldiff.speech import SAMPLE_RATE
from atldiff.speech.spoken import SpokenTrack
from atldiff.speech.waveform import Speech, read_waveform
from atldiff.speech.windows import SpeechWindow
from face_shapes import open_face

torch.set_num_threads(1)

FACE = open_face().astype(np.float32)
LOOK_AHEAD_S = 0.2
CROP = np.random.default_rng(0).integers(0, 256, (128, 128, 3), dtype=np.uint8)


@pytest.fixture(scope="module")
def sound(speech: Path) -> np.ndarray:
    """1 s of a voice, and 7 samples more."""
    return read_waveform(speech)[: SAMPLE_RATE + 7]


def make_face(
    pipeline: ATLDiffPipeline, sample_rate: int = SAMPLE_RATE, fps: float = 25.0, delay_s: float = 0
) -> LiveFace:
    options = GenerationOptions(fps=fps, look_ahead_s=LOOK_AHEAD_S)
    motion = FaceMotion(pipeline.speech_encoder, pipeline.landmark_generator, FACE, None, options)
    animator = FaceAnimator(pipeline.unet, CROP, FACE, steps=1, seed=0)
    crop = whole_crop(len(CROP))
    composer = PortraitComposer(CROP, crop, FACE, torch.device("cpu"))

    def pictures(parts) -> Iterator[np.ndarray]:
        for part in parts:
            time.sleep(delay_s)
            yield from composer.render(part)

    return LiveFace(motion, animator, pictures, crop.to_picture, fps, sample_rate)


def cut(samples: np.ndarray, size: int) -> Iterator[np.ndarray]:
    return (samples[begin : begin + size] for begin in range(0, len(samples), size))


def numbers(frames: list[Frame]) -> list[int]:
    return [frame.number for frame in frames]


def assert_same(frames: list[Frame], others: list[Frame]) -> None:
    assert numbers(frames) == numbers(others)
    assert all(np.array_equal(one.picture, other.picture) for one, other in zip(frames, others, strict=True))


@pytest.fixture(scope="module")
def spoken(tiny_pipeline, sound) -> list[Frame]:
    return list(make_face(tiny_pipeline).frames(cut(sound, 320)))


def test_frames_have_the_times_of_the_sound(spoken) -> None:
    assert numbers(spoken) == list(range(25))
    assert [frame.time_s for frame in spoken] == [number / 25 for number in range(25)]
    assert spoken[0].picture.shape == (128, 128, 3)
    assert not np.array_equal(spoken[5].picture, spoken[20].picture)


@pytest.mark.parametrize("size", [111, 20_000])
def test_how_the_sound_is_cut_makes_no_difference(tiny_pipeline, sound, spoken, size) -> None:
    assert_same(list(make_face(tiny_pipeline).frames(cut(sound, size))), spoken)


@pytest.mark.parametrize(
    ("samples", "fps", "count"), [(0, 25, 0), (5000, 25, 8), (5000, 30000 / 1001, 9), (3000, 1, 0)]
)
def test_there_are_as_many_frames_as_the_sound_fills(tiny_pipeline, sound, samples, fps, count) -> None:
    assert len(list(make_face(tiny_pipeline, fps=fps).frames(cut(sound[:samples], 999)))) == count


def test_a_frame_waits_for_its_look_ahead_alone(tiny_pipeline, sound) -> None:
    heard = 0

    def chunks() -> Iterator[np.ndarray]:
        nonlocal heard
        for chunk in cut(sound, 160):
            heard += len(chunk)
            yield chunk

    for frame in make_face(tiny_pipeline).frames(chunks()):
        assert heard / SAMPLE_RATE <= frame.time_s + LOOK_AHEAD_S + 0.011


def test_sound_of_another_rate_is_resampled(tiny_pipeline, sound) -> None:
    high = np.repeat(sound[:8000], 3)
    frames = list(make_face(tiny_pipeline, 3 * SAMPLE_RATE).frames(cut(high, 1000)))
    low = Speech.from_array(high, 3 * SAMPLE_RATE).blocks(SAMPLE_RATE)
    assert_same(frames[:8], list(make_face(tiny_pipeline).frames(low))[:8])
    assert numbers(frames) == list(range(12))


def test_frames_that_are_not_wanted_are_left_out(tiny_pipeline, sound, spoken) -> None:
    asked: list[int] = []

    def wanted(number: int) -> bool:
        asked.append(number)
        return number % 8 < 4

    frames = list(make_face(tiny_pipeline).frames(cut(sound, 500), wanted))
    assert asked == list(range(25))
    others = [frame for frame in spoken if frame.number % 8 < 4]
    assert_same(frames[:4], others[:4])
    assert numbers(frames) == numbers(others)
    apart = [
        np.abs(one.picture.astype(float) - other.picture).mean() for one, other in zip(frames, others, strict=True)
    ]
    assert max(apart) < 2  # of 255; whoever goes on after a gap has forgotten what was before it


def test_who_is_behind_goes_on_with_what_is_new() -> None:
    rule = DropRule(max_delay_s=None, fps=10)
    rule.max_delay_s, rule.skips = 0.2, True
    assert rule.keeps(0, 0.1)
    assert not any(rule.keeps(number, 3.0) for number in range(1, 30))
    assert rule.keeps(30, 0.0)
    time.sleep(0.51)
    assert [rule.keeps(number, 3.0) for number in (31, 32)] == [True, False]
    assert rule.dropped == 30


def test_silence_keeps_the_face_alive(tiny_pipeline) -> None:
    silence = np.zeros(3 * SAMPLE_RATE, dtype=np.float32)
    frames = list(make_face(tiny_pipeline, fps=5).frames(cut(silence, 999)))
    moved = [np.abs(one.picture.astype(int) - other.picture).max() for one, other in itertools.pairwise(frames[2:])]
    assert len(frames) == 15
    assert min(moved) > 0


def test_live_frames_are_close_to_those_of_a_recording(portrait, speech) -> None:
    pipeline = ATLDiffPipeline.from_pretrained(device="cpu")
    heard = read_waveform(speech)[:SAMPLE_RATE]
    options = {"crop_only": True, "look_ahead_s": LOOK_AHEAD_S, "seed": 0}
    whole = pipeline(portrait, Speech.from_array(heard, SAMPLE_RATE), **options).frames
    with pipeline.live(portrait, max_delay_s=None, idle_s=None, **options) as session:
        live = np.stack([frame.picture for frame in session.animate([heard])])
    pipeline.close()
    assert live.shape == whole.shape
    known = slice(0, 25 - round(LOOK_AHEAD_S * 25))
    error = np.square((live[known].astype(float) - whole[known]) / 255).mean()
    assert -10 * np.log10(error) > 45


def test_the_player_waits_for_sound_and_sound_waits_for_the_player() -> None:
    clock = PlaybackClock(100, now=5.0)
    assert clock.runs_dry == 5.0
    clock.add(100, arrived=10.0)
    clock.add(100, arrived=10.2)
    assert clock.runs_dry == 12.0
    clock.add(50, arrived=13.0)
    assert clock.runs_dry == 13.5
    assert [clock.due(moment) for moment in (0.0, 1.5, 1.99, 2.0, 2.5)] == [10.0, 11.5, 11.99, 13.0, 13.5]


def test_late_frames_are_dropped_but_for_two_a_second() -> None:
    rule = DropRule(max_delay_s=1.0, fps=10)
    assert [number for number in range(10) if rule.keeps(number, delay_s=1.0)] == list(range(10))
    assert [number for number in range(10, 25) if rule.keeps(number, delay_s=1.1)] == [14, 19, 24]
    assert rule.keeps(25, delay_s=0.5)
    assert rule.dropped == 12
    patient = DropRule(max_delay_s=None, fps=10)
    assert all(patient.keeps(number, delay_s=1e6) for number in range(10))


def start(face: LiveFace, max_delay_s: float | None = None, idle_s: float | None = None) -> LiveSession:
    return LiveSession(face, 128, 128, max_delay_s, idle_s)


def test_a_session_gives_the_frames_of_the_face(tiny_pipeline, sound, spoken) -> None:
    with start(make_face(tiny_pipeline)) as session:
        whole_samples = (sound * 32768).astype(np.int16)
        frames = list(session.animate(cut(sound, 700)))
        assert_same(frames, spoken)
        assert session.take() is None
        stats = session.stats
    assert (stats.frames, stats.dropped, stats.silence_s) == (25, 0, 0)
    assert stats.sound_s == len(sound) / SAMPLE_RATE
    assert stats.median_delay_s <= stats.p95_delay_s <= stats.longest_delay_s
    with start(make_face(tiny_pipeline)) as session:
        assert numbers(list(session.animate(cut(whole_samples, 700)))) == numbers(spoken)


def test_queues_are_bounded_and_closing_ends_at_once(tiny_pipeline, sound) -> None:
    with start(make_face(tiny_pipeline)) as session:
        with pytest.raises(TimeoutError, match="no room"):
            for _ in range(1000):
                session.feed(sound[:1600], timeout_s=3)
        assert session.stats.sound_s < QUEUED_SOUND_S + QUEUED_FRAMES / 25 + 1
        began = time.monotonic()
    assert time.monotonic() - began < 5
    session.close()
    with pytest.raises(InputError, match="takes no more sound"):
        session.feed(sound)


def test_where_no_sound_comes_silence_is_put_in(tiny_pipeline, sound) -> None:
    with start(make_face(tiny_pipeline, fps=5), max_delay_s=5, idle_s=0.1) as session:
        session.feed(sound[:1600])
        frames = [session.take(timeout_s=60) for _ in range(4)]
        session.finish()
        rest = list(session)
        stats = session.stats
    assert [frame.number for frame in [*frames, *rest] if frame] == list(range(4 + len(rest)))
    assert stats.silence_s >= 3 / 5 - 0.1
    assert stats.sound_s == 0.1


def test_silence_that_the_caller_tells_of_takes_its_time(tiny_pipeline) -> None:
    with start(make_face(tiny_pipeline, fps=10)) as session:
        session.feed_silence(0.9)
        session.finish()
        assert len(list(session)) == 9
        assert session.stats.sound_s == pytest.approx(0.9)


def test_late_frames_are_counted(tiny_pipeline, sound) -> None:
    with start(make_face(tiny_pipeline, fps=25, delay_s=0.3), max_delay_s=0.5) as session:
        frames = list(session.animate(cut(np.tile(sound, 2), 1600)))
        stats = session.stats
    assert stats.dropped > 0
    assert stats.frames == len(frames) >= 4
    assert stats.frames + stats.dropped == 50
    assert np.diff(numbers(frames)).max() <= 13


def test_a_taker_that_waits_is_told(tiny_pipeline) -> None:
    with start(make_face(tiny_pipeline)) as session, pytest.raises(TimeoutError, match="no frame within"):
        session.take(timeout_s=0.05)


def test_what_goes_wrong_in_the_thread_reaches_the_caller(tiny_pipeline, sound) -> None:
    face = make_face(tiny_pipeline)

    def broken(parts) -> Iterator[np.ndarray]:
        raise ZeroDivisionError("no picture")

    face._pictures = broken
    with start(face) as session, pytest.raises(ZeroDivisionError, match="no picture"):
        list(session.animate(cut(sound, 1000)))
    with start(make_face(tiny_pipeline)) as session, pytest.raises(OSError, match="microphone"):
        list(session.animate(unplugged(sound)))


def unplugged(sound: np.ndarray) -> Iterator[np.ndarray]:
    yield sound[:3200]
    raise OSError("the microphone is gone")


@pytest.mark.parametrize(
    ("samples", "words"),
    [
        (np.zeros((2, 5), dtype=np.float32), r"shape \(2, 5\)"),
        (np.zeros(5, dtype=np.int32), "type int32"),
        (np.array([0, np.nan]), "peaks at nan"),
        (np.array([0.0, 300.0]), "peaks at 300"),
    ],
)
def test_other_sound_is_refused(tiny_pipeline, samples, words) -> None:
    with start(make_face(tiny_pipeline)) as session, pytest.raises(InputError, match=words):
        session.feed(samples)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"emotion": "auto"}, "whole recording"),
        ({"sample_rate": 10}, "sample rate of 10"),
        ({"max_delay_s": 0}, "max_delay_s is 0"),
        ({"idle_s": float("nan")}, "idle_s is nan"),
        ({"look_ahead_s": 3}, "look_ahead_s is 3"),
        ({"fps": 500}, "fps is 500"),
    ],
)
def test_options_are_checked(tiny_pipeline, portrait, options, words) -> None:
    with pytest.raises(InputError, match=words):
        tiny_pipeline.live(portrait, **options)


def test_the_command_line_writes_every_frame_in_its_place(tiny_model, portrait, sound) -> None:
    command = [sys.executable, "-m", "atldiff.cli", "live", "--portrait", str(portrait), "--model", str(tiny_model)]
    command += ["--device", "cpu", "--crop-only", "--keep-late"]
    samples = (sound[:8000] * 32767).astype("<i2").tobytes()
    pictures = subprocess.run(command, input=samples, capture_output=True, check=True)
    with av.open(io.BytesIO(pictures.stdout), "r", format="mjpeg") as container:
        assert sum(1 for _ in container.decode(video=0)) == 12
    assert "12 frames, 0 dropped, 0.50 s of sound" in pictures.stderr.decode()
    raw = [*command, "--frames", "rgb24", "--format", "f32le", "--rate", "8000", "-q"]
    plain = subprocess.run(raw, input=sound[:4000].astype("<f4").tobytes(), capture_output=True, check=True)
    assert len(plain.stdout) == 12 * PICTURE_SIZE * PICTURE_SIZE * 3
    assert plain.stderr == b""


def test_the_command_line_writes_a_marked_video_with_the_sound(tiny_model, portrait, sound, tmp_path) -> None:
    out = tmp_path / "out.mp4"
    command = [sys.executable, "-m", "atldiff.cli", "live", "--portrait", str(portrait), "--model", str(tiny_model)]
    command += ["--device", "cpu", "--crop-only", "-o", str(out)]
    samples = (sound[:8000] * 32767).astype("<i2").tobytes()
    said = subprocess.run(command, input=samples, capture_output=True, check=True)
    assert said.stdout == b""
    assert read_provenance(out).state == INTACT
    with av.open(str(out)) as container:
        assert sum(1 for _ in container.decode(video=0)) == 12
    heard = np.concatenate(list(Speech.open(out).blocks()))
    assert abs(len(heard) - 8000) <= 1
    assert np.corrcoef(heard[:7900], sound[:7900])[0, 1] > 0.9
    none = subprocess.run([*command[:-1], str(tmp_path / "out.txt")], input=samples, capture_output=True)
    assert none.returncode == 2
    empty = subprocess.run([*command[:-1], str(tmp_path / "empty.mp4")], input=b"", capture_output=True)
    assert (empty.returncode, b"Traceback" in empty.stderr) == (2, False)
    assert [path.name for path in tmp_path.iterdir()] == ["out.mp4"]


@pytest.mark.parametrize("rate", [8000, 16000, 12345])
def test_a_spoken_track_is_read_as_it_comes(rate) -> None:
    track = SpokenTrack(rate)
    track.put(np.full(rate, 16384, np.int16))
    track.put(np.full(rate // 2, 0.5, np.float32))
    track.end()
    whole = np.concatenate(list(track.stereo_blocks()), axis=1)
    assert abs(whole.shape[1] - 1.5 * track.track_rate) < 200
    assert np.abs(whole[0, 1000:-1000] - 0.5).max() < 0.01


def test_what_has_come_late_is_heard_in_fewer_windows_and_every_frame_is_made_once(tiny_pipeline, sound) -> None:
    def windows(size: int, catches_up: bool) -> int:
        living = make_face(tiny_pipeline)
        if catches_up:
            living.catch_up()
        heard: list[int] = []
        displacements = living._motion._displacements

        def counted(window: SpeechWindow, numbers: np.ndarray) -> np.ndarray:
            heard.append(len(numbers))
            return displacements(window, numbers)

        living._motion._displacements = counted
        assert numbers(list(living.frames(cut(sound, size)))) == list(range(25))
        return len(heard)

    prompt = windows(320, catches_up=False)
    assert windows(8000, catches_up=False) == prompt
    assert windows(8000, catches_up=True) < prompt / 3
    assert windows(160, catches_up=True) == prompt
