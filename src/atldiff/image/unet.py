"""3D Identity Diffusion U-Net, compact preset.

A frame's window of 128×128 pixels (:mod:`atldiff.image.window`) enters as 64×64 (pixel-unshuffle by 2), passes
two finer and one coarsest level of residual blocks, each frame mixed with its two neighbours in time on the coarser
levels, and attends to the tokens of the identity picture at the bottleneck. Every operation is local in space or
attends to the identity alone, so a network trained on cuts runs on whole windows. Normalisation is over the channels
of each pixel, for the same reason.
"""

import functools
import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import nn

from atldiff.errors import ModelError
from atldiff.face.crop import PICTURE_SIZE
from atldiff.image.guidance import MAP_GROUPS

PATCH = 2
"""Pixels per side that the input unshuffle folds into channels; sides must be multiples of 8 pixels."""

TEMPORAL_MIXES = 4
"""How many times a frame is mixed with its neighbours: a frame depends on so many frames before and behind it."""


@dataclass(frozen=True)
class UNetConfig:
    """Configuration of :class:`IdentityDiffusionUNet`.

    Attributes:
        channels: channels at 1/2, 1/4 and 1/8 of the frame's resolution.
        time_features: width of the time-step embedding.
        attention_heads: heads of the cross-attention to the identity tokens.
        noise_scale: standard deviation of the guided noise where the mask is 1, frames being in [0, 1].
        warp: the noise lies on the identity frame bent to the frame's landmarks; False: on the identity frame as it
            is, as in the paper.
        maps: the network is given the landmark maps; False: it knows the landmarks from the noise and the warp alone.
        residual_blur: standard deviation in pixels of a blur of what the network adds outside the mouth: it shades
            the skin and moves its folds, and leaves pores and hair to the portrait; 0 for none.
        inside: how much of what it adds counts between the lips, 0 to 1; the rest is the mouth layer's.
    """

    channels: tuple[int, int, int] = (48, 96, 192)
    time_features: int = 128
    attention_heads: int = 4
    noise_scale: float = 0.25
    warp: bool = True
    maps: bool = True
    residual_blur: float = 2.0
    inside: float = 0.0

    def __post_init__(self) -> None:
        sizes = (*self.channels, self.time_features, self.attention_heads)
        if len(self.channels) != 3 or not all(isinstance(size, int) and 1 <= size <= 4096 for size in sizes):
            raise ModelError(f"U-Net sizes are {sizes}; expected three channel counts and two more, 1 to 4096 each")
        if self.channels[2] % self.attention_heads or self.time_features % 2:
            raise ModelError(f"{self}: expected heads that divide the last channels, and even time features")
        if not 0 <= self.noise_scale <= 10:
            raise ModelError(f"noise_scale is {self.noise_scale}; expected 0 to 10")
        if not 0 <= self.residual_blur <= 16 or not 0 <= self.inside <= 1:
            raise ModelError(
                f"residual_blur is {self.residual_blur} and inside {self.inside}; expected 0 to 16 and 0 to 1"
            )


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


class ResidualBlock(nn.Module):
    """Two 3×3 convolutions; the time step scales and shifts what lies between them (FiLM)."""

    def __init__(self, in_channels: int, channels: int, time_features: int) -> None:
        super().__init__()
        self.norm1 = PixelNorm(in_channels)
        self.conv1 = nn.Conv2d(in_channels, channels, 3, padding=1)
        self.time = nn.Linear(time_features, 2 * channels)
        self.norm2 = PixelNorm(channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1)
        self.skip = nn.Conv2d(in_channels, channels, 1) if in_channels != channels else nn.Identity()
        nn.init.zeros_(self.conv2.weight)
        nn.init.zeros_(self.time.weight)

    def forward(self, x_NCHW: torch.Tensor, time_NE: torch.Tensor) -> torch.Tensor:
        """(N, C_in, H, W) and the step's embedding, (N, E) or (1, E) → (N, C, H, W)."""
        scale, shift = self.time(time_NE).chunk(2, dim=1)
        hidden = self.conv1(F.silu(self.norm1(x_NCHW), inplace=True))
        hidden = self.norm2(hidden, 1 + scale, shift)
        return self.conv2(F.silu(hidden, inplace=True)).add_(self.skip(x_NCHW))


