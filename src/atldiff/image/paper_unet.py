"""3D Identity Diffusion U-Net, paper preset (ATL-Diff, arXiv 2507.12804, section 3.3).

As published: clips of 32 frames of 128×128 RGB in [0, 1]; motion reaches the network through the guided noise
alone; the identity enters at the bottleneck as 64 tokens of 32, the 2048 features of a frozen ImageNet ResNet-50; the
emotion is a class label, added to the time-step embedding.

The U-Net's configuration was never published. Ours is the customary one of video diffusion (Ho et al. 2022,
arXiv 2204.03458): residual blocks of spatial convolutions on 64, 128 and 256 channels, each followed by a convolution
over time, attention over space and over time on the coarsest level, cross-attention to the identity tokens in the
middle. It predicts the clean clip x_0; see :mod:`atldiff.image.sampler` for the process.
"""

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import nn

from atldiff.errors import InputError, ModelError
from atldiff.face.crop import CROP_SIZE
from atldiff.image.resnet import FEATURES, ResNet50
from atldiff.image.unet import IdentityEncoder
from atldiff.options import EMOTIONS

IDENTITY_TOKENS = 64
TOKEN_FEATURES = FEATURES // IDENTITY_TOKENS

IDENTITY_ENCODERS = ("resnet50", "small")


@dataclass(frozen=True)
class PaperUNetConfig:
    """Configuration of :class:`PaperDiffusionUNet`.

    Attributes:
        channels: channels of the levels; each but the last halves the resolution.
        blocks: residual blocks of a level on the way down; one more on the way up.
        attention_heads: heads of every attention.
        frames: length of the clips, in training and in generation.
        mask_kernel: side in pixels of the blur that makes the noise mask; the paper has 25 for CREMA-D, 11 for MEAD.
        identity_encoder: ``resnet50``, frozen; or ``small``, a few convolutions that are learned with the rest and
            stand in where ImageNet weights are not to be had.
        class_name: of the model that this configures.
    """

    channels: tuple[int, ...] = (64, 128, 256)
    blocks: int = 2
    attention_heads: int = 4
    frames: int = 32
    mask_kernel: int = 25
    identity_encoder: str = "resnet50"
    class_name: str = "PaperDiffusionUNet"

    def __post_init__(self) -> None:
        sizes = (*self.channels, self.blocks, self.attention_heads, self.frames)
        if not self.channels or not all(isinstance(size, int) and 1 <= size <= 4096 for size in sizes):
            raise ModelError(f"{self}: expected sizes of 1 to 4096")
        if any(size % 2 for size in self.channels) or self.channels[-1] % (2 * self.attention_heads):
            raise ModelError(f"{self}: expected even channels, the last a multiple of twice the heads")
        if not isinstance(self.mask_kernel, int) or self.mask_kernel % 2 == 0 or not 3 <= self.mask_kernel <= 63:
            raise ModelError(f"mask_kernel is {self.mask_kernel}; expected an odd number from 3 to 63")
        if self.identity_encoder not in IDENTITY_ENCODERS:
            known = ", ".join(IDENTITY_ENCODERS)
            raise ModelError(f"identity_encoder is {self.identity_encoder!r}; expected one of {known}")
        if self.class_name != "PaperDiffusionUNet":
            raise ModelError(f"class_name is {self.class_name!r}; expected PaperDiffusionUNet")


