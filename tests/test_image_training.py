"""What is particular to the training of the compact image network: the critic, given weights, ablations."""

import dataclasses
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file

from atldiff.data.prepared import PreparedClips
from atldiff.errors import InputError, ModelError
from atldiff.image.animator import FaceAnimator
from atldiff.image.unet import IdentityDiffusionUNet, UNetConfig
from atldiff.storage.parts import WEIGHTS_NAME, load_config, load_weights, save_part
from atldiff.training.engine.checkpoint import Checkpoints
from atldiff.training.engine.launch import Launch
from atldiff.training.image.critic import critic_losses
from atldiff.training.image.diffusion import (
    DiffusionTask,
    DiffusionTraining,
    reconstruction_loss,
    train_diffusion,
    validate,
)
from prepared_files import judged_by_little, write_prepared

torch.set_num_threads(1)

TINY_UNET = UNetConfig(channels=(8, 16), time_features=16, attention_heads=2)
TINY_DIFFUSION = DiffusionTraining(steps=6, clips=2, frames=3, crop=16, warmup=1, report_every=2)
EVERY_STEP = Launch("cpu", max_seconds=1e-9)
CPU = Launch("cpu", quiet=True)


@pytest.fixture(autouse=True)
def judging() -> Iterator[pytest.MonkeyPatch]:
    with judged_by_little() as patch:
        yield patch


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_prepared(tmp_path_factory.mktemp("clips") / "prepared", ["train"] * 2 + ["val"], frames=12)


def test_network_and_critic_learn_from_their_own_losses_alone(prepared: Path) -> None:
    task = DiffusionTask(prepared, dataclasses.replace(TINY_DIFFUSION, critic=0.1), TINY_UNET)
    task.open(torch.device("cpu"))
    batch = task.assemble(task.draws(0, 1)[0])
    critic, unet = task.model.critic, task.model.unet
    assert critic is not None
    predicted = unet.conv_out.bias.sum() * 0.1 + batch["warped"]
    judgement, distance, loss = critic_losses(critic, predicted, batch)
    for asked in (judgement, distance):
        asked.backward(retain_graph=True)
        assert unet.conv_out.bias.grad is not None
        assert unet.conv_out.bias.grad.abs().sum() > 0
        assert all(parameter.grad is None for parameter in critic.parameters())
        unet.conv_out.bias.grad = None
    loss.backward()
    assert unet.conv_out.bias.grad is None
    assert all(parameter.grad is not None for parameter in critic.parameters())


def test_less_of_the_reconstruction_counts_between_the_lips(prepared: Path) -> None:
    task = DiffusionTask(prepared, TINY_DIFFUSION, TINY_UNET)
    task.open(torch.device("cpu"))
    batch = task.assemble(task.draws(0, 1)[0])
    batch = batch | {"inside": torch.ones_like(batch["inside"])}
    grain = 0.1 * (1 - 2 * (torch.arange(TINY_DIFFUSION.crop) % 2)).float()
    grainy = batch["clean"] + grain
    whole, fifth, colours = (reconstruction_loss(grainy, batch, share) for share in (1.0, 0.2, 0.0))
    assert torch.isclose(fifth, 0.2 * whole) and colours < 1e-6 < whole
    tinted = batch["clean"] + 0.1
    assert torch.isclose(reconstruction_loss(tinted, batch, 0.0), torch.tensor(0.1))
    outside = batch | {"inside": torch.zeros_like(batch["inside"])}
    assert torch.isclose(reconstruction_loss(grainy, outside, 0.0), whole)


def test_a_critic_learns_what_is_blurred(prepared: Path) -> None:
    torch.manual_seed(0)
    task = DiffusionTask(prepared, dataclasses.replace(TINY_DIFFUSION, critic=0.1), TINY_UNET)
    task.open(torch.device("cpu"))
    critic = task.model.critic
    assert critic is not None
    optimiser = torch.optim.Adam(critic.parameters(), lr=2e-3)
    draws = task.draws(0, 1)
    batches = [task.assemble(draws[step]) for step in range(TINY_DIFFUSION.steps)]
    for step in range(40):
        batch = batches[step % len(batches)]
        blurred = F.avg_pool2d(batch["clean"], 5, stride=1, padding=2)
        loss = critic_losses(critic, blurred, batch)[2]
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    assert loss.item() < 1.5  # 2 where it cannot tell


