"""Emotion: the classifier of speech, its training, and the hand-made expressions."""

import csv
import os
import subprocess
import sys
import wave
from pathlib import Path

import numpy as np
import pytest
import torch

import atldiff
from atldiff.errors import InputError, ModelError
from atldiff.face.topology import (
    EYELID_PAIRS,
    INNER_LIP_PAIRS,
    LEFT_BROW,
    MIRROR_68,
    OUTER_LIP_PAIRS,
    RIGHT_BROW,
    interocular_distance,
    mouth_opening,
)
from atldiff.motion.expression import apply_expression, expression_offsets
from atldiff.options import EMOTIONS
from atldiff.speech.emotion import (
    EmotionClassifier,
    EmotionClassifierConfig,
    classify_speech,
    pool_features,
    voiced_sound,
)
from atldiff.speech.waveform import SAMPLE_RATE, read_waveform
from atldiff.speech.whisper import WhisperEncoder
from atldiff.storage.parts import load_config, load_weights
from atldiff.training.sound.emotion import (
    EmotionTraining,
    balanced_weights,
    confusion_matrix,
    mean_recall,
    read_emotion_manifest,
    train_emotion,
)

torch.set_num_threads(1)

SHIPPED = Path(atldiff.__file__).parent / "weights" / "compact" / "emotion_classifier"
SYMMETRIC = [name for name in EMOTIONS if name != "contempt"]


def resting_face() -> np.ndarray:
    """(68, 2) an upright face of straight lines and arcs, 40 pixels between the outer eye corners."""
    face = np.zeros((68, 2))
    sweep = np.linspace(np.pi, 0, 17)
    face[0:17] = np.stack([30 * np.cos(sweep), 5 + 40 * np.sin(sweep)], axis=1)
    face[17:22] = np.stack([np.linspace(-24, -6, 5), np.full(5, -10)], axis=1)
    face[27:31] = np.stack([np.zeros(4), np.linspace(0, 12, 4)], axis=1)
    face[31:36] = np.stack([np.linspace(-5, 5, 5), np.full(5, 15)], axis=1)
    face[36:42] = [(-20, 0), (-16, -2), (-11, -2), (-7, 0), (-11, 2), (-16, 2)]
    face[48:55] = [(-11, 25), (-7, 23), (-3, 22), (0, 22.5), (3, 22), (7, 23), (11, 25)]
    face[55:60] = [(7, 27.5), (3, 29), (0, 29.5), (-3, 29), (-7, 27.5)]
    face[60:68] = [(-9, 25), (-4, 25), (0, 25), (4, 25), (9, 25), (4, 25), (0, 25), (-4, 25)]
    mirrored = face[MIRROR_68] * (-1, 1)
    for left in (slice(22, 27), slice(42, 48)):
        face[left] = mirrored[left]
    return face.astype(np.float32) + np.float32(64)


def tone(seconds: float, amplitude: float = 0.3) -> np.ndarray:
    time = np.arange(round(seconds * SAMPLE_RATE)) / SAMPLE_RATE
    return (amplitude * np.sin(2 * np.pi * 220 * time)).astype(np.float32)


@pytest.fixture(scope="module")
def encoder() -> WhisperEncoder:
    return WhisperEncoder.from_package()


@pytest.fixture(scope="module")
def shipped() -> EmotionClassifier:
    classifier = EmotionClassifier(load_config(SHIPPED, EmotionClassifierConfig)).eval()
    load_weights(SHIPPED, classifier)
    return classifier


@pytest.mark.parametrize("emotion", EMOTIONS)
def test_offsets_are_small_and_proportional_to_the_intensity(emotion: str) -> None:
    offsets = expression_offsets(emotion, 1.0)
    assert offsets.shape == (68, 2) and offsets.dtype == np.float32
    assert np.linalg.norm(offsets, axis=1).max() < 0.19
    np.testing.assert_allclose(expression_offsets(emotion, 0.25), offsets / 4, atol=1e-7)
    assert not expression_offsets(emotion, 0.0).any()
    assert offsets.any() == (emotion != "neutral")


@pytest.mark.parametrize("emotion", SYMMETRIC)
def test_both_sides_of_the_face_move_alike(emotion: str) -> None:
    offsets = expression_offsets(emotion)
    np.testing.assert_allclose(offsets[MIRROR_68] * (-1, 1), offsets, atol=1e-7)


