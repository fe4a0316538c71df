import io
import os
import struct
import tracemalloc
import wave
from pathlib import Path

import numpy as np
import pytest
import torch

from atldiff.errors import InputError
from atldiff.speech.waveform import SAMPLE_RATE, Speech, read_waveform
from media_files import burst, burst_time, click, sine, write_sound, write_video

BLANK = np.full((50, 32, 32, 3), 90, dtype=np.uint8)


def mono(speech: Speech, rate: int = SAMPLE_RATE) -> np.ndarray:
    return np.concatenate(list(speech.blocks(rate)))


def track(speech: Speech) -> np.ndarray:
    return np.concatenate(list(speech.stereo_blocks()), axis=1)


@pytest.mark.parametrize(
    ("suffix", "rate", "channels"),
    [
        *((".wav", rate, 1) for rate in (8000, 22050, 44100, 48000, 96000)),
        *((".flac", rate, 2) for rate in (8000, 22050, 44100, 48000, 96000)),
        *((".mp3", rate, 1) for rate in (8000, 22050, 44100, 48000)),
        *((".m4a", rate, 2) for rate in (8000, 22050, 44100, 48000, 96000)),
        *((".ogg", rate, 1) for rate in (8000, 48000)),
        (".mp3", 44100, 2),
        (".ogg", 48000, 2),
        *((suffix, 48000, 6) for suffix in (".wav", ".flac", ".m4a", ".ogg")),
    ],
)
def test_sound_of_every_kind_keeps_its_time(tmp_path, suffix, rate, channels):
    path = write_sound(tmp_path / f"burst{suffix}", burst(1.3, rate, 0.7, channels), rate)
    speech = Speech.open(path)
    assert speech.channels == channels
    assert speech.sample_rate == (48000 if suffix == ".ogg" else rate)
    assert abs(speech.duration_s - 1.3) < (0.002 if suffix == ".mp3" else 0.0001)
    samples = mono(speech)
    assert samples.dtype == np.float32
    assert len(samples) == round(speech.duration_s * SAMPLE_RATE)
    assert abs(burst_time(samples, SAMPLE_RATE) - 0.7) < 0.001
    both = track(speech)
    assert both.shape == (min(channels, 2), speech.num_samples)
    assert abs(burst_time(both[-1], speech.track_rate) - 0.7) < 0.001


@pytest.mark.parametrize("rate", [8000, 11025, 22050, 44100, 48000, 96000, 192000])
@pytest.mark.parametrize("at_s", [0.0, 0.25, 0.98])
def test_a_click_is_not_shifted_by_resampling(rate, at_s):
    speech = Speech.from_array(click(1.0, rate, at_s), rate)
    for target in (16000, 24000, 48000):
        samples = mono(speech, target)
        assert len(samples) == target
        assert abs(np.abs(samples).argmax() / target - at_s) < 0.001


@pytest.mark.parametrize("length", [1764, 1765, 44101, 100003])
def test_number_of_samples_is_exact(length):
    speech = Speech.from_array(sine(3.0, 44100)[:, :length], 44100)
    assert speech.num_samples == length
    for rate in (16000, 8000, 48000, 22050):
        assert len(mono(speech, rate)) == round(length * rate / 44100)


@pytest.mark.parametrize("duration", [0.2, 1.0, 3.7, 61.3])
@pytest.mark.parametrize("fps", [24, 25, 29.97, 30])
def test_frames_fill_the_speech_within_half_a_frame(duration, fps):
    speech = Speech.from_array(np.zeros(round(duration * 8000), dtype=np.int16), 8000)
    exact = 30000 / 1001 if fps == 29.97 else fps
    assert abs(speech.frames_at(fps) / exact - duration) <= 0.5 / exact + 1e-9


def test_at_least_one_frame_and_bad_rates():
    speech = Speech.from_array(np.zeros(700, dtype=np.int16), 16000)
    assert speech.frames_at(5) == 1
    for fps in (0, -1, float("nan"), float("inf"), 1000):
        with pytest.raises(InputError, match="frames per second; expected"):
            speech.frames_at(fps)


def test_reading_is_repeatable_and_loses_nothing(tmp_path):
    samples = np.round(sine(2.3, 16000)[0] * 32767).astype(np.int16)
    path = write_sound(tmp_path / "a.wav", samples[None] / np.float32(32768), 16000)
    speech = Speech.open(path)
    first = mono(speech)
    assert np.array_equal(first, mono(speech))
    assert np.array_equal(first, read_waveform(path))
    assert np.abs(first * 32768 - samples).max() <= 1
    assert abs(speech.peak - 0.5) < 0.001
    assert np.array_equal(mono(Speech.from_array(samples, 16000)) * 32768, samples)


