import hashlib
import os
import signal
import subprocess
import sys
import textwrap
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

from atldiff.errors import InputError, OutputError
from atldiff.media.writer import VideoWriter, check_output
from atldiff.options import DEFAULT_MAX_SIZE
from atldiff.speech.waveform import Speech
from media_files import click, sine, unsigned_content, write_sound, write_video

GREY = np.full((48, 64, 3), 120, dtype=np.uint8)


def noise(seed: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, GREY.shape, dtype=np.uint8)


def write(path: Path, speech: Speech, fps: float, frame: np.ndarray = GREY) -> Path:
    height, width = frame.shape[:2]
    with VideoWriter(path, width, height, fps, speech) as writer:
        for _ in range(speech.frames_at(fps)):
            writer.write(frame)
    return path


def in_seconds(ticks: int | None, time_base: Fraction | None) -> Fraction:
    assert ticks is not None
    assert time_base is not None
    return ticks * time_base


def silence(duration_s: float, rate: int = 16000) -> Speech:
    return Speech.from_array(np.zeros(round(duration_s * rate), dtype=np.int16), rate)


@pytest.mark.parametrize("fps", [24, 25, 29.97, 30])
@pytest.mark.parametrize("duration", [0.2, 1.0, 3.7, 61.3])
def test_both_tracks_start_at_zero_and_are_as_long_as_the_speech(tmp_path, duration, fps):
    speech = Speech.from_array(sine(duration, 16000), 16000)
    path = write(tmp_path / "out.mp4", speech, fps, GREY[:16, :16])
    exact = Fraction(30000, 1001) if fps == 29.97 else Fraction(fps)
    with av.open(str(path)) as container:
        video, audio = container.streams.video[0], container.streams.audio[0]
        times = sorted(in_seconds(p.pts, p.time_base) for p in container.demux(video) if p.size)
        assert video.average_rate == exact
        assert video.start_time == 0
        assert audio.start_time == 0
        assert float(in_seconds(audio.duration, audio.time_base)) == pytest.approx(duration, abs=1e-4)
    assert all(abs(time - index / exact) < 1e-4 for index, time in enumerate(times))
    assert abs(len(times) / exact - duration) <= 0.5 / exact + 1e-9
    heard = Speech.open(path)
    assert heard.duration_s == pytest.approx(duration, abs=1e-4)
    assert heard.frames_at(fps) == len(times)


@pytest.mark.parametrize(("fps", "exact"), [(23.976, Fraction(24000, 1001)), (12.5, Fraction(25, 2))])
def test_other_frame_rates_are_exact(tmp_path, fps, exact):
    path = write(tmp_path / "out.mp4", silence(0.5), fps)
    with av.open(str(path)) as container:
        assert container.streams.video[0].average_rate == exact


def test_the_format_is_what_browsers_play(tmp_path):
    path = write(tmp_path / "out.mp4", Speech.from_array(sine(1.0, 44100, 2), 44100), 25)
    with av.open(str(path)) as container:
        video, audio = container.streams.video[0].codec_context, container.streams.audio[0]
        assert (video.name, video.profile, video.pix_fmt) == ("h264", "High", "yuv420p")
        assert (video.colorspace, video.color_range) == (1, 1)
        assert (video.color_primaries, video.color_trc) == (1, 1)
        assert (audio.codec_context.name, audio.rate, audio.channels) == ("aac", 44100, 2)
    content = unsigned_content(path)
    assert content.index(b"moov") < content.index(b"mdat")


def test_the_largest_usual_size_is_of_a_level_that_players_have(tmp_path):
    path = tmp_path / "out.mp4"
    with VideoWriter(path, DEFAULT_MAX_SIZE, DEFAULT_MAX_SIZE, 25, None) as writer:
        writer.write(np.zeros((DEFAULT_MAX_SIZE, DEFAULT_MAX_SIZE, 3), dtype=np.uint8))
    with av.open(str(path)) as container:
        record = container.streams.video[0].codec_context.extradata
        assert record is not None and record[3] <= 51  # AVCDecoderConfigurationRecord: ten times the level


