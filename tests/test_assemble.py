"""Trained parts and the rest of a model make a model that speaks."""

from pathlib import Path

import pytest
import torch

from atldiff.cli import main
from atldiff.errors import InputError, ModelError, OutputError
from atldiff.landmarks.generator import LandmarkGenerator, LandmarkGeneratorConfig
from atldiff.pipeline import ATLDiffPipeline
from atldiff.storage.parts import save_part
from atldiff.training.assemble import assemble

torch.set_num_threads(1)


def trained(run: Path, channels: int = 24) -> Path:
    config = LandmarkGeneratorConfig(channels=channels, dilations=(1,))
    save_part(run / "landmark_generator", LandmarkGenerator(config), config)
    return run


def test_trained_parts_replace_those_of_the_base(
    tiny_model: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    run, model = trained(tmp_path / "run"), tmp_path / "models" / "mine"
    assert main(["assemble", str(run), "-o", str(model), "--base", str(tiny_model)]) == 0
    assert capfd.readouterr() == (f"model: {model}\n", "")
    pipeline = ATLDiffPipeline.from_pretrained(model, device="cpu")
    assert pipeline.landmark_generator.config.channels == 24
    assert (model / "unet" / "model.safetensors").read_bytes() == (
        tiny_model / "unet" / "model.safetensors"
    ).read_bytes()
    assert f"`landmark_generator`: trained in `{run}`" in (model / "README.md").read_text()
    assert [path.name for path in model.parent.iterdir()] == ["mine"]


def test_what_cannot_be_put_together_is_refused(tiny_model: Path, tmp_path: Path) -> None:
    run, other = trained(tmp_path / "run"), trained(tmp_path / "other")
    model = tmp_path / "model"
    with pytest.raises(InputError, match="holds none of the parts emotion_classifier, landmark_generator, unet"):
        assemble([tmp_path], model, tiny_model)
    with pytest.raises(InputError, match=r"both .*run and .*other hold a landmark_generator"):
        assemble([run, other], model, tiny_model)
    (run / "landmark_generator" / "config.json").write_text('{"channels": 25, "dilations": [1]}')
    with pytest.raises(ModelError, match=rf"^{run / 'landmark_generator'}/.*: tensor .* has shape"):
        assemble([run], model, tiny_model)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["other", "run"]
    with pytest.raises(OutputError, match="is there already"):
        assemble([other], run, tiny_model)