def test_stereo_and_surround_are_mixed_to_the_mean(tmp_path):
    left, right = sine(0.5, 16000)[0], sine(0.5, 16000, hertz=300)[0]
    speech = Speech.from_array(np.stack([left, right]), 16000)
    assert np.allclose(mono(speech), (left + right) / 2, atol=1e-6)
    assert np.array_equal(track(speech), np.stack([left, right]))
    surround = np.zeros((6, 8000), dtype=np.float32)
    surround[2] = left
    mixed = track(Speech.from_array(surround, 16000))
    assert np.array_equal(mixed[0], mixed[1])
    assert np.corrcoef(mixed[0], left)[0, 1] > 0.999
    surround[[2, 3]] = surround[[3, 2]]
    assert not track(Speech.from_array(surround, 16000)).any()


@pytest.mark.parametrize(
    "codec", ["pcm_u8", "pcm_s24le", "pcm_s32le", "pcm_f32le", "pcm_f64le", "pcm_s64le", "pcm_mulaw"]
)
def test_sample_formats_have_the_same_scale(tmp_path, codec):
    expected = sine(0.4, 16000)
    path = write_sound(tmp_path / "a.wav", expected, 16000, codec)
    assert np.abs(mono(Speech.open(path)) - expected[0]).max() < 0.02


def test_rates_that_aac_does_not_know_become_48_khz():
    assert Speech.from_array(np.zeros(9000, np.int16), 44100).track_rate == 44100
    speech = Speech.from_array(np.zeros(192000, np.int16), 192000)
    assert speech.track_rate == 48000
    assert track(speech).shape == (1, 48000)


@pytest.mark.parametrize("container", ["mkv", "mp4"])
@pytest.mark.parametrize(("sound_start", "video_start"), [(0.0, 0.0), (0.4, 0.0), (0.0, 0.4)])
def test_the_sound_of_a_video_keeps_its_time_to_the_picture(tmp_path, container, sound_start, video_start):
    path = write_video(
        tmp_path / f"late.{container}", BLANK, 25, burst(1.5, 48000, 0.7), 48000, sound_start, video_start
    )
    speech = Speech.open(path)
    expected = 0.7 + sound_start - video_start
    assert abs(burst_time(mono(speech), SAMPLE_RATE) - expected) < 0.0015
    assert abs(speech.duration_s - (1.5 + sound_start - video_start)) < 0.03


def test_a_long_file_is_not_held_in_memory(tmp_path):
    path = tmp_path / "long.wav"
    with wave.open(str(path), "wb") as stream:
        stream.setparams((1, 2, 8000, 0, "NONE", ""))
        for _ in range(10):
            stream.writeframes(bytes(2 * 8000 * 60))
    tracemalloc.start()
    speech = Speech.open(path)
    count = sum(map(len, speech.blocks()))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert speech.duration_s == 600
    assert count == 600 * SAMPLE_RATE
    assert peak < 3e6


def test_silence_is_valid():
    speech = Speech.from_array(np.zeros(16000, dtype=np.float32), 16000)
    assert speech.peak == 0
    assert not mono(speech).any()


def test_a_name_that_looks_like_an_address_is_a_file(tmp_path, monkeypatch):
    write_sound(tmp_path / "a.wav", sine(0.3, 16000), 16000).rename(tmp_path / "http:b.wav")
    monkeypatch.chdir(tmp_path)
    assert Speech.open("http:b.wav").duration_s == pytest.approx(0.3)


def fails(path: Path, *words: str) -> None:
    with pytest.raises(InputError) as caught:
        Speech.open(path)
    text = str(caught.value)
    assert "\n" not in text
    for word in (path.name, "expected", *words):
        assert word in text, text


def test_files_that_are_not_sound(tmp_path):
    fails(tmp_path / "none.wav", "does not exist")
    fails(tmp_path, "is a folder")
    for name, content, words in [
        ("text.wav", b"hello, this is no sound\n" * 50, "cannot be read as sound or video"),
        ("noise.mp3", bytes(range(7, 256)) * 40, ""),
        ("empty.wav", b"", "is empty"),
        ("picture.m4a", b"\x89PNG\r\n\x1a\n" + bytes(100), ""),
    ]:
        (tmp_path / name).write_bytes(content)
        fails(tmp_path / name, words)
    os.mkfifo(tmp_path / "pipe.wav")
    fails(tmp_path / "pipe.wav", "not an ordinary file")


