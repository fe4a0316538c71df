"""The paper preset's landmark part end to end: windows, training, model folders, generation."""

import itertools
import json
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from atldiff.cli import main
from atldiff.data.prepared import PreparedClips
from atldiff.errors import InputError, ModelError
from atldiff.face.similarity import apply_similarity
from atldiff.landmarks.kfusion import KFusionConfig, KFusionGenerator
from atldiff.motion.windowed import WINDOW, WindowedMotion, blend_windows, predict_window, window_starts
from atldiff.options import EMOTIONS, GenerationOptions
from atldiff.pipeline import ATLDiffPipeline
from atldiff.speech import SAMPLE_RATE
from atldiff.speech.wav2vec2 import Wav2Vec2Encoder
from atldiff.speech.whisper import WhisperEncoder
from atldiff.storage.parts import load_config, load_weights, save_part
from atldiff.training.assemble import assemble
from atldiff.training.sound.kfusion import KFusionDraws, KFusionTask, KFusionTraining, landmarks_at, paper_preset
from atldiff.training.sound.speech_features import SpeechVariant, SpokenClip
from face_shapes import open_face
from prepared_files import write_prepared

torch.set_num_threads(1)

RATES = (24, 25, 30000 / 1001, 30)
FEATURES = 32
SMALL = {"features": FEATURES, "feed_forward": 16, "fusion_channels": 8, "mouth_channels": 8, "kan_hidden": 8}
TINY = KFusionConfig(**SMALL, sequence_first=False, emotions=8)
FACE = open_face().astype(np.float32)


