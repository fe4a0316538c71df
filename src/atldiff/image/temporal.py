"""Time in the image network: a frame is mixed with its neighbours, in whole clips or in frames as they come."""

import torch
import torch.nn.functional as F
from torch import nn

TEMPORAL_MIXES = 4
"""How many times a frame is mixed with its neighbours: a frame depends on so many frames before and behind it."""


class PixelNorm(nn.Module):
    """Layer normalisation (Ba, Kiros, Hinton 2016, eq. 4) over the channels of each pixel."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(channels))
        self.shift = nn.Parameter(torch.zeros(channels))

    def forward(
        self, x_NCHW: torch.Tensor, gain_NC: torch.Tensor | None = None, shift_NC: torch.Tensor | None = None
    ) -> torch.Tensor:
        """Normalise, then ``gain · x + shift`` where they are given, with a row for all pictures or one for each."""
        if gain_NC is None or shift_NC is None:
            return self._normed(x_NCHW, self.scale, self.shift)
        if len(gain_NC) == 1:
            shift = torch.addcmul(shift_NC[0], gain_NC[0], self.shift)
            return self._normed(x_NCHW, gain_NC[0] * self.scale, shift)
        normed = self._normed(x_NCHW, self.scale, self.shift)
        return torch.addcmul(shift_NC[:, :, None, None], normed, gain_NC[:, :, None, None])

    @staticmethod
    def _normed(x_NCHW: torch.Tensor, scale_C: torch.Tensor, shift_C: torch.Tensor) -> torch.Tensor:
        scale, shift = scale_C.to(x_NCHW.dtype), shift_C.to(x_NCHW.dtype)
        return F.layer_norm(x_NCHW.permute(0, 2, 3, 1), scale.shape, scale, shift, 1e-6).permute(0, 3, 1, 2)


class TemporalMix(nn.Module):
    """Each frame takes up a learned mix of the previous, the same and the next frame, pixel by pixel."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm = PixelNorm(channels)
        self.mix = nn.Conv2d(3 * channels, channels, 1)
        nn.init.zeros_(self.mix.weight)

    def forward(self, x_NCHW: torch.Tensor, frames: int) -> torch.Tensor:
        """(B·frames, C, H, W) → the same; beyond either end of a clip its last frame goes on."""
        normed = self.normed(x_NCHW, frames)
        return x_NCHW + self.taken_up(torch.cat([normed[:, :1], normed, normed[:, -1:]], dim=1), x_NCHW.shape[2:])

    def normed(self, x_NCHW: torch.Tensor, frames: int) -> torch.Tensor:
        """(B·frames, C, H, W) → (B, frames, H·W, C), what the mix is made of."""
        return self.norm(x_NCHW).permute(0, 2, 3, 1).flatten(1, 2).unflatten(0, (-1, frames))

    def taken_up(self, around_BFPC: torch.Tensor, size: torch.Size) -> torch.Tensor:
        """What frames take up: of (B, F + 2, H·W, C) all but the first and the last, (B·F, C, H, W)."""
        rows = around_BFPC.permute(0, 3, 1, 2)
        is_over_time = not isinstance(self.mix, nn.Conv2d) or self.mix.kernel_size[0] == 3
        mixed = self.mix(rows) if is_over_time else F.conv2d(rows, self.weight_over_time(), self.mix.bias)
        return mixed.permute(0, 2, 3, 1).unflatten(2, tuple(size)).flatten(0, 1).permute(0, 3, 1, 2)

    def weight_over_time(self) -> torch.Tensor:
        """(C, C, 3, 1) the weight of the same mix of (1, C, F, pixels)."""
        return self.mix.weight.squeeze(3).unflatten(1, (3, -1)).transpose(1, 2)


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
        normed = mix.normed(x_NCHW, len(x_NCHW))
        before, waiting = self._held.get(self._place, (normed[:, :1], None))
        assert before is not None
        around, x = torch.cat([before, normed], dim=1), _behind(waiting, x_NCHW)
        self._keep(around[:, -2:], x[-1:]) if self._looks_ahead else self._keep(around[:, -1:], None)
        if self._waits:
            x = x[:-1]
        else:
            around = torch.cat([around, around[:, -1:]], dim=1)
        return x + mix.taken_up(around, x.shape[2:])

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
