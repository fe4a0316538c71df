"""Sound with holes, of several tracks, in opposite phase, quiet or loud: in time, as loud as the networks know."""

from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from av.audio.frame import AudioFrame
from av.audio.stream import AudioStream
from av.stream import Disposition

from atldiff.errors import InputError
from atldiff.speech.loudness import TARGET_LUFS, LoudnessMeter, levelled_live
from atldiff.speech.waveform import SAMPLE_RATE, Speech
from media_files import burst, burst_time, sine, write_sound, write_video

BLANK = np.full((25, 32, 32, 3), 90, dtype=np.uint8)


def mono(speech: Speech) -> np.ndarray:
    return np.concatenate(list(speech.blocks()))


def write_with_hole(path: Path, samples: np.ndarray, hole_s: tuple[float, float], codec: str) -> Path:
    """48 kHz (1, samples) as a file whose packets within the hole are left out, as recorders do that pause."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=48_000, layout="mono")
        assert isinstance(stream, AudioStream)
        resampler = av.AudioResampler(format=stream.format.name, layout="mono", rate=48_000)
        frame = AudioFrame.from_ndarray(samples, format="fltp", layout="mono")
        frame.sample_rate, frame.pts, frame.time_base = 48_000, 0, Fraction(1, 48_000)
        packets = [packet for piece in resampler.resample(frame) for packet in stream.encode(piece)]
        for packet in [*packets, *stream.encode(None)]:
            assert packet.pts is not None and packet.time_base is not None
            if not hole_s[0] <= packet.pts * packet.time_base < hole_s[1]:
                container.mux(packet)
    return path


@pytest.mark.parametrize(("name", "codec"), [("a.webm", "libopus"), ("a.mkv", "flac"), ("a.mp4", "aac")])
def test_a_hole_in_a_track_is_silence(tmp_path: Path, name: str, codec: str, caplog) -> None:
    samples = burst(8.0, 48_000, 1.0) + burst(8.0, 48_000, 7.0)
    speech = Speech.open(write_with_hole(tmp_path / name, samples, (2.5, 6.0), codec))
    heard = mono(speech)
    assert speech.duration_s == pytest.approx(8.0, abs=0.03)
    assert burst_time(heard[: 4 * SAMPLE_RATE], SAMPLE_RATE) == pytest.approx(1.0, abs=0.002)
    assert burst_time(heard[4 * SAMPLE_RATE :], SAMPLE_RATE) == pytest.approx(3.0, abs=0.002)
    assert not caplog.records


def test_a_clock_that_jumps_for_hours_is_joined(tmp_path: Path, caplog) -> None:
    path = tmp_path / "jump.mkv"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("pcm_s16le", rate=16_000, layout="mono")
        assert isinstance(stream, AudioStream)
        for begin in (0, 16_000 * 7200):
            frame = AudioFrame.from_ndarray(np.full((1, 16_000), 999, np.int16), format="s16", layout="mono")
            frame.sample_rate, frame.pts, frame.time_base = 16_000, begin, Fraction(1, 16_000)
            container.mux(stream.encode(frame))
    assert Speech.open(path).duration_s == pytest.approx(2.0)
    assert "jumps by 7199 s" in caplog.text


def test_a_late_sound_track_is_not_waited_for_for_ever(tmp_path: Path) -> None:
    path = write_video(tmp_path / "late.mkv", BLANK, 25, sine(0.5, 48_000), 48_000, sound_start_s=4000)
    with pytest.raises(InputError, match=r"sound of .*late\.mkv begins 4000 s after its picture; expected at most"):
        Speech.open(path)


def test_joined_files_are_not_called_broken(tmp_path: Path, caplog) -> None:
    quiet, loud = (
        write_sound(tmp_path / f"{level}.aac", level * sine(2.0, 48_000), 48_000, "aac") for level in (0, 1)
    )
    path = tmp_path / "joined.aac"
    path.write_bytes(quiet.read_bytes() + loud.read_bytes())
    assert Speech.open(path).duration_s == pytest.approx(4.0, abs=0.1)
    assert not caplog.records


def write_tracks(path: Path, tracks: list[np.ndarray], default: int | None) -> Path:
    with av.open(str(path), "w") as container:
        streams = []
        for number in range(len(tracks)):
            stream = container.add_stream("pcm_s16le", rate=16_000, layout="mono")
            stream.disposition = Disposition.default if number == default else Disposition(0)
            streams.append(stream)
        for stream, samples in zip(streams, tracks, strict=True):
            frame = AudioFrame.from_ndarray((samples * 32767).astype(np.int16), format="s16", layout="mono")
            frame.sample_rate, frame.pts, frame.time_base = 16_000, 0, Fraction(1, 16_000)
            container.mux(stream.encode(frame))
    return path


def test_the_default_track_wins_and_any_can_be_chosen(tmp_path: Path, caplog) -> None:
    tracks = [0 * sine(1.0, 16_000), sine(1.0, 16_000), 0.2 * sine(1.0, 16_000)]
    path = write_tracks(tmp_path / "three.mkv", tracks, default=1)
    assert Speech.open(path).peak == pytest.approx(0.5, abs=0.01)
    assert Speech.open(path, track=3).peak == pytest.approx(0.1, abs=0.01)
    assert not caplog.records
    assert Speech.open(path, track=1).peak == 0
    assert "is silent: the mouth will not move; it has 3 sound tracks, choose with --audio-track N" in caplog.text
    for number in (0, 4):
        with pytest.raises(InputError, match=f"has 3 sound tracks, no number {number}; expected 1 to 3"):
            Speech.open(path, track=number)


def test_a_silent_recording_gets_one_line(tmp_path: Path, caplog) -> None:
    Speech.open(write_sound(tmp_path / "nothing.wav", 0 * sine(1.0, 16_000), 16_000))
    assert [record.getMessage() for record in caplog.records] == [
        f"{tmp_path / 'nothing.wav'} is silent: the mouth will not move"
    ]


@pytest.mark.parametrize("channels", [2, 6])
def test_opposite_phases_do_not_cancel(channels: int) -> None:
    voice = sine(1.0, 16_000)[0]
    samples = np.zeros((channels, 16_000), np.float32)
    samples[0], samples[1] = voice, -0.8 * voice
    speech = Speech.from_array(samples, 16_000)
    assert np.corrcoef(mono(speech), voice)[0, 1] > 0.999
    assert np.abs(mono(speech)).max() == pytest.approx(0.5, abs=0.01)


def test_arrays_of_any_orientation_and_width() -> None:
    pair = np.concatenate([sine(0.5, 16_000), 0.5 * sine(0.5, 16_000)])
    expected = mono(Speech.from_array(pair, 16_000))
    assert np.array_equal(mono(Speech.from_array(pair.T, 16_000)), expected)
    assert np.allclose(mono(Speech.from_array((pair * 2**31).astype(np.int32), 16_000)), expected, atol=1e-5)


def test_loudness_of_a_full_scale_tone() -> None:
    """BS.1770: 997 Hz at full scale in one channel reads -3.01 LUFS; half a minute of silence is gated away."""
    meter = LoudnessMeter()
    meter.hear(2 * sine(3.0, SAMPLE_RATE, hertz=997)[0])
    assert meter.loudness == pytest.approx(-3.01, abs=0.05)
    meter.hear(np.zeros(30 * SAMPLE_RATE, np.float32))
    assert meter.loudness == pytest.approx(-3.01, abs=0.2)


@pytest.mark.parametrize("gain_db", [-50, -30, 0, 10])
def test_speech_of_any_level_is_brought_to_the_same(speech: Path, gain_db: int) -> None:
    own = mono(Speech.open(speech))[: 3 * SAMPLE_RATE]
    changed = Speech.from_array(own * np.float32(10 ** (gain_db / 20)), SAMPLE_RATE)
    meter = LoudnessMeter()
    for block in changed.levelled_blocks():
        meter.hear(block)
    assert meter.loudness == pytest.approx(TARGET_LUFS, abs=0.3 if gain_db > -50 else 1.5)


@pytest.mark.parametrize("gain_db", [-8, -4])
def test_a_word_that_is_a_little_louder_or_quieter_stays_so(speech: Path, gain_db: int) -> None:
    own = mono(Speech.open(speech))
    meter = LoudnessMeter()
    meter.hear(own)
    changed = own * np.float32(10 ** ((meter.gain_db + gain_db) / 20))
    assert Speech.from_array(changed, SAMPLE_RATE).gain_db == pytest.approx(-gain_db, abs=0.1)
    word = changed[SAMPLE_RATE // 2 : SAMPLE_RATE]
    assert abs(Speech.from_array(word, SAMPLE_RATE).gain_db) < 1
    faint = Speech.from_array(word * np.float32(0.003), SAMPLE_RATE)
    assert faint.gain_db > 30


def test_live_sound_is_levelled_by_what_was_heard_however_it_is_cut(speech: Path) -> None:
    own = 0.02 * mono(Speech.open(speech))
    whole = np.concatenate(list(levelled_live([own])))
    pieces = np.concatenate(list(levelled_live(np.array_split(own, 777))))
    assert np.array_equal(whole, pieces)
    changed = own.copy()
    changed[3 * SAMPLE_RATE :] = 0
    early = np.concatenate(list(levelled_live([changed])))
    assert np.array_equal(early[: 3 * SAMPLE_RATE], whole[: 3 * SAMPLE_RATE])
    meter = LoudnessMeter()
    meter.hear(whole[3 * SAMPLE_RATE :])
    assert meter.loudness == pytest.approx(TARGET_LUFS, abs=4)


def test_silence_stays_silence() -> None:
    speech = Speech.from_array(np.zeros(16_000, np.float32), 16_000)
    assert speech.gain_db == 0
    assert not np.concatenate(list(speech.levelled_blocks())).any()
