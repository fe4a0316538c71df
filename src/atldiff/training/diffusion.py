"""Train the image network on true landmarks: crops of mouth, eyes and face, short runs of frames."""

import dataclasses
import math
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch.utils.data import DataLoader, Dataset

from atldiff.data.prepared import PreparedClip, SpeakerSampler, load_clips
from atldiff.diffusion.sampler import bridge_state
from atldiff.diffusion.unet import IdentityDiffusionUNet, UNetConfig
from atldiff.face.crop import CROP_SIZE
from atldiff.face.topology import LEFT_EYE, MIRROR_68, MOUTH, RIGHT_EYE
from atldiff.guidance import guide_noise, landmark_maps, noise_mask, residual_region
from atldiff.serialization import save_part
from atldiff.training.checkpoint import ExponentialAverage, TrainingState
from atldiff.warp import thin_plate_flow, warp

Batch = dict[str, torch.Tensor]


@dataclass(frozen=True)
class DiffusionTraining:
    """Settings of a run.

    Attributes:
        steps: optimiser steps of the whole run; the learning rate follows a cosine over them.
        clips, frames, crop: a batch is ``clips`` runs of ``frames`` frames, cut to ``crop`` pixels a side.
        first_step_share: share of clips trained at t = 1, where sampling starts.
        true_state_every: every so many steps, states with t < 1 are made from the true frames; otherwise from the
            network's own first step, as in sampling.
        max_minutes: stop (and leave a checkpoint to go on from) after so many minutes of this call.
    """

    steps: int = 6000
    clips: int = 6
    frames: int = 5
    crop: int = 64
    learning_rate: float = 5e-4
    warmup: int = 200
    ema_decay: float = 0.998
    first_step_share: float = 0.6
    true_state_every: int = 4
    seed: int = 0
    max_minutes: float = math.inf
    report_every: int = 500
    most_per_speaker: int = 160


