"""3D Identity Diffusion U-Net, compact preset.

A frame's window of 128×128 pixels (:mod:`atldiff.image.window`) enters as 32×32 (pixel-unshuffle by 4), passes two
levels of residual blocks, each frame mixed with its two neighbours in time, and attends to the tokens of the identity
picture at the bottleneck. What it adds is shade and folds, which are no finer. Every operation is local in space or
attends to the identity alone, so a network trained on cuts runs on whole windows. Only the attention normalises.
"""

import functools
import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import nn

from atldiff.errors import ModelError
from atldiff.face.crop import PICTURE_SIZE
from atldiff.image.guidance import MAP_GROUPS
from atldiff.image.layers import SumConv
from atldiff.image.temporal import TEMPORAL_MIXES, PassingFrames, TemporalMix, WholeClips

PATCH = 4
"""Pixels per side that the input unshuffle folds into channels; sides must be multiples of 8 pixels."""


@dataclass(frozen=True)
class UNetConfig:
    """Configuration of :class:`IdentityDiffusionUNet`.

    Attributes:
        channels: channels at 1/4 and 1/8 of the frame's resolution.
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

    channels: tuple[int, int] = (64, 128)
    time_features: int = 128
    attention_heads: int = 4
    noise_scale: float = 0.25
    warp: bool = True
    maps: bool = True
    residual_blur: float = 2.0
    inside: float = 0.0

    def __post_init__(self) -> None:
        sizes = (*self.channels, self.time_features, self.attention_heads)
        if len(self.channels) != 2 or not all(isinstance(size, int) and 1 <= size <= 4096 for size in sizes):
            raise ModelError(f"U-Net sizes are {sizes}; expected two channel counts and two more, 1 to 4096 each")
        if self.channels[1] % self.attention_heads or self.time_features % 2:
            raise ModelError(f"{self}: expected heads that divide the last channels, and even time features")
        if not 0 <= self.noise_scale <= 10:
            raise ModelError(f"noise_scale is {self.noise_scale}; expected 0 to 10")
        if not 0 <= self.residual_blur <= 16 or not 0 <= self.inside <= 1:
            raise ModelError(
                f"residual_blur is {self.residual_blur} and inside {self.inside}; expected 0 to 16 and 0 to 1"
            )


class ResidualBlock(nn.Module):
    """Two 3×3 convolutions; the time step is added between them (Ho et al. 2020, appendix B)."""

    def __init__(self, in_channels: int, channels: int, time_features: int) -> None:
        super().__init__()
        self.rectified = nn.ReLU()
        self.conv1 = SumConv(in_channels, channels, 3, padding=1, rectified=True)
        self.time = nn.Linear(time_features, channels)
        self.conv2 = SumConv(channels, channels, 3, padding=1, silent=True)
        self.skip = SumConv(in_channels, channels, 1) if in_channels != channels else nn.Identity()
        nn.init.zeros_(self.time.weight)

    def forward(self, x_NCHW: torch.Tensor, time_NE: torch.Tensor) -> torch.Tensor:
        """(N, C_in, H, W) and the step's embedding, (N, E) or (1, E) → (N, C, H, W)."""
        hidden = self.conv1(self.rectified(x_NCHW), bias_NC=self.time(time_NE))
        return self.conv2(hidden, plus_NCHW=self.skip(x_NCHW))


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
        self.norm = nn.LayerNorm(channels)
        self.query = nn.Linear(channels, channels)
        self.key_value = nn.Linear(channels, 2 * channels)
        self.out = nn.Linear(channels, channels)
        nn.init.zeros_(self.out.weight)

    def forward(self, x_NCHW: torch.Tensor, tokens_BLC: torch.Tensor, frames: int) -> torch.Tensor:
        """(B·frames, C, H, W) and tokens (B, L, C) → (B·frames, C, H, W)."""
        height, width = x_NCHW.shape[-2:]
        queries = self.query(self.norm(x_NCHW.permute(0, 2, 3, 1).flatten(1, 2)))
        queries = queries.unflatten(0, (-1, frames)).flatten(1, 2)
        keys, values = self.key_value(tokens_BLC).chunk(2, dim=2)
        split = [part.unflatten(2, (self.heads, -1)).transpose(1, 2) for part in (queries, keys, values)]
        mixed = F.scaled_dot_product_attention(*split).transpose(1, 2).flatten(2)
        mixed = self.out(mixed).unflatten(1, (frames, height * width)).flatten(0, 1)
        return x_NCHW + mixed.unflatten(1, (height, width)).permute(0, 3, 1, 2)


