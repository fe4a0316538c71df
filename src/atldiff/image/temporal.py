"""The layers of the image network, and time in it: whole clips, or frames as they come."""

import torch
import torch.nn.functional as F
from torch import nn

TEMPORAL_MIXES = 4
"""How many times a frame is mixed with its neighbours: a frame depends on so many frames before and behind it."""


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


class TemporalMix(nn.Module):
    """Each frame takes up a learned mix of the previous, the same and the next frame, pixel by pixel."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.mix = SumConv(channels, channels, (3, 1), silent=True)

    def forward(self, x_NCHW: torch.Tensor, frames: int) -> torch.Tensor:
        """(B·frames, C, H, W) → the same; beyond either end of a clip its last frame goes on."""
        clips = x_NCHW.unflatten(0, (-1, frames))
        return self.taken_up(torch.cat([clips[:, :1], clips, clips[:, -1:]], dim=1), x_NCHW)

    def taken_up(self, around_BFCHW: torch.Tensor, x_NCHW: torch.Tensor) -> torch.Tensor:
        """Frames (B·F, C, H, W) with what they take up of the (B, F + 2, C, H, W) among which they are."""
        mixed = self.mix(
            _pixels_over_time(around_BFCHW), _pixels_over_time(x_NCHW.unflatten(0, (len(around_BFCHW), -1)))
        )
        return mixed.permute(0, 2, 3, 1).unflatten(2, tuple(x_NCHW.shape[2:])).flatten(0, 1).permute(0, 3, 1, 2)


def _pixels_over_time(x_BFCHW: torch.Tensor) -> torch.Tensor:
    """(B, C, F, H·W), channels last in memory as the frames are."""
    return x_BFCHW.permute(0, 1, 3, 4, 2).flatten(2, 3).permute(0, 3, 1, 2)


class WholeClips:
    """All frames of the clips of a batch at once.

    Args:
        frames: of a clip.
    """

    def __init__(self, frames: int) -> None:
        self._frames = frames

    def mixed(self, mix: TemporalMix, x_NCHW: torch.Tensor) -> torch.Tensor:
        """(B·frames, C, H, W) → the same."""
        return mix(x_NCHW, self._frames)

    def waited(self, x_N: torch.Tensor, mixes: int) -> torch.Tensor:
        """The same."""
        return x_N


class PassingFrames:
    """Frames of one clip that pass through a network piece by piece; each is worked on once.

    A mix needs the frame that follows, so the last frame of a piece waits in it for the next piece: behind all of a
    network's mixes the pieces come :data:`TEMPORAL_MIXES` frames late, and are those of the whole clip.

    Args:
        looks_ahead: False lets no frame wait: the last of a piece is mixed with itself in the place of what follows.
    """

    def __init__(self, looks_ahead: bool = True) -> None:
        self._looks_ahead = looks_ahead
        self._held: dict[int, tuple[torch.Tensor | None, ...]] = {}
        self._place, self._waits = 0, looks_ahead

    def begin_piece(self, last: bool = False) -> None:
        """A piece comes, more than :data:`TEMPORAL_MIXES` frames if it is the first and not the last."""
        self._place, self._waits = 0, self._looks_ahead and not last

    def mixed(self, mix: TemporalMix, x_NCHW: torch.Tensor) -> torch.Tensor:
        """(n, C, H, W) of the piece → those that know the frame that follows; in the last piece all that are left."""
        before, waiting = self._held.get(self._place, (x_NCHW[:1], None))
        assert before is not None
        around, x = torch.cat([before, x_NCHW]), _behind(waiting, x_NCHW)
        self._keep(around[-2:], x[-1:]) if self._looks_ahead else self._keep(around[-1:], None)
        if self._waits:
            x = x[:-1]
        else:
            around = torch.cat([around, around[-1:]])
        return mix.taken_up(around[None], x)

    def waited(self, x_N: torch.Tensor, mixes: int) -> torch.Tensor:
        """(n, …) of the piece → that of the frames which have come through so many mixes."""
        if not self._looks_ahead:
            return x_N
        _, waiting = self._held.get(self._place, (None, None))
        x = _behind(waiting, x_N)
        self._keep(None, x[-mixes:])
        return x[:-mixes] if self._waits else x

    def _keep(self, before: torch.Tensor | None, waiting: torch.Tensor | None) -> None:
        """For the next piece: what its first frames are mixed with, and the frames that wait for it."""
        self._held[self._place] = tuple(None if each is None else each.clone() for each in (before, waiting))
        self._place += 1


def _behind(waiting: torch.Tensor | None, x_N: torch.Tensor) -> torch.Tensor:
    """A piece behind the frames that wait for it; in its own layout, which frames joined to none would lose."""
    return x_N if waiting is None else torch.cat([waiting, x_N])
