"""Train the image network on true landmarks: crops of mouth, eyes and face, short runs of frames."""

import dataclasses
import functools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np
import torch
import torch.nn.functional as F
from torch.utils.data import Dataset

from atldiff.data.prepared import PreparedClip, PreparedClips
from atldiff.diffusion.sampler import bridge_state
from atldiff.diffusion.unet import IdentityDiffusionUNet, UNetConfig
from atldiff.guidance import guide_noise
from atldiff.training.face_batches import Batch, Draw, FaceDraws, assemble
from atldiff.training.launch import Launch
from atldiff.training.loop import Task, fit
from atldiff.training.report import Validation
from atldiff.training.settings import Preset, TrainingSettings

_VALIDATION_BATCHES = 8
_VALIDATION_CLIPS_PER_SPEAKER = 4
_ROWS_PER_BATCH = 8


@dataclass(frozen=True)
class DiffusionTraining(TrainingSettings):
    """Settings of a run.

    Attributes:
        frames, crop: a batch is ``clips`` runs of ``frames`` frames, cut to ``crop`` pixels a side.
        first_step_share: share of clips trained at t = 1, where sampling starts.
        true_state_every: every so many steps, states with t < 1 are made from the true frames; otherwise from the
            network's own first step, as in sampling.
        most_per_speaker: clips of a speaker that are used at most.
    """

    steps: int = 6000
    clips: int = 6
    learning_rate: float = 5e-4
    warmup: int = 200
    weight_decay: float = 1e-3
    precision: str = "bf16-mixed"
    report_every: int = 500
    frames: int = 5
    crop: int = 64
    first_step_share: float = 0.6
    true_state_every: int = 4
    most_per_speaker: int = 160


def compact_preset() -> tuple[DiffusionTraining, UNetConfig]:
    """The network that the package carries."""
    return DiffusionTraining(), UNetConfig()


PRESETS: dict[str, Preset[DiffusionTraining, UNetConfig]] = {"compact": compact_preset}


