"""A critic that tells true frames from made ones, patch by patch, against the blur of a regression loss."""

import torch
import torch.nn.functional as F
from torch import nn
from torch.func import functional_call
from torch.nn.utils.parametrizations import spectral_norm

from atldiff.diffusion.unet import PATCH, IdentityDiffusionUNet
from atldiff.guidance import MAP_GROUPS
from atldiff.training.face_batches import Batch

_CHANNELS = (64, 96, 128)
_STRIDES = (1, 2, 1)
_RAMP_BEGIN, _RAMP_END = 200, 700
"""Steps between which the image network begins to mind the critic, which must first have learned something."""


class PatchCritic(nn.Module):
    """Judges patches of frames, given the warped identity and the frames' landmark maps (Isola et al. 2017, 3.2.2).

    Its layers are spectrally normalised (Miyato et al. 2018).
    """

    def __init__(self) -> None:
        super().__init__()
        sizes = (2 * 3 * PATCH**2 + len(MAP_GROUPS), *_CHANNELS)
        self.layers = nn.ModuleList(
            spectral_norm(nn.Conv2d(before, after, 3, stride=stride, padding=1))
            for before, after, stride in zip(sizes, sizes[1:], _STRIDES, strict=False)
        )
        self.out = spectral_norm(nn.Conv2d(sizes[-1], 1, 3, padding=1))

    def forward(self, frames_N3HW: torch.Tensor, warped_N3HW: torch.Tensor, maps_NMhw: torch.Tensor) -> torch.Tensor:
        """(N, 1, H/4, W/4): high where a patch looks true; the maps' first channels are the frames' own."""
        pixels = F.pixel_unshuffle(2 * torch.cat([frames_N3HW - 0.5, warped_N3HW - 0.5], dim=1), PATCH)
        hidden = torch.cat([pixels, maps_NMhw[:, : len(MAP_GROUPS)]], dim=1)
        hidden = hidden.contiguous(memory_format=torch.channels_last)
        for layer in self.layers:
            hidden = F.leaky_relu(layer(hidden), 0.2)
        return self.out(hidden).float()


class JudgedUNet(nn.Module):
    """The image network and, if its training has one, the critic: learned together by one optimiser."""

    def __init__(self, unet: IdentityDiffusionUNet, critic: PatchCritic | None) -> None:
        super().__init__()
        self.unet = unet
        self.critic = critic


def critic_losses(
    critic: PatchCritic, predicted_N3HW: torch.Tensor, batch: Batch
) -> tuple[torch.Tensor, torch.Tensor]:
    """Hinge losses (Lim, Ye 2017), heavier where the face moves.

    Returns:
        What the image network is to go down, which has no gradient for the critic; and what the critic is, which has
        none for the image network.
    """
    known = batch["warped"], batch["maps"]
    made, true = critic(predicted_N3HW.detach(), *known), critic(batch["clean"], *known)
    fixed = {name: value.detach() for name, value in critic.named_parameters()}
    judged = functional_call(critic, fixed, (predicted_N3HW, *known))
    weight = F.avg_pool2d(batch["mask"], 2 * PATCH)
    weight = weight / weight.sum()
    return -(weight * judged).sum(), (weight * (F.relu(1 + made) + F.relu(1 - true))).sum()


def critic_ramp(step: int) -> float:
    """Share of its weight that the critic's judgement has in a step."""
    return min(1.0, max(0.0, (step - _RAMP_BEGIN) / (_RAMP_END - _RAMP_BEGIN)))
