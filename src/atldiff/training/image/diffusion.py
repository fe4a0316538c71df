"""Train the image network on true landmarks: cuts of the window around the mouth, short runs of frames."""

import dataclasses
import functools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
import torch.nn.functional as F
from torch.utils.data import Dataset

from atldiff.data.prepared import PreparedClip, PreparedClips
from atldiff.errors import InputError
from atldiff.image.guidance import guide_noise
from atldiff.image.paper_unet import PaperUNetConfig
from atldiff.image.sampler import bridge_state
from atldiff.image.unet import IdentityDiffusionUNet, UNetConfig
from atldiff.image.window import WINDOW_SIZE
from atldiff.storage.parts import load_part, load_weights, part_folder, save_part
from atldiff.training.engine.launch import Launch
from atldiff.training.engine.loop import fit
from atldiff.training.engine.report import Validation
from atldiff.training.engine.settings import Preset, TrainingSettings
from atldiff.training.engine.task import Task
from atldiff.training.image.critic import JudgedUNet, PatchCritic, critic_losses, critic_ramp
from atldiff.training.image.face_batches import Batch, Draw, FaceDraws, assemble
from atldiff.training.image.paper_diffusion import PaperDiffusionTask, PaperDiffusionTraining, paper_preset

_VALIDATION_BATCHES = 8
_VALIDATION_CLIPS_PER_SPEAKER = 4
_ROWS_PER_BATCH = 8

_COLOUR_PLACE = 4
"""Pixels a side of the places between the lips whose colours are compared."""


@dataclass(frozen=True)
class DiffusionTraining(TrainingSettings):
    """Settings of a run.

    Attributes:
        frames, crop: a batch is ``clips`` runs of ``frames`` frames, of which ``crop`` of the window's 128 pixels a
            side are seen.
        first_step_share: share of clips trained at t = 1, where sampling starts.
        true_state_every: every so many steps, states with t < 1 are made from the true frames; otherwise from the
            network's own first step, as in sampling.
        most_per_speaker: clips of a speaker that are used at most.
        critic: weight of a critic's judgement (:mod:`atldiff.training.image.critic`) beside the reconstruction; 0 for
            none. PSNR cannot tell what it is good for, so a run with a critic keeps its last weights, not those of
            the best PSNR.
        critic_features: weight of the distance between made and true frames in that critic's features.
        inside_share: how much of the reconstruction counts between the lips. A portrait does not tell what is there,
            and the mean of all that could be is a grey veil; so with a critic the detail is left to the critic, and
            what the reconstruction asks is the colour of places of some pixels.
        teacher: folder of a trained image network, or ``compact`` for that in the package, whose frames are learned
            in the place of the true ones: for a smaller network that does the same (Hinton, Vinyals, Dean 2015).
    """

    steps: int = 6000
    clips: int = 6
    learning_rate: float = 5e-4
    warmup: int = 200
    weight_decay: float = 1e-3
    precision: str = "bf16-mixed"
    report_every: int = 500
    frames: int = 5
    crop: int = 80
    first_step_share: float = 0.6
    true_state_every: int = 4
    most_per_speaker: int = 160
    critic: float = 0.0
    critic_features: float = 0.06
    inside_share: float = 1.0
    teacher: str = ""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.crop % 8 or not 16 <= self.crop <= WINDOW_SIZE:
            raise InputError(f"crop is {self.crop}; expected a multiple of 8 from 16 to {WINDOW_SIZE}")
        if self.critic and self.frames < 2:
            raise InputError(f"frames is {self.frames}; expected 2 or more with a critic, which judges their change")
        if self.critic and self.teacher:
            raise InputError(f"teacher is {self.teacher!r} and critic {self.critic}; expected one of the two")


def compact_preset() -> tuple[DiffusionTraining, UNetConfig]:
    """The network that the package carries."""
    return DiffusionTraining(), UNetConfig()


PRESETS: dict[str, Preset[Any, Any]] = {"compact": compact_preset, "paper": paper_preset}


def reconstruction_loss(predicted: torch.Tensor, batch: Batch, inside_share: float = 1.0) -> torch.Tensor:
    """L1 of pixels and of their horizontal and vertical differences, heavier where the face moves.

    Args:
        predicted: (N, 3, crop, crop) frames in [0, 1].
        batch: of :func:`~atldiff.training.image.face_batches.assemble`.
        inside_share: how much of it counts between the lips, where the colours of places of some pixels count too.
    """
    weight = (0.3 + batch["mask"]) * (1 - (1 - inside_share) * batch["inside"])
    error = predicted - batch["clean"]
    pixels = (weight * error.abs()).mean()
    across = (weight[..., 1:] * (error[..., 1:] - error[..., :-1]).abs()).mean()
    down = (weight[..., 1:, :] * (error[..., 1:, :] - error[..., :-1, :]).abs()).mean()
    colours = F.avg_pool2d((1 - inside_share) * batch["inside"] * error, _COLOUR_PLACE).abs().mean()
    return pixels + across + down + colours