@pytest.fixture(scope="module")
def encoder_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small wav2vec2 with random weights."""
    pytest.importorskip("transformers")
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("speech") / "wav2vec2"
    encoder = Wav2Vec2Encoder.from_config(
        hidden_size=FEATURES,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=32,
        conv_dim=[16] * 7,
        num_conv_pos_embeddings=16,
        num_conv_pos_embedding_groups=4,
        mask_time_prob=0.0,
    )
    encoder.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_prepared(tmp_path_factory.mktemp("clips") / "prepared", ["train"] * 2 + ["val"], frames=30)


def command(prepared: Path, run: Path, encoder: Path, *settings: str) -> list[str]:
    sizes = [f"model.{name}={size}" for name, size in SMALL.items()]
    few = ["steps=3", "clips=2", "report_every=3", f"speech_encoder={encoder}"]
    options = ["--preset", "paper", "--accelerator", "cpu", "-q", "--set", *few, *sizes, *settings]
    return ["train", "landmarks", str(prepared), "-o", str(run), *options]


@pytest.fixture(scope="module")
def trained(prepared: Path, encoder_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    run = tmp_path_factory.mktemp("runs") / "landmarks"
    assert main(command(prepared, run, encoder_folder)) == 0
    return run / "landmark_generator"


def change_index(folder: Path, **values: str) -> None:
    index = folder / "model_index.json"
    index.write_text(json.dumps(json.loads(index.read_text()) | values))


@pytest.fixture(scope="module")
def model(tiny_model: Path, trained: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return assemble([trained.parent], tmp_path_factory.mktemp("models") / "paper", tiny_model)


@pytest.fixture(scope="module")
def pipeline(model: Path) -> Iterator[ATLDiffPipeline]:
    pipeline = ATLDiffPipeline.from_pretrained(model, device="cpu")
    yield pipeline
    pipeline.close()


LENGTHS = (1, 800, 15466, 15467, 15999, 16000, 16001, 16534, 23999, 24000, 24001, 25600, 100_003)


@pytest.mark.parametrize("fps", RATES)
@pytest.mark.parametrize("samples", LENGTHS)
def test_frames_show_their_own_time_to_the_last_sample(samples: int, fps: float) -> None:
    begins = [start / SAMPLE_RATE for start in window_starts(samples)]
    echoes = [np.broadcast_to((begin + np.arange(30) / 30)[:, None, None], (30, 68, 2)) for begin in begins]
    times = np.arange(max(1, round(samples / SAMPLE_RATE * fps))) / fps
    shown = blend_windows(echoes, begins, times)
    assert shown.shape == (len(times), 68, 2)
    assert np.abs(shown - times[:, None, None]).max() < 1e-9
    last = samples / SAMPLE_RATE
    assert np.abs(blend_windows(echoes, begins, np.array([last])) - last).max() < 1e-4


def test_windows_overlap_and_hear_sound_only() -> None:
    for samples in LENGTHS:
        starts = window_starts(samples)
        assert starts == sorted(set(starts)) and starts[0] == 0
        assert all(later - earlier < 15466 for earlier, later in itertools.pairwise(starts))
        assert all(start + WINDOW <= samples for start in starts[1:-1])
        assert samples <= starts[-1] + WINDOW <= max(WINDOW, samples + 534)


def test_a_window_fades_out_over_the_overlap() -> None:
    windows = [np.full((30, 68, 2), value) for value in (0.0, 1.0)]
    shown = blend_windows(windows, [0.0, 0.5], np.linspace(0, 1.4, 200))[:, 0, 0]
    steps = np.diff(shown)
    assert shown[0] == 0 and shown[-1] == 1
    assert steps.min() >= 0 and steps.max() < 1.01 * 1.4 / 199 / (29 / 30 - 0.5)


class _FirstSample(nn.Module):
    """Features of a window: its first sample."""

    def __init__(self) -> None:
        super().__init__()
        self.unused = nn.Parameter(torch.zeros(1))

    def forward(self, waveform_BN: torch.Tensor) -> torch.Tensor:
        return waveform_BN[:, :1, None].expand(-1, 49, 1)


class _Clock(nn.Module):
    """The identity landmarks with a chin that sinks by 0.01 crop sizes a second, counted from the features."""

    config = KFusionConfig()

    def forward(self, features: torch.Tensor, identity: torch.Tensor, emotion: torch.Tensor) -> torch.Tensor:
        shown = identity[:, None].repeat(1, 30, 1, 1).double()
        shown[:, :, 8, 1] += 0.01 * (features[:, :1, 0] + torch.arange(30) / 30)
        return shown


@pytest.mark.parametrize("fps", RATES)
def test_motion_keeps_time_over_long_sound_however_it_is_cut(fps: float) -> None:
    samples = (np.arange(round(19.37 * SAMPLE_RATE)) / SAMPLE_RATE).astype(np.float32)
    frames = round(19.37 * fps)
    options = GenerationOptions(fps=fps, head_motion=0, blink="off")
    motion = WindowedMotion(_FirstSample(), _Clock(), FACE, -1000.0, options)  # pyright: ignore[reportArgumentType]

    def chin(size: int) -> np.ndarray:
        blocks = (samples[begin : begin + size] for begin in range(0, len(samples), size))
        return np.concatenate(list(motion.landmarks(blocks, frames)))[:, 8, 1]

    whole = chin(4000)
    assert np.abs(whole - FACE[8, 1] - 1.28 * np.arange(frames) / fps).max() < 1e-3
    assert np.array_equal(whole, chin(77_777))


def test_the_predicted_place_size_and_tilt_of_the_face_do_not_count() -> None:
    class Moved(_Clock):
        def forward(self, *inputs: torch.Tensor) -> torch.Tensor:
            matrix = np.array([[1.1, -0.2, 0.3], [0.2, 1.1, -0.1]])
            return torch.from_numpy(apply_similarity(matrix, super().forward(*inputs).numpy()))

    still, moved = (
        predict_window(kind(), torch.ones(49, 1), FACE, 128, "happy")  # pyright: ignore[reportArgumentType]
        for kind in (_Clock, Moved)
    )
    assert np.allclose(still, moved, atol=1e-9)
    assert np.allclose(still[:, 8, 1] - FACE[8, 1], 1.28 * (1 + np.arange(30) / 30), atol=1e-4)


def test_an_emotion_that_was_never_learned_counts_as_neutral() -> None:
    torch.manual_seed(0)
    generator = KFusionGenerator(TINY).eval()
    with torch.no_grad():
        for name in ("neutral", "happy"):
            nn.init.normal_(generator.emotion.weight[EMOTIONS.index(name)])
    speech = torch.randn(49, FEATURES)
    neutral, happy, angry = (predict_window(generator, speech, FACE, 128, e) for e in ("neutral", "happy", "angry"))
    assert np.array_equal(neutral, angry)
    assert not np.allclose(neutral, happy)


def test_units_are_undone() -> None:
    mead = KFusionConfig(origin=56 / 256, extent=187 / 256)
    assert np.allclose(mead.from_pixels(np.array([56.0, 243.0]), 256), [0, 1])
    assert np.allclose(mead.to_pixels(mead.from_pixels(FACE, 128), 128), FACE, atol=1e-5)
    assert np.allclose(KFusionConfig().from_pixels(FACE, 128), FACE / 128)
    for wrong in ({"extent": 0.0}, {"origin": float("nan")}, {"class_name": "Other"}, {"emotions": 6}):
        with pytest.raises(ModelError):
            KFusionConfig(**wrong)


def test_targets_are_the_landmarks_at_thirty_hertz(prepared: Path) -> None:
    ramp = np.broadcast_to(np.arange(30.0)[:, None, None], (30, 68, 2))
    times = 0.2 + np.arange(30) / 30
    assert np.allclose(landmarks_at(ramp, 25, times)[:, 0, 0], np.minimum(25 * times, 29))
    clips = PreparedClips.open(prepared).split("train")
    speech = np.zeros((49, FEATURES), np.float16)
    spoken = [SpokenClip(clip, (SpeechVariant(speech, start=-10.0, speed=1.0),)) for clip in clips]
    batch = KFusionDraws(spoken, KFusionTraining(steps=2, clips=2), TINY)[1]
    shapes = {name: tuple(tensor.shape) for name, tensor in batch.items()}
    assert shapes == {
        "features": (2, 49, FEATURES),
        "identity": (2, 68, 2),
        "target": (2, 30, 68, 2),
        "emotion": (2,),
    }
    assert batch["emotion"].tolist() == [EMOTIONS.index("neutral")] * 2
    assert batch["identity"].min() > 0 and batch["identity"].max() < 1
    rigid = batch["target"][:, :, [27, 30, 36, 45]] - batch["identity"][:, None, [27, 30, 36, 45]]
    assert rigid.abs().max() < 1e-3
    with pytest.raises(InputError, match=r"no clip lasts a second.*0\.80 s"):
        short = PreparedClips.open(write_prepared(prepared.parent / "short", ["train"], frames=20)).split("train")
        KFusionDraws([SpokenClip(short[0], ())], KFusionTraining(), TINY)


def test_the_preset_is_the_published_training_with_attention_along_time() -> None:
    training, config = paper_preset()
    assert (config.sequence_first, config.emotions, config.features, config.dropout) == (False, 8, 768, 0.2)
    task = KFusionTask(Path("nowhere"), training, TINY)
    assert task.learning_rate(0) == pytest.approx(3e-4)
    assert task.learning_rate(training.steps - 1) == pytest.approx(1e-5, rel=1e-3)
    assert training.weight_decay == training.kan_weight == 0


def test_training_writes_a_generator_that_its_config_names(trained: Path) -> None:
    values = json.loads((trained / "config.json").read_text())
    assert values["class_name"] == "KFusionGenerator"
    assert (values["origin"], values["extent"], values["sequence_first"]) == (0.0, 1.0, False)
    generator = KFusionGenerator(load_config(trained, KFusionConfig))
    load_weights(trained, generator)
    learned = generator.emotion.weight.any(dim=1)
    assert learned.tolist() == [name == "neutral" for name in EMOTIONS]


def test_training_again_needs_no_speech_encoder(
    prepared: Path, trained: Path, encoder_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "transformers", None)
    assert main(command(prepared, tmp_path / "run", encoder_folder)) == 0
    weights = [folder / "model.safetensors" for folder in (trained, tmp_path / "run" / "landmark_generator")]
    assert weights[0].read_bytes() == weights[1].read_bytes()


def test_the_regularisation_of_the_kan_can_be_added(prepared: Path, encoder_folder: Path, tmp_path: Path) -> None:
    losses = []
    for name, weight in (("without", 0), ("with", 1)):
        assert main(command(prepared, tmp_path / name, encoder_folder, f"kan_weight={weight}")) == 0
        header, row = (tmp_path / name / "log.csv").read_text().splitlines()
        losses.append(float(dict(zip(header.split(","), row.split(","), strict=True))["loss"]))
    assert losses[1] > losses[0] + 10


@pytest.mark.parametrize("fps", [25.0, 30.0])
def test_a_trained_model_speaks(pipeline: ATLDiffPipeline, portrait: Path, word: Path, fps: float) -> None:
    video = pipeline(portrait, word, fps=fps, crop_only=True, emotion="auto")
    assert video.frames.shape == (round(1.2 * fps), 256, 256, 3)
    assert np.ptp(video.frames.astype(int), axis=0).max() > 0


def test_what_hears_the_emotion_is_read_once(
    pipeline: ATLDiffPipeline, word: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    reads, read = [], WhisperEncoder.from_package
    monkeypatch.setattr(WhisperEncoder, "from_package", lambda: reads.append(1) or read())
    first, second = (pipeline.speech_landmarks(FACE, word, emotion="auto") for _ in range(2))
    assert np.array_equal(first, second)
    assert len(reads) <= 1


def test_saving_and_loading_changes_nothing(pipeline: ATLDiffPipeline, word: Path, tmp_path: Path) -> None:
    pipeline.save_pretrained(tmp_path / "saved")
    again = ATLDiffPipeline.from_pretrained(tmp_path / "saved", device="cpu")
    assert again.config == pipeline.config
    before, after = (each.speech_landmarks(FACE, word, seed=3) for each in (pipeline, again))
    assert before.shape == (30, 68, 2)
    assert np.array_equal(before, after)


def test_expression_blinks_and_head_move_as_in_every_preset(pipeline: ATLDiffPipeline, word: Path) -> None:
    still = pipeline.speech_landmarks(FACE, word)
    for options in ({"emotion": "happy", "intensity": 1.0}, {"head_motion": 1.0}, {"mouth": 0.0}):
        assert np.abs(pipeline.speech_landmarks(FACE, word, **options) - still).max() > 0.1


def test_a_converted_generator_is_used_the_same_way(
    tiny_model: Path, encoder_folder: Path, word: Path, tmp_path: Path
) -> None:
    torch.manual_seed(0)
    published = KFusionGenerator(KFusionConfig(**SMALL))
    converted = tmp_path / "converted"
    save_part(converted / "landmark_generator", published, published.config, torch.float32)
    shutil.copytree(encoder_folder, converted / "wav2vec2")
    folder = assemble([converted], tmp_path / "model", tiny_model)
    shown = ATLDiffPipeline.from_pretrained(folder, device="cpu").speech_landmarks(FACE, word)
    assert shown.shape == (30, 68, 2) and np.isfinite(shown).all()


def test_what_is_missing_is_named(model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = Path(shutil.copytree(model, tmp_path / "model"))

    def refused(words: str, kind: type[InputError] = ModelError) -> None:
        with pytest.raises(kind, match=words):
            ATLDiffPipeline.from_pretrained(folder, device="cpu")

    change_index(folder, speech_encoder="whisper-tiny.en")
    refused(r"is 'whisper-tiny\.en'; expected 'wav2vec2' or a hub name for a KFusionGenerator")
    change_index(folder, speech_encoder=str(tmp_path / "nowhere"))
    refused(r"cannot load wav2vec2 from '.*nowhere'.*expected a hub name or a folder in transformers' format")
    change_index(folder, speech_encoder="wav2vec2")
    with monkeypatch.context() as patch:
        patch.setitem(sys.modules, "transformers", None)
        refused(r"pip install 'atldiff\[paper\]'", InputError)
    shutil.rmtree(folder / "wav2vec2")
    refused("the model folder lacks config.json: expected .*wav2vec2/config.json")
    config = folder / "landmark_generator" / "config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | {"class_name": "Other"}))
    refused("names the class 'Other'; expected one of LandmarkGenerator, KFusionGenerator")


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("hidden_size", 10**9),
        ("hidden_size", -1),
        ("num_hidden_layers", 1.5),
        ("conv_dim", [10**9] * 7),
        ("conv_dim", [512] * 500),
        ("conv_stride", [0] * 7),
        ("intermediate_size", "many"),
        ("model_type", "bert"),
    ],
)
def test_a_configuration_of_wav2vec2_that_was_tampered_with_is_refused(encoder_folder, tmp_path, name, value) -> None:
    folder = tmp_path / "wav2vec2"
    shutil.copytree(encoder_folder, folder)
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {name: value}))
    with pytest.raises(ModelError, match=name if name != "model_type" else "expected model_type wav2vec2"):
        Wav2Vec2Encoder.from_pretrained(folder)


def test_wav2vec2_is_not_for_the_compact_generator(tiny_model: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(tiny_model, tmp_path / "model"))
    change_index(folder, speech_encoder="wav2vec2")
    with pytest.raises(ModelError, match=r"is 'wav2vec2'; expected 'whisper-tiny\.en' or 'speech_encoder' for a"):
        ATLDiffPipeline.from_pretrained(folder, device="cpu")


def test_an_encoder_of_another_size_is_refused(
    prepared: Path, model: Path, encoder_folder: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    assert main(command(prepared, tmp_path / "run", encoder_folder, "model.features=64")) == 2
    assert f"{encoder_folder} gives 32 features; model.features is 64" in capfd.readouterr().err
    folder = Path(shutil.copytree(model, tmp_path / "model"))
    generator = KFusionGenerator(KFusionConfig(**SMALL | {"features": 64}))
    save_part(folder / "landmark_generator", generator, generator.config)
    with pytest.raises(ModelError, match=r"'wav2vec2' of .* gives 32 features; expected 64"):
        ATLDiffPipeline.from_pretrained(folder, device="cpu")


def test_training_without_a_speech_encoder(
    encoder_folder: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    data = write_prepared(tmp_path / "prepared", ["train", "val"], frames=30)
    assert main(command(data, tmp_path / "run", tmp_path / "nowhere")) == 2
    assert "cannot load wav2vec2 from" in capfd.readouterr().err
    monkeypatch.setitem(sys.modules, "transformers", None)
    assert main(command(data, tmp_path / "run", encoder_folder)) == 2
    assert "pip install 'atldiff[paper]'" in capfd.readouterr().err


def test_the_generator_learns(prepared: Path, encoder_folder: Path, tmp_path: Path) -> None:
    settings = ("steps=40", "report_every=10", "learning_rate=3e-3", "model.dropout=0")
    assert main(command(prepared, tmp_path / "run", encoder_folder, *settings)) == 0
    header, *rows = (tmp_path / "run" / "log.csv").read_text().splitlines()
    losses = [float(row.split(",")[header.split(",").index("loss")]) for row in rows]
    assert len(losses) == 4 and losses[-1] < 0.5 * losses[0]
