"""The image network with convolutions of 8-bit whole numbers.

A processor with VNNI multiplies them in half the time of bfloat16. What enters a convolution is cut into 256 levels,
from the least to the largest value that it was seen to take for the face at hand; its weights into 255, for each
channel that it makes. Between the convolutions numbers are float32, of a few frames at a time.
"""

import copy
from collections.abc import Callable

import torch
from torch import nn

from atldiff.image.temporal import TemporalMix
from atldiff.image.unet import IdentityDiffusionUNet

_MIDDLE = 128
_PIECE_FRAMES = 4
_ROOM = 0.1
"""How far beyond the values seen the levels reach, as a share of their range; what lies beyond them is cut off."""


def quantised(network: IdentityDiffusionUNet, show: Callable[[IdentityDiffusionUNet], None]) -> IdentityDiffusionUNet:
    """A copy of the network with 8-bit convolutions; its identity encoder, which runs once, stays as it is.

    Args:
        network: on the CPU.
        show: runs a network of float32 on what it is to expect: the ranges are taken from that.
    """
    made = copy.deepcopy(network).float()
    for mix in (part for part in made.modules() if isinstance(part, TemporalMix)):
        mix.mix = _over_time(mix)
    places = [
        (owner, name, part)
        for owner in made.modules()
        if owner is not made.identity_encoder.layers
        for name, part in owner.named_children()
        if isinstance(part, nn.Conv2d)
    ]
    ranges = _ranges([part for _, _, part in places], lambda: show(made))
    for owner, name, part in places:
        setattr(owner, name, QuantisedConv(part, *ranges[part]))
    made.piece_frames = _PIECE_FRAMES
    return made


def _over_time(mix: TemporalMix) -> nn.Conv2d:
    """The same mix as a convolution over (1, C, F, pixels)."""
    weight = mix.weight_over_time()
    made = nn.Conv2d(weight.shape[1], weight.shape[0], (3, 1))
    made.weight, made.bias = nn.Parameter(weight.contiguous()), mix.mix.bias
    return made


def _ranges(convolutions: list[nn.Conv2d], run: Callable[[], None]) -> dict[nn.Module, tuple[float, float]]:
    """The least and the largest value that each of them is given while something runs."""
    ranges: dict[nn.Module, tuple[float, float]] = {}

    def note(conv: nn.Module, given: tuple[torch.Tensor, ...]) -> None:
        least, largest = ranges.get(conv, (0.0, 0.0))
        low, high = torch.aminmax(given[0])
        ranges[conv] = min(least, float(low)), max(largest, float(high))

    watches = [conv.register_forward_pre_hook(note) for conv in convolutions]
    run()
    for watch in watches:
        watch.remove()
    return ranges


class QuantisedConv(nn.Module):
    """A convolution of float32 pictures, in 8-bit numbers.

    Args:
        conv: the same in float32.
        least, largest: the values that its levels span.
    """

    def __init__(self, conv: nn.Conv2d, least: float, largest: float) -> None:
        super().__init__()
        room = _ROOM * (largest - least)
        low, high = least - room, largest + room
        self._scale = max(high - low, 1e-6) / (2 * _MIDDLE - 1)
        self._zero = round(-low / self._scale)
        self._offset = torch.tensor(float(self._zero - _MIDDLE))
        weight = conv.weight.detach()
        self._weight_scale = (weight.abs().amax(dim=(1, 2, 3)) / (_MIDDLE - 1)).clamp_min(1e-12)
        levels = (weight / self._weight_scale[:, None, None, None]).round().to(torch.int8)
        self._weight_zero = torch.zeros(len(weight), dtype=torch.int32)
        self._bias = conv.bias.detach() if conv.bias is not None else None
        self._window = list(conv.stride), list(conv.padding), list(conv.dilation), conv.groups
        self._weight = torch.ops.onednn.qconv_prepack(
            levels, self._weight_scale, self._scale, self._zero, *self._window, None
        )

    def forward(self, x_NCHW: torch.Tensor) -> torch.Tensor:
        """(N, C, H, W) float32, channels last."""
        signed = torch.add(self._offset, x_NCHW, alpha=1 / self._scale).round_().clamp_(-_MIDDLE, _MIDDLE - 1)
        levels = signed.to(torch.int8).view(torch.uint8).bitwise_xor_(_MIDDLE)  # torch is slow at floats to uint8
        return torch.ops.onednn.qconv2d_pointwise(
            levels, self._scale, self._zero, self._weight, self._weight_scale, self._weight_zero, self._bias,
            *self._window, 1.0, 0, torch.float32, "none", [], "",
        )  # fmt: skip