def _predict(model: IdentityDiffusionUNet, batch: Batch, state: torch.Tensor, time_N: torch.Tensor) -> torch.Tensor:
    tokens = model.encode_identity(batch["identity"])
    return model(state, time_N, batch["warped"], batch["maps"], tokens, batch["region"])


def _start(model: IdentityDiffusionUNet, batch: Batch) -> torch.Tensor:
    return guide_noise(batch["warped"], batch["mask"], batch["noise"], model.config.noise_scale)


def _autocast_apart(device: str) -> torch.autocast:
    """The autocast there is, for passes without a gradient: the weights that they cast must not be found again by the
    pass that learns."""
    dtype, enabled = torch.get_autocast_dtype(device), torch.is_autocast_enabled(device)
    return torch.autocast(device, dtype=dtype, enabled=enabled, cache_enabled=False)


@torch.no_grad()
def _first_step(model: IdentityDiffusionUNet, batch: Batch, start: torch.Tensor) -> torch.Tensor:
    """What sampling would know after its first step, for the clips with t < 1; the true frames for the others."""
    known = batch["clean"].clone()
    late = batch["time"] < 1
    if late.any():
        clips = late.view(len(batch["identity"]), -1)[:, 0]
        part = {name: value[clips if name == "identity" else late] for name, value in batch.items()}
        with _autocast_apart(start.device.type):
            known[late] = _predict(model, part, start[late], torch.ones_like(part["time"]))
    return known


def _state(knowing: IdentityDiffusionUNet, batch: Batch, own_state: bool) -> torch.Tensor:
    """x_t at the batch's times; with ``own_state`` those with t < 1 hold what a network itself made of the start."""
    start = _start(knowing, batch)
    known = _first_step(knowing, batch, start) if own_state else batch["clean"]
    return bridge_state(known, start, batch["time"][:, None, None, None])


@torch.no_grad()
def _as_taught(teacher: IdentityDiffusionUNet, batch: Batch, state: torch.Tensor) -> Batch:
    """The same batch with the teacher's frames in the place of the true ones."""
    with _autocast_apart(state.device.type):
        return batch | {"clean": _predict(teacher, batch, state, batch["time"])}


@torch.no_grad()
def validate(model: IdentityDiffusionUNet, batches: Sequence[Batch]) -> Validation:
    """PSNR in dB and detail of one step and of the start alone, over whole windows; a picture of them.

    The squared error is pooled because a mean of PSNRs is decided by the frames where the warp is already perfect.
    Detail is the sum of absolute differences of neighbouring pixels over that of the true frames: 1 is as sharp.
    """
    errors: dict[str, list[float]] = {"": [], "_warp": []}
    details: dict[str, list[float]] = {"": [], "_warp": []}
    rows = []
    for batch in batches:
        predicted = _predict(model, batch, _start(model, batch), torch.ones_like(batch["time"])).clamp(0, 1)
        for name, pictures in (("", predicted), ("_warp", batch["warped"])):
            errors[name].append(float((pictures - batch["clean"]).square().mean()))
            details[name].append(_differences(pictures) / max(_differences(batch["clean"]), 1e-6))
        rows.append(_comparison(batch, predicted))
    figures = {f"val_psnr{name}": -10 * math.log10(max(np.mean(values), 1e-10)) for name, values in errors.items()}
    figures |= {f"val_detail{name}": float(np.mean(values)) for name, values in details.items()}
    sheet = (torch.cat(rows, dim=1) * 255).round().to(torch.uint8).cpu().numpy()
    return Validation(figures["val_psnr"], figures, sheet)


def _differences(pictures: torch.Tensor) -> float:
    across = (pictures[..., 1:] - pictures[..., :-1]).abs().mean()
    return float(across + (pictures[..., 1:, :] - pictures[..., :-1, :]).abs().mean())


