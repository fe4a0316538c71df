"""Time in the image network: a frame is mixed with its neighbours, in whole clips or in frames as they come."""

import torch
from torch import nn

from atldiff.image.layers import SumConv

TEMPORAL_MIXES = 4
"""How many times a frame is mixed with its neighbours: a frame depends on so many frames before and behind it."""


class TemporalMix(nn.Module):
    """Each frame takes up a learned mix of the previous, the same and the next frame, pixel by pixel."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.mix = SumConv(channels, channels, (3, 1), silent=True)

    def forward(self, around_BFCHW: torch.Tensor) -> torch.Tensor:
        """(B, F + 2, C, H, W) → (B·F, C, H, W): all frames but the first and the last, which only lend to these."""
        over_time = around_BFCHW.permute(0, 1, 3, 4, 2).flatten(2, 3).permute(0, 3, 1, 2)
        mixed = self.mix(over_time, over_time[:, :, 1:-1])
        return mixed.permute(0, 2, 3, 1).unflatten(2, tuple(around_BFCHW.shape[3:])).flatten(0, 1).permute(0, 3, 1, 2)


class WholeClips:
    """All frames of the clips of a batch at once.

    Args:
        frames: of a clip.
    """

    def __init__(self, frames: int) -> None:
        self._frames = frames

    def mixed(self, mix: TemporalMix, x_NCHW: torch.Tensor) -> torch.Tensor:
        """(B·frames, C, H, W) → the same; beyond either end of a clip its last frame goes on."""
        clips = x_NCHW.split(self._frames)
        around = torch.cat([part for clip in clips for part in (clip[:1], clip, clip[-1:])])
        return mix(around.unflatten(0, (-1, self._frames + 2)))

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
        self._held: dict[int, torch.Tensor] = {}
        self._place, self._waits = 0, looks_ahead

    def begin_piece(self, last: bool = False) -> None:
        """A piece comes, more than :data:`TEMPORAL_MIXES` frames if it is the first and not the last."""
        self._place, self._waits = 0, self._looks_ahead and not last

    def mixed(self, mix: TemporalMix, x_NCHW: torch.Tensor) -> torch.Tensor:
        """(n, C, H, W) of the piece → those that know the frame that follows; in the last piece all that are left."""
        around = torch.cat([self._held.get(self._place, x_NCHW[:1]), x_NCHW])
        self._keep(around[-2:] if self._looks_ahead else around[-1:])
        if not self._waits:
            around = torch.cat([around, around[-1:]])
        return mix(around[None])

    def waited(self, x_N: torch.Tensor, mixes: int) -> torch.Tensor:
        """(n, …) of the piece → that of the frames which have come through so many mixes."""
        if not self._looks_ahead:
            return x_N
        held = self._held.get(self._place)
        x = x_N if held is None else torch.cat([held, x_N])
        self._keep(x[-mixes:])
        return x[:-mixes] if self._waits else x

    def _keep(self, frames: torch.Tensor) -> None:
        """For the next piece, which they come before at this place of the network."""
        self._held[self._place] = frames.clone()
        self._place += 1
