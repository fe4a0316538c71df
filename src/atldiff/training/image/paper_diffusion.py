"""Train the image network of the paper preset (arXiv 2507.12804): whole clips, guided by noise alone.

Nothing of the published training is known but that it ends in a start at x_T = identity + mask ⊙ ε. Ours is the
customary one for a network that predicts x_0: states of the process of :mod:`atldiff.image.sampler` at times
drawn evenly, mean squared error, AdamW. Also ours: the identity is any frame of the clip, clips are flipped and
tinted, an unknown emotion counts as neutral.
"""

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
from atldiff.face.crop import CROP_SIZE
from atldiff.image.guidance import noise_mask_as_published
from atldiff.image.paper_unet import PaperDiffusionUNet, PaperUNetConfig
from atldiff.image.resnet import IMAGENET_WEIGHTS, ResNet50
from atldiff.image.sampler import TIMESTEPS, ddim_sample, ddim_signal, ddim_state
from atldiff.options import EMOTIONS
from atldiff.training.engine.report import Validation
from atldiff.training.engine.settings import TrainingSettings
from atldiff.training.engine.task import Task
from atldiff.training.image.face_batches import Batch, Draw, FaceDraws, tinted

_VALIDATION_CLIPS = 6
_SAMPLER_STEPS = 8
_ROWS_PER_CLIP = 2
_NEUTRAL = "neutral"


@dataclass(frozen=True)
class PaperDiffusionTraining(TrainingSettings):
    """Settings of a run; none of them was published.

    Attributes:
        crop: side in pixels of what is cut out of the frames; 128 is the whole frame.
        most_per_speaker: clips of a speaker that are used at most.
        identity_weights: ImageNet weights of the frozen ResNet-50, torchvision's: a ``.pth`` file or an https
            address; not read with ``model.identity_encoder=small``.
    """

    steps: int = 50_000
    clips: int = 8
    learning_rate: float = 1e-4
    warmup: int = 500
    ema_decay: float = 0.999
    precision: str = "bf16-mixed"
    report_every: int = 1000
    crop: int = CROP_SIZE
    most_per_speaker: int = 160
    identity_weights: str = IMAGENET_WEIGHTS

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 16 <= self.crop <= CROP_SIZE:
            raise InputError(f"crop is {self.crop}; expected 16 to {CROP_SIZE}")


def paper_preset() -> tuple[PaperDiffusionTraining, PaperUNetConfig]:
    """Clips, guidance, identity features, emotion and sampler as published, in the customary network for them."""
    return PaperDiffusionTraining(), PaperUNetConfig()


@dataclass(frozen=True)
class _Cuts:
    """What :class:`FaceDraws` must know; the times that it draws are not used."""

    seed: int
    steps: int
    clips: int
    frames: int
    crop: int
    first_step_share: float = 1.0


class PaperDraws(FaceDraws):
    """Runs of frames, the emotion of their clip and times; see :mod:`~atldiff.training.image.face_batches`."""

    def __init__(
        self,
        clips: Sequence[PreparedClip],
        training: PaperDiffusionTraining,
        frames: int,
        rank: int = 0,
        world: int = 1,
        augment: bool = True,
    ) -> None:
        cuts = _Cuts(training.seed, training.steps, training.clips, frames, training.crop)
        super().__init__(clips, cuts, rank, world, augment, picture_size=CROP_SIZE, field_size=CROP_SIZE)

    def __getitem__(self, step: int) -> Draw:
        """Draw number ``step``.

        Returns:
            Of FaceDraws' draw all but its noise, its frames cut to (n, F, crop, crop, 3); ``timestep`` (n,), 0 to
            999; ``noise_seed`` (n,); ``emotion`` (n,).
        """
        draw = super().__getitem__(step)
        random = np.random.default_rng((self._training.seed, step, 1))
        timesteps = torch.from_numpy(random.integers(TIMESTEPS, size=self._training.clips))[self._own]
        seeds = torch.from_numpy(random.integers(2**62, size=self._training.clips))[self._own]
        del draw["noise"], draw["time"]
        return draw | {"timestep": timesteps, "noise_seed": seeds}

    def _read(self, run: Any) -> dict[str, np.ndarray]:
        emotion = EMOTIONS.index(run.clip.info.emotion or _NEUTRAL)
        (left, top), crop = run.corner, self._training.crop
        read = super()._read(run)
        frames = read["frames"][:, top : top + crop, left : left + crop]
        return read | {"frames": frames, "emotion": np.array(emotion)}


def assemble_clips(draw: Draw, mask_kernel: int) -> Batch:
    """What the network needs of a draw, on the draw's device.

    Returns:
        For n clips, pictures in [0, 1]: ``clean`` (n, 3, F, crop, crop), ``still`` (n, 3, 1, crop, crop) the identity
        cut as they are, ``guided_noise`` m ⊙ ε of the shape of ``clean``, ``identity`` (n, 3, 128, 128),
        ``timestep`` (n,), ``emotion`` (n,).
    """
    clips, frames, crop = draw["frames"].shape[:3]
    identity = tinted(draw["identity"][:, None], draw)
    masks = noise_mask_as_published(draw["landmarks"][:, :-1], CROP_SIZE, mask_kernel)
    corners = [tuple(corner) for corner in draw["corner"].tolist()]
    cuts = [(slice(top, top + crop), slice(left, left + crop)) for left, top in corners]
    return {
        "clean": tinted(draw["frames"], draw).unflatten(0, (clips, frames)).transpose(1, 2),
        "still": torch.stack([picture[:, None, *cut] for picture, cut in zip(identity, cuts, strict=True)]),
        "guided_noise": torch.stack(
            [
                mask[None, :, *cut] * _noise(int(seed), (3, frames, crop, crop), mask.device)
                for mask, cut, seed in zip(masks, cuts, draw["noise_seed"], strict=True)
            ]
        ),
        "identity": identity,
        "timestep": draw["timestep"],
        "emotion": draw["emotion"],
    }


