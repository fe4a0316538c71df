"""Landmark Generation Module, compact preset: speech features and identity landmarks → one landmark set a frame.

Works in the face's own frame (inter-ocular distance 1, upright) and gives displacements from the identity
landmarks, so that any size and place of head works.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import nn

from atldiff.errors import ModelError
from atldiff.face.topology import CHIN, INNER_LIP_PAIRS, MOUTH, NUM_LANDMARKS, OUTER_EYE_CORNERS
from atldiff.speech.whisper import FEATURE_RATE, FEATURE_SIZE


@dataclass(frozen=True)
class LandmarkGeneratorConfig:
    """Configuration of :class:`LandmarkGenerator`.

    Attributes:
        features: size of a speech feature vector.
        channels: width of the temporal network.
        dilations: one residual block each; their sum is the context in features (20 ms) to either side.
        dropout: share of channels dropped in training.
    """

    features: int = FEATURE_SIZE
    channels: int = 192
    dilations: tuple[int, ...] = (1, 2, 4, 1, 2, 4)
    dropout: float = 0.2

    def __post_init__(self) -> None:
        sizes = (self.features, self.channels, *self.dilations)
        if not self.dilations or not all(isinstance(size, int) and 1 <= size <= 4096 for size in sizes):
            raise ModelError(f"sizes of the landmark generator are {sizes}; expected 1 to 4096 each")
        if not 0 <= self.dropout < 1:
            raise ModelError(f"dropout is {self.dropout}; expected at least 0 and under 1")


class TemporalBlock(nn.Module):
    """Residual dilated convolution over time."""

    def __init__(self, channels: int, dilation: int, dropout: float) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(channels)
        self.conv = nn.Conv1d(channels, channels, 3, padding=dilation, dilation=dilation)
        self.out = nn.Linear(channels, channels)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x_BTC: torch.Tensor) -> torch.Tensor:
        """(B, T, C) → (B, T, C)."""
        hidden = self.conv(self.norm(x_BTC).transpose(1, 2)).transpose(1, 2)
        return x_BTC + self.out(self.dropout(F.gelu(hidden)))


class LandmarkGenerator(nn.Module):
    """Temporal convolutions over frozen speech features, conditioned on the identity's mouth."""

    def __init__(self, config: LandmarkGeneratorConfig | None = None) -> None:
        super().__init__()
        self.config = config or LandmarkGeneratorConfig()
        channels, dropout = self.config.channels, self.config.dropout
        self.feature_norm = nn.LayerNorm(self.config.features)
        self.feature_in = nn.Linear(self.config.features, channels)
        self.dropout = nn.Dropout(dropout)
        self.blocks = nn.ModuleList(TemporalBlock(channels, d, dropout) for d in self.config.dilations)
        self.identity_in = nn.Sequential(nn.Linear(_IDENTITY_SIZE, 64), nn.GELU(), nn.Linear(64, channels))
        self.norm = nn.LayerNorm(channels)
        self.head = nn.Sequential(
            nn.Linear(channels, channels), nn.GELU(), nn.Dropout(dropout), nn.Linear(channels, 2 * NUM_LANDMARKS)
        )

    @property
    def context_features(self) -> int:
        """Features to either side that a frame depends on, the interpolation's neighbour included."""
        return sum(self.config.dilations) + 1

    def forward(
        self, features_BTC: torch.Tensor, positions_BF: torch.Tensor, identity_BK2: torch.Tensor
    ) -> torch.Tensor:
        """Displacements of the landmarks from the identity's.

        Args:
            features_BTC: (B, T, C) speech features at 50 Hz.
            positions_BF: (B, F) where each video frame lies, in features: 50 · seconds.
            identity_BK2: (B, 68, 2) identity landmarks, any unit and place.

        Returns:
            (B, F, 68, 2) in units of the identity's inter-ocular distance, along the picture's axes.
        """
        hidden = self.dropout(self.feature_in(self.feature_norm(features_BTC)))
        for block in self.blocks:
            hidden = block(hidden)
        hidden = _interpolate(hidden, positions_BF)
        hidden = hidden + self.identity_in(identity_shape(identity_BK2))[:, None]
        return self.head(self.norm(hidden)).unflatten(2, (NUM_LANDMARKS, 2))


_IDENTITY_SIZE = 2 * 21 + 3


def identity_shape(identity_BK2: torch.Tensor) -> torch.Tensor:
    """What the generator knows of the face: mouth and chin in its own frame, and how open the mouth is. (B, 45)."""
    right, left = OUTER_EYE_CORNERS
    scale = (identity_BK2[:, left] - identity_BK2[:, right]).norm(dim=-1)[:, None, None]
    centre = (identity_BK2[:, left] + identity_BK2[:, right]) / 2
    points = torch.cat([identity_BK2[:, MOUTH], identity_BK2[:, CHIN : CHIN + 1]], dim=1)
    shape = (points - centre[:, None]) / scale
    upper, lower = (identity_BK2[:, [pair[side] for pair in INNER_LIP_PAIRS]] for side in (0, 1))
    gaps = (lower - upper).norm(dim=-1) / scale[:, :, 0]
    return torch.cat([shape.flatten(1), 10 * gaps], dim=1)


def feature_positions(frames: torch.Tensor, fps: float) -> torch.Tensor:
    """Where frames (given by their numbers) lie among the speech features: frame k shows the sound at k / fps."""
    return frames.double() * (FEATURE_RATE / fps)


def _interpolate(hidden_BTC: torch.Tensor, positions_BF: torch.Tensor) -> torch.Tensor:
    """Linear interpolation along time at fractional positions, clamped to the ends."""
    last = hidden_BTC.shape[1] - 1
    positions = positions_BF.clamp(0, last)
    before = positions.floor().long()
    after = (before + 1).clamp(max=last)
    fraction = (positions - before).to(hidden_BTC.dtype)[..., None]
    index = before[..., None].expand(-1, -1, hidden_BTC.shape[2])
    next_index = after[..., None].expand(-1, -1, hidden_BTC.shape[2])
    return torch.lerp(hidden_BTC.gather(1, index), hidden_BTC.gather(1, next_index), fraction)
