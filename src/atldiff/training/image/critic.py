"""A critic that tells true frames from made ones, patch by patch, against the blur of a regression loss."""

from collections.abc import Iterator

import torch
import torch.nn.functional as F
from torch import nn
from torch.func import functional_call
from torch.nn.utils.parametrizations import spectral_norm

from atldiff.image.guidance import MAP_GROUPS
from atldiff.image.unet import IdentityDiffusionUNet
from atldiff.training.image.face_batches import Batch

_PATCH = 2
"""Pixels per side that are folded into channels, as many as the landmark maps have to one of their own."""

_CHANNELS = (64, 128, 192)
_STRIDES = (2, 2, 1)
_INSIDE_WEIGHT = 4.0
"""How much heavier than elsewhere in the face the judgement is between the lips."""

_REDUCTION = 8
"""Pixels of the window to a judgement, either way."""

_RAMP_BEGIN, _RAMP_END = 200, 700
"""Steps between which the image network begins to mind the critic, which must first have learned something."""


class PatchCritic(nn.Module):
    """Judges patches of frames and of their change from frame to frame (Isola et al. 2017, 3.2.2).

    It is told the warped identity and the frames' landmark maps. Its layers are spectrally normalised (Miyato et al.
    2018).
    """

    def __init__(self) -> None:
        super().__init__()
        sizes = (4 * 3 * _PATCH**2 + len(MAP_GROUPS), *_CHANNELS)
        self.layers = nn.ModuleList(
            spectral_norm(nn.Conv2d(before, after, 3, stride=stride, padding=1))
            for before, after, stride in zip(sizes, sizes[1:], _STRIDES, strict=False)
        )
        self.out = spectral_norm(nn.Conv2d(sizes[-1], 1, 3, padding=1))

    def forward(self, given_NCHW: torch.Tensor) -> list[torch.Tensor]:
        """Of what :func:`judged_frames` gives: the layers' features and, last, (N, 1, H/8, W/8) judgements.

        A judgement is high where a patch looks true.
        """
        hidden, features = given_NCHW, []
        for layer in self.layers:
            hidden = F.leaky_relu(layer(hidden), 0.2)
            features.append(hidden)
        return [*features, self.out(hidden)]


class JudgedUNet(nn.Module):
    """The image network and, if its training has one, the critic: learned together by one optimiser."""

    def __init__(self, unet: IdentityDiffusionUNet, critic: PatchCritic | None) -> None:
        super().__init__()
        self.unet = unet
        self.critic = critic


def judged_frames(frames_N3HW: torch.Tensor, batch: Batch) -> torch.Tensor:
    """What the critic is shown: of every frame but each clip's first its pixels, its change and the same of the warp.

    Args:
        frames_N3HW: made or true frames of the batch.
        batch: of :func:`~atldiff.training.image.face_batches.assemble`.

    Returns:
        (clips · (F − 1), C, H/2, W/2).
    """
    clips = len(batch["identity"])
    pictures = torch.cat([frames_N3HW, batch["warped"]], dim=1).unflatten(0, (clips, -1))
    shown = torch.cat([2 * pictures[:, 1:] - 1, 4 * (pictures[:, 1:] - pictures[:, :-1])], dim=2).flatten(0, 1)
    maps = batch["maps"].unflatten(0, (clips, -1))[:, 1:, : len(MAP_GROUPS)].flatten(0, 1)
    given = torch.cat([F.pixel_unshuffle(shown, _PATCH), maps], dim=1)
    return given.contiguous(memory_format=torch.channels_last)


def critic_losses(
    critic: PatchCritic, predicted_N3HW: torch.Tensor, batch: Batch
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Hinge losses (Lim, Ye 2017), heavier where the face moves, and how far the critic's features are apart.

    Returns:
        What the image network is to go down, which has no gradient for the critic: the judgement, and the mean
        distance of the features of made and true frames (Wang et al. 2018, eq. 4); and what the critic is to go down,
        which has none for the image network.
    """
    made, true = judged_frames(predicted_N3HW.detach(), batch), judged_frames(batch["clean"], batch)
    *features, true_score = critic(true)
    made_score = critic(made)[-1]
    fixed = {name: value.detach() for name, value in critic.named_parameters()}
    *own, judged = functional_call(critic, fixed, (judged_frames(predicted_N3HW, batch),))
    clips = len(batch["identity"])
    mask, inside = (batch[name].unflatten(0, (clips, -1))[:, 1:].flatten(0, 1) for name in ("mask", "inside"))
    weight = F.avg_pool2d(mask + _INSIDE_WEIGHT * inside, _REDUCTION)
    weight = weight / weight.sum()
    distance = torch.stack(list(_distances(own, features, mask))).mean()
    critic_loss = (weight * (F.relu(1 + made_score.float()) + F.relu(1 - true_score.float()))).sum()
    return -(weight * judged.float()).sum(), distance, critic_loss


def _distances(own: list[torch.Tensor], true: list[torch.Tensor], mask_N1HW: torch.Tensor) -> Iterator[torch.Tensor]:
    """Of each layer: the features' mean absolute difference over the true ones' mean size, where the face moves."""
    for mine, theirs in zip(own, true, strict=True):
        weight = F.adaptive_avg_pool2d(mask_N1HW, (mine.shape[-2], mine.shape[-1]))
        target = theirs.detach().float()
        size = (weight * target.abs()).mean()
        yield (weight * (mine.float() - target).abs()).mean() / size.clamp_min(1e-6)


def critic_ramp(step: int) -> float:
    """Share of its weight that the critic's judgement has in a step."""
    return min(1.0, max(0.0, (step - _RAMP_BEGIN) / (_RAMP_END - _RAMP_BEGIN)))