class IdentityDiffusionUNet(nn.Module):
    """Predicts the frames x_0 as warped identity + residual, from the noisy frames x_t and the landmark maps.

    Attributes:
        picture_size: side in pixels of the face crop that its windows are cut from.
    """

    picture_size = PICTURE_SIZE

    def __init__(self, config: UNetConfig | None = None) -> None:
        super().__init__()
        self.config = config or UNetConfig()
        fine, coarse = self.config.channels
        features = self.config.time_features
        in_channels = 2 * 3 * PATCH**2 + (2 * len(MAP_GROUPS) * (PATCH // 2) ** 2 if self.config.maps else 0)
        self.time_mlp = nn.Sequential(nn.Linear(features, features), nn.SiLU(), nn.Linear(features, features))
        self.identity_encoder = IdentityEncoder(coarse)
        self.conv_in = SumConv(in_channels, fine, 3, padding=1)
        self.fine_in = ResidualBlock(fine, fine, features)
        self.fine_in_time = TemporalMix(fine)
        self.down = SumConv(fine, coarse, 2, stride=2)
        self.coarse_in = ResidualBlock(coarse, coarse, features)
        self.coarse_in_time = TemporalMix(coarse)
        self.attention = IdentityAttention(coarse, self.config.attention_heads)
        self.coarse_out = ResidualBlock(coarse, coarse, features)
        self.coarse_out_time = TemporalMix(coarse)
        self.up = SumConv(coarse, fine, 1)
        self.fine_out = ResidualBlock(2 * fine, fine, features)
        self.fine_out_time = TemporalMix(fine)
        self.rectified = nn.ReLU()
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
        passing: PassingFrames | None = None,
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
            passing: those that have come before, if these are a piece of one clip; it takes up these.

        Returns:
            (B·F, 3, H, W); of a piece, the frames that are done with it.
        """
        clips = identity_tokens_BLC.shape[0]
        over = passing or WholeClips(noisy_N3HW.shape[0] // clips)
        time = self._embed_time(time_N)
        entering = self.conv_in(self._stacked(noisy_N3HW, warped_N3HW, maps_NMhw))
        fine = over.mixed(self.fine_in_time, self.fine_in(entering, time))
        coarse = over.mixed(self.coarse_in_time, self.coarse_in(self.down(fine), time))
        coarse = self.attention(coarse, identity_tokens_BLC, coarse.shape[0] // clips)
        coarse = over.mixed(self.coarse_out_time, self.coarse_out(coarse, time))
        up = F.interpolate(self.up(coarse), scale_factor=2.0, mode="nearest")
        fine = self.fine_out(torch.cat([over.waited(fine, 2), up], dim=1), time)
        residual = self.conv_out(self.rectified(over.mixed(self.fine_out_time, fine)))
        given = [over.waited(each, TEMPORAL_MIXES) for each in (warped_N3HW, region_N2HW)]
        return self._added(F.pixel_shuffle(residual, PATCH).float(), *given)

    def _stacked(self, noisy_N3HW: torch.Tensor, warped_N3HW: torch.Tensor, maps_NMhw: torch.Tensor) -> torch.Tensor:
        """All that it sees, folded into channels, which come last in memory."""
        pixels = [_folded(pictures, PATCH) - 0.5 for pictures in (noisy_N3HW, warped_N3HW)]
        maps = [_folded(maps_NMhw, PATCH // 2)] if self.config.maps else []
        return torch.cat([*pixels, *maps], dim=3).to(self._number).permute(0, 3, 1, 2)

    def _added(
        self, residual_N3HW: torch.Tensor, warped_N3HW: torch.Tensor, region_N2HW: torch.Tensor
    ) -> torch.Tensor:
        """x_0: what it makes on top of the warped identity, where it may."""
        shade, paint = region_N2HW.split(1, dim=1)
        shaded = torch.addcmul(warped_N3HW, shade, blurred(residual_N3HW, self.config.residual_blur))
        return torch.addcmul(shaded, self.config.inside * paint, residual_N3HW)

    @property
    def _number(self) -> torch.dtype:
        """The type of what lies between its layers."""
        return self.identity_encoder.position.dtype

    def _embed_time(self, time_N: torch.Tensor) -> torch.Tensor:
        """Sinusoidal embedding of t (Vaswani et al. 2017, section 3.5) through two layers."""
        half = self.config.time_features // 2
        rates = torch.exp(torch.arange(half, device=time_N.device) * (-6.0 / half))
        angles = 100.0 * time_N.float()[:, None] * rates
        waves = torch.cat([angles.sin(), angles.cos()], dim=1)
        return self.time_mlp(waves.to(self._number))


def _folded(x_NCHW: torch.Tensor, side: int) -> torch.Tensor:
    """(N, C, H, W) → (N, H / side, W / side, C · side²), the channels in the order of pixel-unshuffle."""
    places = x_NCHW.unflatten(3, (-1, side)).unflatten(2, (-1, side))
    return places.permute(0, 2, 4, 1, 3, 5).flatten(3)


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
