"""The one kind of layer that the image network is made of."""

import torch
import torch.nn.functional as F
from torch import nn


class SumConv(nn.Module):
    """A convolution and what it is added to: the one kind of layer that the network is made of.

    Nothing lies between two of them but the joining, doubling and cutting off at 0 of numbers, so that all of these
    may be 8-bit whole numbers (:mod:`atldiff.image.quantised`).

    Args:
        in_channels, channels, kernel, stride, padding: of the convolution.
        rectified: whether what of the sum is below 0 is cut off.
        silent: begin with weights of 0: a layer that adds nothing yet.
    """

    def __init__(
        self,
        in_channels: int,
        channels: int,
        kernel: int | tuple[int, int],
        stride: int = 1,
        padding: int = 0,
        rectified: bool = False,
        silent: bool = False,
    ) -> None:
        super().__init__()
        self.conv = nn.Conv2d(in_channels, channels, kernel, stride, padding)
        self.rectified = rectified
        if silent:
            nn.init.zeros_(self.conv.weight)

    def forward(
        self, x_NCHW: torch.Tensor, plus_NCHW: torch.Tensor | None = None, bias_NC: torch.Tensor | None = None
    ) -> torch.Tensor:
        """conv(x) + bias + plus; a bias for each picture, (N, C), or for all of them, (1, C)."""
        made = self.conv(x_NCHW)
        if bias_NC is not None:
            made = made + bias_NC[:, :, None, None]
        if plus_NCHW is not None:
            made = made + plus_NCHW
        return F.relu_(made) if self.rectified else made