def test_each_emotion_moves_what_it_is_known_by() -> None:
    up = {name: -expression_offsets(name)[:, 1] for name in EMOTIONS}
    assert up["happy"][48] > 0.02 and up["happy"][54] > 0.02
    assert up["sad"][48] < -0.02 and up["sad"][54] < -0.02
    assert up["sad"][21] > up["sad"][17] + 0.02
    assert (up["surprised"][RIGHT_BROW] > 0.02).all() and (up["surprised"][LEFT_BROW] > 0.02).all()
    assert up["surprised"][37] > 0 and up["fear"][37] > 0
    assert up["angry"][21] < -0.02 and expression_offsets("angry")[21, 0] > 0.01
    assert up["disgusted"][31] > 0.01 and up["disgusted"][50] > 0.01
    assert up["contempt"][54] > 0.02 and up["contempt"][48] < 0
    across = {name: expression_offsets(name)[54, 0] - expression_offsets(name)[48, 0] for name in EMOTIONS}
    assert across["happy"] > across["fear"] > 0.05 > 0 > across["angry"] > across["surprised"]
    assert up["happy"][40] > 0 > up["sad"][37]


@pytest.mark.parametrize("emotion", EMOTIONS)
def test_lips_and_lids_never_cross(emotion: str) -> None:
    offsets = expression_offsets(emotion, 1.0)
    for upper, lower in INNER_LIP_PAIRS:
        np.testing.assert_array_equal(offsets[upper], offsets[lower])
    made = apply_expression(resting_face()[None], resting_face(), emotion, 1.0)[0]
    assert mouth_opening(made) == pytest.approx(0, abs=1e-5)
    for upper, lower in (*OUTER_LIP_PAIRS, *EYELID_PAIRS):
        assert made[lower, 1] > made[upper, 1]
    for inner, outer in ((61, 50), (62, 51), (63, 52)):
        assert made[outer, 1] < made[inner, 1]
    for inner, outer in ((67, 58), (66, 57), (65, 56)):
        assert made[outer, 1] > made[inner, 1]


def test_an_expression_follows_the_turned_and_scaled_face() -> None:
    identity = resting_face()
    upright = apply_expression(identity[None], identity, "happy", 1.0)[0]
    np.testing.assert_allclose(
        upright - identity, expression_offsets("happy", 1.0) * interocular_distance(identity), atol=1e-4
    )
    turn = 1.7 * np.array([[np.cos(0.4), -np.sin(0.4)], [np.sin(0.4), np.cos(0.4)]])
    turned = (identity @ turn.T + (5, -9)).astype(np.float32)
    made = apply_expression(np.stack([identity, turned]), identity, "happy", 1.0)
    assert made.dtype == np.float32
    np.testing.assert_allclose(made[0], upright, atol=1e-4)
    np.testing.assert_allclose(made[1], upright @ turn.T + (5, -9), atol=1e-3)
    np.testing.assert_allclose(apply_expression(turned[None], turned, "happy", 1.0)[0], made[1], atol=1e-3)


def test_neutral_leaves_the_landmarks_as_they_are() -> None:
    face = resting_face()
    np.testing.assert_array_equal(apply_expression(face[None], face, "neutral", 1.0)[0], face)


def test_an_unknown_emotion_is_named_with_the_valid_ones() -> None:
    with pytest.raises(InputError, match=r"'bored'.*angry.*neutral"):
        expression_offsets("bored")


@pytest.mark.parametrize("intensity", [-0.1, 1.1, float("nan")])
def test_an_intensity_outside_its_range_is_refused(intensity: float) -> None:
    with pytest.raises(InputError, match="intensity"):
        expression_offsets("happy", intensity)


def test_voiced_sound_is_levelled_and_loses_long_silence() -> None:
    silence = np.zeros(2 * SAMPLE_RATE, np.float32)
    sounds = [voiced_sound([silence, tone(1.0, amplitude), silence]) for amplitude in (0.3, 0.003)]
    np.testing.assert_allclose(sounds[0], sounds[1], atol=1e-4)
    assert 1.0 * SAMPLE_RATE <= len(sounds[0]) <= 1.5 * SAMPLE_RATE
    loud = sounds[0][np.abs(sounds[0]).cumsum() > 0][:SAMPLE_RATE]
    assert np.sqrt(np.mean(loud**2)) == pytest.approx(0.05, rel=0.05)