@pytest.mark.parametrize("rate", [8000, 16000, 22050, 44100, 48000, 96000, 192000])
def test_the_sound_is_not_shifted(tmp_path, rate):
    speech = Speech.from_array(click(1.5, rate, 0.7), rate)
    heard = Speech.open(write(tmp_path / "out.mp4", speech, 25))
    samples = np.concatenate(list(heard.stereo_blocks()), axis=1)[0]
    assert abs(np.abs(samples).argmax() / heard.track_rate - 0.7) < 0.002


def test_left_and_right_stay_where_they_are(tmp_path):
    samples = sine(1.0, 48000, 2)
    samples[1] = 0
    heard = Speech.open(write(tmp_path / "out.mp4", Speech.from_array(samples, 48000), 25))
    left, right = np.concatenate(list(heard.stereo_blocks()), axis=1)
    assert np.abs(left - samples[0]).mean() < 0.01
    assert np.abs(right).max() < 0.01


@pytest.mark.parametrize(
    "colour", [(200, 40, 90), (0, 0, 0), (255, 255, 255), (30, 200, 60), (20, 60, 220), (224, 172, 140)]
)
def test_colours_come_back(tmp_path, colour):
    path = write(tmp_path / "out.mp4", silence(0.2), 25, np.full((48, 64, 3), colour, dtype=np.uint8))
    with av.open(str(path)) as container:
        for frame in container.decode(video=0):
            error = frame.to_ndarray(format="rgb24").astype(int) - colour
            assert np.abs(error).max() <= 3
            luma = frame.to_ndarray()[:48, :64].mean()
            expected = 16 + 219 / 255 * np.dot((0.2126, 0.7152, 0.0722), colour)
            assert abs(luma - expected) <= 1.5


def test_odd_sides_lose_the_last_row_and_column(tmp_path):
    path = write(tmp_path / "out.mp4", silence(0.2), 25, np.full((51, 65, 3), 120, dtype=np.uint8))
    with av.open(str(path)) as container:
        frame = next(container.decode(video=0))
        assert (frame.width, frame.height) == (64, 50)


def test_the_same_frames_make_the_same_bytes(tmp_path):
    digests = set()
    for name in ("a.mp4", "b.mp4"):
        with VideoWriter(tmp_path / name, 64, 48, 25, Speech.from_array(sine(1.0, 16000), 16000)) as writer:
            for seed in range(25):
                writer.write(noise(seed))
        digests.add(hashlib.sha256(unsigned_content(tmp_path / name)).digest())
    assert len(digests) == 1


def test_a_frame_is_as_it_was_when_it_was_handed_over(tmp_path):
    frame = GREY.copy()
    with VideoWriter(tmp_path / "out.mp4", 64, 48, 25) as writer:
        for _ in range(30):
            frame[:] = 128
            writer.write(frame)
            frame[:] = 0
    pictures = [picture.to_ndarray(format="gray") for picture in av.open(tmp_path / "out.mp4").decode(video=0)]
    assert len(pictures) == 30
    assert min(picture.min() for picture in pictures) > 100


def test_without_speech_there_is_no_sound_track(tmp_path):
    with VideoWriter(tmp_path / "out.mp4", 64, 48, 25) as writer:
        writer.write(GREY)
    with av.open(str(tmp_path / "out.mp4")) as container:
        assert not container.streams.audio


def test_sound_and_picture_are_interleaved(tmp_path):
    path = write(tmp_path / "out.mp4", Speech.from_array(sine(20.0, 16000), 16000), 25)
    ahead = [0.0, 0.0]
    with av.open(str(path)) as container:
        for packet in sorted(
            (packet for packet in container.demux() if packet.pos is not None and packet.size),
            key=lambda packet: packet.pos or 0,
        ):
            time = float(in_seconds(packet.dts, packet.time_base))
            ahead[packet.stream.index] = time
            assert abs(ahead[0] - ahead[1]) < 2.5