def _group_norm(channels: int) -> nn.GroupNorm:
    return nn.GroupNorm(math.gcd(32, channels // 2), channels)


class ResidualBlock(nn.Module):
    """Two 3×3 convolutions on each frame, what lies between scaled and shifted by the embedding; then one in time."""

    def __init__(self, in_channels: int, channels: int, embedding: int) -> None:
        super().__init__()
        self.norm1 = _group_norm(in_channels)
        self.conv1 = nn.Conv2d(in_channels, channels, 3, padding=1)
        self.embedding = nn.Linear(embedding, 2 * channels)
        self.norm2 = _group_norm(channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1)
        self.skip = nn.Conv2d(in_channels, channels, 1) if in_channels != channels else nn.Identity()
        self.time_norm = _group_norm(channels)
        self.time_conv = nn.Conv2d(3 * channels, channels, 1)
        for layer in (self.conv2, self.time_conv):
            nn.init.zeros_(layer.weight)

    def forward(self, x_NCHW: torch.Tensor, embedding_NE: torch.Tensor, frames: int) -> torch.Tensor:
        """(B·frames, C_in, H, W) and the step's embedding (B·frames, E) → (B·frames, C, H, W)."""
        scale, shift = self.embedding(embedding_NE)[:, :, None, None].chunk(2, dim=1)
        hidden = self.norm2(self.conv1(F.silu(self.norm1(x_NCHW))))
        x_NCHW = self.skip(x_NCHW) + self.conv2(F.silu(torch.addcmul(shift, hidden, 1 + scale)))
        clips = F.silu(self.time_norm(x_NCHW)).unflatten(0, (-1, frames))
        nothing = torch.zeros_like(clips[:, :1])
        before, after = torch.cat([nothing, clips[:, :-1]], dim=1), torch.cat([clips[:, 1:], nothing], dim=1)
        neighbours = torch.cat([before, clips, after], dim=2).flatten(0, 1)
        return x_NCHW + self.time_conv(neighbours.contiguous(memory_format=torch.channels_last))


class Attention(nn.Module):
    """Multi-head attention of tokens to themselves or to others, added to the tokens."""

    def __init__(self, channels: int, heads: int, others: int | None = None) -> None:
        super().__init__()
        self.heads = heads
        self.norm = nn.LayerNorm(channels)
        self.query = nn.Linear(channels, channels)
        self.key_value = nn.Linear(others or channels, 2 * channels)
        self.out = nn.Linear(channels, channels)
        nn.init.zeros_(self.out.weight)

    def forward(
        self, x_BLC: torch.Tensor, position_LC: torch.Tensor | None = None, others_BMD: torch.Tensor | None = None
    ) -> torch.Tensor:
        """(B, L, C) → (B, L, C), which attend to themselves or to others (B, M, D)."""
        tokens = self.norm(x_BLC)
        if position_LC is not None:
            tokens = tokens + position_LC
        keys, values = self.key_value(tokens if others_BMD is None else others_BMD).chunk(2, dim=2)
        split = (part.unflatten(2, (self.heads, -1)).transpose(1, 2) for part in (self.query(tokens), keys, values))
        mixed = F.scaled_dot_product_attention(*split)
        return x_BLC + self.out(mixed.transpose(1, 2).flatten(2))


class SpaceTimeAttention(nn.Module):
    """Attention among the places of a frame, to the identity if asked for, and among the frames of a place."""

    def __init__(self, channels: int, heads: int, sees_identity: bool = False) -> None:
        super().__init__()
        self.space = Attention(channels, heads)
        self.identity = Attention(channels, heads, TOKEN_FEATURES) if sees_identity else None
        self.time = Attention(channels, heads)

    def forward(self, x_NCHW: torch.Tensor, tokens_BLD: torch.Tensor, frames: int) -> torch.Tensor:
        """(B·frames, C, H, W) and identity tokens (B, L, D) → (B·frames, C, H, W)."""
        height, width = x_NCHW.shape[2:]
        hidden = self.space(x_NCHW.flatten(2).transpose(1, 2))
        if self.identity is not None:
            clips = hidden.unflatten(0, (-1, frames)).flatten(1, 2)
            hidden = self.identity(clips, others_BMD=tokens_BLD).unflatten(1, (frames, -1)).flatten(0, 1)
        places = hidden.unflatten(0, (-1, frames)).transpose(1, 2)
        order = sinusoids(torch.arange(frames, device=hidden.device), hidden.shape[2]).to(hidden.dtype)
        places = self.time(places.flatten(0, 1), order).unflatten(0, places.shape[:2])
        return places.transpose(1, 2).flatten(0, 1).transpose(1, 2).unflatten(2, (height, width))


class Stage(nn.Module):
    """A residual block, with attention behind it on the coarsest level."""

    def __init__(self, in_channels: int, channels: int, embedding: int, attention: SpaceTimeAttention | None) -> None:
        super().__init__()
        self.block = ResidualBlock(in_channels, channels, embedding)
        self.attention = attention

    def forward(
        self, x_NCHW: torch.Tensor, embedding_NE: torch.Tensor, tokens_BLD: torch.Tensor, frames: int
    ) -> torch.Tensor:
        """(B·frames, C_in, H, W), the embedding and the identity tokens → (B·frames, C, H, W)."""
        x_NCHW = self.block(x_NCHW, embedding_NE, frames)
        return x_NCHW if self.attention is None else self.attention(x_NCHW, tokens_BLD, frames)


class PaperDiffusionUNet(nn.Module):
    """Predicts the clean clip x_0 from the noisy clip x_t, the identity tokens and the emotion.

    Attributes:
        picture_size: side in pixels of the face crop that it sees.
    """

    picture_size = CROP_SIZE

    def __init__(self, config: PaperUNetConfig | None = None) -> None:
        super().__init__()
        self.config = config or PaperUNetConfig()
        channels, heads = self.config.channels, self.config.attention_heads
        first, last, width = channels[0], channels[-1], 4 * channels[0]
        is_small = self.config.identity_encoder == "small"
        self.identity_encoder = IdentityEncoder(TOKEN_FEATURES) if is_small else ResNet50()
        self.time_mlp = nn.Sequential(nn.Linear(first, width), nn.SiLU(), nn.Linear(width, width))
        self.emotion = nn.Embedding(len(EMOTIONS), width)
        nn.init.zeros_(self.emotion.weight)

        def stage(in_channels: int, level: int) -> Stage:
            attention = SpaceTimeAttention(last, heads) if level == len(channels) - 1 else None
            return Stage(in_channels, channels[level], width, attention)

        self.conv_in = nn.Conv2d(3, first, 3, padding=1)
        self.down, self.up = nn.ModuleList(), nn.ModuleList()
        held, current = [first], first
        for level in range(len(channels)):
            for _ in range(self.config.blocks):
                self.down.append(stage(current, level))
                current = channels[level]
                held.append(current)
            if level < len(channels) - 1:
                self.down.append(nn.Conv2d(current, current, 3, stride=2, padding=1))
                held.append(current)
        self.middle_in = Stage(last, last, width, SpaceTimeAttention(last, heads, sees_identity=True))
        self.middle_out = Stage(last, last, width, None)
        for level in reversed(range(len(channels))):
            for _ in range(self.config.blocks + 1):
                self.up.append(stage(current + held.pop(), level))
                current = channels[level]
            if level > 0:
                self.up.append(nn.Conv2d(current, current, 3, padding=1))
        self.norm_out = _group_norm(first)
        self.conv_out = nn.Conv2d(first, 3, 3, padding=1)
        nn.init.zeros_(self.conv_out.weight)

    def encode_identity(self, identity_B3HW: torch.Tensor) -> torch.Tensor:
        """(B, 3, 128, 128) identity crops in [0, 1] → (B, 64, 32) tokens for :meth:`forward`."""
        return self.identity_encoder(identity_B3HW).reshape(-1, IDENTITY_TOKENS, TOKEN_FEATURES)

    def emotion_number(self, name: str) -> int:
        """The class label of an emotion; one that the training data did not hold counts as neutral.

        Raises:
            InputError: there is no such emotion.
        """
        if name not in EMOTIONS:
            raise InputError(f"unknown emotion {name!r}; expected one of {', '.join(EMOTIONS)}")
        number = EMOTIONS.index(name)
        return number if bool(self.emotion.weight[number].any()) else EMOTIONS.index("neutral")

    def forward(
        self,
        noisy_BCFHW: torch.Tensor,
        timestep_B: torch.Tensor,
        identity_tokens_BLD: torch.Tensor,
        emotion_B: torch.Tensor,
    ) -> torch.Tensor:
        """Predict x_0, of the shape of x_t.

        Args:
            noisy_BCFHW: (B, 3, F, H, W) x_t; H and W are multiples of 2 ** (levels − 1).
            timestep_B: (B,) t, 0 to 999.
            identity_tokens_BLD: (B, 64, 32) from :meth:`encode_identity`.
            emotion_B: (B,) class label of each clip's emotion.
        """
        frames = noisy_BCFHW.shape[2]
        tokens = identity_tokens_BLD
        embedding = self.time_mlp(sinusoids(timestep_B, self.config.channels[0])) + self.emotion(emotion_B)
        embedding = F.silu(embedding).repeat_interleave(frames, dim=0)
        pictures = noisy_BCFHW.transpose(1, 2).flatten(0, 1).contiguous(memory_format=torch.channels_last)
        hidden = self.conv_in(pictures - 0.5)
        held = [hidden]
        for layer in self.down:
            hidden = layer(hidden, embedding, tokens, frames) if isinstance(layer, Stage) else layer(hidden)
            held.append(hidden)
        hidden = self.middle_in(hidden, embedding, tokens, frames)
        hidden = self.middle_out(hidden, embedding, tokens, frames)
        for layer in self.up:
            if isinstance(layer, Stage):
                hidden = layer(torch.cat([hidden, held.pop()], dim=1), embedding, tokens, frames)
            else:
                hidden = layer(F.interpolate(hidden, scale_factor=2.0, mode="nearest"))
        clean = self.conv_out(F.silu(self.norm_out(hidden))).float() + 0.5
        return clean.unflatten(0, (-1, frames)).transpose(1, 2)


def sinusoids(positions_N: torch.Tensor, features: int) -> torch.Tensor:
    """Sinusoidal embedding (Vaswani et al. 2017, section 3.5), (N, features) float32."""
    half = features // 2
    rates = torch.exp(torch.arange(half, device=positions_N.device) * (-math.log(10_000.0) / half))
    angles = positions_N.float()[:, None] * rates
    return torch.cat([angles.sin(), angles.cos()], dim=1)