def test_a_playlist_does_not_open_other_files(tmp_path):
    sound = write_sound(tmp_path / "secret.wav", sine(0.5, 16000), 16000)
    playlist = tmp_path / "list.m3u8"
    playlist.write_text(f"#EXTM3U\n#EXT-X-TARGETDURATION:9\n#EXTINF:0.5,\n{sound}\n#EXT-X-ENDLIST\n")
    fails(playlist, "cannot be read")
    script = tmp_path / "concat.txt"
    script.write_text(f"ffconcat version 1.0\nfile {sound}\n")
    fails(script, "cannot be read")


def test_a_video_without_sound(tmp_path):
    fails(write_video(tmp_path / "silent.mp4", BLANK), "no sound track")


def test_too_short(tmp_path):
    with wave.open(str(tmp_path / "none.wav"), "wb") as stream:
        stream.setparams((1, 2, 16000, 0, "NONE", ""))
    fails(tmp_path / "none.wav", "zero length")
    fails(write_sound(tmp_path / "short.wav", sine(0.03, 16000), 16000), "lasts 0.03", "0.04 s")
    assert Speech.open(write_sound(tmp_path / "enough.wav", sine(0.04, 16000), 16000)).frames_at(25) == 1


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_nan_and_infinity(tmp_path, value):
    samples = sine(1.0, 16000, 2)
    samples[1, 8000] = value
    path = write_sound(tmp_path / "bad.wav", samples, 16000, "pcm_f32le")
    fails(path, "NaN or infinite sample at 0.500 s (sample 8000)")
    with pytest.raises(InputError, match="sample 8000"):
        Speech.from_array(samples, 16000)