def test_voiced_sound_does_not_depend_on_the_blocks() -> None:
    whole = np.concatenate([tone(1.3), np.zeros(3 * SAMPLE_RATE, np.float32), tone(0.9)])
    np.testing.assert_array_equal(voiced_sound([whole]), voiced_sound(np.array_split(whole, 17)))


def test_no_more_than_needed_of_a_long_recording_is_read() -> None:
    taken = 0

    def endless():
        nonlocal taken
        while True:
            taken += 1
            yield tone(1.0)

    assert len(voiced_sound(endless())) == 30 * SAMPLE_RATE
    assert taken <= 121


def test_padding_does_not_change_the_pooled_features() -> None:
    features = torch.randn(2, 30, 8, generator=torch.Generator().manual_seed(0))
    both = pool_features(features, torch.tensor([30, 12]))
    torch.testing.assert_close(both[:1], pool_features(features[:1]))
    torch.testing.assert_close(both[1:], pool_features(features[1:, :12]))


def test_contempt_is_never_predicted() -> None:
    classifier = EmotionClassifier().eval()
    logits = classifier(torch.randn(4, 20, 384))
    assert logits.shape == (4, len(EMOTIONS))
    contempt = EMOTIONS.index("contempt")
    assert (logits[:, contempt] == -torch.inf).all()
    others = [number for number in range(len(EMOTIONS)) if number != contempt]
    assert torch.isfinite(logits[:, others]).all()


def test_a_configuration_with_unknown_classes_is_refused() -> None:
    with pytest.raises(ModelError, match="bored"):
        EmotionClassifier(EmotionClassifierConfig(trained_classes=("bored", "neutral")))


def test_a_layer_is_that_of_the_encoder(encoder: WhisperEncoder) -> None:
    waveform = torch.from_numpy(tone(0.5))[None]
    taken = []
    handle = encoder.blocks[1].register_forward_hook(lambda _module, _inputs, output: taken.append(output))
    encoder(waveform)
    handle.remove()
    torch.testing.assert_close(encoder.layer(waveform, 2), taken[0])
    with pytest.raises(ModelError, match="layer 5"):
        encoder.layer(waveform, 5)


@pytest.mark.parametrize("sound", [[], [np.zeros(0, np.float32)], [np.zeros(32000, np.float32)], [tone(0.2)]])
def test_silence_and_too_little_sound_are_neutral(
    shipped: EmotionClassifier, encoder: WhisperEncoder, sound: list[np.ndarray]
) -> None:
    name, probabilities = classify_speech(shipped, encoder, sound)
    assert name == "neutral" and probabilities["neutral"] == 1.0
    assert tuple(probabilities) == EMOTIONS and sum(probabilities.values()) == 1.0


def test_the_shipped_classifier_is_deterministic_and_level_blind(
    shipped: EmotionClassifier, encoder: WhisperEncoder
) -> None:
    random = np.random.default_rng(0)
    sound = (tone(1.0) * random.uniform(0.2, 1.0, SAMPLE_RATE)).astype(np.float32)
    name, first = classify_speech(shipped, encoder, [sound])
    assert classify_speech(shipped, encoder, [sound]) == (name, first)
    assert sum(first.values()) == pytest.approx(1.0)
    assert first["contempt"] == 0.0
    _, quiet = classify_speech(shipped, encoder, [sound / 50])
    assert quiet == pytest.approx(first, abs=1e-3)


@pytest.mark.skipif("ATLDIFF_DATA" not in os.environ, reason="needs real speech in ATLDIFF_DATA")
def test_the_shipped_classifier_beats_chance_on_unseen_speakers(
    shipped: EmotionClassifier, encoder: WhisperEncoder
) -> None:
    data = Path(os.environ["ATLDIFF_DATA"]) / "emotion"
    clips = [clip for clip in read_emotion_manifest(data) if clip.split == "val" and clip.corpus != "nemo"]
    chosen = [
        clip
        for emotion in shipped.config.trained_classes
        for clip in [clip for clip in clips if clip.emotion == emotion][::8][:4]
    ]
    true, predicted = [], []
    for clip in chosen:
        _, probabilities = classify_speech(shipped, encoder, [read_waveform(data / clip.path)])
        true.append(EMOTIONS.index(clip.emotion))
        predicted.append(EMOTIONS.index(max(probabilities, key=probabilities.__getitem__)))
    assert mean_recall(confusion_matrix(torch.tensor(true), torch.tensor(predicted))) > 0.4


