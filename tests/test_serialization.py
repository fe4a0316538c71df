"""Model folders: what is written is read back, what is broken is named."""

from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from atldiff.errors import ModelError
from atldiff.serialization import load_config, load_weights, read_json, save_part, write_atomically


@dataclass(frozen=True)
class Settings:
    size: int = 4
    widths: tuple[int, ...] = (1, 2)


@pytest.fixture
def part(tmp_path: Path) -> Path:
    torch.manual_seed(0)
    save_part(tmp_path / "part", nn.Linear(4, 3), Settings())
    return tmp_path / "part"


def test_round_trip(part: Path) -> None:
    torch.manual_seed(0)
    original, copy = nn.Linear(4, 3), nn.Linear(4, 3)
    load_weights(part, copy)
    assert load_config(part, Settings) == Settings()
    assert torch.allclose(copy.weight, original.weight, atol=1e-3)


def test_missing_files_are_named(part: Path) -> None:
    (part / "model.safetensors").unlink()
    with pytest.raises(ModelError, match=r"lacks part/model\.safetensors"):
        load_weights(part, nn.Linear(4, 3))
    with pytest.raises(ModelError, match=r"lacks absent\.json"):
        read_json(part / "absent.json")


def test_wrong_shape_names_the_tensor_and_both_shapes(part: Path) -> None:
    with pytest.raises(ModelError, match=r"tensor \w+ has shape \(3(, 4)?,?\), expected \(5(, 4)?,?\)"):
        load_weights(part, nn.Linear(4, 5))


def test_foreign_and_missing_tensors_are_named(part: Path) -> None:
    save_file({"other": torch.zeros(1)}, part / "model.safetensors")
    with pytest.raises(ModelError, match=r"missing \['bias', 'weight'\], unknown \['other'\]"):
        load_weights(part, nn.Linear(4, 3))


def test_corrupt_weights(part: Path) -> None:
    path = part / "model.safetensors"
    path.write_bytes(path.read_bytes()[:20])
    with pytest.raises(ModelError, match="is corrupt"):
        load_weights(part, nn.Linear(4, 3))


def test_values_that_are_not_finite(part: Path) -> None:
    save_file({"weight": torch.full((3, 4), float("nan")), "bias": torch.zeros(3)}, part / "model.safetensors")
    with pytest.raises(ModelError, match="tensor weight holds values that are not finite"):
        load_weights(part, nn.Linear(4, 3))


@pytest.mark.parametrize("text", ["{", "[]", '{"size": 1, "colour": 2}'])
def test_broken_configuration(part: Path, text: str) -> None:
    (part / "config.json").write_text(text)
    with pytest.raises(ModelError, match=r"config\.json"):
        load_config(part, Settings)


def test_a_failed_write_leaves_the_old_file(tmp_path: Path) -> None:
    target = tmp_path / "file"
    write_atomically(target, b"old")
    with pytest.raises(TypeError):
        write_atomically(target, "no bytes")  # type: ignore[arg-type]
    assert target.read_bytes() == b"old"
    assert [path.name for path in tmp_path.iterdir()] == ["file"]