class TemporalMemory:
    """What the temporal mixes of one network keep of the last frame, so that a clip can come in pieces.

    A piece is mixed with the frame before it and with nothing behind it.
    """

    def __init__(self) -> None:
        self._kept: list[torch.Tensor | None] = []
        self._place = 0

    def begin_piece(self) -> None:
        """The frames that come now follow those that came last."""
        self._place = 0

    def exchange(self, last: torch.Tensor) -> torch.Tensor | None:
        """What a mix kept of the last piece, None in the first one; it keeps ``last`` of this one instead."""
        if self._place == len(self._kept):
            self._kept.append(None)
        before, self._kept[self._place] = self._kept[self._place], last
        self._place += 1
        return before


class TemporalMix(nn.Module):
    """Each frame takes up a learned mix of the previous, the same and the next frame, pixel by pixel."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm = PixelNorm(channels)
        self.mix = nn.Conv2d(3 * channels, channels, 1)
        nn.init.zeros_(self.mix.weight)

    def forward(
        self, x_NCHW: torch.Tensor, frames: int, kept: slice, memory: TemporalMemory | None = None
    ) -> torch.Tensor:
        """(B·frames, C, H, W) → the same for the frames ``kept`` of each clip."""
        height, width = x_NCHW.shape[2:]
        normed = self.norm(x_NCHW).permute(0, 2, 3, 1).reshape(-1, frames, height * width, x_NCHW.shape[1])
        parts = [normed[:, max(0, kept.start - 1) : kept.stop + 1]]
        before = memory.exchange(normed[:, -1:]) if memory is not None else None
        if kept.start == 0:
            parts.insert(0, normed[:, :1] if before is None else before)
        if kept.stop == frames:
            parts.append(normed[:, -1:])
        around = torch.cat(parts, dim=1) if len(parts) > 1 else parts[0]
        rows = around.permute(0, 3, 1, 2)
        is_over_time = not isinstance(self.mix, nn.Conv2d) or self.mix.kernel_size[0] == 3
        mixed = self.mix(rows) if is_over_time else F.conv2d(rows, self.weight_over_time(), self.mix.bias)
        mixed = mixed.permute(0, 2, 3, 1).unflatten(2, (height, width)).flatten(0, 1).permute(0, 3, 1, 2)
        return mixed + _frames_of(x_NCHW, frames, kept)

    def weight_over_time(self) -> torch.Tensor:
        """(C, C, 3, 1) the weight of the same mix of (1, C, F, pixels)."""
        return self.mix.weight.squeeze(3).unflatten(1, (3, -1)).transpose(1, 2)


class IdentityEncoder(nn.Module):
    """The identity's window → tokens for the bottleneck. (B, 3, 128, 128) → (B, 64, channels)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.PixelUnshuffle(4),
            nn.Conv2d(48, 64, 3, padding=1),
            nn.SiLU(),
            nn.Conv2d(64, 128, 3, stride=2, padding=1),
            nn.SiLU(),
            nn.Conv2d(128, channels, 3, stride=2, padding=1),
            nn.SiLU(),
            nn.Conv2d(channels, channels, 3, padding=1),
        )
        self.position = nn.Parameter(torch.empty(channels, 8, 8))
        nn.init.uniform_(self.position, -0.035, 0.035)  # a normal draw on the meta device loads a second of torch

    def forward(self, identity_B3HW: torch.Tensor) -> torch.Tensor:
        """Windows (B, 3, 128, 128) in [0, 1] → tokens (B, 64, C)."""
        pixels = (identity_B3HW - 0.5).to(self.position.dtype)
        return (self.layers(pixels) + self.position).flatten(2).transpose(1, 2)