def test_a_run_with_a_critic_goes_on_exactly(prepared: Path, tmp_path: Path) -> None:
    settings = dataclasses.replace(TINY_DIFFUSION, critic=0.1, steps=4)
    whole, pieces = tmp_path / "whole", tmp_path / "pieces"
    train_diffusion(prepared, whole, settings, TINY_UNET, CPU)
    for _ in range(settings.steps):
        train_diffusion(prepared, pieces, settings, TINY_UNET, EVERY_STEP)
    states = [Checkpoints(run, keep=2).latest() for run in (whole, pieces)]
    assert states[0] is not None and states[1] is not None
    torch.testing.assert_close(states[0]["model"], states[1]["model"], rtol=0, atol=0)
    assert any(name.startswith("critic.") for name in states[0]["model"])
    assert Checkpoints(whole, keep=2).best()["step"] == settings.steps
    assert set(load_file(whole / "unet" / WEIGHTS_NAME)) == set(IdentityDiffusionUNet(TINY_UNET).state_dict())


def test_a_run_begins_with_given_weights(prepared: Path, tmp_path: Path) -> None:
    first = train_diffusion(prepared, tmp_path / "first", TINY_DIFFUSION, TINY_UNET, CPU)
    settings = dataclasses.replace(TINY_DIFFUSION, begin_from=str(first), steps=1, learning_rate=1e-12)
    again = train_diffusion(prepared, tmp_path / "again", settings, TINY_UNET, CPU)
    before, after = load_file(first / WEIGHTS_NAME), load_file(again / WEIGHTS_NAME)
    assert all(torch.equal(before[name], after[name]) for name in before)
    other = dataclasses.replace(TINY_UNET, channels=(8, 8))
    with pytest.raises(ModelError, match="shape"):
        train_diffusion(prepared, tmp_path / "other", settings, other, CPU)


@pytest.mark.parametrize("step", [0, 1])
def test_a_teacher_says_what_is_to_be_learned(step: int, prepared: Path, tmp_path: Path) -> None:
    taught = IdentityDiffusionUNet(TINY_UNET)
    with torch.no_grad():
        taught.conv_out.weight.normal_(0, 0.1)
    save_part(tmp_path / "teacher", taught, TINY_UNET)
    task = DiffusionTask(prepared, dataclasses.replace(TINY_DIFFUSION, teacher=str(tmp_path / "teacher")), TINY_UNET)
    task.open(torch.device("cpu"))
    batch = task.assemble(task.draws(0, 1)[0])
    before = task.loss(batch, step), task.validate(task.model).score
    before[0].backward()
    assert task.model.unet.conv_out.weight.grad is not None
    load_weights(tmp_path / "teacher", task.model.unet)
    after = task.loss(batch, step), task.validate(task.model).score
    assert after[0] < 1e-3 * before[0] and after[1] > before[1] + 20


def test_a_teacher_and_a_critic_are_not_both_obeyed() -> None:
    with pytest.raises(InputError, match=r"teacher is 'compact' and critic 0\.1; expected one of the two"):
        DiffusionTraining(teacher="compact", critic=0.1)


@pytest.mark.parametrize("config", [{"warp": False}, {"maps": False}, {"warp": False, "maps": False}])
def test_ablations_train_and_animate(config: dict[str, bool], prepared: Path, tmp_path: Path) -> None:
    unet_config = dataclasses.replace(TINY_UNET, **config)
    folder = train_diffusion(prepared, tmp_path / "run", TINY_DIFFUSION, unet_config, CPU)
    unet = IdentityDiffusionUNet(load_config(folder, UNetConfig))
    load_weights(folder, unet)
    clip = PreparedClips.open(prepared).split("val")[0]
    landmarks = clip.landmarks()
    faces = FaceAnimator(unet.eval(), clip.frames(0, 1)[0], landmarks[0], 1, 0).animate(landmarks[:3])
    assert bool((faces.flow_F2GG == 0).all()) is not unet_config.warp
    assert faces.residual_F3hw.shape == (3, 3, 104, 112)


def test_detail_is_that_of_the_true_frames(prepared: Path) -> None:
    task = DiffusionTask(prepared, TINY_DIFFUSION, TINY_UNET)
    task.open(torch.device("cpu"))
    batch = task.assemble(task.draws(0, 1)[0])
    sharp = {**batch, "warped": batch["clean"]}
    blurred = {**batch, "warped": F.avg_pool2d(batch["clean"], 5, stride=1, padding=2, count_include_pad=False)}
    figures = [validate(task.model.unet.eval(), [one]).figures for one in (sharp, blurred)]
    assert figures[0]["val_detail_warp"] == pytest.approx(1)
    assert figures[0]["val_psnr_warp"] == pytest.approx(100)
    assert figures[1]["val_detail_warp"] < 0.9