def _comparison(batch: Batch, predicted: torch.Tensor) -> torch.Tensor:
    """(rows · crop, 4 · crop, 3): identity (whole, made small), start, generated, true for some frames of a batch."""
    frames = len(predicted) // len(batch["identity"])
    identity = F.interpolate(batch["identity"], size=predicted.shape[-2:], mode="area")
    columns = [identity.repeat_interleave(frames, dim=0), batch["warped"], predicted, batch["clean"]]
    stacked = torch.stack(columns, dim=1)[:: max(1, len(predicted) // _ROWS_PER_BATCH)][:_ROWS_PER_BATCH]
    return stacked.permute(0, 3, 1, 4, 2).flatten(2, 3).flatten(0, 1)


class DiffusionTask(Task[JudgedUNet]):
    """The image network, learned from prepared clips with splits ``train`` and ``val``.

    Raises:
        InputError: when opened: the folder is not one of prepared clips, or lacks a split.
    """

    part: ClassVar[str] = "unet"

    def __init__(self, prepared: Path, training: DiffusionTraining, config: UNetConfig) -> None:
        torch.manual_seed(training.seed)
        model = JudgedUNet(IdentityDiffusionUNet(config), PatchCritic() if training.critic else None)
        model = model.to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]
        super().__init__(prepared, training, config, model, betas=(0.9, 0.98))
        self.keeps_last = training.critic > 0
        self._training = training
        self._clips: list[PreparedClip] = []
        self._validation: list[Batch] = []
        self._teacher: IdentityDiffusionUNet | None = None

    def open(self, device: torch.device) -> None:
        if self._training.teacher:
            folder = part_folder(self._training.teacher, self.part)
            teacher = load_part(folder, IdentityDiffusionUNet, UNetConfig).eval().requires_grad_(False)
            self._teacher = teacher.to(device, memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]
        prepared = PreparedClips.open(self._prepared)
        self._clips = prepared.split("train", self._training.most_per_speaker)
        clips = prepared.split("val", _VALIDATION_CLIPS_PER_SPEAKER)
        settings = dataclasses.replace(self._training, seed=1, crop=WINDOW_SIZE)
        draws = FaceDraws(clips, settings, augment=False)
        self._validation = [
            self.assemble({name: value.to(device) for name, value in draws[step].items()})
            for step in range(_VALIDATION_BATCHES)
        ]
        if self._teacher is not None:
            taught = [_as_taught(self._teacher, batch, _start(self._teacher, batch)) for batch in self._validation]
            self._validation = [batch | {"clean": batch["clean"].clamp(0, 1)} for batch in taught]

    def draws(self, share: int, shares: int) -> Dataset[Draw]:
        return FaceDraws(self._clips, self._training, rank=share, world=shares)

    def assemble(self, draw: Draw) -> Batch:
        return assemble(draw, self.config.warp)

    def learning_rate(self, step: int) -> float:
        return self._training.cosine_rate(step, floor=0.02)

    def loss(self, batch: Batch, step: int) -> torch.Tensor:
        own_state = step % self._training.true_state_every > 0
        state = _state(self._teacher or self.model.unet, batch, own_state)
        if self._teacher is not None:
            batch = _as_taught(self._teacher, batch, state)
        predicted = _predict(self.model.unet, batch, state, batch["time"])
        loss = reconstruction_loss(predicted, batch, self._training.inside_share)
        if self.model.critic is None:
            return loss
        judgement, distance, critic_loss = critic_losses(self.model.critic, predicted, batch)
        asked = self._training.critic * judgement + self._training.critic_features * distance
        return loss + critic_ramp(step) * asked + critic_loss

    def validate(self, model: JudgedUNet) -> Validation:
        return validate(model.unet, self._validation)

    def begin_from(self, folder: Path) -> None:
        load_weights(folder, self.model.unet)

    def export(self, model: JudgedUNet, run: Path) -> None:
        save_part(run / self.part, model.unet, self.config)


def diffusion_task(
    prepared: Path, training: DiffusionTraining | PaperDiffusionTraining, config: UNetConfig | PaperUNetConfig
) -> Task:
    """The task of a preset: its settings say which network is trained."""
    if isinstance(training, PaperDiffusionTraining) and isinstance(config, PaperUNetConfig):
        return PaperDiffusionTask(prepared, training, config)
    if isinstance(training, DiffusionTraining) and isinstance(config, UNetConfig):
        return DiffusionTask(prepared, training, config)
    raise TypeError(f"{type(training).__name__} are not settings for {type(config).__name__}")


def train_diffusion(
    prepared: Path,
    run: Path,
    training: DiffusionTraining | PaperDiffusionTraining | None = None,
    config: UNetConfig | PaperUNetConfig | None = None,
    launch: Launch | None = None,
) -> Path:
    """Train (or go on training) the image network and return the folder of its best weights by PSNR, ``run/unet``.

    See :func:`atldiff.training.engine.loop.fit` for the run's folder and the errors.
    """
    training = training or DiffusionTraining()
    task = functools.partial(diffusion_task, prepared, training, config or UNetConfig())
    return fit(task, training, run, launch or Launch())