class FaceCropBatches(Dataset[Batch]):
    """Batch number ``step`` of a run, a function of the seed and the step alone."""

    def __init__(self, clips: list[PreparedClip], training: DiffusionTraining, augment: bool = True) -> None:
        self.training = training
        self.augment = augment
        self.sampler = SpeakerSampler(clips, training.frames)

    def __len__(self) -> int:
        return self.training.steps

    def __getitem__(self, step: int) -> Batch:
        random = np.random.default_rng((self.training.seed, step))
        parts = [self._run_of_frames(self.sampler.draw(random), random) for _ in range(self.training.clips)]
        batch = {name: torch.cat([part[name] for part in parts]) for name in parts[0]}
        noise = torch.Generator().manual_seed(int(random.integers(2**62)))
        per_clip = torch.randn(self.training.clips, *batch["clean"].shape[1:], generator=noise)
        batch["noise"] = per_clip.repeat_interleave(self.training.frames, dim=0)
        clip_times = [self._time(random) for _ in range(self.training.clips)]
        batch["time"] = torch.tensor(clip_times).repeat_interleave(self.training.frames)
        return batch

    def _time(self, random: np.random.Generator) -> float:
        if not self.augment or random.random() < self.training.first_step_share:
            return 1.0
        return float(random.choice([0.25, 0.5, 0.75, 0.125 + 0.875 * random.random()]))

    def _run_of_frames(self, clip: PreparedClip, random: np.random.Generator) -> Batch:
        assert clip.frames is not None
        count = self.training.frames
        first = int(random.integers(len(clip.frames) - count + 1))
        identity_index = int(random.integers(len(clip.frames)))
        frames = np.concatenate(
            [clip.frames[first : first + count], clip.frames[identity_index : identity_index + 1]]
        )
        landmarks = np.concatenate(
            [clip.landmarks[first : first + count], clip.landmarks[identity_index : identity_index + 1]]
        )
        pictures = torch.from_numpy(frames).permute(0, 3, 1, 2).float() / 255
        points = torch.from_numpy(landmarks)
        if self.augment:
            pictures, points = _flip_and_tint(pictures, points, random)
        left, top = self._corner(points, random)
        return _cut(pictures, points, left, top, self.training.crop)

    def _corner(self, points: torch.Tensor, random: np.random.Generator) -> tuple[int, int]:
        kind = random.choice(3, p=[0.65, 0.15, 0.2]) if self.augment else 0
        if kind == 0:
            centre = points[:-1, MOUTH].mean(dim=(0, 1)).numpy()
        elif kind == 1:
            eye = RIGHT_EYE if random.random() < 0.5 else LEFT_EYE
            centre = points[:-1, eye].mean(dim=(0, 1)).numpy()
        else:
            centre = points[0, random.integers(68)].numpy()
        shift = random.uniform(-10, 10, size=2) if self.augment else np.zeros(2)
        corner = np.clip(centre + shift - self.training.crop / 2, 0, CROP_SIZE - self.training.crop)
        even = (corner // 2 * 2).astype(int)
        return int(even[0]), int(even[1])


def _flip_and_tint(
    pictures: torch.Tensor, points: torch.Tensor, random: np.random.Generator
) -> tuple[torch.Tensor, torch.Tensor]:
    if random.random() < 0.5:
        pictures = pictures.flip(-1)
        points = points[:, MIRROR_68] * torch.tensor([-1.0, 1.0]) + torch.tensor([float(CROP_SIZE), 0.0])
    gamma, gain = np.exp(random.normal(0, 0.2)), np.exp(random.normal(0, 0.1, size=(3, 1, 1)))
    tinted = pictures.clamp_min(1e-3) ** float(gamma) * torch.from_numpy(gain).float()
    return tinted.clamp(0, 1), points


def _cut(pictures: torch.Tensor, points: torch.Tensor, left: int, top: int, crop: int) -> Batch:
    """Everything the network needs for one run of frames; the last picture is the identity."""
    identity, identity_points = pictures[-1], points[-1:]
    target_points = points[:-1]
    flow = thin_plate_flow(identity_points, target_points, CROP_SIZE)
    maps = landmark_maps(points, CROP_SIZE, CROP_SIZE // 2)
    maps = torch.cat([maps[:-1], maps[-1:].expand(len(target_points), -1, -1, -1)], dim=1)
    box = (..., slice(top, top + crop), slice(left, left + crop))
    half_box = (..., slice(top // 2, (top + crop) // 2), slice(left // 2, (left + crop) // 2))
    return {
        "clean": pictures[:-1][box],
        "warped": warp(identity, flow, CROP_SIZE, (left, top, crop, crop)),
        "maps": maps[half_box],
        "mask": noise_mask(target_points, CROP_SIZE)[box],
        "region": residual_region(target_points, CROP_SIZE)[box],
        "identity": identity[None],
    }


def reconstruction_loss(predicted: torch.Tensor, clean: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """L1 of pixels and of their horizontal and vertical differences, heavier where the face moves."""
    weight = 0.3 + mask
    error = predicted - clean
    pixels = (weight * error.abs()).mean()
    across = (weight[..., 1:] * (error[..., 1:] - error[..., :-1]).abs()).mean()
    down = (weight[..., 1:, :] * (error[..., 1:, :] - error[..., :-1, :]).abs()).mean()
    return pixels + across + down


def _predict(model: IdentityDiffusionUNet, batch: Batch, state: torch.Tensor, time_N: torch.Tensor) -> torch.Tensor:
    with torch.autocast(state.device.type, dtype=torch.bfloat16):
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
        known[late] = _predict(model, part, start[late], torch.ones_like(part["time"]))
    return known


def training_loss(model: IdentityDiffusionUNet, batch: Batch, own_state: bool) -> torch.Tensor:
    """Loss of one batch; with ``own_state`` the states with t < 1 hold the network's own prediction."""
    start = _start(model, batch)
    known = _first_step(model, batch, start) if own_state else batch["clean"]
    state = bridge_state(known, start, batch["time"][:, None, None, None])
    return reconstruction_loss(_predict(model, batch, state, batch["time"]), batch["clean"], batch["mask"])


@torch.no_grad()
def validate(model: IdentityDiffusionUNet, batches: list[Batch]) -> tuple[float, float, np.ndarray]:
    """PSNR in dB, of the error pooled over all mouth crops, of one step and of the warp alone; a picture of them.

    The error is pooled because a mean of PSNRs is decided by the frames where the warp is already perfect.
    """
    generated_errors, warped_errors, rows = [], [], []
    for batch in batches:
        predicted = _predict(model, batch, _start(model, batch), torch.ones_like(batch["time"])).clamp(0, 1)
        for errors, pictures in ((generated_errors, predicted), (warped_errors, batch["warped"])):
            errors.append(float((pictures - batch["clean"]).square().mean()))
        stacked = torch.stack([batch["warped"], predicted, batch["clean"]], dim=1)[
            :: max(1, batch["time"].numel() // 8)
        ][:8]
        rows.append(stacked.permute(0, 3, 1, 4, 2).flatten(2, 3).flatten(0, 1))
    sheet = (torch.cat(rows, dim=1) * 255).round().to(torch.uint8).numpy()
    generated, warped = (-10 * math.log10(np.mean(errors)) for errors in (generated_errors, warped_errors))
    return generated, warped, sheet


def _learning_rate(training: DiffusionTraining, step: int) -> float:
    ramp = min(1.0, (step + 1) / training.warmup)
    return training.learning_rate * ramp * (0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * step / training.steps)))


def train_diffusion(
    prepared: Path, run: Path, training: DiffusionTraining | None = None, config: UNetConfig | None = None
) -> Path:
    """Train (or go on training) the image network and return the folder of its best weights, ``run/unet``.

    Args:
        prepared: folder of prepared clips with splits ``train`` and ``val``.
        run: folder of the run: ``last.pt``, ``log.csv``, ``samples/`` and the best weights by validation PSNR.
    """
    training, config = training or DiffusionTraining(), config or UNetConfig()
    torch.manual_seed(training.seed)
    model = IdentityDiffusionUNet(config).to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]
    average = ExponentialAverage(model, training.ema_decay)
    optimiser = torch.optim.AdamW(model.parameters(), lr=training.learning_rate, betas=(0.9, 0.98), weight_decay=1e-3)
    state = TrainingState(run, training, model, average, optimiser)
    spent = state.kept.get("seconds", 0.0)
    batches = FaceCropBatches(load_clips(prepared, "train", most_per_speaker=training.most_per_speaker), training)
    validation = _validation_batches(prepared, training)
    loader = DataLoader(
        batches, batch_size=None, sampler=range(state.step, training.steps), num_workers=1, prefetch_factor=4
    )
    began, losses = time.monotonic(), []
    for batch in loader:
        loss = training_loss(model, batch, own_state=state.step % training.true_state_every > 0)
        losses.append(state.learn(loss, _learning_rate(training, state.step)))
        elapsed = time.monotonic() - began
        last = state.step == training.steps or elapsed > 60 * training.max_minutes
        if state.step % training.report_every == 0 or last:
            generated, warped, sheet = validate(average.module, validation)
            if generated > state.best:
                state.best = generated
                save_part(run / "unet", average.module, config)
            _report(run, state.step, training, float(np.mean(losses)), generated, warped, spent + elapsed, sheet)
            losses.clear()
            state.save(seconds=spent + elapsed)
        if last:
            break
    return run / "unet"


def _validation_batches(prepared: Path, training: DiffusionTraining) -> list[Batch]:
    """The same windows for every run: few clips of each validation speaker, mouth crops, no augmentation."""
    settings = dataclasses.replace(training, seed=1, steps=8)
    clips = load_clips(prepared, "val", most_per_speaker=4)
    return [FaceCropBatches(clips, settings, augment=False)[step] for step in range(settings.steps)]


def _report(
    run: Path,
    step: int,
    training: DiffusionTraining,
    loss: float,
    generated: float,
    warped: float,
    seconds: float,
    sheet: np.ndarray,
) -> None:
    log = run / "log.csv"
    if not log.exists():
        log.write_text("step,loss,val_psnr,val_psnr_warp,seconds\n")
    with log.open("a") as stream:
        stream.write(f"{step},{loss:.5f},{generated:.3f},{warped:.3f},{seconds:.0f}\n")
    (run / "samples").mkdir(exist_ok=True)
    Image.fromarray(sheet).save(run / "samples" / f"{step:06d}.png")
    print(
        f"step {step}/{training.steps}  loss {loss:.4f}  val {generated:.2f} dB (warp {warped:.2f})  {seconds:.0f} s",
        flush=True,
    )
