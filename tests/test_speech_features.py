"""Changed versions of the training sounds: they keep their time, they lie in other sound, they are made once."""

from pathlib import Path

import numpy as np
import pytest
import torch

from atldiff.data.prepared import PreparedClips
from atldiff.errors import InputError, OutputError
from atldiff.speech import SAMPLE_RATE
from atldiff.speech.distortion import add_echo, add_noise, change_speed, limit_band
from atldiff.speech.whisper import FEATURE_RATE, WhisperEncoder
from atldiff.speech.windows import HOP, MARGIN
from atldiff.training.sound.speech_features import VARIANTS, cache_features, encode_speech
from prepared_files import write_prepared

torch.set_num_threads(1)


def tone(hertz: float, seconds: float) -> np.ndarray:
    times = np.arange(round(seconds * SAMPLE_RATE)) / SAMPLE_RATE
    return np.sin(2 * np.pi * hertz * times).astype(np.float32)


def pitch(samples: np.ndarray) -> float:
    return float(np.abs(np.fft.rfft(samples)).argmax() * SAMPLE_RATE / len(samples))


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> PreparedClips:
    folder = tmp_path_factory.mktemp("clips")
    write_prepared(folder, splits=("train",) * 4, frames=20)
    return PreparedClips.open(folder)


def test_faster_is_shorter_and_higher() -> None:
    faster = change_speed(tone(400, 1.0), 1.25)
    assert len(faster) == round(SAMPLE_RATE / 1.25)
    assert pitch(faster) == pytest.approx(500, abs=2)
    assert np.abs(faster).max() == pytest.approx(1, abs=0.05)
    slower = change_speed(tone(400, 1.0), 0.8)
    assert pitch(slower) == pytest.approx(320, abs=2)


def test_noise_has_the_power_that_was_asked_for() -> None:
    speech, noise = tone(300, 1.0), 7 * tone(1000, 1.0)
    added = add_noise(speech, noise, ratio_db=6.0) - speech
    assert 10 * np.log10(np.mean(speech**2) / np.mean(added**2)) == pytest.approx(6, abs=0.01)


def test_a_telephone_passes_its_band_alone() -> None:
    through = limit_band(tone(100, 1.0) + tone(1000, 1.0) + tone(5000, 1.0), 300, 3400)
    assert np.abs(through - tone(1000, 1.0)).max() < 0.01


def test_an_echo_follows_the_sound_and_does_not_move_it() -> None:
    click = np.zeros(SAMPLE_RATE, np.float32)
    click[4000] = 1
    echo = add_echo(click, 0.3, 0.5, np.random.default_rng(0))
    assert not echo[:4000].round(6).any()
    assert int(np.abs(echo).argmax()) == 4000
    tail = echo[4001:]
    assert np.abs(tail[:800]).mean() > 5 * np.abs(tail[3200:4000]).mean() > 0
    assert not tail[round(0.3 * SAMPLE_RATE) :].round(6).any()


def test_variants_keep_the_time_of_the_clip(clips: PreparedClips) -> None:
    plain = cache_features(clips.clips, clips.folder)
    changed = cache_features(clips.clips, clips.folder, seed=0)
    frames = np.arange(2, 18)
    agreements = []
    for original, versions in zip(plain, changed, strict=True):
        assert len(original.variants) == 1
        assert len(versions.variants) == VARIANTS
        own = original.variants[0]
        assert own.positions(np.array([5]), 25.0)[0] == pytest.approx(5 * FEATURE_RATE / 25)
        reference = own.features[own.positions(frames, 25.0).round().astype(int)].astype(np.float32)
        for variant in versions.variants:
            by_shift = []
            for shift in (-6, -3, 0, 3, 6):
                places = (variant.positions(frames, 25.0) + shift).round().astype(int)
                found = variant.features[places.clip(0, len(variant.features) - 1)].astype(np.float32)
                by_shift.append(np.corrcoef(found.ravel(), reference.ravel())[0, 1])
            agreements.append(by_shift)
    assert int(np.mean(agreements, axis=0).argmax()) == 2


def test_features_are_made_once_and_are_the_same_each_time(clips: PreparedClips, tmp_path: Path) -> None:
    first = cache_features(clips.clips, tmp_path, seed=3)
    paths = sorted(tmp_path.rglob("*.npz"))
    written = {path: path.stat().st_mtime_ns for path in paths}
    again = cache_features(clips.clips, tmp_path, seed=3)
    assert {path: path.stat().st_mtime_ns for path in paths} == written
    paths[1].unlink()
    third = cache_features(clips.clips, tmp_path, seed=3)
    other = cache_features(clips.clips, tmp_path, seed=4)
    for one, two, three, four in zip(first, again, third, other, strict=True):
        assert np.array_equal(one.variants[1].features, two.variants[1].features)
        assert np.array_equal(one.variants[1].features, three.variants[1].features)
        assert not np.array_equal(one.variants[1].features, four.variants[1].features)


def test_a_clip_of_any_length_is_heard_window_by_window() -> None:
    encoder = WhisperEncoder.from_package()
    sound = np.random.default_rng(0).normal(0, 0.1, 2 * HOP + MARGIN + 999).astype(np.float32)
    features = encode_speech(encoder, sound)
    assert len(features) == -(-len(sound) // 320)
    with torch.no_grad():
        second = encoder(torch.from_numpy(sound[HOP - MARGIN : 2 * HOP + MARGIN])[None])[0].numpy()
    assert np.allclose(features[450:750], second[100:400], atol=2e-2)


def test_what_cannot_be_read_or_kept_is_named(clips: PreparedClips, tmp_path: Path) -> None:
    cache_features(clips.clips[:1], tmp_path)
    path = next(tmp_path.rglob("*.npz"))
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(InputError, match="delete it, and it is made again"):
        cache_features(clips.clips[:1], tmp_path)
    (tmp_path / "taken").write_text("")
    with pytest.raises(OutputError, match="cannot keep speech features"):
        cache_features(clips.clips[:1], tmp_path / "taken")


def test_features_of_another_sound_are_made_again(tmp_path: Path) -> None:
    lengths = []
    for frames in (20, 24):
        folder = tmp_path / str(frames)
        write_prepared(folder, splits=("train",), frames=frames)
        clip = PreparedClips.open(folder).clips
        lengths.append(len(cache_features(clip, tmp_path)[0].variants[0].features))
    assert lengths == [40, 48]