def _noise(seed: int, shape: tuple[int, ...], device: torch.device) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator(device).manual_seed(seed), device=device)


def diffusion_loss(model: PaperDiffusionUNet, batch: Batch) -> torch.Tensor:
    """Mean squared error of x̂_0."""
    signal = ddim_signal().to(batch["timestep"].device)[batch["timestep"]].view(-1, 1, 1, 1, 1)
    state = ddim_state(batch["clean"], batch["still"], batch["guided_noise"], signal)
    tokens = model.encode_identity(batch["identity"])
    return F.mse_loss(model(state, batch["timestep"], tokens, batch["emotion"]), batch["clean"])


@torch.no_grad()
def sample(model: PaperDiffusionUNet, batch: Batch, steps: int = _SAMPLER_STEPS) -> torch.Tensor:
    """The clips that the network makes of a batch's guided noise, (n, 3, F, crop, crop) in [0, 1]."""
    tokens = model.encode_identity(batch["identity"])

    def denoise(state: torch.Tensor, time: torch.Tensor) -> torch.Tensor:
        return model(state, time, tokens, batch["emotion"])

    return ddim_sample(denoise, batch["still"], batch["still"] + batch["guided_noise"], steps).clamp(0, 1)


def validate(model: PaperDiffusionUNet, batches: Sequence[Batch]) -> Validation:
    """PSNR in dB, of the error pooled over all clips, of eight sampler steps and of the still identity; a picture."""
    errors: dict[str, list[float]] = {"val_psnr": [], "val_psnr_static": []}
    rows = []
    for batch in batches:
        made = sample(model, batch)
        for name, pictures in (("val_psnr", made), ("val_psnr_static", batch["still"])):
            errors[name].append(float((pictures - batch["clean"]).square().mean()))
        rows.append(_comparison(batch, made))
    figures = {name: -10 * math.log10(np.mean(values)) for name, values in errors.items()}
    sheet = (torch.cat(rows, dim=1) * 255).round().to(torch.uint8).permute(1, 2, 0).cpu().numpy()
    return Validation(figures["val_psnr"], figures, sheet)


def _comparison(batch: Batch, made: torch.Tensor) -> torch.Tensor:
    """(3, rows · crop, 4 · crop): identity, guided noise, generated, true for some frames of the first clip."""
    start = (batch["still"] + batch["guided_noise"]).clamp(0, 1)
    columns = torch.cat([batch["still"].expand_as(made), start, made, batch["clean"]], dim=-1)[0]
    chosen = torch.linspace(0, columns.shape[1] - 1, _ROWS_PER_CLIP).round().long()
    return columns[:, chosen].flatten(1, 2)


class PaperDiffusionTask(Task[PaperDiffusionUNet]):
    """The paper's image network, learned from prepared clips with splits ``train`` and ``val``.

    Raises:
        InputError: there are no ImageNet weights; when opened: the folder is not one of prepared clips, or lacks a
            split, or has no clip that is long enough.
    """

    part: ClassVar[str] = "unet"

    def __init__(self, prepared: Path, training: PaperDiffusionTraining, config: PaperUNetConfig) -> None:
        shrink = 2 ** (len(config.channels) - 1)
        if training.crop % shrink:
            raise InputError(f"crop is {training.crop}; expected a multiple of {shrink}")
        torch.manual_seed(training.seed)
        model = PaperDiffusionUNet(config).to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]
        if isinstance(model.identity_encoder, ResNet50):
            model.identity_encoder.load_imagenet_weights(training.identity_weights)
        super().__init__(prepared, training, config, model)
        self._training, self._config = training, config
        self._clips: list[PreparedClip] = []
        self._validation: list[Batch] = []

    def open(self, device: torch.device) -> None:
        prepared, frames = PreparedClips.open(self._prepared), self._config.frames
        self._clips = prepared.split("train", self._training.most_per_speaker)
        PaperDraws(self._clips, self._training, frames)
        settings = PaperDiffusionTraining(clips=1, crop=self._training.crop, seed=1)
        draws = PaperDraws(prepared.split("val"), settings, frames, augment=False)
        moved = ({name: value.to(device) for name, value in draws[step].items()} for step in range(_VALIDATION_CLIPS))
        self._validation = [self.assemble(draw) for draw in moved]

    def draws(self, share: int, shares: int) -> Dataset[Draw]:
        return PaperDraws(self._clips, self._training, self._config.frames, share, shares)

    def assemble(self, draw: Draw) -> Batch:
        return assemble_clips(draw, self._config.mask_kernel)

    def learning_rate(self, step: int) -> float:
        return self._training.cosine_rate(step, floor=0.02)

    def loss(self, batch: Batch, step: int) -> torch.Tensor:
        return diffusion_loss(self.model, batch)

    def validate(self, model: PaperDiffusionUNet) -> Validation:
        return validate(model, self._validation)
