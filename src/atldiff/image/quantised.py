"""The image network in 8-bit whole numbers.

A processor with VNNI multiplies them in half the time of bfloat16, and they need a quarter of the memory of float32.
All that is joined or added between two convolutions is cut into the same 256 levels, from the least to the largest
value that was seen there for the face at hand; a convolution's weights into 255, for each channel that it makes.
The identity encoder, which runs once, and the attention stay as they are.
"""

import copy
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.utils.hooks import RemovableHandle

from atldiff.image.layers import SumConv
from atldiff.image.unet import IdentityAttention, IdentityDiffusionUNet

_MIDDLE = 128
_ROOM = 0.1
"""How far beyond the values seen the levels reach, as a share of their range; what lies beyond them is cut off."""


@dataclass(frozen=True)
class Levels:
    """Whole numbers from 0 to 255, and what they stand for: ``scale · (level − zero)``."""

    scale: float
    zero: int = 0

    @classmethod
    def between(cls, least: float, largest: float) -> "Levels":
        """Those that span values, and some room."""
        room = _ROOM * (largest - least)
        low, high = least - room if least else least, largest + room
        scale = max(high - low, 1e-6) / (2 * _MIDDLE - 1)
        return cls(scale, round(-low / scale))

    def of(self, x: torch.Tensor) -> torch.Tensor:
        """float32 → uint8."""
        middle = torch.tensor(float(self.zero - _MIDDLE))
        signed = torch.add(middle, x, alpha=1 / self.scale).round_().clamp_(-_MIDDLE, _MIDDLE - 1)
        return signed.to(torch.int8).view(torch.uint8).bitwise_xor_(_MIDDLE)  # torch is slow at floats to uint8

    def numbers(self, levels: torch.Tensor) -> torch.Tensor:
        """uint8 → float32."""
        return (levels.float() - self.zero) * self.scale


def quantised(network: IdentityDiffusionUNet, show: Callable[[IdentityDiffusionUNet], None]) -> IdentityDiffusionUNet:
    """A copy of the network in 8-bit numbers.

    Args:
        network: on the CPU.
        show: runs a network of float32 on what it is to expect: the levels are taken from that.
    """
    made = copy.deepcopy(network).float()
    levels = _levels(made, lambda: show(made))
    for name, layer in _layers(made).items():
        _replace(made, name, QuantisedConv(layer, levels[_taken(name)], levels[_given(name)]))
    for name, part in list(made.named_modules()):
        if isinstance(part, nn.ReLU):
            _replace(made, name, _AtZero(levels[_taken(name)]))
    _replace(made, "conv_in", nn.Sequential(_Cut(levels["input"]), made.conv_in))
    _replace(made, "conv_out", QuantisedConv(made.conv_out, levels[_taken("conv_out")]))
    _replace(made, "attention", QuantisedAttention(made.attention, levels["coarse"]))
    return made


def _layers(network: nn.Module) -> dict[str, SumConv]:
    return {name: part for name, part in network.named_modules() if isinstance(part, SumConv)}


def _resolution(name: str) -> str:
    return "coarse" if name.startswith("coarse") else "fine"


def _given(name: str) -> str:
    """Where what a layer gives is joined or added to: one of the network's two resolutions, or inside a block."""
    if name.endswith("conv1"):
        return name
    return "coarse" if name == "down" else _resolution(name)


def _taken(name: str) -> str:
    """Where what a layer takes comes from."""
    if name.endswith("conv2"):
        return name.replace("conv2", "conv1")
    return {"conv_in": "input", "up": "coarse"}.get(name) or _resolution(name)


def _levels(network: IdentityDiffusionUNet, run: Callable[[], None]) -> dict[str, Levels]:
    """Those of each place, for what is seen there while something runs."""
    seen: dict[str, tuple[float, float]] = {}

    def note(place: str, x: torch.Tensor) -> None:
        least, largest = seen.get(place, (0.0, 0.0))
        low, high = torch.aminmax(x)
        seen[place] = min(least, float(low)), max(largest, float(high))

    def watch(part: nn.Module, place: str) -> RemovableHandle:
        def hook(_: nn.Module, given: Any, made: torch.Tensor) -> None:
            note(place, made)

        return part.register_forward_hook(hook)

    def note_input(_: nn.Module, given: tuple[torch.Tensor, ...]) -> None:
        note("input", given[0])

    watches = [watch(layer, _given(name)) for name, layer in _layers(network).items()]
    watches.append(watch(network.attention, "coarse"))
    watches.append(network.conv_in.register_forward_pre_hook(note_input))
    run()
    for each in watches:
        each.remove()
    return {place: Levels.between(*ends) for place, ends in seen.items()}


