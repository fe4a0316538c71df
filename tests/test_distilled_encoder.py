"""The speech encoder of our own: its look-ahead, its state, how it is trained, and a model folder that names it."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from atldiff.cli import main
from atldiff.data.prepared import PreparedClips
from atldiff.errors import ModelError
from atldiff.landmarks.generator import LandmarkGenerator, LandmarkGeneratorConfig
from atldiff.models.loading import PipelineConfig
from atldiff.motion.living import FaceMotion
from atldiff.options import GenerationOptions
from atldiff.pipeline import ATLDiffPipeline
from atldiff.speech import SAMPLE_RATE
from atldiff.speech.distilled import DistilledEncoder, DistilledEncoderConfig, FeatureStream
from atldiff.speech.distortion import change_pitch
from atldiff.speech.emotion import EmotionClassifier
from atldiff.speech.waveform import read_waveform
from atldiff.training.sound.speech_encoder import SpeechDraws, SpeechTraining
from atldiff.training.sound.speech_features import cache_features
from face_shapes import open_face
from prepared_files import write_prepared

torch.set_num_threads(1)

TINY = DistilledEncoderConfig(channels=16, dilations=(1, 2, 1, 4), ahead=(1, 2, 0, 1))
FACE = open_face().astype(np.float32)


@pytest.fixture(scope="module")
def encoder() -> DistilledEncoder:
    torch.manual_seed(0)
    return DistilledEncoder(TINY).eval()


@pytest.fixture(scope="module")
def sound(speech: Path) -> torch.Tensor:
    return torch.from_numpy(read_waveform(speech)[: 2 * SAMPLE_RATE + 77])[None]


@pytest.fixture(scope="module")
def own_model(encoder: DistilledEncoder, tiny_pipeline: ATLDiffPipeline, tmp_path_factory) -> Path:
    generator = LandmarkGenerator(LandmarkGeneratorConfig(features=16, channels=16, dilations=(1,)))
    config = PipelineConfig(speech_encoder="speech_encoder")
    pipeline = ATLDiffPipeline(encoder, generator, tiny_pipeline.unet, EmotionClassifier(), config, device="cpu")
    pipeline.save_pretrained(folder := tmp_path_factory.mktemp("models") / "own")
    return folder


@torch.no_grad()
def test_a_feature_hears_its_look_ahead_and_nothing_later(encoder: DistilledEncoder, sound: torch.Tensor) -> None:
    assert encoder.look_ahead == 360 + 4 * 320
    before = encoder(sound)
    assert before.shape == (1, 101, encoder.feature_size)
    for number in (0, 20, 71):
        changed = sound.clone()
        heard = number * 320 + encoder.look_ahead
        changed[:, heard:] = torch.randn(changed.shape[1] - heard, generator=torch.Generator().manual_seed(1))
        moved = (encoder(changed) - before).abs().amax(dim=(0, 2))
        assert moved[: number + 1].max() < 1e-5
        assert moved[number + 1] > 1e-3


@torch.no_grad()
def test_a_feature_forgets_what_lies_before_its_context(encoder: DistilledEncoder, sound: torch.Tensor) -> None:
    number, context = 60, encoder.context_features
    changed = sound.clone()
    changed[:, : (number - context) * 320 - 200] = 0.1
    moved = (encoder(changed) - encoder(sound)).abs().amax(dim=(0, 2))
    assert moved[number:].max() < 1e-5
    assert moved[number - 1] > 1e-4


@torch.no_grad()
@pytest.mark.parametrize("size", [37, 640, 5000])
def test_pieces_of_any_size_give_the_features_of_the_whole(encoder, sound, size: int) -> None:
    whole = encoder(sound)
    stream = FeatureStream(encoder)
    for begin in range(0, sound.shape[1], size):
        stream.hear(sound[0, begin : begin + size])
    assert torch.allclose(stream.features(whole.shape[1]), whole, atol=1e-5)
    stream.forget(90)
    assert stream.first == 90
    assert torch.allclose(stream.features(whole.shape[1]), whole[:, 90:], atol=1e-5)


@torch.no_grad()
def test_sound_begins_as_if_silence_lay_before_it(encoder: DistilledEncoder, sound: torch.Tensor) -> None:
    later = torch.cat([torch.zeros(1, 40 * 320), sound], dim=1)
    assert torch.allclose(encoder(later)[:, 40:], encoder(sound), atol=1e-5)


@torch.no_grad()
def test_rows_of_a_batch_are_heard_apart(encoder: DistilledEncoder, sound: torch.Tensor) -> None:
    both = encoder(torch.cat([sound, sound.flip(1)]))
    assert torch.allclose(both[:1], encoder(sound), atol=1e-5)
    assert torch.allclose(both[1:], encoder(sound.flip(1)), atol=1e-5)


def test_the_default_is_small_and_streams_within_200_ms() -> None:
    default = DistilledEncoder()
    generator = LandmarkGenerator(LandmarkGeneratorConfig(features=default.feature_size, dilations=(1,)))
    assert sum(parameter.numel() for parameter in default.parameters()) <= 3_000_000
    assert default.look_ahead + (generator.context_features + 1) * 320 <= 0.2 * SAMPLE_RATE


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"channels": 0}, "sizes of the speech encoder"),
        ({"ahead": (1,)}, "one number a dilation"),
        ({"ahead": (3, 0, 0, 0)}, "from 0 to twice"),
        ({"dropout": 1.0}, "dropout is"),
    ],
)
def test_impossible_configurations_are_refused(change: dict, message: str) -> None:
    values = {"channels": 16, "dilations": (1, 2, 1, 4), "ahead": (1, 2, 0, 1)} | change
    with pytest.raises(ModelError, match=message):
        DistilledEncoderConfig(**values)


def test_a_model_folder_names_it_and_is_written_again_the_same(own_model: Path, word: Path, tmp_path: Path) -> None:
    pipeline = ATLDiffPipeline.from_pretrained(own_model, device="cpu")
    assert isinstance(pipeline.speech_encoder, DistilledEncoder)
    pipeline.save_pretrained(tmp_path / "again")
    again = ATLDiffPipeline.from_pretrained(tmp_path / "again", device="cpu")
    made = pipeline.speech_landmarks(FACE, word)
    assert np.array_equal(made, again.speech_landmarks(FACE, word))
    assert np.abs(made - FACE).max() > 0.1


def test_streaming_gives_the_spoken_landmarks_of_the_whole_recording(own_model: Path, sound: torch.Tensor) -> None:
    pipeline = ATLDiffPipeline.from_pretrained(own_model, device="cpu")
    made = []
    for look_ahead_s in (None, 0.2):
        options = GenerationOptions(look_ahead_s=look_ahead_s, head_motion=0.0, blink="off")
        assert isinstance(pipeline.landmark_generator, LandmarkGenerator)
        assert isinstance(pipeline.speech_encoder, DistilledEncoder)
        motion = FaceMotion(pipeline.speech_encoder, pipeline.landmark_generator, FACE, -200.0, options)
        blocks = (sound[0].numpy()[begin : begin + 999] for begin in range(0, sound.shape[1], 999))
        made.append(np.concatenate(list(motion.landmarks(blocks, 50))))
    assert np.abs(made[0] - made[1]).max() < 1e-3
    assert np.abs(made[0] - FACE).max() > 0.1


@pytest.mark.parametrize(("fps", "look_ahead_s"), [(25.0, 0.2), (30000 / 1001, 0.1), (1.0, 0.2)])
def test_later_sound_changes_no_earlier_frame(own_model, sound, fps: float, look_ahead_s: float) -> None:
    pipeline = ATLDiffPipeline.from_pretrained(own_model, device="cpu")
    frame = int(fps)
    heard = int((frame / fps + look_ahead_s) * SAMPLE_RATE) + 1
    other = sound.clone()
    other[:, heard:] = torch.randn(other.shape[1] - heard, generator=torch.Generator().manual_seed(1))
    made = []
    for samples in (sound, other):
        options = GenerationOptions(fps=fps, look_ahead_s=look_ahead_s)
        motion = FaceMotion(pipeline.speech_encoder, pipeline.landmark_generator, FACE, None, options)  # pyright: ignore[reportArgumentType]
        made.append(np.concatenate(list(motion.landmarks([samples[0].numpy()], frame + 1))))
    assert np.array_equal(made[0][: frame + 1], made[1][: frame + 1])


def test_a_model_folder_without_its_weights_is_refused(own_model: Path, tmp_path: Path) -> None:
    shutil.copytree(own_model, folder := tmp_path / "model")
    (folder / "speech_encoder" / "model.safetensors").unlink()
    with pytest.raises(ModelError, match=r"lacks speech_encoder/model\.safetensors"):
        ATLDiffPipeline.from_pretrained(folder, device="cpu")
    index = json.loads((folder / "model_index.json").read_text())
    (folder / "model_index.json").write_text(json.dumps(index | {"speech_encoder": "whisper-tiny.en"}))
    with pytest.raises(ModelError, match="gives 928 features; expected 16"):
        ATLDiffPipeline.from_pretrained(folder, device="cpu")


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_prepared(tmp_path_factory.mktemp("clips") / "made", ["train"] * 4 + ["val"] * 2, frames=30, size=64)


def test_draws_carry_sound_and_teacher_at_the_same_moments(prepared: Path) -> None:
    clips = PreparedClips.open(prepared)
    spoken = cache_features(clips.split("train"), prepared)
    training = SpeechTraining(steps=20, clips=4, frames=8)
    draws = SpeechDraws(spoken, training, look_ahead=TINY_LOOK_AHEAD)
    agreements = []
    for step in range(20):
        batch = draws[step]
        assert torch.equal(batch["sound"], draws[step]["sound"])
        assert batch["sound"].shape[1] >= batch["taught"].shape[1] * 320 + TINY_LOOK_AHEAD
        assert batch["positions"].max() < batch["taught"].shape[1] - 1
        assert batch["positions"].min() > 35.99
        assert (batch["weight"].sum(dim=1) >= 8).all()
        loud = batch["sound"][:, : batch["taught"].shape[1] * 320].unfold(1, 320, 320).square().mean(dim=2)
        for row in range(4):
            inside = batch["weight"][row] > 0
            own, taught = torch.log(loud[row, inside] + 1e-5), batch["taught"][row, inside, -160:].float().mean(dim=1)
            agreements.append(float(torch.corrcoef(torch.stack([own, taught]))[0, 1]))
    assert np.median(agreements) > 0.5


TINY_LOOK_AHEAD = 360 + 4 * 320
MODEL = ["model.channels=16", "model.dilations=1,2", "model.ahead=1,1", "model.dropout=0"]


def test_the_command_trains_both_parts_and_goes_on(prepared: Path, tmp_path: Path, own_model: Path) -> None:
    settings = ["steps=30", "clips=4", "frames=12", "warmup=1", "report_every=15", *MODEL]
    command = [
        "train",
        "speech",
        str(prepared),
        "-o",
        str(tmp_path / "run"),
        "--accelerator",
        "cpu",
        "--set",
        *settings,
    ]
    assert main(command) == 0
    rows = (tmp_path / "run" / "log.csv").read_text().splitlines()
    first, last = (float(row.split(",")[1]) for row in (rows[1], rows[-1]))
    assert last < first
    assert main([*command, "steps=31"]) == 0
    assert main(["assemble", str(tmp_path / "run"), "-o", str(tmp_path / "model"), "--base", str(own_model)]) == 0
    pipeline = ATLDiffPipeline.from_pretrained(tmp_path / "model", device="cpu")
    assert isinstance(pipeline.speech_encoder, DistilledEncoder)
    assert pipeline.speech_encoder.config.dilations == (1, 2)


def test_higher_is_as_long_and_keeps_its_time() -> None:
    times = np.arange(SAMPLE_RATE) / SAMPLE_RATE
    burst = np.where(np.abs(times - 0.5) < 0.1, np.sin(2 * np.pi * 400 * times), 0).astype(np.float32)
    for factor in (0.8, 1.25):
        higher = change_pitch(burst, factor)
        assert len(higher) == len(burst)
        assert np.abs(np.fft.rfft(higher)).argmax() == pytest.approx(400 * factor, abs=6)
        middle = float((times * higher**2).sum() / (higher**2).sum())
        assert middle == pytest.approx(0.5, abs=0.01)


def test_a_model_may_have_a_part_for_streaming_mode_alone(
    own_model: Path, tiny_model: Path, word: Path, tmp_path: Path
) -> None:
    command = ["assemble", "-o", str(tmp_path / "both"), "--base", str(tiny_model), "--streaming", str(own_model)]
    assert main(command) == 0
    both, own, tiny = (
        ATLDiffPipeline.from_pretrained(folder, device="cpu") for folder in (tmp_path / "both", own_model, tiny_model)
    )
    both.save_pretrained(tmp_path / "again")
    for pipeline in (both, ATLDiffPipeline.from_pretrained(tmp_path / "again", device="cpu")):
        for look_ahead_s, expected in ((None, tiny), (0.2, own)):
            made = pipeline.speech_landmarks(FACE, word, look_ahead_s=look_ahead_s)
            assert np.array_equal(made, expected.speech_landmarks(FACE, word, look_ahead_s=look_ahead_s))
    assert main(["assemble", str(own_model), "-o", str(tmp_path / "one"), "--base", str(tmp_path / "both")]) == 0
    assert ATLDiffPipeline.from_pretrained(tmp_path / "one", device="cpu").streaming is None


def test_a_run_without_a_speech_encoder_is_not_for_streaming(
    tiny_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["assemble", "-o", str(tmp_path / "model"), "--base", str(tiny_model), "--streaming", str(tiny_model)]
    assert main(command) != 0
    assert "holds no speech_encoder" in capsys.readouterr().err
    assert not (tmp_path / "model").exists()


def test_a_motion_that_is_used_again_begins_anew(own_model: Path, sound: torch.Tensor) -> None:
    pipeline = ATLDiffPipeline.from_pretrained(own_model, device="cpu")
    options = GenerationOptions(look_ahead_s=0.2)
    motion = FaceMotion(pipeline.speech_encoder, pipeline.landmark_generator, FACE, -60.0, options)  # pyright: ignore
    first, second = (np.concatenate(list(motion.landmarks([sound[0].numpy()], 50))) for _ in range(2))
    assert np.array_equal(first, second)
