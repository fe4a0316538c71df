"""Published checkpoints → our folders: same output, clear errors."""

import json
import pickle
import shutil
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from scipy.interpolate import BSpline
from torch import nn

from atldiff.errors import InputError, ModelError, OutputError
from atldiff.models.convert import convert_landmark_checkpoint, load_landmark_parts

pytest.importorskip("transformers")

FEATURES, CONV, LAYERS, INNER, POSITION_KERNEL, POSITION_GROUPS = 128, 16, 2, 48, 16, 4
KERNELS, STRIDES = (10, 3, 3, 3, 3, 2, 2), (5, 2, 2, 2, 2, 2, 2)
MOUTH = [*range(49, 68), 48]

State = dict[str, torch.Tensor]


def speech_state() -> State:
    """Tensors of a small wav2vec2 in torchaudio's names, weight norm in the older naming."""
    shapes: dict[str, tuple[int, ...]] = {}
    for i, kernel in enumerate(KERNELS):
        shapes[f"feature_extractor.conv_layers.{i}.conv.weight"] = (CONV, CONV if i else 1, kernel)
    shapes |= norm("feature_extractor.conv_layers.0.layer_norm", CONV)
    shapes |= norm("encoder.feature_projection.layer_norm", CONV)
    shapes |= linear("encoder.feature_projection.projection", CONV, FEATURES)
    position = "encoder.transformer.pos_conv_embed.conv"
    shapes[f"{position}.bias"] = (FEATURES,)
    shapes[f"{position}.weight_g"] = (1, 1, POSITION_KERNEL)
    shapes[f"{position}.weight_v"] = (FEATURES, FEATURES // POSITION_GROUPS, POSITION_KERNEL)
    shapes |= norm("encoder.transformer.layer_norm", FEATURES)
    for i in range(LAYERS):
        layer = f"encoder.transformer.layers.{i}"
        for name in ("k_proj", "v_proj", "q_proj", "out_proj"):
            shapes |= linear(f"{layer}.attention.{name}", FEATURES, FEATURES)
        shapes |= norm(f"{layer}.layer_norm", FEATURES) | norm(f"{layer}.final_layer_norm", FEATURES)
        shapes |= linear(f"{layer}.feed_forward.intermediate_dense", FEATURES, INNER)
        shapes |= linear(f"{layer}.feed_forward.output_dense", INNER, FEATURES)
    source = torch.Generator().manual_seed(0)
    state = {name: torch.randn(shape, generator=source) * 0.15 for name, shape in shapes.items()}
    for name, tensor in state.items():
        if "norm.weight" in name or name.endswith("weight_g"):
            tensor += 1
    return state


def norm(name: str, size: int) -> dict[str, tuple[int, ...]]:
    return {f"{name}.weight": (size,), f"{name}.bias": (size,)}


def linear(name: str, inputs: int, outputs: int) -> dict[str, tuple[int, ...]]:
    return {f"{name}.weight": (outputs, inputs), f"{name}.bias": (outputs,)}


def speech_features(state: State, sound: torch.Tensor) -> torch.Tensor:
    """wav2vec2-base written out with plain functions: group norm, post-norm layers, heads of 64 channels."""

    def layer_norm(x: torch.Tensor, name: str) -> torch.Tensor:
        return F.layer_norm(x, x.shape[-1:], state[f"{name}.weight"], state[f"{name}.bias"])

    def project(x: torch.Tensor, name: str) -> torch.Tensor:
        return F.linear(x, state[f"{name}.weight"], state[f"{name}.bias"])

    x = sound[:, None]
    for i, stride in enumerate(STRIDES):
        x = F.conv1d(x, state[f"feature_extractor.conv_layers.{i}.conv.weight"], stride=stride)
        if i == 0:
            name = "feature_extractor.conv_layers.0.layer_norm"
            x = F.group_norm(x, CONV, state[f"{name}.weight"], state[f"{name}.bias"])
        x = F.gelu(x)
    x = project(layer_norm(x.mT, "encoder.feature_projection.layer_norm"), "encoder.feature_projection.projection")
    position = "encoder.transformer.pos_conv_embed.conv"
    direction = state[f"{position}.weight_v"]
    weight = state[f"{position}.weight_g"] * direction / direction.norm(dim=(0, 1), keepdim=True)
    around = F.conv1d(x.mT, weight, state[f"{position}.bias"], padding=POSITION_KERNEL // 2, groups=POSITION_GROUPS)
    x = layer_norm(x + F.gelu(around[..., :-1]).mT, "encoder.transformer.layer_norm")
    for i in range(LAYERS):
        layer = f"encoder.transformer.layers.{i}"
        query, key, value = (
            project(x, f"{layer}.attention.{kind}_proj").unflatten(2, (-1, 64)).transpose(1, 2) for kind in "qkv"
        )
        attended = (query @ key.mT / 8).softmax(dim=-1) @ value
        x = x + project(attended.transpose(1, 2).flatten(2), f"{layer}.attention.out_proj")
        x = layer_norm(x, f"{layer}.layer_norm")
        inner = F.gelu(project(x, f"{layer}.feed_forward.intermediate_dense"))
        x = layer_norm(x + project(inner, f"{layer}.feed_forward.output_dense"), f"{layer}.final_layer_norm")
    return x


class Domain(nn.Module):
    """torch's own layers as they come: (time, batch, channel)."""

    def __init__(self, points: int, heads: int) -> None:
        super().__init__()
        encoder = nn.TransformerEncoderLayer(FEATURES, heads, 40, 0.2)
        encoders = nn.TransformerEncoder(encoder, 1, enable_nested_tensor=False)
        self.transformer_encoder = nn.Sequential(encoders, nn.Linear(FEATURES, 2 * points))
        decoder = nn.TransformerDecoderLayer(2 * points, heads, 40, 0.2)
        self.transformer_decoder = nn.TransformerDecoder(decoder, 1)
        self.conv = nn.Conv1d(1, 49, 1)


class Curves(nn.Module):
    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.base_weight = nn.Parameter(torch.randn(outputs, inputs) * 0.2)
        self.spline_weight = nn.Parameter(torch.randn(outputs, inputs, 8) * 0.2)
        self.spline_scaler = nn.Parameter(torch.randn(outputs, inputs))
        self.register_buffer("grid", (torch.arange(-3.0, 9.0) * 0.4 - 1).repeat(inputs, 1))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        knots = self.grid[0].double().numpy()  # pyright: ignore[reportIndexIssue]
        pieces = [BSpline.basis_element(knots[k : k + 5], extrapolate=False)(x.double().numpy()) for k in range(8)]
        bases = torch.from_numpy(np.nan_to_num(np.stack(pieces, axis=-1))).float()
        weight = self.spline_weight * self.spline_scaler[:, :, None]
        return F.silu(x) @ self.base_weight.T + torch.einsum("...ik,oik->...o", bases, weight)


class Published(nn.Module):
    """The published module's layers under its names, for a small width."""

    def __init__(self) -> None:
        super().__init__()
        self.trans_ct, self.trans_gb, self.trans_gbm = Domain(68, 1), Domain(68, 2), Domain(20, 2)
        self.lstm = nn.LSTM(FEATURES, 68, batch_first=True, bidirectional=True)
        self.mouth = nn.LSTM(FEATURES, 20, batch_first=True, bidirectional=True)
        self.R1, self.R2 = convolutions(147, 24), nn.Sequential(nn.Conv2d(147, 30, 1))
        self.R3 = convolutions(98, 12)
        self.KAN = nn.Module()
        self.KAN.layers = nn.ModuleList([Curves(68, 20), Curves(20, 68)])

    @torch.no_grad()
    def forward(self, features: torch.Tensor, identity: torch.Tensor, emotion: torch.Tensor) -> torch.Tensor:
        """Coordinates first: identity (B, 2, 68) → (B, 30, 2, 68)."""
        batch = len(features)
        everything = identity.reshape(batch, 1, 136)
        lips = identity[:, :, MOUTH].reshape(batch, 1, 40)

        def domain(part: Domain, x: torch.Tensor, points: torch.Tensor) -> torch.Tensor:
            return part.transformer_decoder(part.conv(points), part.transformer_encoder(x))

        weighted = features * emotion.float().softmax(dim=0).reshape(batch, 1, 1)
        streams = [self.lstm(weighted)[0], domain(self.trans_gb, features, everything)]
        streams.append(domain(self.trans_ct, weighted, everything))
        mouth_streams = [self.mouth(weighted)[0], domain(self.trans_gbm, features, lips)]
        picture = torch.cat(streams, dim=1).reshape(batch, 147, 2, 68)
        output = self.R1(picture) * self.R2(picture)
        mouth = self.R3(torch.cat(mouth_streams, dim=1).reshape(batch, 98, 2, 20))
        for column, point in enumerate(MOUTH):
            output[:, :, :, point] = mouth[:, :, :, column]
        for layer in self.KAN.layers:  # pyright: ignore[reportGeneralTypeIssues]
            output = layer(output)
        return output


def convolutions(channels: int, width: int) -> nn.Sequential:
    first, middle = nn.Conv2d(channels, width, 3, padding=1), nn.Conv2d(width, width, 1)
    return nn.Sequential(first, nn.ReLU(), middle, nn.ReLU(), nn.Conv2d(width, 30, 3, padding=1))


@pytest.fixture(scope="module")
def published() -> Published:
    torch.manual_seed(0)
    return Published().eval()


def checkpoint(path: Path, published: Published, speech: State, **more: Any) -> Path:
    state = {f"w2v.{name}": tensor for name, tensor in speech.items()} | published.state_dict()
    training = {"epoch": 199, "global_step": 28800, "pytorch-lightning_version": "2.3.3"}
    torch.save(training | {"state_dict": state, "hyper_parameters": {"init_lr": 3e-4}} | more, path)
    return path


@pytest.fixture(scope="module")
def weights(published: Published, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return checkpoint(tmp_path_factory.mktemp("published") / "weight.ckpt", published, speech_state())


@pytest.fixture(scope="module")
def converted(weights: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("converted")
    convert_landmark_checkpoint(weights, folder)
    return folder


def sound_and_identity(batch: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    source = torch.Generator().manual_seed(2)
    sound = torch.randn(batch, 16000, generator=source) * 0.1
    return sound, torch.rand(batch, 68, 2, generator=source), torch.tensor([1, 4, 2])[:batch]


@pytest.mark.parametrize("batch", [1, 3])
def test_converted_weights_give_the_published_output(converted: Path, published: Published, batch: int) -> None:
    encoder, generator = load_landmark_parts(converted)
    sound, identity, emotion = sound_and_identity(batch)
    expected_features = speech_features(speech_state(), sound)
    expected = published(expected_features, identity.mT, emotion)
    with torch.no_grad():
        features = encoder(sound)
        output = generator(features, identity, emotion)
    assert features.shape == (batch, 49, FEATURES)
    assert torch.allclose(features, expected_features, atol=1e-4)
    assert expected.std() > 0.05
    assert torch.allclose(output, expected.mT, atol=1e-4)


def test_what_is_written(converted: Path) -> None:
    names = {str(path.relative_to(converted)) for path in converted.rglob("*") if path.is_file()}
    files = ("config.json", "model.safetensors")
    assert names == {f"{part}/{name}" for part in ("landmark_generator", "wav2vec2") for name in files}
    config = json.loads((converted / "landmark_generator" / "config.json").read_text())
    assert config == {
        "features": FEATURES,
        "feed_forward": 40,
        "fusion_channels": 24,
        "mouth_channels": 12,
        "kan_hidden": 20,
        "dropout": 0.2,
        "sequence_first": True,
        "emotions": 0,
        "origin": 0.0,
        "extent": 1.0,
        "class_name": "KFusionGenerator",
    }
    assert json.loads((converted / "wav2vec2" / "config.json").read_text())["model_type"] == "wav2vec2"


def test_both_namings_of_weight_norm(published: Published, converted: Path, tmp_path: Path) -> None:
    renames = {"weight_g": "parametrizations.weight.original0", "weight_v": "parametrizations.weight.original1"}
    newer = {}
    for name, tensor in speech_state().items():
        place, _, kind = name.rpartition(".")
        newer[f"{place}.{renames.get(kind, kind)}"] = tensor
    assert newer.keys() != speech_state().keys()
    convert_landmark_checkpoint(checkpoint(tmp_path / "newer.ckpt", published, newer), tmp_path / "out")
    sound = sound_and_identity(1)[0]
    assert torch.equal(load_landmark_parts(tmp_path / "out")[0](sound), load_landmark_parts(converted)[0](sound))


def test_converted_emotion_has_no_effect_at_batch_one(converted: Path) -> None:
    encoder, generator = load_landmark_parts(converted)
    sound, identity, _ = sound_and_identity(1)
    with torch.no_grad():
        outputs = [generator(encoder(sound), identity, torch.tensor([emotion])) for emotion in (0, 7)]
    assert torch.equal(outputs[0], outputs[1])


def test_speech_encoder_is_frozen_and_checks_its_input(converted: Path) -> None:
    encoder, _ = load_landmark_parts(converted)
    assert not encoder.train().training and not encoder.model.training
    assert not any(parameter.requires_grad for parameter in encoder.parameters())
    assert encoder.feature_size == FEATURES
    with pytest.raises(InputError, match=r"shape \(1, 399\); expected \(batch, at least 400 samples\)"):
        encoder(torch.zeros(1, 399))


def test_existing_parts_are_left_alone(weights: Path, converted: Path, tmp_path: Path) -> None:
    shutil.copytree(converted, tmp_path / "out")
    (tmp_path / "out" / "wav2vec2" / "model.safetensors").write_bytes(b"mine")
    shutil.rmtree(tmp_path / "out" / "landmark_generator")
    with pytest.raises(OutputError, match="wav2vec2 exists already"):
        convert_landmark_checkpoint(weights, tmp_path / "out")
    assert (tmp_path / "out" / "wav2vec2" / "model.safetensors").read_bytes() == b"mine"
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["wav2vec2"]


def test_missing_foreign_and_misshapen_tensors_are_named(published: Published, tmp_path: Path) -> None:
    whole = {f"w2v.{name}": tensor for name, tensor in speech_state().items()} | published.state_dict()
    broken = {
        "it lacks 'R1.0.weight'": {k: v for k, v in whole.items() if k != "R1.0.weight"},
        "it lacks 'feature_extractor.conv_layers.6.conv.weight'": {
            k: v for k, v in whole.items() if "conv_layers.6" not in k
        },
        "lstm.bias_hh_l0": {k: v for k, v in whole.items() if k != "lstm.bias_hh_l0"},
        "q_proj.bias": {k: v for k, v in whole.items() if not k.endswith("layers.1.attention.q_proj.bias")},
        "colour": whole | {"colour": torch.zeros(1)},
        "KAN.layers.0.spline_weight": whole | {"KAN.layers.0.spline_weight": torch.zeros(20, 68, 9)},
        "lacks a dimension": whole | {"R3.0.weight": torch.tensor(1.0)},
        "R2.0.bias holds values that are not finite": whole | {"R2.0.bias": torch.full((30,), float("nan"))},
    }
    for message, state in broken.items():
        torch.save({"state_dict": state}, tmp_path / "broken.ckpt")
        with pytest.raises(ModelError, match=message):
            convert_landmark_checkpoint(tmp_path / "broken.ckpt", tmp_path / "out")
        assert not (tmp_path / "out").exists()


class _Unsafe:
    def __reduce__(self) -> tuple[Any, tuple[str]]:
        return Path.touch, (Path("touched"),)  # pyright: ignore[reportReturnType]


def test_unsafe_pickles_are_refused_and_not_run(
    published: Published, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    checkpoint(tmp_path / "unsafe.ckpt", published, speech_state(), callbacks=_Unsafe())
    (tmp_path / "raw.ckpt").write_bytes(pickle.dumps(_Unsafe(), protocol=2))
    for name in ("unsafe.ckpt", "raw.ckpt"):
        with pytest.raises(ModelError, match=rf"{name} is refused: besides weights and plain values it holds \w+"):
            convert_landmark_checkpoint(tmp_path / name, tmp_path / "out")
    assert not (tmp_path / "touched").exists() and not (tmp_path / "out").exists()


def test_what_is_no_checkpoint(weights: Path, tmp_path: Path) -> None:
    (tmp_path / "text.ckpt").write_text("not a checkpoint")
    (tmp_path / "empty.ckpt").write_bytes(b"")
    (tmp_path / "half.ckpt").write_bytes(weights.read_bytes()[:5000])
    for name in ("text.ckpt", "empty.ckpt", "half.ckpt"):
        with pytest.raises(ModelError, match=rf"{name} is not a (whole )?PyTorch checkpoint"):
            convert_landmark_checkpoint(tmp_path / name, tmp_path / "out")
    with pytest.raises(ModelError, match="no checkpoint at"):
        convert_landmark_checkpoint(tmp_path / "absent.ckpt", tmp_path / "out")
    with pytest.raises(ModelError, match=f"{tmp_path} is a folder: expected a Lightning .ckpt file"):
        convert_landmark_checkpoint(tmp_path, tmp_path / "out")
    for content, found in (
        ([1, 2], "holds no `state_dict`"),
        ({"model": {}}, "holds no `state_dict`"),
        ({"state_dict": {}}, "has nothing in its `state_dict`"),
    ):
        torch.save(content, tmp_path / "other.ckpt")
        with pytest.raises(ModelError, match=found):
            convert_landmark_checkpoint(tmp_path / "other.ckpt", tmp_path / "out")
    torch.save({"state_dict": {"R1.0.weight": "text"}}, tmp_path / "other.ckpt")
    with pytest.raises(ModelError, match=r"'R1\.0\.weight' in `state_dict` is a str; expected a tensor"):
        convert_landmark_checkpoint(tmp_path / "other.ckpt", tmp_path / "out")


def test_converted_folders_that_are_broken(converted: Path, tmp_path: Path) -> None:
    for part in ("landmark_generator", "wav2vec2"):
        for name in ("config.json", "model.safetensors"):
            folder = tmp_path / f"{part}-{name}"
            shutil.copytree(converted, folder)
            (folder / part / name).unlink()
            with pytest.raises(ModelError, match=part):
                load_landmark_parts(folder)


def test_transformers_is_named_where_it_is_missing(
    weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(InputError, match=r"atldiff\[paper\]"):
        convert_landmark_checkpoint(weights, tmp_path / "out")