def leftovers(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt, SystemExit])
@pytest.mark.parametrize("existing", [b"precious", None])
def test_an_error_leaves_nothing_and_spares_what_was_there(tmp_path, error, existing):
    path = tmp_path / "out.mp4"
    if existing:
        path.write_bytes(existing)
    with pytest.raises(error), VideoWriter(path, 64, 48, 25, silence(3.0)) as writer:
        for seed in range(30):
            writer.write(noise(seed))
        assert not path.exists() or path.read_bytes() == existing
        assert len(leftovers(tmp_path)) <= (2 if existing else 1)
        raise error
    assert leftovers(tmp_path) == (["out.mp4"] if existing else [])
    assert not existing or path.read_bytes() == existing


def test_success_replaces_what_was_there(tmp_path):
    path = tmp_path / "out.mp4"
    path.write_bytes(b"old")
    write(path, silence(0.5), 25)
    assert leftovers(tmp_path) == ["out.mp4"]
    assert Speech.open(path).duration_s == pytest.approx(0.5)
    with pytest.raises(OutputError, match="exists already"):
        VideoWriter(path, 64, 48, 25, overwrite=False)


def test_a_linked_output_is_written_where_the_link_points(tmp_path):
    (tmp_path / "real").mkdir()
    (tmp_path / "out.mp4").symlink_to(tmp_path / "real" / "film.mp4")
    write(tmp_path / "out.mp4", silence(0.2), 25)
    assert (tmp_path / "out.mp4").is_symlink()
    assert (tmp_path / "real" / "film.mp4").stat().st_size > 1000


WRITE_SLOWLY = """
    import sys, time, numpy as np
    from atldiff.speech.waveform import Speech
    from atldiff.media.writer import VideoWriter
    speech = Speech.from_array(np.zeros(16000 * 600, np.int16), 16000)
    with VideoWriter(sys.argv[1], 64, 48, 25, speech) as writer:
        for index in range(100_000):
            writer.write(np.full((48, 64, 3), index % 256, np.uint8))
            if index == 50:
                print("writing", flush=True)
            if index > 50:
                time.sleep(0.01)
"""


@pytest.mark.parametrize("kill_signal", [signal.SIGKILL, signal.SIGINT])
def test_a_killed_process_leaves_no_half_file(tmp_path, kill_signal):
    path = tmp_path / "out.mp4"
    path.write_bytes(b"precious")
    command = [sys.executable, "-c", textwrap.dedent(WRITE_SLOWLY), str(path)]
    with subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # a background job may have it ignored
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"writing\n"
        process.send_signal(kill_signal)
        process.wait(timeout=120)
    assert path.read_bytes() == b"precious"
    others = [name for name in leftovers(tmp_path) if name != "out.mp4"]
    assert all(name.startswith(".") for name in others)
    assert kill_signal == signal.SIGKILL or not others


FILL_THE_DISK = """
    import resource, sys, numpy as np
    from atldiff.errors import OutputError
    from atldiff.speech.waveform import Speech
    from atldiff.media.writer import VideoWriter
    resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[2]), int(sys.argv[2])))
    speech = Speech.from_array(np.zeros(16000 * 8, np.int16), 16000)
    random = np.random.default_rng(0)
    try:
        with VideoWriter(sys.argv[1], 64, 48, 25, speech) as writer:
            for _ in range(200):
                writer.write(random.integers(0, 256, (48, 64, 3), dtype=np.uint8))
    except OutputError as error:
        sys.exit(str(error))
"""


@pytest.mark.parametrize("limit", [20, 100_000])
def test_a_full_disk(tmp_path, limit):
    path = tmp_path / "out.mp4"
    command = [sys.executable, "-c", textwrap.dedent(FILL_THE_DISK), str(path), str(limit)]
    result = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert result.returncode == 1
    assert f"cannot write {path}: File too large" in result.stderr, result.stderr
    assert leftovers(tmp_path) == []