def reconstruction_loss(predicted: torch.Tensor, clean: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """L1 of pixels and of their horizontal and vertical differences, heavier where the face moves."""
    weight = 0.3 + mask
    error = predicted - clean
    pixels = (weight * error.abs()).mean()
    across = (weight[..., 1:] * (error[..., 1:] - error[..., :-1]).abs()).mean()
    down = (weight[..., 1:, :] * (error[..., 1:, :] - error[..., :-1, :]).abs()).mean()
    return pixels + across + down


def _predict(model: IdentityDiffusionUNet, batch: Batch, state: torch.Tensor, time_N: torch.Tensor) -> torch.Tensor:
    tokens = model.encode_identity(batch["identity"])
    return model(state, time_N, batch["warped"], batch["maps"], tokens, batch["region"])


def _start(model: IdentityDiffusionUNet, batch: Batch) -> torch.Tensor:
    return guide_noise(batch["warped"], batch["mask"], batch["noise"], model.config.noise_scale)


@torch.no_grad()
def _first_step(model: IdentityDiffusionUNet, batch: Batch, start: torch.Tensor) -> torch.Tensor:
    """What sampling would know after its first step, for the clips with t < 1; the true frames for the others."""
    known = batch["clean"].clone()
    late = batch["time"] < 1
    if late.any():
        clips = late.view(len(batch["identity"]), -1)[:, 0]
        part = {name: value[clips if name == "identity" else late] for name, value in batch.items()}
        device = start.device.type
        dtype, enabled = torch.get_autocast_dtype(device), torch.is_autocast_enabled(device)
        # Weights that are cast here have no gradient and must not be found again by the pass that learns.
        with torch.autocast(device, dtype=dtype, enabled=enabled, cache_enabled=False):
            known[late] = _predict(model, part, start[late], torch.ones_like(part["time"]))
    return known


def training_loss(model: IdentityDiffusionUNet, batch: Batch, own_state: bool) -> torch.Tensor:
    """Loss of one batch; with ``own_state`` the states with t < 1 hold the network's own prediction."""
    start = _start(model, batch)
    known = _first_step(model, batch, start) if own_state else batch["clean"]
    state = bridge_state(known, start, batch["time"][:, None, None, None])
    return reconstruction_loss(_predict(model, batch, state, batch["time"]), batch["clean"], batch["mask"])


@torch.no_grad()
def validate(model: IdentityDiffusionUNet, batches: Sequence[Batch]) -> Validation:
    """PSNR in dB, of the error pooled over all mouth crops, of one step and of the warp alone; a picture of them.

    The error is pooled because a mean of PSNRs is decided by the frames where the warp is already perfect.
    """
    errors: dict[str, list[float]] = {"val_psnr": [], "val_psnr_warp": []}
    rows = []
    for batch in batches:
        predicted = _predict(model, batch, _start(model, batch), torch.ones_like(batch["time"])).clamp(0, 1)
        for name, pictures in (("val_psnr", predicted), ("val_psnr_warp", batch["warped"])):
            errors[name].append(float((pictures - batch["clean"]).square().mean()))
        rows.append(_comparison(batch, predicted))
    figures = {name: -10 * math.log10(np.mean(values)) for name, values in errors.items()}
    sheet = (torch.cat(rows, dim=1) * 255).round().to(torch.uint8).cpu().numpy()
    return Validation(figures["val_psnr"], figures, sheet)


def _comparison(batch: Batch, predicted: torch.Tensor) -> torch.Tensor:
    """(rows · crop, 4 · crop, 3): identity (whole, made small), warp, generated, true for some frames of a batch."""
    frames = len(predicted) // len(batch["identity"])
    identity = F.interpolate(batch["identity"], size=predicted.shape[-2:], mode="area")
    columns = [identity.repeat_interleave(frames, dim=0), batch["warped"], predicted, batch["clean"]]
    stacked = torch.stack(columns, dim=1)[:: max(1, len(predicted) // _ROWS_PER_BATCH)][:_ROWS_PER_BATCH]
    return stacked.permute(0, 3, 1, 4, 2).flatten(2, 3).flatten(0, 1)


class DiffusionTask(Task[IdentityDiffusionUNet]):
    """The image network, learned from prepared clips with splits ``train`` and ``val``.

    Raises:
        InputError: when opened: the folder is not one of prepared clips, or lacks a split.
    """

    part: ClassVar[str] = "unet"

    def __init__(self, prepared: Path, training: DiffusionTraining, config: UNetConfig) -> None:
        torch.manual_seed(training.seed)
        model = IdentityDiffusionUNet(config).to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]
        optimiser = torch.optim.AdamW(
            model.parameters(), lr=training.learning_rate, betas=(0.9, 0.98), weight_decay=training.weight_decay
        )
        super().__init__(training, config, model, optimiser)
        self._prepared, self._training = prepared, training
        self._clips: list[PreparedClip] = []
        self._validation: list[Batch] = []

    def open(self, device: torch.device) -> None:
        prepared = PreparedClips.open(self._prepared)
        self._clips = prepared.split("train", self._training.most_per_speaker)
        clips = prepared.split("val", _VALIDATION_CLIPS_PER_SPEAKER)
        settings = dataclasses.replace(self._training, seed=1)
        draws = FaceDraws(clips, settings, augment=False)
        self._validation = [
            assemble({name: value.to(device) for name, value in draws[step].items()})
            for step in range(_VALIDATION_BATCHES)
        ]

    def draws(self, share: int, shares: int) -> Dataset[Draw]:
        return FaceDraws(self._clips, self._training, rank=share, world=shares)

    def assemble(self, draw: Draw) -> Batch:
        return assemble(draw)

    def learning_rate(self, step: int) -> float:
        return self._training.cosine_rate(step, floor=0.02)

    def loss(self, batch: Batch, step: int) -> torch.Tensor:
        return training_loss(self.model, batch, own_state=step % self._training.true_state_every > 0)

    def validate(self, model: IdentityDiffusionUNet) -> Validation:
        return validate(model, self._validation)


def train_diffusion(
    prepared: Path,
    run: Path,
    training: DiffusionTraining | None = None,
    config: UNetConfig | None = None,
    launch: Launch | None = None,
) -> Path:
    """Train (or go on training) the image network and return the folder of its best weights by PSNR, ``run/unet``.

    See :func:`atldiff.training.loop.fit` for the run's folder and the errors.
    """
    training = training or DiffusionTraining()
    task = functools.partial(DiffusionTask, prepared, training, config or UNetConfig())
    return fit(task, training, run, launch or Launch())