class IdentityAttention(nn.Module):
    """Cross-attention from every bottleneck pixel to the identity tokens (ATL-Diff, section 3.3)."""

    def __init__(self, channels: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm = PixelNorm(channels)
        self.query = nn.Linear(channels, channels)
        self.key_value = nn.Linear(channels, 2 * channels)
        self.out = nn.Linear(channels, channels)
        nn.init.zeros_(self.out.weight)

    def forward(self, x_NCHW: torch.Tensor, tokens_BLC: torch.Tensor, frames: int) -> torch.Tensor:
        """(B·frames, C, H, W) and tokens (B, L, C) → (B·frames, C, H, W)."""
        height, width = x_NCHW.shape[-2:]
        queries = self.query(self.norm(x_NCHW).flatten(2).transpose(1, 2))
        queries = queries.unflatten(0, (-1, frames)).flatten(1, 2)
        keys, values = self.key_value(tokens_BLC).chunk(2, dim=2)
        split = [part.unflatten(2, (self.heads, -1)).transpose(1, 2) for part in (queries, keys, values)]
        mixed = F.scaled_dot_product_attention(*split).transpose(1, 2).flatten(2)
        mixed = self.out(mixed).unflatten(1, (frames, height * width)).flatten(0, 1)
        return x_NCHW + mixed.transpose(1, 2).unflatten(2, (height, width))


class IdentityDiffusionUNet(nn.Module):
    """Predicts the frames x_0 as warped identity + residual, from the noisy frames x_t and the landmark maps.

    Attributes:
        picture_size: side in pixels of the face crop that its windows are cut from.
        piece_frames: frames that the finer levels take at a time on a CPU, so that what lies between their layers
            stays small.
    """

    picture_size = PICTURE_SIZE
    piece_frames = 16

    def __init__(self, config: UNetConfig | None = None) -> None:
        super().__init__()
        self.config = config or UNetConfig()
        fine, middle, coarse = self.config.channels
        features = self.config.time_features
        in_channels = 2 * 3 * PATCH**2 + (2 * len(MAP_GROUPS) if self.config.maps else 0)
        self.time_mlp = nn.Sequential(nn.Linear(features, features), nn.SiLU(), nn.Linear(features, features))
        self.identity_encoder = IdentityEncoder(coarse)
        self.conv_in = nn.Conv2d(in_channels, fine, 3, padding=1)
        self.fine_in = ResidualBlock(fine, fine, features)
        self.down_middle = nn.Conv2d(fine, middle, 2, stride=2)
        self.middle_in = ResidualBlock(middle, middle, features)
        self.middle_in_time = TemporalMix(middle)
        self.down_coarse = nn.Conv2d(middle, coarse, 2, stride=2)
        self.coarse_in = ResidualBlock(coarse, coarse, features)
        self.coarse_in_time = TemporalMix(coarse)
        self.attention = IdentityAttention(coarse, self.config.attention_heads)
        self.coarse_out = ResidualBlock(coarse, coarse, features)
        self.coarse_out_time = TemporalMix(coarse)
        self.up_middle = nn.Conv2d(coarse, middle, 1)
        self.middle_out = ResidualBlock(2 * middle, middle, features)
        self.middle_out_time = TemporalMix(middle)
        self.up_fine = nn.Conv2d(middle, fine, 1)
        self.fine_out = ResidualBlock(2 * fine, fine, features)
        self.norm_out = PixelNorm(fine)
        self.conv_out = nn.Conv2d(fine, 3 * PATCH**2, 3, padding=1)
        nn.init.zeros_(self.conv_out.weight)
        nn.init.zeros_(self.conv_out.bias)  # pyright: ignore[reportArgumentType]

    def encode_identity(self, identity_B3WW: torch.Tensor) -> torch.Tensor:
        """(B, 3, 128, 128) windows of the identity in [0, 1] → (B, 64, C) tokens for :meth:`forward`."""
        return self.identity_encoder(identity_B3WW)

    def forward(
        self,
        noisy_N3HW: torch.Tensor,
        time_N: torch.Tensor,
        warped_N3HW: torch.Tensor,
        maps_NMhw: torch.Tensor,
        identity_tokens_BLC: torch.Tensor,
        region_N2HW: torch.Tensor,
        kept: slice | None = None,
        memory: TemporalMemory | None = None,
    ) -> torch.Tensor:
        """Predict x_0.

        Args:
            noisy_N3HW: (B·F, 3, H, W) x_t, windows or cuts of them; the frames of a clip are consecutive, H and W
                multiples of 8.
            time_N: (B·F,) or (1,) t in (0, 1].
            warped_N3HW: (B·F, 3, H, W) the warped identity; the identity itself without ``config.warp``.
            maps_NMhw: (B·F, 8, H/2, W/2) landmark maps of the frame and of the identity, for ``config.maps``.
            identity_tokens_BLC: (B, 64, C) from :meth:`encode_identity`; B gives F.
            region_N2HW: (B·F, 2, H, W) where the residual shades the skin, and where it paints between the lips.
            kept: the frames of each clip that are wanted, all if None; the others are worked on as far as those
                depend on them.
            memory: of the frames that these follow; it takes up these. For one clip, all of whose frames are kept.

        Returns:
            (B·K, 3, H, W), K being the number of frames kept.
        """
        frames = noisy_N3HW.shape[0] // identity_tokens_BLC.shape[0]
        time = self._embed_time(time_N)
        maps = [maps_NMhw] if self.config.maps else []
        needed = _needed_frames(kept or slice(0, frames), frames)
        given = [_frames_of(each, frames, needed[0]) for each in (noisy_N3HW, warped_N3HW, *maps)]
        fine, middle = self._in_pieces(self._enter, time, *given)
        middle = self._mixed(self.middle_in_time, middle, needed[:2], memory)
        coarse = self.coarse_in(self.down_coarse(middle), time)
        coarse = self._mixed(self.coarse_in_time, coarse, needed[1:3], memory)
        coarse = self.attention(coarse, identity_tokens_BLC, _length(needed[2]))
        coarse = self._mixed(self.coarse_out_time, self.coarse_out(coarse, time), needed[2:4], memory)
        middle = _frames_of(middle, _length(needed[1]), _within(needed[3], needed[1]))
        (middle,) = self._in_pieces(self._rise, time, middle, coarse)
        middle = self._mixed(self.middle_out_time, middle, needed[3:], memory)
        fine = _frames_of(fine, _length(needed[0]), _within(needed[4], needed[0]))
        warped, region = (_frames_of(each, frames, needed[4]) for each in (warped_N3HW, region_N2HW))
        (made,) = self._in_pieces(self._leave, time, fine, middle, warped, region)
        return made

    def _enter(
        self, time_NE: torch.Tensor, noisy_N3HW: torch.Tensor, warped_N3HW: torch.Tensor, *maps_NMhw: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """What the finest level and the one below it make of the frames, each for itself."""
        pixels = torch.cat([noisy_N3HW - 0.5, warped_N3HW - 0.5], dim=1)
        stacked = torch.cat([F.pixel_unshuffle(pixels, PATCH), *maps_NMhw], dim=1).to(self._number)
        fine = self.fine_in(self.conv_in(stacked.contiguous(memory_format=torch.channels_last)), time_NE)
        return fine, self.middle_in(self.down_middle(fine), time_NE)

    def _rise(
        self, time_NE: torch.Tensor, middle_NCHW: torch.Tensor, coarse_NCHW: torch.Tensor
    ) -> tuple[torch.Tensor]:
        """The middle level with what the coarsest made of it, each frame for itself."""
        up = F.interpolate(self.up_middle(coarse_NCHW), scale_factor=2.0, mode="nearest")
        return (self.middle_out(torch.cat([middle_NCHW, up], dim=1), time_NE),)

    def _leave(
        self,
        time_NE: torch.Tensor,
        fine_NCHW: torch.Tensor,
        middle_NCHW: torch.Tensor,
        warped_N3HW: torch.Tensor,
        region_N2HW: torch.Tensor,
    ) -> tuple[torch.Tensor]:
        """From the levels to x_0, each frame for itself."""
        up = F.interpolate(self.up_fine(middle_NCHW), scale_factor=2.0, mode="nearest")
        fine = self.fine_out(torch.cat([fine_NCHW, up], dim=1), time_NE)
        residual = F.pixel_shuffle(self.conv_out(F.silu(self.norm_out(fine), inplace=True)), PATCH).float()
        shade, paint = region_N2HW.split(1, dim=1)
        shaded = torch.addcmul(warped_N3HW, shade, blurred(residual, self.config.residual_blur))
        return (torch.addcmul(shaded, self.config.inside * paint, residual),)

    def _in_pieces(
        self, stage: Callable[..., tuple[torch.Tensor, ...]], time_NE: torch.Tensor, *given_N: torch.Tensor
    ) -> tuple[torch.Tensor, ...]:
        """A stage that works on each picture for itself, for a few pictures at a time where that is quicker."""
        if torch.is_grad_enabled() or given_N[0].device.type != "cpu" or len(time_NE) > 1:
            return stage(time_NE, *given_N)
        pieces = zip(*(each.split(self.piece_frames) for each in given_N), strict=True)
        made = [stage(time_NE, *piece) for piece in pieces]
        return tuple(torch.cat(parts) for parts in zip(*made, strict=True))

    @staticmethod
    def _mixed(
        mix: TemporalMix, x_NCHW: torch.Tensor, needed: list[slice], memory: TemporalMemory | None
    ) -> torch.Tensor:
        """From the frames needed before a mix to those needed behind it."""
        before, behind = needed
        return mix(x_NCHW, _length(before), _within(behind, before), memory)

    @property
    def _number(self) -> torch.dtype:
        """The type of what lies between its layers."""
        return self.norm_out.scale.dtype

    def _embed_time(self, time_N: torch.Tensor) -> torch.Tensor:
        """Sinusoidal embedding of t (Vaswani et al. 2017, section 3.5) through two layers."""
        half = self.config.time_features // 2
        rates = torch.exp(torch.arange(half, device=time_N.device) * (-6.0 / half))
        angles = 100.0 * time_N.float()[:, None] * rates
        waves = torch.cat([angles.sin(), angles.cos()], dim=1)
        return self.time_mlp(waves.to(self._number))


def blurred(pictures_N3HW: torch.Tensor, sigma: float) -> torch.Tensor:
    """A Gaussian blur of ``sigma`` pixels, in float32; beyond the border is nothing."""
    if sigma == 0:
        return pictures_N3HW
    down, across = (_blur_matrix(side, sigma).to(pictures_N3HW.device) for side in pictures_N3HW.shape[-2:])
    with torch.autocast(pictures_N3HW.device.type, enabled=False):
        return down @ pictures_N3HW.float() @ across


@functools.cache
def _blur_matrix(side: int, sigma: float) -> torch.Tensor:
    """(side, side), symmetric: row i holds the weights of the pixels for pixel i."""
    distance = torch.arange(side)[:, None] - torch.arange(side)
    profile = torch.exp(-0.5 * (distance / sigma).square()) * (distance.abs() <= math.ceil(2.5 * sigma))
    reach = torch.arange(-math.ceil(2.5 * sigma), math.ceil(2.5 * sigma) + 1)
    return profile / torch.exp(-0.5 * (reach / sigma).square()).sum()


def _needed_frames(kept: slice, frames: int) -> list[slice]:
    """The frames of a clip that the network has to work on before each temporal mix, and behind the last."""
    reaches = range(TEMPORAL_MIXES, -1, -1)
    return [slice(max(0, kept.start - reach), min(frames, kept.stop + reach)) for reach in reaches]


def _frames_of(x_N: torch.Tensor, frames: int, part: slice) -> torch.Tensor:
    """The frames ``part`` of each clip of ``frames``, (B·frames, …) → (B·K, …)."""
    return x_N.unflatten(0, (-1, frames))[:, part].flatten(0, 1)


def _within(inner: slice, outer: slice) -> slice:
    return slice(inner.start - outer.start, inner.stop - outer.start)


def _length(part: slice) -> int:
    return part.stop - part.start
