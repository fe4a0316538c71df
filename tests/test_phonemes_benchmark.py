"""Which sound is spoken when: an aligner that learns from sentences alone, and what lips do at the sounds."""

import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from atldiff.data.prepared import PreparedClips
from atldiff.speech.whisper import FEATURE_RATE
from atldiff.training.sound.speech_features import SpeechVariant, SpokenClip
from prepared_files import write_prepared

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"
KEYS = ("bbaf2n", "lgbm4p", "pwio7s", "srwp1a", "bgbq9s", "lraz8n", "pbis6p", "swax3a", "lbbt5n")


@pytest.fixture(scope="module")
def phonemes():
    sys.path.insert(0, str(BENCHMARKS))
    try:
        import phonemes
    finally:
        sys.path.remove(str(BENCHMARKS))
    return phonemes


@pytest.fixture
def spoken(phonemes, tmp_path: Path) -> tuple[list[SpokenClip], list[list[int]]]:
    """Sentences whose every sound is one vector and noise, 4 to 9 features long, with where each ends."""
    write_prepared(tmp_path, splits=("train",), frames=20)
    (clip,) = PreparedClips.open(tmp_path).clips
    random, sounds = np.random.default_rng(0), {}
    items, ends = [], []
    for key in KEYS:
        parts = []
        for sound in phonemes.phonemes(key):
            centre = sounds.setdefault(sound, random.standard_normal(48))
            length = 25 if sound == phonemes.SILENCE else int(random.integers(4, 10))
            parts.append(centre + 0.3 * random.standard_normal((length, 48)))
        features = np.concatenate(parts).astype(np.float16)
        named = type(clip)(replace(clip.info, key=f"GRID/x/{key}"), tmp_path)
        items.append(SpokenClip(named, (SpeechVariant(features, 0.0, 1.0),)))
        ends.append(np.cumsum([len(part) for part in parts]).tolist())
    return items, ends


def test_a_sentence_is_spelt_by_its_name(phonemes) -> None:
    silence = phonemes.SILENCE
    expected = [silence, *["l", "ey", "b", "l", "uw", "b", "ay", "s", "iy", "t", "uw", "ah", "g", "eh", "n"], silence]
    assert phonemes.phonemes("GRID/grid_C/lbbc2a") == expected


def test_sounds_are_found_without_being_told_where_they_are(phonemes, spoken) -> None:
    items, ends = spoken
    aligner = phonemes.Aligner(items)
    off = []
    for item, wanted in zip(items, ends, strict=True):
        segments = aligner.align(item)
        assert [segment.phoneme for segment in segments] == phonemes.phonemes(item.clip.info.key)
        off += [abs(segment.end * FEATURE_RATE - end) for segment, end in zip(segments, wanted, strict=True)]
    assert np.mean(np.array(off) <= 2) > 0.85


def test_lips_that_meet_at_a_sound(phonemes) -> None:
    opening = np.full(50, 0.1)
    opening[[11, 30]] = 0.0, 0.01
    segments = [phonemes.Segment("b", 0.4, 0.48), phonemes.Segment("ay", 0.48, 0.9), phonemes.Segment("m", 1.6, 1.7)]
    assert phonemes._least_openings(opening, segments, 25.0) == pytest.approx([0.0, 0.1])