def write_recordings(data: Path, rows: list[dict[str, str]]) -> None:
    random = np.random.default_rng(0)
    for row in rows:
        pitch = 150 + 100 * EMOTIONS.index({"calm": "neutral"}.get(row["emotion"], row["emotion"]))
        time = np.arange(SAMPLE_RATE // 2) / SAMPLE_RATE
        samples = 0.3 * np.sign(np.sin(2 * np.pi * (pitch + random.uniform(-5, 5)) * time))
        with wave.open(str(data / row["path"]), "wb") as stream:
            stream.setnchannels(1)
            stream.setsampwidth(2)
            stream.setframerate(SAMPLE_RATE)
            stream.writeframes((samples * 32767).astype("<i2").tobytes())
    with (data / "clips.csv").open("w", newline="") as stream:
        writer = csv.DictWriter(stream, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)


def test_training_learns_is_seeded_and_reuses_its_features(tmp_path: Path) -> None:
    data = tmp_path / "data"
    data.mkdir()
    rows = [
        {"path": f"{split}{number}{emotion}.wav", "corpus": "made", "emotion": emotion, "split": split}
        for split, count in (("train", 3), ("val", 1))
        for number in range(count)
        for emotion in ("angry", "happy", "calm")
    ]
    write_recordings(data, rows)
    config = EmotionClassifierConfig(trained_classes=("angry", "happy", "neutral"), hidden=16)
    training = EmotionTraining(steps=60, batch=16, seed=3)
    run = tmp_path / "run"
    part = train_emotion(data, run, training, config)
    weights = (part / "model.safetensors").read_bytes()
    assert '"mean_recall": 1.0' in (run / "metrics.json").read_text()
    classifier = EmotionClassifier(load_config(part, EmotionClassifierConfig)).eval()
    load_weights(part, classifier)
    assert classifier.config == config
    for row in rows:
        (data / row["path"]).unlink()
    train_emotion(data, run, training, config)
    assert (part / "model.safetensors").read_bytes() == weights
    train_emotion(data, run, EmotionTraining(steps=60, batch=16, seed=4), config)
    assert (part / "model.safetensors").read_bytes() != weights
    held = "with lock_run(Path(sys.argv[1])): print(flush=True), input()"
    code = f"import sys; from pathlib import Path; from atldiff.training.engine.checkpoint import lock_run\n{held}"
    pipe = subprocess.PIPE
    with subprocess.Popen([sys.executable, "-c", code, str(run)], stdin=pipe, stdout=pipe) as other:
        assert other.stdout
        other.stdout.readline()
        with pytest.raises(InputError, match="in use by another process"):
            train_emotion(data, run, training, config)
        other.kill()


def test_every_emotion_is_equally_likely_to_be_drawn(tmp_path: Path) -> None:
    rows = [
        {"path": f"{corpus}{n}{emotion}.wav", "corpus": corpus, "emotion": emotion, "split": "train"}
        for corpus, emotion, count in (("a", "sad", 9), ("b", "sad", 1), ("a", "calm", 2))
        for n in range(count)
    ]
    write_recordings(tmp_path, rows)
    clips = read_emotion_manifest(tmp_path)
    weights = balanced_weights(clips)
    assert clips[-1].emotion == "neutral"
    assert float(weights[-2:].sum()) == pytest.approx(1.0)
    assert float(weights[:9].sum()) == pytest.approx(0.75)
    assert float(weights[9]) == pytest.approx(0.25)


def test_a_manifest_that_cannot_be_used_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"no clips\.csv"):
        read_emotion_manifest(tmp_path)
    (tmp_path / "clips.csv").write_text("path,corpus,split\n")
    with pytest.raises(InputError, match="emotion"):
        read_emotion_manifest(tmp_path)
    (tmp_path / "clips.csv").write_text("path,corpus,emotion,split\na.wav,x,sleepy,train\n")
    with pytest.raises(InputError, match="sleepy"):
        read_emotion_manifest(tmp_path)
    (tmp_path / "clips.csv").write_text("path,corpus,emotion,split\na.wav,x,angry,train\n")
    with pytest.raises(InputError, match="neutral"):
        train_emotion(tmp_path, tmp_path / "run")