@pytest.mark.parametrize("suffix", [".wav", ".flac", ".mp3", ".ogg"])
def test_truncated_files(tmp_path, suffix, caplog):
    whole = write_sound(tmp_path / f"whole{suffix}", sine(3.0, 48000), 48000).read_bytes()
    path = tmp_path / f"cut{suffix}"
    path.write_bytes(whole[: len(whole) // 2])
    speech = Speech.open(path)
    assert 0.5 < speech.duration_s < 2.5
    assert len(mono(speech)) == round(speech.duration_s * SAMPLE_RATE)
    if suffix == ".flac":
        assert "breaks off" in caplog.text


def test_truncated_before_anything_useful(tmp_path):
    whole = write_sound(tmp_path / "whole.flac", sine(3.0, 48000), 48000).read_bytes()
    for kept in (100, 8300, len(whole) // 30):
        path = tmp_path / "cut.flac"
        path.write_bytes(whole[:kept])
        fails(path)
    movie = write_sound(tmp_path / "whole.m4a", sine(3.0, 48000), 48000).read_bytes()
    path = tmp_path / "cut.m4a"
    path.write_bytes(movie[: len(movie) // 2])
    fails(path)


def test_a_broken_packet_does_not_shift_what_follows(tmp_path):
    path = write_sound(tmp_path / "a.m4a", burst(2.0, 48000, 1.5) + 0.1 * sine(2.0, 48000), 48000)
    content = bytearray(path.read_bytes())
    start = content.index(b"mdat") + 4
    size = struct.unpack(">I", content[start - 8 : start - 4])[0]
    content[start + size // 5 : start + size // 3] = b"\xff" * (size // 3 - size // 5)
    path.write_bytes(content)
    speech = Speech.open(path)
    assert speech.duration_s == pytest.approx(2.0, abs=0.03)
    late = mono(speech)[int(1.2 * SAMPLE_RATE) : int(1.8 * SAMPLE_RATE)]
    assert abs(burst_time(late, SAMPLE_RATE) - 0.3) < 0.002


@pytest.mark.parametrize(
    ("samples", "rate", "words"),
    [
        (np.zeros((16000, 40), np.float32), 16000, "shape"),
        (np.zeros((1, 2, 16000), np.float32), 16000, "shape"),
        (np.zeros(16000, np.int64), 16000, "type int64"),
        (np.zeros(16000, np.complex64), 16000, "type complex64"),
        (np.full(16000, 3000.0), 16000, "peaks at 3000"),
        (np.zeros(16000, np.float32), 0, "sample rate of 0"),
        (np.zeros(16000, np.float32), 16000.5, "sample rate of 16000.5"),
        (np.zeros(0, np.float32), 16000, "zero length"),
        (np.zeros(100, np.float32), 16000, "lasts 0.0063 s"),
    ],
)
def test_arrays_that_are_not_speech(samples, rate, words):
    with pytest.raises(InputError, match=words):
        Speech.from_array(samples, rate)


def test_every_form_of_speech_is_the_same_speech(tmp_path, monkeypatch):
    samples = np.round(sine(0.3, 16000)[0] * 32767).astype(np.int16)
    path = tmp_path / "a.wav"
    with wave.open(str(path), "wb") as stream:
        stream.setparams((1, 2, 16000, 0, "NONE", ""))
        stream.writeframes(samples.tobytes())
    content, tensor = path.read_bytes(), torch.from_numpy(samples / np.float32(32768))
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(content)))
    forms = [
        path, str(path), "-", content, bytearray(content), io.BytesIO(content), path.open("rb"),
        (16000, samples), (tensor[None], 16000), {"array": samples, "sampling_rate": 16000},
        {"bytes": content, "path": None}, {"path": str(path)},
    ]  # fmt: skip
    expected = mono(Speech.open(path))
    for form in forms:
        assert np.array_equal(mono(Speech.coerce(form)), expected), form
    for form in (samples, samples[None], samples[:, None], tensor, (samples / 32768).tolist()):
        assert np.allclose(mono(Speech.coerce(form, sample_rate=16000)), expected, atol=1e-6)
    speech = Speech.open(path)
    assert Speech.coerce(speech) is speech
    assert speech.digest == Speech.coerce((16000, samples)).digest
    assert repr(speech) == f"Speech({str(path)!r}, 0.30 s, 16000 Hz, 1 channel)"


@pytest.mark.parametrize(
    ("form", "words"),
    [
        (np.zeros(16000), "without its rate; expected sample_rate"),
        (None, "got NoneType as speech"),
        ({"text": "hello"}, "a dictionary with text"),
        (("a", "b"), "sample rate|got str|does not exist"),
        (io.StringIO("hello"), "gives text"),
        (b"", "is empty"),
        ("https://example.org/a.wav", "is an address"),
        (Path("https://example.org/a.wav"), "is an address"),
        ("a\0b.wav", "NUL"),
    ],
)
def test_other_forms(form, words):
    with pytest.raises(InputError, match=words):
        Speech.coerce(form)


@pytest.mark.skipif("ATLDIFF_DATA" not in os.environ, reason="needs real clips")
@pytest.mark.parametrize("pattern", ["grid/s1/*.mp4", "lrwar/sp22/*.mp4"])
def test_real_clips(pattern):
    clips = sorted(Path(os.environ["ATLDIFF_DATA"]).glob(pattern))[:5]
    assert clips
    for clip in clips:
        speech = Speech.open(clip)
        assert len(mono(speech)) == round(speech.duration_s * SAMPLE_RATE)
        assert 0.01 < speech.peak <= 1.5
        assert 0.5 < speech.duration_s < 10


def test_formats_that_nobody_keeps_speech_in_are_not_opened(tmp_path):
    """FFmpeg would open them by their content, whatever their name."""
    for name, content in (
        ("flash.wav", b"FWS\x0a" + bytes(200)),
        ("game.mp3", b"\x80\0\0\x24\x03\x12\x04\x01\0\0\x3e\x80" + bytes(20) + b"(c)CRI" + bytes(400)),
        ("screen.ogg", b"<svg xmlns='http://www.w3.org/2000/svg'/>" + bytes(50)),
    ):
        (tmp_path / name).write_bytes(content)
        fails(tmp_path / name, "cannot be read as sound or video")


def test_tags_in_another_encoding_do_no_harm(tmp_path):
    path = write_sound(tmp_path / "tagged.wav", sine(1.0, 16_000), 16_000)
    tag = b"INFOIART" + (8).to_bytes(4, "little") + "K\xfcnstler".encode("cp1252")[:8]
    whole = path.read_bytes() + b"LIST" + len(tag).to_bytes(4, "little") + tag
    path.write_bytes(b"RIFF" + (len(whole) - 8).to_bytes(4, "little") + whole[8:])
    assert len(read_waveform(path)) == pytest.approx(16_000, abs=1)