def refused(path: Path, words: str, inputs: tuple[Path, ...] = ()) -> None:
    with pytest.raises(OutputError) as caught:
        check_output(path, inputs)
    assert words in str(caught.value)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_outputs_that_cannot_be(tmp_path):
    refused(tmp_path / "none" / "out.mp4", "there is no folder")
    refused(tmp_path / "out.avi", "'.avi'; expected .mp4")
    refused(tmp_path, "expected .mp4")
    (tmp_path / "folder.mp4").mkdir()
    refused(tmp_path / "folder.mp4", "is a folder")
    (tmp_path / "file").write_text("")
    refused(tmp_path / "file" / "out.mp4", "there is no folder")
    (tmp_path / "loop.mp4").symlink_to(tmp_path / "loop.mp4")
    refused(tmp_path / "loop.mp4", "")
    if Path("/proc/self").is_dir():
        refused(Path("/proc/self/out.mp4"), "expected a writable folder")
    before = leftovers(tmp_path)
    assert check_output(tmp_path / "out.MP4") == (tmp_path / "out.MP4").resolve()
    assert leftovers(tmp_path) == before


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_read_only_folder(tmp_path):
    folder = tmp_path / "locked"
    folder.mkdir(mode=0o500)
    refused(folder / "out.mp4", "Permission denied")


def test_an_input_is_never_the_output(tmp_path):
    clip = write_video(tmp_path / "in.mp4", np.stack([GREY] * 5), 25, sine(0.2, 48000), 48000)
    content = clip.read_bytes()
    (tmp_path / "link.mp4").symlink_to(clip)
    (tmp_path / "hard.mp4").hardlink_to(clip)
    for output in (clip, tmp_path / "link.mp4", tmp_path / "hard.mp4", tmp_path / "." / "in.mp4"):
        refused(output, "it is the input", (tmp_path / "other.png", clip))
        with pytest.raises(OutputError, match="it is the input"):
            VideoWriter(output, 64, 48, 25, Speech.open(clip))
    assert clip.read_bytes() == content


def test_frames_that_do_not_fit(tmp_path):
    for frame in (GREY[:, :-1], GREY.astype(np.float32), GREY[..., 0]):
        with (
            pytest.raises(InputError, match=r"expected \(48, 64, 3\) uint8"),
            VideoWriter(tmp_path / "out.mp4", 64, 48, 25) as writer,
        ):
            writer.write(frame)
    with (
        pytest.raises(OutputError, match="no frame was written"),
        VideoWriter(tmp_path / "o.mp4", 64, 48, 25),
    ):
        pass
    with pytest.raises(InputError, match="expected at least 2×2"):
        VideoWriter(tmp_path / "out.mp4", 1, 48, 25)
    for fps in (0, -25, float("nan"), 10_000):
        with pytest.raises(InputError, match="frames per second"):
            VideoWriter(tmp_path / "out.mp4", 64, 48, fps)
    assert leftovers(tmp_path) == []


def test_speech_from_every_format_becomes_the_sound_track(tmp_path):
    for suffix, rate in ((".mp3", 22050), (".ogg", 48000), (".flac", 96000), (".m4a", 44100)):
        speech = Speech.open(write_sound(tmp_path / f"in{suffix}", sine(0.9, rate, 2), rate))
        heard = Speech.open(write(tmp_path / "out.mp4", speech, 25))
        assert heard.duration_s == pytest.approx(speech.duration_s, abs=1e-4)
        assert heard.peak == pytest.approx(0.5, abs=0.1)


@pytest.mark.skipif("ATLDIFF_DATA" not in os.environ, reason="needs real clips")
@pytest.mark.parametrize("pattern", ["grid/s1/*.mp4", "lrwar/sp22/*.mp4"])
def test_real_sound_is_neither_shifted_nor_cut(tmp_path, pattern):
    clip = min(Path(os.environ["ATLDIFF_DATA"]).glob(pattern))
    speech = Speech.open(clip)
    heard = Speech.open(write(tmp_path / "out.mp4", speech, 29.97))
    assert heard.num_samples == speech.num_samples
    before, after = (np.concatenate(list(one.blocks())) for one in (speech, heard))
    lags = range(-40, 41)
    scores = [np.dot(before[100:-100], np.roll(after, -lag)[100:-100]) for lag in lags]
    assert abs(lags[int(np.argmax(scores))]) <= 1
    assert np.corrcoef(before, after)[0, 1] > 0.95