def _replace(network: nn.Module, name: str, part: nn.Module) -> None:
    owner, _, own_name = name.rpartition(".")
    setattr(network.get_submodule(owner), own_name, part)


class _Cut(nn.Module):
    """Numbers → levels."""

    def __init__(self, levels: Levels) -> None:
        super().__init__()
        self._levels = levels

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self._levels.of(x)


class _AtZero(nn.Module):
    """Cuts levels off at 0."""

    def __init__(self, levels: Levels) -> None:
        super().__init__()
        self._zero = levels.zero

    def forward(self, levels: torch.Tensor) -> torch.Tensor:
        return levels.clamp_min(self._zero)


class QuantisedConv(nn.Module):
    """A :class:`~atldiff.image.layers.SumConv` of levels, or a plain convolution that makes numbers of them.

    Args:
        layer: the same in float32.
        taken: what it is given.
        given: what it makes, and what that is added to; None for float32, of a plain convolution.
    """

    def __init__(self, layer: SumConv | nn.Conv2d, taken: Levels, given: Levels | None = None) -> None:
        super().__init__()
        self._taken, self._given = taken, given
        conv = layer.conv if isinstance(layer, SumConv) else layer
        self._rectified = "relu" if isinstance(layer, SumConv) and layer.rectified else "none"
        weight = conv.weight.detach()
        self._weight_scale = (weight.abs().amax(dim=(1, 2, 3)) / (_MIDDLE - 1)).clamp_min(1e-12)
        levels = (weight / self._weight_scale[:, None, None, None]).round().to(torch.int8)
        self._weight_zero = torch.zeros(len(weight), dtype=torch.int32)
        assert conv.bias is not None
        self._bias = conv.bias.detach()
        self._window = list(conv.stride), list(conv.padding), list(conv.dilation), conv.groups
        self._weight = torch.ops.onednn.qconv_prepack(
            levels, self._weight_scale, taken.scale, taken.zero, *self._window, None
        )

    def forward(
        self, x_NCHW: torch.Tensor, plus_NCHW: torch.Tensor | None = None, bias_NC: torch.Tensor | None = None
    ) -> torch.Tensor:
        """(N, C, H, W) uint8, channels last → uint8, or float32; one bias for all pictures, (1, C)."""
        conv2d = torch.ops.onednn.qconv2d_pointwise
        bias = self._bias if bias_NC is None else self._bias + bias_NC[0]
        taken = x_NCHW, self._taken.scale, self._taken.zero, self._weight, self._weight_scale, self._weight_zero
        if self._given is None:
            return conv2d(*taken, bias, *self._window, 1.0, 0, torch.float32, "none", [], "")
        made = self._given.scale, self._given.zero
        if plus_NCHW is None:
            return conv2d(*taken, bias, *self._window, *made, torch.uint8, self._rectified, [], "")
        plus = plus_NCHW.clone(memory_format=torch.channels_last)  # becomes the sum
        window = self._window
        return conv2d(*taken, plus, bias, *window, *made, torch.uint8, *made, "sum", 1.0, self._rectified, [], "")


class QuantisedAttention(nn.Module):
    """The attention, which works with float32, among levels."""

    def __init__(self, attention: IdentityAttention, levels: Levels) -> None:
        super().__init__()
        self._attention, self._levels = attention, levels

    def forward(self, x_NCHW: torch.Tensor, tokens_BLC: torch.Tensor, frames: int) -> torch.Tensor:
        """(B·frames, C, H, W) uint8 and tokens (B, L, C) float32 → uint8."""
        return self._levels.of(self._attention(self._levels.numbers(x_NCHW), tokens_BLC, frames))
